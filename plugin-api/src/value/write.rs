//! Writing values in the encoding of [`crate::value`].

use super::{Tag, Value};
use crate::schema::{Schema, Type};

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
}
