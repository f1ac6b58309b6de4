//! Reading values in place; every bound is checked.

use std::fmt;

use bytes::Bytes;

use super::{Tag, Value};
use crate::schema::{Field, Schema, Type};

/// Bytes that are no value of their schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed value: {0}")]
pub struct DecodeError(pub String);

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
