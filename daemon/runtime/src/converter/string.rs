//! The string converter: text as UTF-8. Numbers, booleans and times become the text they are commonly written as, lists, maps
//! and structs their JSON.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use tidewater_plugin_api::json::{DecimalFormat, write_value};
use tidewater_plugin_api::{Schema, SchemaRef, Type, ValueRef};
use tidewater_transforms::value_text;

use super::{ConvertError, Converted, Converter, Encoded};

static TEXT: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(Type::String).optional()));

/// Text as UTF-8.
#[derive(Debug)]
pub struct StringConverter;

impl StringConverter {
    /// Reads `converter.encoding`, which can be UTF-8 only.
    pub fn from_settings(settings: &BTreeMap<String, String>) -> Result<Self, ConvertError> {
        match settings.get("converter.encoding").map(|name| name.trim()) {
            None => Ok(Self),
            Some(name) if name.eq_ignore_ascii_case("UTF8") || name.eq_ignore_ascii_case("UTF-8") => Ok(Self),
            Some(other) => Err(ConvertError(format!(
                "converter.encoding is {other:?}; the string converter writes UTF-8 only"
            ))),
        }
    }
}

#[async_trait::async_trait]
impl Converter for StringConverter {
    fn class(&self) -> &'static str {
        "org.apache.kafka.connect.storage.StringConverter"
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
            ValueRef::Null => return Ok(None),
            ValueRef::String(text) => return Ok(Some(text.as_bytes())),
            composite @ (ValueRef::Array(_) | ValueRef::Map(_) | ValueRef::Struct(_)) => {
                write_value(composite, schema, DecimalFormat::Numeric, scratch)?;
            }
            other => {
                let mut text = String::new();
                value_text::write(other, schema, &mut text)?;
                *scratch = text.into_bytes();
            }
        }
        Ok(Some(scratch))
    }

    fn to_frame<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        _scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        if let Some(Err(error)) = bytes.map(std::str::from_utf8) {
            return Err(ConvertError(format!(
                "the string converter takes UTF-8 only, and these bytes are not: {error}"
            )));
        }
        Ok(Converted {
            schema: Some(TEXT.clone()),
            value: bytes.map(Encoded::Optional),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{topic_bytes, value_of};
    use super::*;
    use bytes::Bytes;
    use tidewater_plugin_api::{Field, Value, logical};

    #[test]
    fn text_passes_and_other_values_become_text() {
        let converter = &mut StringConverter;
        let row = Arc::new(Schema::structure(vec![Field::new(
            "id",
            Schema::new(Type::Int32),
        )]));
        let day = Arc::new(Schema::new(Type::Int32).named(logical::CONNECT_DATE));
        let amount = Arc::new(
            Schema::new(Type::Bytes)
                .named(logical::DECIMAL)
                .parameter("scale", "1"),
        );
        let table = [
            (None, Value::String("ä \"b\"".into()), "ä \"b\""),
            (Some(&*TEXT), Value::String(String::new()), ""),
            (None, Value::Int32(-7), "-7"),
            (None, Value::Float64(1e10), "1.0E10"),
            (None, Value::Bool(false), "false"),
            (None, Value::Bytes(Bytes::from_static(b"\x01\x02")), "AQI="),
            (Some(&day), Value::Int32(1), "1970-01-02"),
            (Some(&amount), Value::Bytes(Bytes::from_static(&[15])), "1.5"),
            (Some(&row), Value::Struct(vec![Value::Int32(1)]), "{\"id\":1}"),
            (
                None,
                Value::Array(vec![Value::Bool(true), Value::Null]),
                "[true,null]",
            ),
        ];
        for (schema, value, text) in table {
            let out = topic_bytes(converter, schema, &value).unwrap();
            assert_eq!(out.as_deref(), Some(text.as_bytes()), "{text}");
        }
        for schema in [None, Some(&*TEXT)] {
            assert_eq!(topic_bytes(converter, schema, &Value::Null), Ok(None));
        }
    }

    #[test]
    fn bytes_are_text_or_refused() {
        let converter = &mut StringConverter;
        let text = Some(TEXT.clone());
        assert_eq!(
            value_of(converter, Some("ä".as_bytes())),
            Ok((text.clone(), Value::String("ä".into())))
        );
        assert_eq!(
            value_of(converter, Some(b"")),
            Ok((text.clone(), Value::String(String::new())))
        );
        assert_eq!(value_of(converter, None), Ok((text, Value::Null)));
        let error = value_of(converter, Some(b"ok \xff")).unwrap_err();
        assert!(
            error.0.contains("UTF-8") && error.0.contains("index 3"),
            "{error}"
        );
    }

    #[test]
    fn encodings_other_than_utf_8_are_refused() {
        let of =
            |name: &str| StringConverter::from_settings(&[("converter.encoding".into(), name.into())].into());
        assert!(of("UTF8").is_ok() && of("utf-8").is_ok());
        assert!(of("ISO-8859-1").unwrap_err().0.contains("UTF-8 only"));
    }
}
