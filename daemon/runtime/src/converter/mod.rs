//! Converters: between the typed values that plugins speak and the bytes that topics hold. [`class`](mod@class) has them by
//! name, and a file each.

mod byte_array;
pub mod class;
mod json;
mod null_defaults;
mod primitive;
mod simple_header;
mod string;
mod typed;

use async_trait::async_trait;
use tidewater_plugin_api::{SchemaRef, ValueWriter};

pub use byte_array::ByteArrayConverter;
pub use class::{Role, create};
pub use json::JsonConverter;
pub use primitive::{Primitive, PrimitiveConverter};
pub use simple_header::SimpleHeaderConverter;
pub use string::StringConverter;
pub use typed::TypedConverter;

use crate::error::Result;

/// Bytes or a value that a converter cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConvertError(pub String);

impl From<tidewater_plugin_api::value::DecodeError> for ConvertError {
    fn from(error: tidewater_plugin_api::value::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// Converts keys, values or headers. One instance serves one task, so that it can keep what it has learnt.
#[async_trait]
pub trait Converter: Send + Sync {
    /// The class, by Kafka Connect's name where it has one.
    fn class(&self) -> &'static str;

    /// Whether [`prepare`](Self::prepare) has nothing to do for this schema.
    fn knows(&mut self, schema: &SchemaRef) -> bool {
        let _ = schema;
        true
    }

    /// Makes ready for values of these schemas; called before [`to_topic`](Self::to_topic).
    async fn prepare(&mut self, schemas: &[SchemaRef]) -> Result<()> {
        let _ = schemas;
        Ok(())
    }

    /// The bytes for a topic of a value in the frame's encoding: a part of the value itself where that is what they are, so
    /// that what needs no conversion is not copied, else what is written to `scratch`, which is empty. None is null.
    fn to_topic<'a>(
        &mut self,
        schema: Option<&'a SchemaRef>,
        value: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ConvertError>;

    /// The value that the bytes of a topic stand for. `scratch` is empty, and there to be written to.
    fn to_frame<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError>;
}

/// What [`Converter::to_frame`] found.
#[derive(Clone, Debug)]
pub struct Converted<'a> {
    /// The schema; none where the value carries tags, or is null without a schema.
    pub schema: Option<SchemaRef>,
    /// The value; none where it is null.
    pub value: Option<Encoded<'a>>,
}

impl Converted<'_> {
    /// A null without a schema.
    pub const NULL: Self = Self {
        schema: None,
        value: None,
    };
}

/// A value in the frame's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded<'a> {
    /// All of its encoding.
    Whole(&'a [u8]),
    /// The bytes or the text of an optional value that is there: its encoding has these after their length, so that they need
    /// not be copied to be put behind it.
    Optional(&'a [u8]),
}

impl Encoded<'_> {
    /// Appends the encoding.
    pub fn write(self, out: &mut ValueWriter<'_>) {
        match self {
            Encoded::Whole(encoded) => out.raw(encoded),
            Encoded::Optional(bytes) => {
                out.present();
                out.bytes(bytes);
            }
        }
    }

    /// A copy of the encoding.
    pub fn to_vec(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(match self {
            Encoded::Whole(encoded) => encoded.len(),
            Encoded::Optional(bytes) => bytes.len() + 5,
        });
        self.write(&mut ValueWriter::new(&mut out));
        out
    }
}

/// One converter for each part of a record.
pub struct Converters {
    /// For keys.
    pub key: Box<dyn Converter>,
    /// For values.
    pub value: Box<dyn Converter>,
    /// For headers.
    pub header: Box<dyn Converter>,
}

#[cfg(test)]
mod table {
    //! What tests of converters do again and again.

    use tidewater_plugin_api::{SchemaRef, Value, ValueRef};

    use super::{ConvertError, Converter};

    /// The bytes that `converter` makes of a value.
    pub fn topic_bytes(
        converter: &mut dyn Converter,
        schema: Option<&SchemaRef>,
        value: &Value,
    ) -> Result<Option<Vec<u8>>, ConvertError> {
        let mut encoded = Vec::new();
        let null = *value == Value::Null && schema.is_none_or(|schema| !schema.optional);
        if !null {
            value
                .encode(schema.map(|schema| &**schema), &mut encoded)
                .expect("it fits");
        }
        let mut scratch = Vec::new();
        let bytes = converter.to_topic(schema, (!null).then_some(&*encoded), &mut scratch)?;
        Ok(bytes.map(<[u8]>::to_vec))
    }

    /// The value that `converter` makes of bytes.
    pub fn value_of(
        converter: &mut dyn Converter,
        bytes: Option<&[u8]>,
    ) -> Result<(Option<SchemaRef>, Value), ConvertError> {
        let mut scratch = Vec::new();
        let converted = converter.to_frame(bytes, &mut scratch)?;
        let value = match converted.value {
            None => Value::Null,
            Some(encoded) => {
                let encoded = encoded.to_vec();
                ValueRef::decode(converted.schema.as_deref(), &encoded)
                    .and_then(|value| value.to_value())
                    .expect("a converter writes what its schema says")
            }
        };
        Ok((converted.schema, value))
    }
}
