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

use std::fmt;

use bytes::Bytes;

use crate::schema::{Field, Schema, Type};

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
    fn from_byte(byte: u8) -> Option<Self> {
        use Tag::{Array, Bool, Bytes, Float32, Float64, Int8, Int16, Int32, Int64, Map, Null, String};
        [
            Null, Bool, Int8, Int16, Int32, Int64, Float32, Float64, String, Bytes, Array, Map,
        ]
        .get(byte as usize)
        .copied()
    }
}

/// Bytes that are no value of their schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed value: {0}")]
pub struct DecodeError(pub String);

/// A value that does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("value does not fit its schema: {0}")]
pub struct EncodeError(pub String);

/// Appends encoded values to a buffer. Nothing is checked here: the caller writes what the schema says, and the
/// reader's checks keep a mistake from doing harm. [`Value::encode`] is the checked way.
#[derive(Debug)]
pub struct ValueWriter<'a> {
    buffer: &'a mut Vec<u8>,
}

/// The place of a length that is known only once the value is complete; see [`ValueWriter::begin`].
#[derive(Debug)]
#[must_use = "an open value must be ended"]
pub struct Open(usize);

impl<'a> ValueWriter<'a> {
    /// Writes at the end of `buffer`.
    pub fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    /// An optional value that is null.
    pub fn null(&mut self) {
        self.buffer.push(0);
    }

    /// An optional value that is there: write the value next.
    pub fn present(&mut self) {
        self.buffer.push(1);
    }

    /// A tag, before a value without schema.
    pub fn tag(&mut self, tag: Tag) {
        self.buffer.push(tag as u8);
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.buffer.push(u8::from(value));
    }

    /// An int8.
    pub fn i8(&mut self, value: i8) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// An int16.
    pub fn i16(&mut self, value: i16) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// An int32.
    pub fn i32(&mut self, value: i32) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// An int64.
    pub fn i64(&mut self, value: i64) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// A float32.
    pub fn f32(&mut self, value: f32) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// A float64.
    pub fn f64(&mut self, value: f64) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// A string.
    pub fn string(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(value);
    }

    /// Opens a struct, or a string or bytes value whose length comes out of what is written with
    /// [`raw`](Self::raw) until [`end`](Self::end).
    pub fn begin(&mut self) -> Open {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        Open(at)
    }

    /// Opens an array or map of `count` elements or pairs.
    pub fn begin_counted(&mut self, count: u32) -> Open {
        let open = self.begin();
        self.buffer.extend_from_slice(&count.to_le_bytes());
        open
    }

    /// Corrects the count of an array or map that is still open.
    pub fn set_count(&mut self, open: &Open, count: u32) {
        self.buffer[open.0 + 4..open.0 + 8].copy_from_slice(&count.to_le_bytes());
    }

    /// Ends what was opened.
    #[allow(clippy::needless_pass_by_value)] // ended once: the place is used up
    pub fn end(&mut self, open: Open) {
        let length = (self.buffer.len() - open.0 - 4) as u32;
        self.buffer[open.0..open.0 + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Appends bytes as they are: a value that is already encoded, or a part of an open string.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.buffer.extend_from_slice(encoded);
    }
}

impl Value {
    /// Encodes the value as `schema` says, or with tags where there is none.
    pub fn encode(&self, schema: Option<&Schema>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match schema {
            Some(schema) => self.encode_typed(schema, out),
            None => self.encode_tagged(out),
        }
    }

    fn encode_typed(&self, schema: &Schema, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if schema.optional {
            if *self == Value::Null {
                out.push(0);
                return Ok(());
            }
            out.push(1);
        }
        let mut writer = ValueWriter::new(out);
        match (self, &schema.ty) {
            (Value::Bool(v), Type::Bool) => writer.bool(*v),
            (Value::Int8(v), Type::Int8) => writer.i8(*v),
            (Value::Int16(v), Type::Int16) => writer.i16(*v),
            (Value::Int32(v), Type::Int32) => writer.i32(*v),
            (Value::Int64(v), Type::Int64) => writer.i64(*v),
            (Value::Float32(v), Type::Float32) => writer.f32(*v),
            (Value::Float64(v), Type::Float64) => writer.f64(*v),
            (Value::String(v), Type::String) => writer.string(v),
            (Value::Bytes(v), Type::Bytes) => writer.bytes(v),
            (Value::Array(items), Type::Array(element)) => {
                let open = writer.begin_counted(items.len() as u32);
                for item in items {
                    item.encode_typed(element, writer.buffer)?;
                }
                writer.end(open);
            }
            (Value::Map(pairs), Type::Map(key_schema, value_schema)) => {
                let open = writer.begin_counted(pairs.len() as u32);
                for (key, value) in pairs {
                    key.encode_typed(key_schema, writer.buffer)?;
                    value.encode_typed(value_schema, writer.buffer)?;
                }
                writer.end(open);
            }
            (Value::Struct(values), Type::Struct(fields)) => {
                if values.len() != fields.len() {
                    return Err(EncodeError(format!(
                        "struct {} has {} fields, {} values were given",
                        schema.name.as_deref().unwrap_or("(unnamed)"),
                        fields.len(),
                        values.len()
                    )));
                }
                let open = writer.begin();
                for (value, field) in values.iter().zip(fields) {
                    value
                        .encode_typed(&field.schema, writer.buffer)
                        .map_err(|error| EncodeError(format!("field {}: {}", field.name, error.0)))?;
                }
                writer.end(open);
            }
            (value, ty) => {
                return Err(EncodeError(format!(
                    "expected {}, found {}",
                    ty.name(),
                    value.kind()
                )));
            }
        }
        Ok(())
    }

