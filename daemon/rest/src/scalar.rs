//! Kafka Connect's configurations are maps of text; its clients send numbers and booleans too.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A value as the text Kafka Connect makes of it; `None` for null. Lists and maps are no value of a configuration.
pub(crate) fn text(value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Bool(_) | Value::Number(_) => Ok(Some(value.to_string())),
        Value::Array(_) => Err("is a list; write its members as text, separated by commas".to_owned()),
        Value::Object(_) => Err("is a map; write its keys as name.key, each with its value".to_owned()),
    }
}

pub(crate) fn text_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    let map = BTreeMap::<String, Value>::deserialize(deserializer)?;
    map.into_iter()
        .map(|(key, value)| match text(value) {
            Ok(text) => Ok((key, text)),
            Err(fault) => Err(D::Error::custom(format!("{key} {fault}"))),
        })
        .collect()
}
