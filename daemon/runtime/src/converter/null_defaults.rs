//! `replace.null.with.default`: nulls that become the default of their schema.

use std::sync::Arc;

use tidewater_plugin_api::value::DecodeError;
use tidewater_plugin_api::{Schema, SchemaRef, Type, Value, ValueRef};

use super::ConvertError;

/// Puts defaults in the place of nulls, where a schema has any.
#[derive(Debug, Default)]
pub struct NullDefaults {
    /// The schema met last, and whether a null of it can have a default.
    latest: Option<(SchemaRef, bool)>,
}

impl NullDefaults {
    /// The encoding of `value` with defaults for its nulls; none where the schema has no defaults for nulls.
    pub fn replace(&mut self, schema: &SchemaRef, value: &[u8]) -> Result<Option<Vec<u8>>, ConvertError> {
        let applies = match &self.latest {
            Some((latest, applies)) if Arc::ptr_eq(latest, schema) => *applies,
            _ => {
                let applies = applies(schema);
                self.latest = Some((schema.clone(), applies));
                applies
            }
        };
        if !applies {
            return Ok(None);
        }
        let mut value = ValueRef::decode(Some(schema), value)?.to_value()?;
        fill(&mut value, schema);
        let mut encoded = Vec::new();
        value
            .encode(Some(schema), &mut encoded)
            .map_err(|error| DecodeError(error.to_string()))?;
        Ok(Some(encoded))
    }
}

fn applies(schema: &Schema) -> bool {
    (schema.optional && schema.default.is_some())
        || match &schema.ty {
            Type::Struct(fields) => fields.iter().any(|field| applies(&field.schema)),
            Type::Array(element) => applies(element),
            Type::Map(key, value) => applies(key) || applies(value),
            _ => false,
        }
}

fn fill(value: &mut Value, schema: &Schema) {
    if *value == Value::Null {
        if let Some(default) = &schema.default {
            value.clone_from(default);
        }
        return;
    }
    match (value, &schema.ty) {
        (Value::Struct(values), Type::Struct(fields)) => {
            for (value, field) in values.iter_mut().zip(fields) {
                fill(value, &field.schema);
            }
        }
        (Value::Array(values), Type::Array(element)) => {
            for value in values {
                fill(value, element);
            }
        }
        (Value::Map(pairs), Type::Map(key_schema, value_schema)) => {
            for (key, value) in pairs {
                fill(key, key_schema);
                fill(value, value_schema);
            }
        }
        _ => {}
    }
}