    fn encode_tagged(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut writer = ValueWriter::new(out);
        match self {
            Value::Null => writer.tag(Tag::Null),
            Value::Bool(v) => {
                writer.tag(Tag::Bool);
                writer.bool(*v);
            }
            Value::Int8(v) => {
                writer.tag(Tag::Int8);
                writer.i8(*v);
            }
            Value::Int16(v) => {
                writer.tag(Tag::Int16);
                writer.i16(*v);
            }
            Value::Int32(v) => {
                writer.tag(Tag::Int32);
                writer.i32(*v);
            }
            Value::Int64(v) => {
                writer.tag(Tag::Int64);
                writer.i64(*v);
            }
            Value::Float32(v) => {
                writer.tag(Tag::Float32);
                writer.f32(*v);
            }
            Value::Float64(v) => {
                writer.tag(Tag::Float64);
                writer.f64(*v);
            }
            Value::String(v) => {
                writer.tag(Tag::String);
                writer.string(v);
            }
            Value::Bytes(v) => {
                writer.tag(Tag::Bytes);
                writer.bytes(v);
            }
            Value::Array(items) => {
                writer.tag(Tag::Array);
                let open = writer.begin_counted(items.len() as u32);
                for item in items {
                    item.encode_tagged(writer.buffer)?;
                }
                writer.end(open);
            }
            Value::Map(pairs) => {
                writer.tag(Tag::Map);
                let open = writer.begin_counted(pairs.len() as u32);
                for (key, value) in pairs {
                    key.encode_tagged(writer.buffer)?;
                    value.encode_tagged(writer.buffer)?;
                }
                writer.end(open);
            }
            Value::Struct(_) => return Err(EncodeError("a struct needs a schema; use a map".into())),
        }
        Ok(())
    }

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

/// A value borrowed from a frame. Composite values are walked, not built.
#[derive(Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum ValueRef<'a> {
    Null,
    Bool(bool),
    Int8(i8),
    Int16(i16),
    Int32(i32),
    Int64(i64),
    Float32(f32),
    Float64(f64),
    String(&'a str),
    Bytes(&'a [u8]),
    Array(ArrayRef<'a>),
    Map(MapRef<'a>),
    Struct(StructRef<'a>),
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_value() {
            Ok(value) => value.fmt(f),
            Err(error) => error.fmt(f),
        }
    }
}

impl<'a> ValueRef<'a> {
    /// Reads the one value that `bytes` hold.
    pub fn decode(schema: Option<&'a Schema>, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor { bytes };
        let value = cursor.value(schema)?;
        if cursor.bytes.is_empty() {
            Ok(value)
        } else {
            Err(DecodeError(format!(
                "{} bytes are left over after the value",
                cursor.bytes.len()
            )))
        }
    }

    /// An owned copy, every part checked.
    pub fn to_value(&self) -> Result<Value, DecodeError> {
        (*self).to_value_at(0)
    }

    fn to_value_at(self, depth: usize) -> Result<Value, DecodeError> {
        check_depth(depth)?;
        Ok(match self {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(v) => Value::Bool(v),
            ValueRef::Int8(v) => Value::Int8(v),
            ValueRef::Int16(v) => Value::Int16(v),
            ValueRef::Int32(v) => Value::Int32(v),
            ValueRef::Int64(v) => Value::Int64(v),
            ValueRef::Float32(v) => Value::Float32(v),
            ValueRef::Float64(v) => Value::Float64(v),
            ValueRef::String(v) => Value::String(v.to_owned()),
            ValueRef::Bytes(v) => Value::Bytes(Bytes::copy_from_slice(v)),
            ValueRef::Array(array) => Value::Array(
                array
                    .iter()
                    .map(|item| item?.to_value_at(depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            ValueRef::Map(map) => Value::Map(
                map.iter()
                    .map(|pair| {
                        let (key, value) = pair?;
                        Ok((key.to_value_at(depth + 1)?, value.to_value_at(depth + 1)?))
                    })
                    .collect::<Result<_, DecodeError>>()?,
            ),
            ValueRef::Struct(structure) => Value::Struct(
                structure
                    .iter()
                    .map(|field| field.and_then(|(_, value)| value.to_value_at(depth + 1)))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }

    /// What the value is, as errors name it.
    pub fn kind(&self) -> &'static str {
        match self {
            ValueRef::Null => "null",
            ValueRef::Bool(_) => "boolean",
            ValueRef::Int8(_) => "int8",
            ValueRef::Int16(_) => "int16",
            ValueRef::Int32(_) => "int32",
            ValueRef::Int64(_) => "int64",
            ValueRef::Float32(_) => "float",
            ValueRef::Float64(_) => "double",
            ValueRef::String(_) => "string",
            ValueRef::Bytes(_) => "bytes",
            ValueRef::Array(_) => "array",
            ValueRef::Map(_) => "map",
            ValueRef::Struct(_) => "struct",
        }
    }

    /// The text, where this is a string.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            ValueRef::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, where this is an integer of any width.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            ValueRef::Int8(v) => Some(v.into()),
            ValueRef::Int16(v) => Some(v.into()),
            ValueRef::Int32(v) => Some(v.into()),
            ValueRef::Int64(v) => Some(v),
            _ => None,
        }
    }

    /// The struct, where this is one.
    pub fn as_struct(&self) -> Option<StructRef<'a>> {
        match *self {
            ValueRef::Struct(structure) => Some(structure),
            _ => None,
        }
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, ValueRef::Null)
    }
}

/// How deep values may nest. Walking them is recursive, and a hostile frame must not exhaust the stack.
pub const MAX_DEPTH: usize = 100;

pub(crate) fn check_depth(depth: usize) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(())
}

/// A list inside a frame.
#[derive(Clone, Copy, PartialEq)]
pub struct ArrayRef<'a> {
    element: Option<&'a Schema>,
    count: u32,
    bytes: &'a [u8],
}

impl<'a> ArrayRef<'a> {
    /// The number of elements the frame states. Do not reserve memory by it: it is not checked.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The schema of the elements; none in a value without schema.
    pub fn element_schema(&self) -> Option<&'a Schema> {
        self.element
    }

    /// The elements in turn. After an error nothing more comes.
    pub fn iter(&self) -> impl Iterator<Item = Result<ValueRef<'a>, DecodeError>> + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes };
        let (mut left, element) = (self.count, self.element);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let item = cursor.value(element);
            if item.is_err() {
                left = 0;
            }
            Some(item)
        })
    }
}

