//! Values: owned ([`Value`]), borrowed from a frame ([`ValueRef`]) and written into one ([`ValueWriter`]).
//!
//! # Encoding
//! All integers are little-endian. With a schema, a value is its bytes alone:
//!
//! | type | bytes |
//! |---|---|
//! | optional of any type | one byte, 0 = null and nothing more, 1 = the value follows |
//! | bool, int8..64, float32/64 | 1, 1, 2, 4, 8, 4, 8 bytes |
//! | string, bytes | `u32` length, then the bytes |
//! | array | `u32` length of the rest, `u32` count, then the elements |
//! | map | `u32` length of the rest, `u32` count, then key and value in turn |
//! | struct | `u32` length of the rest, then the fields in the schema's order |
//!
//! Without a schema, one tag byte ([`Tag`]) stands before each value, elements included; a struct cannot be without one.
//! Reading checks every bound, so bytes of a faulty plugin give a [`DecodeError`], never a panic.

mod read;
mod write;

use bytes::Bytes;

pub use read::{ArrayRef, DecodeError, MAX_DEPTH, MapRef, StructRef, ValueRef};
pub use write::{EncodeError, Open, ValueWriter};

pub(crate) use read::check_depth;

/// An owned value. A struct's values stand in the order of its schema's fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A signed 8-bit integer.
    Int8(i8),
    /// A signed 16-bit integer.
    Int16(i16),
    /// A signed 32-bit integer.
    Int32(i32),
    /// A signed 64-bit integer.
    Int64(i64),
    /// An IEEE 754 single.
    Float32(f32),
    /// An IEEE 754 double.
    Float64(f64),
    /// UTF-8 text.
    String(String),
    /// Raw bytes.
    Bytes(Bytes),
    /// A list.
    Array(Vec<Value>),
    /// Pairs, in the order given.
    Map(Vec<(Value, Value)>),
    /// Fields in the order of the schema.
    Struct(Vec<Value>),
}

/// What stands before a value that has no schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Tag {
    Null = 0,
    Bool = 1,
    Int8 = 2,
    Int16 = 3,
    Int32 = 4,
    Int64 = 5,
    Float32 = 6,
    Float64 = 7,
    String = 8,
    Bytes = 9,
    Array = 10,
    Map = 11,
}

impl Tag {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        use Tag::{Array, Bool, Bytes, Float32, Float64, Int8, Int16, Int32, Int64, Map, Null, String};
        [
            Null, Bool, Int8, Int16, Int32, Int64, Float32, Float64, String, Bytes, Array, Map,
        ]
        .get(byte as usize)
        .copied()
    }
}

impl Value {
    /// What the value is, as errors name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int8(_) => "int8",
            Value::Int16(_) => "int16",
            Value::Int32(_) => "int32",
            Value::Int64(_) => "int64",
            Value::Float32(_) => "float",
            Value::Float64(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Array(_) => "array",
            Value::Map(_) => "map",
            Value::Struct(_) => "struct",
        }
    }
}
