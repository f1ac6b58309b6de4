use std::sync::Arc;

use bytes::Bytes;
use tidewater_plugin_api::{Field, Schema, Type, Value, logical};

use super::super::table::{topic_bytes, value_of};
use super::*;

fn with(settings: &[(&str, &str)]) -> Result<JsonConverter, ConvertError> {
    let settings = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    JsonConverter::from_settings(&settings.collect())
}

fn text(bytes: Option<Vec<u8>>) -> String {
    bytes.map_or_else(|| "(null)".into(), |bytes| String::from_utf8(bytes).unwrap())
}

fn row() -> (SchemaRef, Value) {
    let schema = Schema::structure(vec![
        Field::new("id", Schema::new(Type::Int32)),
        Field::new("name", Schema::new(Type::String).optional()),
    ]);
    let value = Value::Struct(vec![Value::Int32(7), Value::String("a \"b\"\n".into())]);
    (Arc::new(schema.named("shop.Row")), value)
}

/// Every type as Connect's JSON converter documents it: the schema, the value, and both as JSON.
fn types() -> Vec<(Schema, Value, &'static str, &'static str)> {
    let s = |text: &str| Value::String(text.into());
    let bytes = |bytes: &'static [u8]| Value::Bytes(Bytes::from_static(bytes));
    let of = Schema::new;
    vec![
        (
            of(Type::Bool),
            Value::Bool(true),
            r#"{"type":"boolean","optional":false}"#,
            "true",
        ),
        (
            of(Type::Int8),
            Value::Int8(-12),
            r#"{"type":"int8","optional":false}"#,
            "-12",
        ),
        (
            of(Type::Int16),
            Value::Int16(12),
            r#"{"type":"int16","optional":false}"#,
            "12",
        ),
        (
            of(Type::Int32),
            Value::Int32(12),
            r#"{"type":"int32","optional":false}"#,
            "12",
        ),
        (
            of(Type::Int64),
            Value::Int64(4_398_046_511_104),
            r#"{"type":"int64","optional":false}"#,
            "4398046511104",
        ),
        (
            of(Type::Float32),
            Value::Float32(12.34),
            r#"{"type":"float","optional":false}"#,
            "12.34",
        ),
        (
            of(Type::Float64),
            Value::Float64(12.34),
            r#"{"type":"double","optional":false}"#,
            "12.34",
        ),
        (
            of(Type::Float64),
            Value::Float64(f64::INFINITY),
            r#"{"type":"double","optional":false}"#,
            "\"Infinity\"",
        ),
        (
            of(Type::String),
            s("test-string"),
            r#"{"type":"string","optional":false}"#,
            "\"test-string\"",
        ),
        (
            of(Type::Bytes),
            bytes(b"test-string"),
            r#"{"type":"bytes","optional":false}"#,
            "\"dGVzdC1zdHJpbmc=\"",
        ),
        (
            of(Type::String).optional(),
            Value::Null,
            r#"{"type":"string","optional":true}"#,
            "null",
        ),
        (
            Schema::array(of(Type::Int32)),
            Value::Array(vec![Value::Int32(1), Value::Int32(2)]),
            r#"{"type":"array","items":{"type":"int32","optional":false},"optional":false}"#,
            "[1,2]",
        ),
        (
            Schema::map(of(Type::String), of(Type::Int32)),
            Value::Map(vec![(s("key1"), Value::Int32(12)), (s("key2"), Value::Int32(15))]),
            r#"{"type":"map","keys":{"type":"string","optional":false},"values":{"type":"int32","optional":false},"optional":false}"#,
            r#"{"key1":12,"key2":15}"#,
        ),
        (
            Schema::map(of(Type::Int32), of(Type::Int32)),
            Value::Map(vec![(Value::Int32(1), Value::Int32(12))]),
            r#"{"type":"map","keys":{"type":"int32","optional":false},"values":{"type":"int32","optional":false},"optional":false}"#,
            "[[1,12]]",
        ),
        (
            of(Type::Bytes)
                .named(logical::DECIMAL)
                .version(1)
                .parameter("scale", "2"),
            bytes(&[0, 156]),
            r#"{"type":"bytes","optional":false,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2"}}"#,
            "\"AJw=\"",
        ),
        (
            of(Type::Int32).named(logical::CONNECT_DATE).version(1),
            Value::Int32(10_000),
            r#"{"type":"int32","optional":false,"name":"org.apache.kafka.connect.data.Date","version":1}"#,
            "10000",
        ),
        (
            of(Type::Int32).named(logical::CONNECT_TIME).version(1),
            Value::Int32(14_400_000),
            r#"{"type":"int32","optional":false,"name":"org.apache.kafka.connect.data.Time","version":1}"#,
            "14400000",
        ),
        (
            of(Type::Int64).named(logical::CONNECT_TIMESTAMP).version(1),
            Value::Int64(4_000_000_000),
            r#"{"type":"int64","optional":false,"name":"org.apache.kafka.connect.data.Timestamp","version":1}"#,
            "4000000000",
        ),
        (
            of(Type::Int32).default_value(Value::Int32(5)),
            Value::Int32(6),
            r#"{"type":"int32","optional":false,"default":5}"#,
            "6",
        ),
    ]
}

