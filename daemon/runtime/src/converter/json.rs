//! The JSON converter, byte for byte in Kafka Connect's forms: with schemas `{"schema": …, "payload": …}`, without them the
//! payload alone.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tidewater_plugin_api::json::{DecimalFormat, read_value, schema_from_json, write_value};
use tidewater_plugin_api::{SchemaRef, ValueRef};

use super::null_defaults::NullDefaults;
use super::{ConvertError, Converted, Converter, Encoded};

const SCHEMA: &[u8] = b"{\"schema\":";
const PAYLOAD: &[u8] = b",\"payload\":";

/// JSON, with schemas or without.
#[derive(Debug)]
pub struct JsonConverter {
    schemas: bool,
    decimals: DecimalFormat,
    /// `replace.null.with.default`, where it is true.
    null_defaults: Option<NullDefaults>,
    known: Known,
}

impl JsonConverter {
    /// A converter that writes and expects schemas, or not.
    pub fn new(schemas: bool) -> Self {
        Self {
            schemas,
            decimals: DecimalFormat::Base64,
            null_defaults: None,
            known: Known::new(Known::CAPACITY),
        }
    }

    /// Reads `schemas.enable` (default true), `decimal.format` (BASE64 or NUMERIC), `schemas.cache.size` and
    /// `replace.null.with.default` (default false).
    pub fn from_settings(settings: &BTreeMap<String, String>) -> Result<Self, ConvertError> {
        let mut converter = Self::new(boolean(settings, "schemas.enable")?.unwrap_or(true));
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
        if let Some(value) = settings.get("schemas.cache.size") {
            let size = value.trim().parse().map_err(|_| {
                ConvertError(format!(
                    "schemas.cache.size is {value:?}; it must be a number of schemas"
                ))
            })?;
            converter.known = Known::new(size);
        }
        if boolean(settings, "replace.null.with.default")? == Some(true) {
            converter.null_defaults = Some(NullDefaults::default());
        }
        Ok(converter)
    }

    /// Reads a record with its schema; null where there is neither schema nor payload.
    fn with_schema<'a>(
        &mut self,
        bytes: &[u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        if let Some((schema, payload)) = self.known.split(bytes) {
            return self.payload(payload, Some(schema), scratch);
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
            return self.payload(payload, None, scratch);
        }
        let schema = schema_from_json(&json).map_err(|error| ConvertError(error.0))?;
        let schema = self.known.learn(envelope.schema.get().as_bytes(), schema.into());
        self.payload(payload, Some(schema), scratch)
    }

    fn payload<'a>(
        &mut self,
        payload: &[u8],
        schema: Option<SchemaRef>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        let is_null = payload.trim_ascii() == b"null";
        if is_null && schema.is_none() {
            return Ok(Converted::NULL);
        }
        read_value(payload, schema.as_deref(), scratch).map_err(|error| ConvertError(error.0))?;
        if let (Some(defaults), Some(schema)) = (&mut self.null_defaults, &schema)
            && let Some(replaced) = defaults.replace(schema, scratch)?
        {
            *scratch = replaced;
        }
        // A null that may be one and has no default: there is no value.
        let null = is_null && schema.as_ref().is_some_and(|schema| schema.optional) && **scratch == [0];
        Ok(Converted {
            schema,
            value: (!null).then_some(Encoded::Whole(scratch)),
        })
    }
}

/// The value of a key that is true or false; none where it is not given.
fn boolean(settings: &BTreeMap<String, String>, key: &str) -> Result<Option<bool>, ConvertError> {
    let Some(value) = settings.get(key) else {
        return Ok(None);
    };
    match value.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        other => Err(ConvertError(format!(
            "{key} is {other:?}; it must be true or false"
        ))),
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

#[async_trait::async_trait]
impl Converter for JsonConverter {
    fn class(&self) -> &'static str {
        "org.apache.kafka.connect.json.JsonConverter"
    }

    fn to_topic<'a>(
        &mut self,
        schema: Option<&'a SchemaRef>,
        value: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ConvertError> {
        let mut default = Vec::new();
        let mut value: Option<&[u8]> = value;
        if let (Some(defaults), Some(schema)) = (&mut self.null_defaults, schema) {
            if let Some(given) = value {
                if let Some(replaced) = defaults.replace(schema, given)? {
                    default = replaced;
                    value = Some(&default);
                }
            } else if let Some(known) = &schema.default {
                known
                    .encode(Some(schema), &mut default)
                    .map_err(|error| ConvertError(error.to_string()))?;
                value = Some(&default);
            }
        }
        let decoded = match value {
            None => ValueRef::Null,
            Some(bytes) => ValueRef::decode(schema.map(|schema| &**schema), bytes)?,
        };
        if decoded.is_null() {
            match schema {
                // A null without a schema, and without schemas any null, is a tombstone.
                None => return Ok(None),
                Some(_) if !self.schemas => return Ok(None),
                Some(schema) if !schema.optional => {
                    return Err(ConvertError(
                        "it is null, and its schema says that it is required; make the schema optional, or send a tombstone, \
                         which has none"
                            .into(),
                    ));
                }
                Some(_) => {}
            }
        }
        if self.schemas {
            scratch.extend_from_slice(SCHEMA);
            match schema {
                Some(schema) => scratch.extend_from_slice(schema.json()),
                None => scratch.extend_from_slice(b"null"),
            }
            scratch.extend_from_slice(PAYLOAD);
        }
        write_value(decoded, schema.map(|schema| &**schema), self.decimals, scratch)?;
        if self.schemas {
            scratch.push(b'}');
        }
        Ok(Some(scratch))
    }

    fn to_frame<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        match bytes {
            None => Ok(Converted::NULL),
            Some(bytes) if self.schemas => self.with_schema(bytes, scratch),
            Some(bytes) => self.payload(bytes, None, scratch),
        }
    }
}

/// Schemas seen lately, by the bytes that stand before the payload: nearly every record begins with one of them, and
/// comparing bytes is a hundred times cheaper than parsing a schema.
#[derive(Debug)]
struct Known {
    /// The most recently used first.
    prefixes: Vec<(Vec<u8>, SchemaRef)>,
    capacity: usize,
}

impl Known {
    const CAPACITY: usize = 64;

    fn new(capacity: usize) -> Self {
        Self {
            prefixes: Vec::new(),
            capacity: capacity.max(1),
        }
    }

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
        self.prefixes.truncate(self.capacity - 1);
        self.prefixes
            .insert(0, ([SCHEMA, text, PAYLOAD].concat(), schema.clone()));
        schema
    }
}

#[cfg(test)]
mod tests;
