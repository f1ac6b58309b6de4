//! The JSON converter, byte for byte in Kafka Connect's forms: with schemas `{"schema": …, "payload": …}`, without them the
//! payload alone.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tidewater_plugin_api::json::{DecimalFormat, read_value, schema_from_json, write_value};
use tidewater_plugin_api::{SchemaRef, ValueRef};

use super::{ConvertError, Converted, Converter};

const SCHEMA: &[u8] = b"{\"schema\":";
const PAYLOAD: &[u8] = b",\"payload\":";

/// JSON, with schemas or without.
#[derive(Debug)]
pub struct JsonConverter {
    schemas: bool,
    decimals: DecimalFormat,
    known: Known,
}

impl JsonConverter {
    /// A converter that writes and expects schemas, or not.
    pub fn new(schemas: bool) -> Self {
        Self {
            schemas,
            decimals: DecimalFormat::Base64,
            known: Known::default(),
        }
    }

    /// Reads `schemas.enable` (default true) and `decimal.format` (BASE64 or NUMERIC).
    pub fn from_settings(settings: &BTreeMap<String, String>) -> Result<Self, ConvertError> {
        let mut converter = Self::new(true);
        if let Some(value) = settings.get("schemas.enable") {
            converter.schemas = match value.trim().to_ascii_lowercase().as_str() {
                "true" => true,
                "false" => false,
                other => {
                    return Err(ConvertError(format!(
                        "schemas.enable is {other:?}; it must be true or false"
                    )));
                }
            };
        }
        if let Some(value) = settings.get("decimal.format") {
            converter.decimals = match value.trim().to_ascii_uppercase().as_str() {
                "BASE64" => DecimalFormat::Base64,
                "NUMERIC" => DecimalFormat::Numeric,
                other => {
                    return Err(ConvertError(format!(
                        "decimal.format is {other:?}; it must be BASE64 or NUMERIC"
                    )));
                }
            };
        }
        Ok(converter)
    }

    fn with_schema(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Converted, ConvertError> {
        if let Some((schema, payload)) = self.known.split(bytes) {
            return payload_to_frame(payload, Some(schema), out);
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| {
            ConvertError(format!(
                "with schemas.enable=true a record must be an object with \"schema\" and \"payload\" alone ({error}); \
                 if the topic holds plain JSON, set schemas.enable=false on this converter"
            ))
        })?;
        let json: serde_json::Value = serde_json::from_str(envelope.schema.get())
            .map_err(|error| ConvertError(format!("schema: {error}")))?;
        let payload = envelope.payload.get().as_bytes();
        if json.is_null() {
            return payload_to_frame(payload, None, out);
        }
        let schema = schema_from_json(&json).map_err(|error| ConvertError(error.0))?;
        let schema = self.known.learn(envelope.schema.get().as_bytes(), schema.into());
        payload_to_frame(payload, Some(schema), out)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    schema: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
}

fn payload_to_frame(
    payload: &[u8],
    schema: Option<SchemaRef>,
    out: &mut Vec<u8>,
) -> Result<Converted, ConvertError> {
    read_value(payload, schema.as_deref(), out).map_err(|error| ConvertError(error.0))?;
    Ok(Converted {
        schema,
        present: true,
    })
}

#[async_trait::async_trait]
impl Converter for JsonConverter {
    fn to_topic(
        &mut self,
        schema: Option<&SchemaRef>,
        value: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<bool, ConvertError> {
        let fault = |error: tidewater_plugin_api::value::DecodeError| ConvertError(error.to_string());
        let decoded = match value {
            None => ValueRef::Null,
            Some(bytes) => ValueRef::decode(schema.map(|schema| &**schema), bytes).map_err(fault)?,
        };
        // A null without a schema, and without schemas any null, is a tombstone.
        if decoded.is_null() && (schema.is_none() || !self.schemas) {
            return Ok(false);
        }
        if self.schemas {
            out.extend_from_slice(SCHEMA);
            match schema {
                Some(schema) => out.extend_from_slice(schema.json()),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(PAYLOAD);
        }
        write_value(decoded, schema.map(|schema| &**schema), self.decimals, out).map_err(fault)?;
        if self.schemas {
            out.push(b'}');
        }
        Ok(true)
    }

    fn to_frame(&mut self, bytes: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Converted, ConvertError> {
        match bytes {
            None => Ok(Converted {
                schema: None,
                present: false,
            }),
            Some(bytes) if self.schemas => self.with_schema(bytes, out),
            Some(bytes) => payload_to_frame(bytes, None, out),
        }
    }
}

/// Schemas seen lately, by the bytes that stand before the payload: nearly every record begins with one of them, and
/// comparing bytes is a hundred times cheaper than parsing a schema.
#[derive(Debug, Default)]
struct Known {
    /// The most recently used first.
    prefixes: Vec<(Vec<u8>, SchemaRef)>,
}

impl Known {
    const CAPACITY: usize = 64;

    fn split<'b>(&mut self, bytes: &'b [u8]) -> Option<(SchemaRef, &'b [u8])> {
        let body = bytes.strip_suffix(b"}")?;
        let found = self
            .prefixes
            .iter()
            .position(|(prefix, _)| body.starts_with(prefix))?;
        self.prefixes[..=found].rotate_right(1);
        let (prefix, schema) = &self.prefixes[0];
        Some((schema.clone(), &body[prefix.len()..]))
    }

    /// Remembers a schema. Two texts of one schema share one [`SchemaRef`], so that batches do not hold it twice.
    fn learn(&mut self, text: &[u8], schema: SchemaRef) -> SchemaRef {
        let same = self.prefixes.iter().find(|(_, known)| *known == schema);
        let schema = same.map_or(schema, |(_, known)| known.clone());
        self.prefixes.truncate(Self::CAPACITY - 1);
        self.prefixes
            .insert(0, ([SCHEMA, text, PAYLOAD].concat(), schema.clone()));
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidewater_plugin_api::{Field, Schema, Type, Value};

    fn row() -> (SchemaRef, Vec<u8>) {
        let schema = Arc::new(
            Schema::structure(vec![
                Field::new("id", Schema::new(Type::Int32)),
                Field::new("name", Schema::new(Type::String).optional()),
            ])
            .named("shop.Row"),
        );
        let mut encoded = Vec::new();
        Value::Struct(vec![Value::Int32(7), Value::String("a \"b\"\n".into())])
            .encode(Some(&schema), &mut encoded)
            .unwrap();
        (schema, encoded)
    }

    #[test]
    fn writes_what_connect_writes() {
        let (schema, encoded) = row();
        let mut out = Vec::new();
        assert!(
            JsonConverter::new(true)
                .to_topic(Some(&schema), Some(&encoded), &mut out)
                .unwrap()
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"string","optional":true,"field":"name"}],"optional":false,"name":"shop.Row"},"payload":{"id":7,"name":"a \"b\"\n"}}"#
        );
        let mut out = Vec::new();
        assert!(
            JsonConverter::new(false)
                .to_topic(Some(&schema), Some(&encoded), &mut out)
                .unwrap()
        );
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"id":7,"name":"a \"b\"\n"}"#);
    }

