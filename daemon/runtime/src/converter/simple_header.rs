//! The simple header converter: headers as text, and of the type their text takes when it is read.

use tidewater_plugin_api::{SchemaRef, ValueRef};
use tidewater_transforms::value_text;

use super::byte_array::BYTES;
use super::{ConvertError, Converted, Converter, Encoded};

/// Values as text; see [`tidewater_transforms::value_text`].
#[derive(Debug)]
pub struct SimpleHeaderConverter;

#[async_trait::async_trait]
impl Converter for SimpleHeaderConverter {
    fn class(&self) -> &'static str {
        "org.apache.kafka.connect.storage.SimpleHeaderConverter"
    }

    fn to_topic<'a>(
        &mut self,
        schema: Option<&'a SchemaRef>,
        value: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ConvertError> {
        let schema = schema.map(|schema| &**schema);
        let Some(value) = value else { return Ok(None) };
        match ValueRef::decode(schema, value)? {
            ValueRef::Null => Ok(None),
            ValueRef::String(text) => Ok(Some(text.as_bytes())),
            other => {
                let mut text = String::new();
                value_text::write(other, schema, &mut text)?;
                *scratch = text.into_bytes();
                Ok(Some(scratch))
            }
        }
    }

    fn to_frame<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        let Some(bytes) = bytes else {
            return Ok(Converted::NULL);
        };
        let Ok(text) = std::str::from_utf8(bytes) else {
            // Like Connect: what is no text stays bytes.
            return Ok(Converted {
                schema: Some(BYTES.clone()),
                value: Some(Encoded::Optional(bytes)),
            });
        };
        let datum = value_text::read(text);
        let present = datum
            .encode(scratch)
            .map_err(|error| ConvertError(error.to_string()))?;
        Ok(Converted {
            schema: datum.schema().cloned(),
            value: present.then_some(Encoded::Whole(scratch)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{topic_bytes, value_of};
    use super::*;
    use bytes::Bytes;
    use tidewater_plugin_api::{Schema, Type, Value};

    #[test]
    fn headers_come_back_as_their_text_reads() {
        let converter = &mut SimpleHeaderConverter;
        let list = || Value::Array(vec![Value::String("a".into()), Value::String("b".into())]);
        let strings = std::sync::Arc::new(Schema::array(Schema::new(Type::String)));
        let table = [
            (
                None,
                Value::String("plain".into()),
                "plain",
                Value::String("plain".into()),
            ),
            (None, Value::Int64(7), "7", Value::Int8(7)),
            (None, Value::Bool(true), "true", Value::Bool(true)),
            (None, Value::String("42".into()), "42", Value::Int8(42)),
            (Some(&strings), list(), "[\"a\",\"b\"]", list()),
            (
                None,
                Value::Bytes(Bytes::from_static(b"\x01")),
                "AQ==",
                Value::String("AQ==".into()),
            ),
        ];
        for (schema, value, text, back) in table {
            let bytes = topic_bytes(converter, schema, &value).unwrap();
            assert_eq!(bytes.as_deref(), Some(text.as_bytes()));
            assert_eq!(value_of(converter, bytes.as_deref()).unwrap().1, back, "{text}");
        }
        assert_eq!(topic_bytes(converter, None, &Value::Null), Ok(None));
        assert_eq!(value_of(converter, None), Ok((None, Value::Null)));
        let (schema, value) = value_of(converter, Some(b"\xff\x00")).unwrap();
        assert_eq!(value, Value::Bytes(Bytes::from_static(b"\xff\x00")));
        assert_eq!(schema, Some(BYTES.clone()));
    }
}
