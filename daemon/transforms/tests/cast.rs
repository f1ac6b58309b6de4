//! Cast: what each type becomes, with and without schema.

mod support;

use support::*;
use tidewater_plugin_api::{Schema, Type, Value, logical};
use tidewater_transforms::Datum;

const NESTED: (&str, &str) = ("field.syntax.version", "V2");

fn decimal(scale: &str) -> Schema {
    bytes().named(logical::DECIMAL).parameter("scale", scale)
}

#[test]
fn every_type_is_cast_as_in_java() {
    let f32 = Schema::new(Type::Float32);
    let int16 = Schema::new(Type::Int16);
    let bytes_of = |bytes: &'static [u8]| Value::Bytes(bytes.into());
    let table = [
        (int32(), Value::Int32(300), "int8", "int8 44"),
        (int32(), Value::Int32(-1), "int64", "int64 -1"),
        (int64(), Value::Int64(1 << 40), "int32", "int32 0"),
        (int64(), Value::Int64(7), "boolean", "boolean true"),
        (int8(), Value::Int8(0), "boolean", "boolean false"),
        (int8(), Value::Int8(-5), "float64", "double -5.0"),
        (int16, Value::Int16(12), "string", "string \"12\""),
        (float64(), Value::Float64(3.99), "int32", "int32 3"),
        (
            float64(),
            Value::Float64(1e30),
            "int64",
            "int64 9223372036854775807",
        ),
        (float64(), Value::Float64(1e30), "int8", "int8 -1"),
        (float64(), Value::Float64(f64::NAN), "int32", "int32 0"),
        (float64(), Value::Float64(0.5), "boolean", "boolean false"),
        (float64(), Value::Float64(1e10), "string", "string \"1.0E10\""),
        (f32.clone(), Value::Float32(0.1), "string", "string \"0.1\""),
        (f32, Value::Float32(1.5), "float64", "double 1.5"),
        (bool(), Value::Bool(true), "int8", "int8 1"),
        (bool(), Value::Bool(true), "string", "string \"true\""),
        (bool(), Value::Bool(false), "float32", "float 0.0"),
        (string(), text("42"), "int8", "int8 42"),
        (string(), text("+42"), "int64", "int64 42"),
        (string(), text(" 1.5f "), "float32", "float 1.5"),
        (string(), text("TRUE"), "boolean", "boolean true"),
        (string(), text("yes"), "boolean", "boolean false"),
        (bytes(), bytes_of(&[1, 2, 3]), "string", "string \"AQID\""),
        (
            decimal("2"),
            bytes_of(&[0x30, 0x39]),
            "string",
            "string \"123.45\"",
        ),
        (decimal("2"), bytes_of(&[0x30, 0x39]), "int32", "int32 123"),
        (decimal("2"), bytes_of(&[0x30, 0x39]), "float64", "double 123.45"),
        (decimal("0"), bytes_of(&[0]), "boolean", "boolean false"),
        (
            int32().named(logical::CONNECT_DATE),
            Value::Int32(18_695),
            "string",
            "string \"2021-03-09\"",
        ),
        (
            int32().named(logical::CONNECT_TIME),
            Value::Int32(1),
            "string",
            "string \"00:00:00.001Z\"",
        ),
        (
            int64().named(logical::CONNECT_TIMESTAMP),
            Value::Int64(0),
            "string",
            "string \"1970-01-01T00:00:00.000Z\"",
        ),
        (
            int64().named(logical::CONNECT_TIMESTAMP),
            Value::Int64(5),
            "int32",
            "int32 5",
        ),
    ];
    for (schema, value, target, expected) in table {
        assert_eq!(
            outcome("Cast", &[("spec", target)], &typed(schema.clone(), value.clone())),
            expected,
            "the whole"
        );
        let spec = format!("a:{target}");
        let datum = st(vec![
            ("a", schema.clone(), value.clone()),
            ("b", int8(), Value::Int8(1)),
        ]);
        assert_eq!(
            outcome("Cast", &[("spec", &spec)], &datum),
            format!("{{a: {expected}, b: int8 1}}"),
            "a field"
        );
        if schema.name.is_none() {
            let (kind, shown) = expected.split_once(' ').expect("type and value");
            let shown = if kind == "string" {
                shown.to_owned()
            } else {
                expected.to_owned()
            };
            assert_eq!(outcome("Cast", &[("spec", target)], &plain(value.clone())), shown);
            let found = outcome(
                "Cast",
                &[("spec", &spec)],
                &map(vec![("a", value), ("b", text("x"))]),
            );
            assert_eq!(found, format!("{{a {shown}, b \"x\"}}"), "without schema");
        }
    }
}