/// A map inside a frame.
#[derive(Clone, Copy, PartialEq)]
pub struct MapRef<'a> {
    schemas: Option<(&'a Schema, &'a Schema)>,
    count: u32,
    bytes: &'a [u8],
}

impl<'a> MapRef<'a> {
    /// The number of pairs the frame states. Do not reserve memory by it: it is not checked.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The schemas of keys and values; none in a value without schema.
    pub fn schemas(&self) -> Option<(&'a Schema, &'a Schema)> {
        self.schemas
    }

    /// The pairs in turn. After an error nothing more comes.
    #[allow(clippy::type_complexity)]
    pub fn iter(&self) -> impl Iterator<Item = Result<(ValueRef<'a>, ValueRef<'a>), DecodeError>> + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes };
        let (mut left, schemas) = (self.count, self.schemas);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let pair = cursor
                .value(schemas.map(|(key, _)| key))
                .and_then(|key| Ok((key, cursor.value(schemas.map(|(_, value)| value))?)));
            if pair.is_err() {
                left = 0;
            }
            Some(pair)
        })
    }
}

/// A struct inside a frame.
#[derive(Clone, Copy, PartialEq)]
pub struct StructRef<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
}

impl<'a> StructRef<'a> {
    /// The struct's schema.
    pub fn schema(&self) -> &'a Schema {
        self.schema
    }

    /// The fields in turn, with their values. After an error nothing more comes.
    #[allow(clippy::type_complexity)]
    pub fn iter(&self) -> impl Iterator<Item = Result<(&'a Field, ValueRef<'a>), DecodeError>> + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes };
        let mut fields = self.schema.fields().iter();
        std::iter::from_fn(move || {
            let field = fields.next()?;
            match cursor.value(Some(&field.schema)) {
                Ok(value) => Some(Ok((field, value))),
                Err(error) => {
                    fields = [].iter();
                    Some(Err(DecodeError(format!("field {}: {}", field.name, error.0))))
                }
            }
        })
    }

    /// The value of the field `name`; `None` where the schema has no such field.
    pub fn get(&self, name: &str) -> Result<Option<ValueRef<'a>>, DecodeError> {
        for field in self.iter() {
            let (field, value) = field?;
            if &*field.name == name {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// Walks encoded bytes; every step checks its bound.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        if count > self.bytes.len() {
            return Err(DecodeError(format!(
                "{count} bytes expected, {} are left",
                self.bytes.len()
            )));
        }
        let (head, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn prefixed(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(length as usize)
    }

    fn counted(&mut self) -> Result<(u32, &'a [u8]), DecodeError> {
        let mut inner = Cursor {
            bytes: self.prefixed()?,
        };
        let count = u32::from_le_bytes(inner.array()?);
        Ok((count, inner.bytes))
    }

    fn string(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.prefixed()?)
            .map_err(|error| DecodeError(format!("string is not UTF-8: {error}")))
    }

    fn value(&mut self, schema: Option<&'a Schema>) -> Result<ValueRef<'a>, DecodeError> {
        let Some(schema) = schema else {
            return self.tagged();
        };
        if schema.optional {
            match self.array::<1>()? {
                [0] => return Ok(ValueRef::Null),
                [1] => {}
                [other] => return Err(DecodeError(format!("presence byte is {other}, expected 0 or 1"))),
            }
        }
        Ok(match &schema.ty {
            Type::Bool => ValueRef::Bool(self.array::<1>()?[0] != 0),
            Type::Int8 => ValueRef::Int8(i8::from_le_bytes(self.array()?)),
            Type::Int16 => ValueRef::Int16(i16::from_le_bytes(self.array()?)),
            Type::Int32 => ValueRef::Int32(i32::from_le_bytes(self.array()?)),
            Type::Int64 => ValueRef::Int64(i64::from_le_bytes(self.array()?)),
            Type::Float32 => ValueRef::Float32(f32::from_le_bytes(self.array()?)),
            Type::Float64 => ValueRef::Float64(f64::from_le_bytes(self.array()?)),
            Type::String => ValueRef::String(self.string()?),
            Type::Bytes => ValueRef::Bytes(self.prefixed()?),
            Type::Array(element) => {
                let (count, bytes) = self.counted()?;
                ValueRef::Array(ArrayRef {
                    element: Some(element),
                    count,
                    bytes,
                })
            }
            Type::Map(key, value) => {
                let (count, bytes) = self.counted()?;
                ValueRef::Map(MapRef {
                    schemas: Some((key, value)),
                    count,
                    bytes,
                })
            }
            Type::Struct(_) => ValueRef::Struct(StructRef {
                schema,
                bytes: self.prefixed()?,
            }),
        })
    }

    fn tagged(&mut self) -> Result<ValueRef<'a>, DecodeError> {
        let byte = self.array::<1>()?[0];
        let tag = Tag::from_byte(byte).ok_or_else(|| DecodeError(format!("unknown tag {byte}")))?;
        Ok(match tag {
            Tag::Null => ValueRef::Null,
            Tag::Bool => ValueRef::Bool(self.array::<1>()?[0] != 0),
            Tag::Int8 => ValueRef::Int8(i8::from_le_bytes(self.array()?)),
            Tag::Int16 => ValueRef::Int16(i16::from_le_bytes(self.array()?)),
            Tag::Int32 => ValueRef::Int32(i32::from_le_bytes(self.array()?)),
            Tag::Int64 => ValueRef::Int64(i64::from_le_bytes(self.array()?)),
            Tag::Float32 => ValueRef::Float32(f32::from_le_bytes(self.array()?)),
            Tag::Float64 => ValueRef::Float64(f64::from_le_bytes(self.array()?)),
            Tag::String => ValueRef::String(self.string()?),
            Tag::Bytes => ValueRef::Bytes(self.prefixed()?),
            Tag::Array => {
                let (count, bytes) = self.counted()?;
                ValueRef::Array(ArrayRef {
                    element: None,
                    count,
                    bytes,
                })
            }
            Tag::Map => {
                let (count, bytes) = self.counted()?;
                ValueRef::Map(MapRef {
                    schemas: None,
                    count,
                    bytes,
                })
            }
        })
    }
}
