//! Schemas to JSON and back.

use serde_json::{Map, Value as Json, json};

use super::{DecimalFormat, JsonError, read_from, write_value};
use crate::schema::{Field, Schema, SchemaRef, Type};
use crate::value::{MAX_DEPTH, Value, ValueRef};

/// A schema in the JSON converter's form; `field` is its name within a struct.
pub fn schema_to_json(schema: &Schema, field: Option<&str>) -> Json {
    let mut object = Map::new();
    object.insert("type".into(), schema.ty.name().into());
    match &schema.ty {
        Type::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| schema_to_json(&field.schema, Some(&field.name)))
                .collect();
            object.insert("fields".into(), Json::Array(fields));
        }
        Type::Array(element) => {
            object.insert("items".into(), schema_to_json(element, None));
        }
        Type::Map(key, value) => {
            object.insert("keys".into(), schema_to_json(key, None));
            object.insert("values".into(), schema_to_json(value, None));
        }
        _ => {}
    }
    object.insert("optional".into(), schema.optional.into());
    if let Some(name) = &schema.name {
        object.insert("name".into(), (&**name).into());
    }
    if let Some(version) = schema.version {
        object.insert("version".into(), version.into());
    }
    if let Some(doc) = &schema.doc {
        object.insert("doc".into(), (&**doc).into());
    }
    if !schema.parameters.is_empty() {
        object.insert("parameters".into(), json!(schema.parameters));
    }
    if let Some(default) = schema
        .default
        .as_ref()
        .and_then(|default| value_to_json(default, schema))
    {
        object.insert("default".into(), default);
    }
    if let Some(field) = field {
        object.insert("field".into(), field.into());
    }
    Json::Object(object)
}

/// `value` as JSON of `schema`; none where it does not fit.
pub fn value_to_json(value: &Value, schema: &Schema) -> Option<Json> {
    let (mut encoded, mut text) = (Vec::new(), Vec::new());
    value.encode(Some(schema), &mut encoded).ok()?;
    write_value(
        ValueRef::decode(Some(schema), &encoded).ok()?,
        Some(schema),
        DecimalFormat::Base64,
        &mut text,
    )
    .ok()?;
    serde_json::from_slice(&text).ok()
}

/// Reads a schema in the JSON converter's form.
pub fn schema_from_json(json: &Json) -> Result<Schema, JsonError> {
    schema_at(json, 0)
}

fn schema_at(json: &Json, depth: usize) -> Result<Schema, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError(format!("schema nested deeper than {MAX_DEPTH} levels")));
    }
    let part = |key: &str| -> Result<SchemaRef, JsonError> {
        let part = json
            .get(key)
            .ok_or_else(|| JsonError(format!("schema has no {key:?}: {json}")))?;
        Ok(schema_at(part, depth + 1)?.into())
    };
    let name = json
        .get("type")
        .and_then(Json::as_str)
        .ok_or_else(|| JsonError(format!("schema has no \"type\": {json}")))?;
    let ty = match name {
        "boolean" => Type::Bool,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "float" | "float32" => Type::Float32,
        "double" | "float64" => Type::Float64,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "array" => Type::Array(part("items")?),
        "map" => Type::Map(part("keys")?, part("values")?),
        "struct" => {
            let fields = json.get("fields").and_then(Json::as_array);
            let fields =
                fields.ok_or_else(|| JsonError(format!("struct schema has no \"fields\": {json}")))?;
            Type::Struct(
                fields
                    .iter()
                    .map(|field| {
                        let name = field.get("field").and_then(Json::as_str);
                        let name =
                            name.ok_or_else(|| JsonError(format!("field has no \"field\" name: {field}")))?;
                        Ok(Field::new(name, schema_at(field, depth + 1)?))
                    })
                    .collect::<Result<_, _>>()?,
            )
        }
        other => {
            return Err(JsonError(format!(
                "unknown schema type {other:?}; expected boolean, int8, int16, int32, int64, float, double, string, bytes, array, map or struct"
            )));
        }
    };
    let mut schema = Schema::new(ty);
    schema.optional = json.get("optional").and_then(Json::as_bool).unwrap_or(false);
    schema.name = json.get("name").and_then(Json::as_str).map(Into::into);
    schema.version = json
        .get("version")
        .and_then(Json::as_i64)
        .and_then(|version| version.try_into().ok());
    schema.doc = json.get("doc").and_then(Json::as_str).map(Into::into);
    if let Some(parameters) = json.get("parameters").and_then(Json::as_object) {
        schema.parameters = parameters
            .iter()
            .map(|(key, value)| {
                (
                    key.clone(),
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                )
            })
            .collect();
    }
    if let Some(default) = json.get("default").filter(|default| !default.is_null()) {
        let mut encoded = Vec::new();
        read_from(default, Some(&schema), &mut encoded)
            .map_err(|error| JsonError(format!("default of the schema: {error}")))?;
        let value = ValueRef::decode(Some(&schema), &encoded).and_then(|value| value.to_value());
        schema.default = Some(value.map_err(|error| JsonError(error.to_string()))?);
    }
    Ok(schema)
}