    #[test]
    fn reads_back_what_it_wrote_at_first_sight_and_from_memory() {
        let (schema, encoded) = row();
        let mut text = Vec::new();
        let mut converter = JsonConverter::new(true);
        converter
            .to_topic(Some(&schema), Some(&encoded), &mut text)
            .unwrap();
        let mut schemas = Vec::new();
        for _ in 0..2 {
            let mut out = Vec::new();
            let converted = converter.to_frame(Some(&text), &mut out).unwrap();
            assert_eq!(out, encoded);
            schemas.push(converted.schema.unwrap());
        }
        assert!(Arc::ptr_eq(&schemas[0], &schemas[1]));
        assert_eq!(*schemas[0], *schema);
    }

    #[test]
    fn takes_any_order_and_spacing() {
        let (_, encoded) = row();
        let text = br#" { "payload" : {"name": "a \"b\"\n", "extra": [1], "id": 7} , "schema" : {"type":"struct","fields":[{"type":"int32","field":"id"},{"field":"name","type":"string","optional":true}]} } "#;
        let mut out = Vec::new();
        let converted = JsonConverter::new(true).to_frame(Some(text), &mut out).unwrap();
        assert_eq!((out, converted.present), (encoded, true));
    }

    #[test]
    fn nulls_are_tombstones_or_payloads() {
        let (schema, _) = row();
        let mut out = Vec::new();
        assert!(!JsonConverter::new(true).to_topic(None, None, &mut out).unwrap());
        assert!(
            !JsonConverter::new(false)
                .to_topic(Some(&schema), None, &mut out)
                .unwrap()
        );
        assert!(out.is_empty());
        assert!(
            JsonConverter::new(true)
                .to_topic(Some(&schema), None, &mut out)
                .unwrap()
        );
        assert!(out.ends_with(b",\"payload\":null}"));
        let converted = JsonConverter::new(true).to_frame(None, &mut Vec::new()).unwrap();
        assert!(!converted.present && converted.schema.is_none());
    }

    #[test]
    fn plain_json_is_refused_with_the_way_out() {
        let error = JsonConverter::new(true)
            .to_frame(Some(b"{\"id\":1}"), &mut Vec::new())
            .unwrap_err();
        assert!(error.0.contains("set schemas.enable=false"), "{error}");
        let error = JsonConverter::new(false)
            .to_frame(Some(b"{\"id\":"), &mut Vec::new())
            .unwrap_err();
        assert!(error.0.contains("EOF"), "{error}");
    }

    #[test]
    fn values_that_do_not_fit_name_their_field() {
        let text =
            br#"{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":"x"}}"#;
        let error = JsonConverter::new(true)
            .to_frame(Some(text), &mut Vec::new())
            .unwrap_err();
        assert!(
            error.0.contains("field id") && error.0.contains("int32"),
            "{error}"
        );
    }
}
