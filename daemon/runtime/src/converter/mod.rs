//! Converters: between the typed values that plugins speak and the bytes that topics hold.

mod json;
mod string;
mod typed;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidewater_plugin_api::json::DecimalFormat;
use tidewater_plugin_api::{Schema, SchemaRef};

pub use json::JsonConverter;
pub use string::StringConverter;
pub use typed::TypedConverter;

use crate::error::Result;
use crate::schema_store::SchemaStore;

/// Bytes or a value that a converter cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConvertError(pub String);

/// Converts keys or values. One instance serves one task, so that it can keep what it has learnt.
#[async_trait]
pub trait Converter: Send + Sync {
    /// Makes ready for values of these schemas; called before [`to_topic`](Self::to_topic).
    async fn prepare(&mut self, schemas: &[SchemaRef]) -> Result<()> {
        let _ = schemas;
        Ok(())
    }

    /// Appends the bytes for a topic of a value in the frame's encoding; false where they are null.
    fn to_topic(
        &mut self,
        schema: Option<&SchemaRef>,
        value: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<bool, ConvertError>;

    /// Appends the value, in the frame's encoding, that the bytes of a topic stand for.
    fn to_frame(&mut self, bytes: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Converted, ConvertError>;
}

/// What [`Converter::to_frame`] found.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The schema; none where the value carries tags, or is null without a schema.
    pub schema: Option<SchemaRef>,
    /// Whether there is a value at all.
    pub present: bool,
}

/// The names a configuration may give a converter, the Java class names among them, and what they stand for.
const CLASSES: [(&str, &[&str]); 3] = [
    (
        "json",
        &["org.apache.kafka.connect.json.JsonConverter", "JsonConverter"],
    ),
    (
        "string",
        &[
            "org.apache.kafka.connect.storage.StringConverter",
            "StringConverter",
        ],
    ),
    ("typed", &[]),
];

/// The short name of the converter class `name`; none where there is no such converter.
pub fn class(name: &str) -> Option<&'static str> {
    CLASSES
        .iter()
        .find(|(short, aliases)| *short == name || aliases.contains(&name))
        .map(|(short, _)| *short)
}

/// The short names of all converters.
pub fn classes() -> impl Iterator<Item = &'static str> {
    CLASSES.iter().map(|(short, _)| *short)
}

/// The converter class `name` with `settings`, its own keys with their prefix taken off (`schemas.enable`).
pub fn create(
    name: &str,
    settings: &BTreeMap<String, String>,
    store: &Arc<SchemaStore>,
) -> Result<Box<dyn Converter>, ConvertError> {
    match class(name) {
        Some("json") => Ok(Box::new(JsonConverter::from_settings(settings)?)),
        Some("string") => Ok(Box::new(StringConverter)),
        Some("typed") => Ok(Box::new(TypedConverter::new(store.clone()))),
        _ => Err(ConvertError(format!(
            "there is no converter {name:?}; there are {}",
            classes().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// Appends a header's value as text: a string as it is, anything else as JSON.
pub fn header_to_topic(
    schema: Option<&Schema>,
    value: tidewater_plugin_api::ValueRef<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ConvertError> {
    match value.as_str() {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None => tidewater_plugin_api::json::write_value(value, schema, DecimalFormat::Numeric, out)
            .map_err(|error| ConvertError(error.to_string()))?,
    }
    Ok(())
}
