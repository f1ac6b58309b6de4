//! The byte array converter: bytes as they are, neither read nor copied on their way through.

use std::sync::{Arc, LazyLock};

use tidewater_plugin_api::{Schema, SchemaRef, Type, ValueRef};

use super::{ConvertError, Converted, Converter, Encoded};

pub(super) static BYTES: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(Type::Bytes).optional()));

/// Bytes as they are.
#[derive(Debug)]
pub struct ByteArrayConverter;

#[async_trait::async_trait]
impl Converter for ByteArrayConverter {
    fn class(&self) -> &'static str {
        "org.apache.kafka.connect.converters.ByteArrayConverter"
    }

    fn to_topic<'a>(
        &mut self,
        schema: Option<&'a SchemaRef>,
        value: Option<&'a [u8]>,
        _scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ConvertError> {
        let Some(value) = value else { return Ok(None) };
        match ValueRef::decode(schema.map(|schema| &**schema), value)? {
            ValueRef::Null => Ok(None),
            ValueRef::Bytes(bytes) => Ok(Some(bytes)),
            other => Err(ConvertError(format!(
                "the byte array converter takes bytes only, and this is of type {}; use the converter json, or string for text",
                other.kind()
            ))),
        }
    }

    fn to_frame<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        _scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        Ok(Converted {
            schema: Some(BYTES.clone()),
            value: bytes.map(Encoded::Optional),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{topic_bytes, value_of};
    use super::*;
    use bytes::Bytes;
    use tidewater_plugin_api::Value;

    #[test]
    fn bytes_pass_both_ways_and_nothing_else_does() {
        let converter = &mut ByteArrayConverter;
        let required = Arc::new(Schema::new(Type::Bytes));
        let bytes = Value::Bytes(Bytes::from_static(b"\x00\xff"));
        for schema in [None, Some(&required), Some(&*BYTES)] {
            let out = topic_bytes(converter, schema, &bytes).unwrap();
            assert_eq!(out.as_deref(), Some(&b"\x00\xff"[..]));
        }
        assert_eq!(topic_bytes(converter, None, &Value::Null), Ok(None));
        assert_eq!(topic_bytes(converter, Some(&BYTES), &Value::Null), Ok(None));
        assert_eq!(
            value_of(converter, Some(b"\x00\xff")),
            Ok((Some(BYTES.clone()), bytes))
        );
        assert_eq!(
            value_of(converter, Some(b"")),
            Ok((Some(BYTES.clone()), Value::Bytes(Bytes::new())))
        );
        assert_eq!(value_of(converter, None), Ok((Some(BYTES.clone()), Value::Null)));

        let text = Arc::new(Schema::new(Type::String));
        for (schema, value, kind) in [
            (Some(&text), Value::String("x".into()), "string"),
            (None, Value::Int64(1), "int64"),
        ] {
            let error = topic_bytes(converter, schema, &value).unwrap_err();
            assert!(error.0.contains(kind), "{error}");
        }
    }

    #[test]
    fn what_passes_is_not_copied() {
        let mut encoded = Vec::new();
        Value::Bytes(Bytes::from_static(b"payload"))
            .encode(Some(&BYTES), &mut encoded)
            .unwrap();
        let (mut scratch, mut back) = (Vec::new(), Vec::new());
        let out = ByteArrayConverter
            .to_topic(Some(&BYTES), Some(&encoded), &mut scratch)
            .unwrap()
            .unwrap();
        assert!(encoded.as_ptr_range().contains(&out.as_ptr()));
        let converted = ByteArrayConverter.to_frame(Some(out), &mut back).unwrap();
        assert_eq!(converted.value, Some(Encoded::Optional(out)));
        assert_eq!((scratch.capacity(), back.capacity()), (0, 0));
    }
}