#[test]
fn nulls_options_defaults_and_paths() {
    let (inner, inner_value) = nested(vec![("b", string(), text("7")), ("c", int8(), Value::Int8(1))]);
    check(
        "Cast",
        vec![
            (&[("spec", "int32")], Datum::null(), "null"),
            (
                &[("spec", "int32")],
                typed(string().optional(), Value::Null),
                "string? null",
            ),
            (
                &[("spec", "a:int32")],
                st(vec![("a", string().optional(), Value::Null)]),
                "{a: int32? null}",
            ),
            (
                &[("spec", "a:int32")],
                st(vec![(
                    "a",
                    string().default_value(text("9")).optional(),
                    Value::Null,
                )]),
                "{a: int32?=9 9}",
            ),
            (
                &[("spec", "a:int32"), ("replace.null.with.default", "false")],
                st(vec![(
                    "a",
                    string().default_value(text("9")).optional(),
                    Value::Null,
                )]),
                "{a: int32?=9 null}",
            ),
            (
                &[("spec", "a:string,x:int8")],
                st(vec![
                    ("a", int8(), Value::Int8(1)),
                    ("d", int8().optional().default_value(Value::Int8(4)), Value::Null),
                ]),
                "{a: string \"1\", d: int8?=4 4}",
            ),
            (
                &[("spec", "x:string")],
                st(vec![("a", int8(), Value::Int8(1))]),
                "{a: int8 1}",
            ),
            (
                &[("spec", "x:string")],
                map(vec![("a", Value::Int8(1))]),
                "{a int8 1, x null}",
            ),
            (
                &[("spec", "a.b:int8"), NESTED],
                st(vec![("a", inner.clone(), inner_value.clone())]),
                "{a: {b: int8 7, c: int8 1}}",
            ),
            (
                &[("spec", "a.b:int8"), NESTED],
                st(vec![("a", inner.clone().optional(), Value::Null)]),
                "{a: struct? null}",
            ),
            (
                &[("spec", "a.b:int8"), NESTED],
                map(vec![("a", pairs(vec![("b", text("7"))]))]),
                "{a {b int8 7}}",
            ),
            (
                &[("spec", "a.b:int8"), NESTED],
                map(vec![("a", text("7"))]),
                "{a \"7\"}",
            ),
            (
                &[("spec", "a.b:int8")],
                st(vec![("a.b", string(), text("7"))]),
                "{a.b: int8 7}",
            ),
            (
                &[("spec", "`a.b`:int8"), NESTED],
                st(vec![("a.b", string(), text("7"))]),
                "{a.b: int8 7}",
            ),
        ],
    );
}

#[test]
fn what_cannot_be_cast_is_told() {
    let list = typed(Schema::array(int8()), Value::Array(vec![]));
    check(
        "Cast",
        vec![
            (
                &[("spec", "int8")],
                typed(string(), text("300")),
                "error: …cannot become int8",
            ),
            (
                &[("spec", "int8")],
                typed(string(), text("secret")),
                "error: …no such number",
            ),
            (
                &[("spec", "int8")],
                typed(bytes(), Value::Bytes("x".into())),
                "error: …bytes can only become string",
            ),
            (&[("spec", "string")], list, "error: …is of type array"),
            (
                &[("spec", "a:int8")],
                typed(int32(), Value::Int32(1)),
                "error: …is of type int32, expected struct",
            ),
            (&[("spec", "a:int8")], plain(text("x")), "error: …expected map"),
            (
                &[("spec", "a:int8")],
                st(vec![("a", string(), text("x"))]),
                "error: …field \"a\" of the value",
            ),
            (
                &[("spec", "a:int8")],
                map(vec![("a", pairs(vec![]))]),
                "error: …is of type map",
            ),
        ],
    );
    let error = outcome("Cast", &[("spec", "int8")], &typed(string(), text("secret")));
    assert!(!error.contains("secret"), "{error}");
    for (spec, expected) in [
        ("", "must name at least one"),
        ("a:int9", "did you mean int8?"),
        ("a:bytes", "is no type to cast to"),
        ("int8,a:int8", "keep either"),
        (":int8", "must not be empty"),
    ] {
        assert!(
            problems_of("Cast$Value", &[("spec", spec)]).contains(expected),
            "{spec}"
        );
    }
}