#[test]
fn every_type_is_written_and_read_as_connect_does() {
    for (schema, value, schema_json, payload) in types() {
        let schema = Arc::new(schema);
        let converter = &mut JsonConverter::new(true);
        let written = topic_bytes(converter, Some(&schema), &value).unwrap();
        let envelope = format!(r#"{{"schema":{schema_json},"payload":{payload}}}"#);
        assert_eq!(text(written), envelope);
        // At first sight, and from memory.
        for _ in 0..2 {
            let (read, back) = value_of(converter, Some(envelope.as_bytes())).unwrap();
            assert_eq!(
                (read.as_ref(), back),
                (Some(&schema), value.clone()),
                "{envelope}"
            );
        }
        if value != Value::Null {
            let written = topic_bytes(&mut JsonConverter::new(false), Some(&schema), &value).unwrap();
            assert_eq!(text(written), payload);
        }
    }
}

#[test]
fn json_without_schemas_is_read_as_connect_does() {
    let s = |text: &str| Value::String(text.into());
    let table = [
        ("true", Value::Bool(true)),
        ("12", Value::Int64(12)),
        ("12.34", Value::Float64(12.34)),
        ("1e2", Value::Float64(100.0)),
        ("\"a string\"", s("a string")),
        (
            "[1, \"string\", 3]",
            Value::Array(vec![Value::Int64(1), s("string"), Value::Int64(3)]),
        ),
        (
            "{\"field1\": 1, \"field2\": null}",
            Value::Map(vec![(s("field1"), Value::Int64(1)), (s("field2"), Value::Null)]),
        ),
        (" null ", Value::Null),
    ];
    for (json, value) in table {
        let plain = value_of(&mut JsonConverter::new(false), Some(json.as_bytes())).unwrap();
        assert_eq!(plain, (None, value.clone()), "{json}");
        let envelope = format!("{{\"schema\":null,\"payload\":{json}}}");
        let read = value_of(&mut JsonConverter::new(true), Some(envelope.as_bytes())).unwrap();
        assert_eq!(read, (None, value), "{envelope}");
    }
    // Written without a schema, a map whose keys are not all text is a list of pairs.
    let map = Value::Map(vec![(s("a"), Value::Int32(1)), (Value::Int32(2), Value::Null)]);
    let written = topic_bytes(&mut JsonConverter::new(true), None, &map).unwrap();
    assert_eq!(text(written), r#"{"schema":null,"payload":[["a",1],[2,null]]}"#);
}

#[test]
fn decimals_are_bytes_or_numbers_and_read_in_both_forms() {
    let schema = Arc::new(
        Schema::new(Type::Bytes)
            .named(logical::DECIMAL)
            .parameter("scale", "2"),
    );
    let value = Value::Bytes(Bytes::from_static(&[0, 156]));
    for (format, payload) in [("BASE64", "\"AJw=\""), ("numeric", "1.56")] {
        let converter = &mut with(&[("decimal.format", format)]).unwrap();
        let written = text(topic_bytes(converter, Some(&schema), &value).unwrap());
        assert!(
            written.ends_with(&format!("\"payload\":{payload}}}")),
            "{written}"
        );
        for other in ["BASE64", "NUMERIC"] {
            let reader = &mut with(&[("decimal.format", other)]).unwrap();
            assert_eq!(value_of(reader, Some(written.as_bytes())).unwrap().1, value);
        }
    }
}

#[test]
fn takes_any_order_and_spacing() {
    let (_, value) = row();
    let json = br#" { "payload" : {"name": "a \"b\"\n", "extra": [1], "id": 7} , "schema" : {"type":"struct","fields":[{"type":"int32","field":"id"},{"field":"name","type":"string","optional":true}]} } "#;
    assert_eq!(
        value_of(&mut JsonConverter::new(true), Some(json)).unwrap().1,
        value
    );
}

#[test]
fn one_schema_in_two_texts_is_one_schema() {
    let (schema, value) = row();
    let converter = &mut JsonConverter::new(true);
    let written = topic_bytes(converter, Some(&schema), &value).unwrap().unwrap();
    let (first, _) = value_of(converter, Some(&written)).unwrap();
    let spaced = String::from_utf8(written)
        .unwrap()
        .replace("\"payload\":", " \"payload\" : ");
    let (second, _) = value_of(converter, Some(spaced.as_bytes())).unwrap();
    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
}

#[test]
fn more_schemas_than_the_cache_holds_are_read_all_the_same() {
    let converter = &mut with(&[("schemas.cache.size", "2")]).unwrap();
    for round in 0..2 {
        for version in 0..5 {
            let json = format!(
                r#"{{"schema":{{"type":"int32","optional":false,"version":{version}}},"payload":{round}}}"#
            );
            let (schema, value) = value_of(converter, Some(json.as_bytes())).unwrap();
            assert_eq!(schema.unwrap().version, Some(version));
            assert_eq!(value, Value::Int32(round));
        }
    }
    assert_eq!(converter.known.prefixes.len(), 2);
}

#[test]
fn nulls_are_tombstones_or_payloads() {
    let optional = Arc::new(Schema::new(Type::Int32).optional());
    let required = Arc::new(Schema::new(Type::Int32));
    let (on, off) = (&mut JsonConverter::new(true), &mut JsonConverter::new(false));
    assert_eq!(topic_bytes(on, None, &Value::Null), Ok(None));
    assert_eq!(topic_bytes(off, None, &Value::Null), Ok(None));
    assert_eq!(topic_bytes(off, Some(&optional), &Value::Null), Ok(None));
    let written = text(topic_bytes(on, Some(&optional), &Value::Null).unwrap());
    assert!(written.ends_with("\"payload\":null}"), "{written}");
    assert_eq!(
        value_of(on, Some(written.as_bytes())),
        Ok((Some(optional), Value::Null))
    );
    let error = topic_bytes(on, Some(&required), &Value::Null).unwrap_err();
    assert!(error.0.contains("required"), "{error}");
    for converter in [on, off] {
        assert_eq!(value_of(converter, None), Ok((None, Value::Null)));
    }
}

#[test]
fn nulls_become_defaults_where_that_is_asked_for() {
    let field = Schema::new(Type::Int32).optional().default_value(Value::Int32(5));
    let schema = Arc::new(Schema::structure(vec![
        Field::new("id", Schema::new(Type::Int32)),
        Field::new("n", field.clone()),
        Field::new("list", Schema::array(field)),
    ]));
    let value = |n: Value| Value::Struct(vec![Value::Int32(1), n.clone(), Value::Array(vec![n])]);
    let (kept, replaced) = (value(Value::Null), value(Value::Int32(5)));
    let keeps = &mut JsonConverter::new(true);
    let replaces = &mut with(&[("replace.null.with.default", "true")]).unwrap();

    let with_nulls = text(topic_bytes(keeps, Some(&schema), &kept).unwrap());
    assert!(
        with_nulls.ends_with(r#"{"id":1,"n":null,"list":[null]}}"#),
        "{with_nulls}"
    );
    let without = text(topic_bytes(replaces, Some(&schema), &kept).unwrap());
    assert!(without.ends_with(r#"{"id":1,"n":5,"list":[5]}}"#), "{without}");
    assert_eq!(value_of(keeps, Some(with_nulls.as_bytes())).unwrap().1, kept);
    assert_eq!(
        value_of(replaces, Some(with_nulls.as_bytes())).unwrap().1,
        replaced
    );

    // The whole value, too.
    let whole = Arc::new(Schema::new(Type::Int32).optional().default_value(Value::Int32(5)));
    let json = br#"{"schema":{"type":"int32","optional":true,"default":5},"payload":null}"#;
    assert_eq!(value_of(replaces, Some(json)).unwrap().1, Value::Int32(5));
    assert_eq!(value_of(keeps, Some(json)).unwrap().1, Value::Null);
    let written = text(topic_bytes(replaces, Some(&whole), &Value::Null).unwrap());
    assert!(written.ends_with("\"payload\":5}"), "{written}");
    let mut scratch = Vec::new();
    let written = replaces.to_topic(Some(&whole), None, &mut scratch).unwrap();
    assert!(written.unwrap().ends_with(b"\"payload\":5}"));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let table = [
        (true, "{\"id\":1}", "set schemas.enable=false"),
        (true, "[1]", "set schemas.enable=false"),
        (true, "", "EOF"),
        (false, "{\"id\":", "EOF"),
        (false, "1 2", "trailing"),
        (false, "nil", "expected"),
        (
            true,
            r#"{"schema":{"type":"text"},"payload":1}"#,
            "unknown schema type \"text\"",
        ),
        (true, r#"{"schema":{},"payload":1}"#, "no \"type\""),
        (
            true,
            r#"{"schema":{"type":"struct","fields":[{"type":"struct","field":"a","fields":[{"type":"int32","field":"id"}]}]},"payload":{"a":{"id":"x"}}}"#,
            "field a: field id: ",
        ),
        (
            true,
            r#"{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{}}"#,
            "id",
        ),
        (
            true,
            r#"{"schema":{"type":"int8"},"payload":128}"#,
            "128 does not fit int8",
        ),
        (true, r#"{"schema":{"type":"int8"},"payload":1.5}"#, "int8"),
        (true, r#"{"schema":{"type":"bytes"},"payload":"%"}"#, "base64"),
        (true, r#"{"schema":{"type":"boolean"},"payload":null}"#, "boolean"),
    ];
    for (schemas, json, said) in table {
        let error = value_of(&mut JsonConverter::new(schemas), Some(json.as_bytes())).unwrap_err();
        assert!(error.0.contains(said), "{json}: {error}");
    }
    for (key, value) in [
        ("schemas.enable", "yes"),
        ("decimal.format", "TEXT"),
        ("schemas.cache.size", "-1"),
        ("replace.null.with.default", "1"),
    ] {
        let error = with(&[(key, value)]).unwrap_err();
        assert!(error.0.contains(key) && error.0.contains(value), "{error}");
    }
}
