//! Schemas and values made at random, and ways to walk everything in a frame.

#![allow(dead_code)] // each test takes what it needs

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tidewater_plugin_api::json::{DecimalFormat, write_value};
use tidewater_plugin_api::{Field, Frame, Schema, SchemaRef, Type, Value, ValueRef};

/// A schema without default, up to four levels deep.
pub fn schema() -> impl Strategy<Value = SchemaRef> {
    let leaf = prop_oneof![
        Just(Type::Bool),
        Just(Type::Int8),
        Just(Type::Int16),
        Just(Type::Int32),
        Just(Type::Int64),
        Just(Type::Float32),
        Just(Type::Float64),
        Just(Type::String),
        Just(Type::Bytes),
    ];
    let plain = (leaf, any::<bool>()).prop_map(|(ty, optional)| finished(ty, optional));
    plain.prop_recursive(4, 24, 5, |inner| {
        let ty = prop_oneof![
            inner.clone().prop_map(Type::Array),
            (inner.clone(), inner.clone()).prop_map(|(key, value)| Type::Map(key, value)),
            prop::collection::vec((".{0,5}", inner), 0..5).prop_map(|fields| {
                // Names are unique within a struct.
                let named = fields.into_iter().enumerate();
                Type::Struct(
                    named
                        .map(|(at, (name, schema))| Field::new(format!("{name}{at}"), schema))
                        .collect(),
                )
            }),
        ];
        (ty, any::<bool>()).prop_map(|(ty, optional)| finished(ty, optional))
    })
}

fn finished(ty: Type, optional: bool) -> SchemaRef {
    let schema = Schema::new(ty);
    Arc::new(if optional { schema.optional() } else { schema })
}

/// A value of `schema`.
pub fn value(schema: &Schema) -> BoxedStrategy<Value> {
    let some = match &schema.ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int8 => any::<i8>().prop_map(Value::Int8).boxed(),
        Type::Int16 => any::<i16>().prop_map(Value::Int16).boxed(),
        Type::Int32 => any::<i32>().prop_map(Value::Int32).boxed(),
        Type::Int64 => any::<i64>().prop_map(Value::Int64).boxed(),
        Type::Float32 => prop_oneof![prop::num::f32::ANY, Just(f32::NEG_INFINITY), Just(-0.0)]
            .prop_map(|number| Value::Float32(if number.is_nan() { f32::NAN } else { number }))
            .boxed(),
        Type::Float64 => prop_oneof![prop::num::f64::ANY, Just(f64::INFINITY), Just(-0.0)]
            .prop_map(|number| Value::Float64(if number.is_nan() { f64::NAN } else { number }))
            .boxed(),
        Type::String => any::<String>().prop_map(Value::String).boxed(),
        Type::Bytes => prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| Value::Bytes(Bytes::from(bytes)))
            .boxed(),
        Type::Array(element) => prop::collection::vec(value(element), 0..4)
            .prop_map(Value::Array)
            .boxed(),
        Type::Map(key, element) => prop::collection::vec((value(key), value(element)), 0..4)
            .prop_map(Value::Map)
            .boxed(),
        Type::Struct(fields) => {
            let values: Vec<_> = fields.iter().map(|field| value(&field.schema)).collect();
            values.prop_map(Value::Struct).boxed()
        }
    };
    if schema.optional {
        prop_oneof![1 => Just(Value::Null), 4 => some].boxed()
    } else {
        some
    }
}

/// A schema and a value of it.
pub fn pair() -> impl Strategy<Value = (SchemaRef, Value)> {
    schema().prop_flat_map(|schema| {
        let value = value(&schema);
        (Just(schema), value)
    })
}

/// A value that needs no schema.
pub fn untyped() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::Int8),
        any::<i16>().prop_map(Value::Int16),
        any::<i32>().prop_map(Value::Int32),
        any::<i64>().prop_map(Value::Int64),
        any::<f32>().prop_map(Value::Float32),
        any::<f64>().prop_map(Value::Float64),
        any::<String>().prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Value::Map),
        ]
    })
}

/// The value's encoding, which tells apart what `==` does not (zeros) and finds equal what it does not (NaN).
pub fn encoded(schema: Option<&Schema>, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value
        .encode(schema, &mut out)
        .expect("a value fits its own schema");
    out
}

/// Reads everything there is in a frame, in every way there is. What is malformed gives errors, never panics.
pub fn walk(frame: &Frame) {
    for record in frame.records() {
        let _ = (
            record.topic(),
            record.partition(),
            record.offset(),
            record.timestamp(),
        );
        for (schema, value) in [
            (record.key_schema(), record.key()),
            (record.value_schema(), record.value()),
        ] {
            if let Ok(value) = value {
                walk_value(schema.map(|schema| &**schema), value);
            }
        }
        for header in record.headers().flatten() {
            walk_value(header.schema.map(|schema| &**schema), header.value);
        }
    }
    for schema in frame.schemas() {
        let _ = schema.json();
    }
    let _ = (frame.topics(), frame.positions());
}

pub fn walk_value(schema: Option<&Schema>, value: ValueRef<'_>) {
    let _ = value.to_value();
    for format in [DecimalFormat::Base64, DecimalFormat::Numeric] {
        let mut out = Vec::new();
        if write_value(value, schema, format, &mut out).is_ok() {
            serde_json::from_slice::<serde::de::IgnoredAny>(&out).expect("what is written is JSON");
        }
    }
    if let Some(structure) = value.as_struct() {
        let _ = structure.get("no such field");
    }
    let _ = (
        value.kind(),
        value.as_str(),
        value.as_i64(),
        value.is_null(),
        format!("{value:?}"),
    );
}
