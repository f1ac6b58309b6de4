//! Records as text, so that a test is a table: what goes in, how it is configured, what comes out.

#![allow(dead_code)] // each test takes what it needs

use std::fmt::Write as _;

use tidewater_plugin_api::{ConfigMap, Field, Schema, Type, Value};
use tidewater_transforms::{Chain, Datum, Header, Record};

/// The keys of one transform.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// A field of a struct: its name, its schema, its value.
pub type Part = (&'static str, Schema, Value);

pub fn bool() -> Schema {
    Schema::new(Type::Bool)
}
pub fn int8() -> Schema {
    Schema::new(Type::Int8)
}
pub fn int32() -> Schema {
    Schema::new(Type::Int32)
}
pub fn int64() -> Schema {
    Schema::new(Type::Int64)
}
pub fn float64() -> Schema {
    Schema::new(Type::Float64)
}
pub fn string() -> Schema {
    Schema::new(Type::String)
}
pub fn bytes() -> Schema {
    Schema::new(Type::Bytes)
}
pub fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// A struct schema and its value, to nest.
pub fn nested(parts: Vec<Part>) -> (Schema, Value) {
    let (fields, values) = parts
        .into_iter()
        .map(|(name, schema, value)| (Field::new(name, schema), value))
        .unzip();
    (Schema::structure(fields), Value::Struct(values))
}

/// A struct.
pub fn st(parts: Vec<Part>) -> Datum {
    let (schema, value) = nested(parts);
    Datum::new(Some(schema.into()), value)
}

/// A value with a schema.
pub fn typed(schema: Schema, value: Value) -> Datum {
    Datum::new(Some(schema.into()), value)
}

/// The pairs of a map.
pub fn pairs(pairs: Vec<(&str, Value)>) -> Value {
    Value::Map(
        pairs
            .into_iter()
            .map(|(name, value)| (text(name), value))
            .collect(),
    )
}

/// A map without schema.
pub fn map(of: Vec<(&str, Value)>) -> Datum {
    Datum::new(None, pairs(of))
}

/// A value without schema.
pub fn plain(value: Value) -> Datum {
    Datum::new(None, value)
}

pub fn config(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// The configuration of one transform called `t`.
pub fn config_of(class: &str, settings: &[(&str, &str)]) -> ConfigMap {
    let mut all = config(&[("transforms", "t"), ("transforms.t.type", class)]);
    all.extend(
        settings
            .iter()
            .map(|(key, value)| (format!("transforms.t.{key}"), (*value).to_owned())),
    );
    all
}

pub fn chain_of(class: &str, settings: &[(&str, &str)]) -> Chain {
    match Chain::new(&config_of(class, settings)) {
        Ok(chain) => chain,
        Err(problems) => panic!("{class} with {settings:?}: {problems:?}"),
    }
}

/// The problems of one transform's configuration, a line each.
pub fn problems_of(class: &str, settings: &[(&str, &str)]) -> String {
    let problems = Chain::new(&config_of(class, settings)).expect_err(class);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// What `datum` becomes, as text. It is tried as value and as key where the class has variants, decoded and encoded: the
/// outcome is the same.
pub fn outcome(class: &str, settings: &[(&str, &str)], datum: &Datum) -> String {
    let mut outcomes = Vec::new();
    for side in ["$Value", "$Key"] {
        let class = format!("{class}{side}");
        for datum in [datum.clone(), encoded(datum)] {
            let mut record = Record::new("topic", plain(text("the other half")));
            if side == "$Key" {
                record.key = datum;
            } else {
                record.key = std::mem::replace(&mut record.value, datum);
            }
            let untouched = if side == "$Key" {
                record.value.clone()
            } else {
                record.key.clone()
            };
            let outcome = match chain_of(&class, settings).apply(record) {
                Ok(Some(mut record)) => {
                    let (this, other) = if side == "$Key" {
                        (&mut record.key, &record.value)
                    } else {
                        (&mut record.value, &record.key)
                    };
                    assert_eq!(*other, untouched, "the other half stays");
                    fits(this);
                    show(this)
                }
                Ok(None) => "dropped".into(),
                Err(error) => format!("error: {}", error.fault)
                    .replace("of the key", "of the value")
                    .replace("record's key", "record's value"),
            };
            outcomes.push(outcome);
        }
    }
    let first = outcomes.remove(0);
    for outcome in outcomes {
        assert_eq!(outcome, first, "decoded or encoded, key or value");
    }
    first
}

/// Checks a table of outcomes.
pub fn check(class: &str, table: Vec<(Settings<'_>, Datum, &str)>) {
    for (settings, datum, expected) in table {
        let found = outcome(class, settings, &datum);
        if let Some(part) = expected.strip_prefix("error: …") {
            assert!(
                found.starts_with("error: ") && found.contains(part),
                "{class} {settings:?} of {}: {found}",
                show(&mut datum.clone())
            );
        } else {
            assert_eq!(
                found,
                expected,
                "{class} {settings:?} of {}",
                show(&mut datum.clone())
            );
        }
    }
}

/// The whole record as text, after a transform of the whole record.
pub fn whole(class: &str, settings: &[(&str, &str)], record: &Record) -> String {
    match chain_of(class, settings).apply(record.clone()) {
        Ok(Some(mut record)) => show_record(&mut record),
        Ok(None) => "dropped".into(),
        Err(error) => format!("error: {}", error.fault),
    }
}

pub fn show_record(record: &mut Record) -> String {
    for datum in [&record.key, &record.value] {
        fits(datum);
    }
    let mut out = format!(
        "{} {} -> {}",
        record.topic,
        show(&mut record.key),
        show(&mut record.value)
    );
    for header in &mut record.headers {
        fits(&header.value);
        write!(out, " | {}: {}", header.name, show(&mut header.value)).expect("written");
    }
    out
}

pub fn header(name: &str, value: &str) -> Header {
    Header::new(name, typed(string(), text(value)))
}

/// A value fits its schema: it can be encoded.
fn fits(datum: &Datum) {
    if !datum.is_null() {
        datum
            .encode(&mut Vec::new())
            .expect("what comes out fits its schema");
    }
}

/// The same datum, encoded.
pub fn encoded(datum: &Datum) -> Datum {
    let mut bytes = Vec::new();
    if !datum.encode(&mut bytes).expect("what goes in fits its schema") {
        return datum.clone();
    }
    Datum::encoded(datum.schema().cloned(), bytes.into())
}

/// `int32 1`, `string? null`, `{a: int64<Timestamp> 5}`, `{a int32 1}` for a map without schema.
pub fn show(datum: &mut Datum) -> String {
    let schema = datum.schema().cloned();
    let value = datum.value().expect("decoded");
    let mut out = String::new();
    match schema {
        Some(schema) => show_typed(&schema, value, &mut out),
        None => show_plain(value, &mut out),
    }
    out
}

fn show_typed(schema: &Schema, value: &Value, out: &mut String) {
    if let (Type::Struct(fields), Value::Struct(values)) = (&schema.ty, value) {
        out.push_str(&name(schema));
        if schema.optional {
            out.push('?');
        }
        out.push('{');
        for (index, (field, value)) in fields.iter().zip(values).enumerate() {
            write!(out, "{}{}: ", if index > 0 { ", " } else { "" }, field.name).expect("written");
            show_typed(&field.schema, value, out);
        }
        out.push('}');
        return;
    }
    write!(out, "{}{}", schema.ty.name(), name(schema)).expect("written");
    if schema.optional {
        out.push('?');
    }
    if let Some(default) = &schema.default {
        out.push('=');
        show_value(default, out);
    }
    out.push(' ');
    show_value(value, out);
}

fn name(schema: &Schema) -> String {
    let Some(name) = &schema.name else {
        return String::new();
    };
    let short = name
        .strip_prefix("org.apache.kafka.connect.data.")
        .unwrap_or(name);
    format!("<{short}>")
}

fn show_plain(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Map(_) | Value::String(_) => {}
        other => write!(out, "{} ", other.kind()).expect("written"),
    }
    show_value(value, out);
}

fn show_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(v) => write!(out, "{v}").expect("written"),
        Value::Int8(v) => write!(out, "{v}").expect("written"),
        Value::Int16(v) => write!(out, "{v}").expect("written"),
        Value::Int32(v) => write!(out, "{v}").expect("written"),
        Value::Int64(v) => write!(out, "{v}").expect("written"),
        Value::Float32(v) => write!(out, "{v:?}").expect("written"),
        Value::Float64(v) => write!(out, "{v:?}").expect("written"),
        Value::String(v) => write!(out, "{v:?}").expect("written"),
        Value::Bytes(v) => write!(out, "{:?}", &**v).expect("written"),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                show_value(item, out);
            }
            out.push(']');
        }
        Value::Struct(values) => {
            out.push('(');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                show_value(value, out);
            }
            out.push(')');
        }
        Value::Map(pairs) => {
            out.push('{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                match key {
                    Value::String(name) => out.push_str(name),
                    key => show_plain(key, out),
                }
                out.push(' ');
                show_plain(value, out);
            }
            out.push('}');
        }
    }
}
