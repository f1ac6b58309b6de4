//! Every type's values arrive exactly, edge values included: in columns made for them, by parameters and by COPY, and in
//! columns of other types that Postgres can make of them.
#![allow(clippy::unwrap_used)] // a failure is the message

mod sink_support;
mod support;

use std::collections::BTreeMap;

use sink_support::{Sink, Table, UPSERT, int, int32, rows, string, text};
use support::Postgres;
use tidewater_plugin_api::json::decimal_from_str;
use tidewater_plugin_api::{Field, Schema, Type, Value};

fn of(ty: Type, name: &str) -> Schema {
    Schema::new(ty).named(name)
}

fn decimal(scale: i32) -> Schema {
    of(Type::Bytes, "org.apache.kafka.connect.data.Decimal").parameter("scale", scale.to_string())
}

fn number(text: &str, scale: i32) -> Value {
    Value::Bytes(decimal_from_str(text, scale).unwrap().into())
}

fn variable() -> Schema {
    let fields = vec![
        Field::new("scale", int32()),
        Field::new("value", Schema::new(Type::Bytes)),
    ];
    Schema::structure(fields).named("io.debezium.data.VariableScaleDecimal")
}

fn variable_number(text: &str, scale: i32) -> Value {
    Value::Struct(vec![int(scale), number(text, scale)])
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec().into())
}

fn list(items: Vec<Value>) -> Value {
    Value::Array(items)
}

fn point() -> Schema {
    let fields = vec![
        Field::new("x", Schema::new(Type::Float64)),
        Field::new("y", Schema::new(Type::Float64)),
        Field::new("wkb", Schema::new(Type::Bytes).optional()),
        Field::new("srid", int32().optional()),
    ];
    Schema::structure(fields).named("io.debezium.data.geometry.Point")
}

const MAX_TIMESTAMP: i64 = 9_223_372_036_854_775_806;

/// Schema, the type of the column made for it, and values with the text that Postgres gives for them.
type Made = (Schema, &'static str, Vec<(Value, String)>);

fn made() -> Vec<Made> {
    use Value::{Bool, Float32, Float64, Int8, Int16, Int32, Int64};
    let case = |schema, ty, values: Vec<(Value, &str)>| {
        let values = values
            .into_iter()
            .map(|(value, text)| (value, text.to_owned()))
            .collect();
        (schema, ty, values)
    };
    let huge = "-123456789012345678901234567890123456789012345678901234567890.12";
    let all_bytes: Vec<u8> = (0..=255).collect();
    let hex = all_bytes
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let inner = Schema::structure(vec![
        Field::new("a", int32()),
        Field::new("b", string().optional()),
    ]);
    vec![
        case(
            Schema::new(Type::Bool),
            "boolean",
            vec![(Bool(true), "true"), (Bool(false), "false")],
        ),
        case(Schema::new(Type::Int8), "smallint", vec![(Int8(-128), "-128")]),
        case(
            Schema::new(Type::Int16),
            "smallint",
            vec![(Int16(i16::MIN), "-32768")],
        ),
        case(
            int32(),
            "integer",
            vec![(Int32(i32::MIN), "-2147483648"), (Int32(i32::MAX), "2147483647")],
        ),
        case(
            Schema::new(Type::Int64),
            "bigint",
            vec![
                (Int64(i64::MIN), "-9223372036854775808"),
                (Int64(i64::MAX), "9223372036854775807"),
            ],
        ),
        case(
            Schema::new(Type::Float32),
            "real",
            vec![
                (Float32(f32::MAX), "3.4028235e+38"),
                (Float32(1e-45), "1e-45"),
                (Float32(-0.0), "-0"),
                (Float32(0.1), "0.1"),
                (Float32(f32::NAN), "NaN"),
                (Float32(f32::INFINITY), "Infinity"),
            ],
        ),
        case(
            Schema::new(Type::Float64),
            "double precision",
            vec![
                (Float64(f64::MAX), "1.7976931348623157e+308"),
                (Float64(5e-324), "5e-324"),
                (Float64(1.0 / 3.0), "0.3333333333333333"),
                (Float64(f64::NEG_INFINITY), "-Infinity"),
                (Float64(f64::NAN), "NaN"),
            ],
        ),
        case(
            string(),
            "text",
            vec![
                (text(""), ""),
                (text("NULL"), "NULL"),
                (text("\\N"), "\\N"),
                (text("ä\t日\r\n\\x41'\"🐘"), "ä\t日\r\n\\x41'\"🐘"),
            ],
        ),
        (
            Schema::new(Type::Bytes),
            "bytea",
            vec![
                (bytes(&all_bytes), format!("\\x{hex}")),
                (bytes(&[]), "\\x".into()),
            ],
        ),
        case(
            decimal(2),
            "numeric",
            vec![
                (number("0", 2), "0.00"),
                (number("-0.05", 2), "-0.05"),
                (number(huge, 2), huge),
                (bytes(&[]), "0.00"),
            ],
        ),
        case(decimal(-3), "numeric", vec![(number("123000", -3), "123000")]),
        case(
            decimal(2).parameter("connect.decimal.precision", "10"),
            "numeric(10,2)",
            vec![(number("99999999.99", 2), "99999999.99")],
        ),
        case(
            variable(),
            "numeric",
            vec![
                (variable_number("1.50", 2), "1.50"),
                (variable_number("1e3", -3), "1000"),
                (variable_number(huge, 2), huge),
            ],
        ),
        case(
            of(Type::Int32, "io.debezium.time.Date"),
            "date",
            vec![
                (int(0), "1970-01-01"),
                (int(11_016), "2000-02-29"),
                (int(-719_528), "0001-01-01 BC"),
                (int(-2_440_588), "4714-11-24 BC"),
                (int(2_145_042_905), "5874897-12-31"),
                (int(i32::MAX), "infinity"),
                (int(i32::MIN), "-infinity"),
            ],
        ),
        case(
            of(Type::Int32, "org.apache.kafka.connect.data.Date"),
            "date",
            vec![(int(-1), "1969-12-31")],
        ),
        case(
            of(Type::Int32, "io.debezium.time.Time"),
            "time without time zone",
            vec![(int(86_400_000), "24:00:00"), (int(1), "00:00:00.001")],
        ),
        case(
            of(Type::Int64, "io.debezium.time.MicroTime"),
            "time without time zone",
            vec![
                (Int64(86_400_000_000), "24:00:00"),
                (Int64(86_399_999_999), "23:59:59.999999"),
                (Int64(0), "00:00:00"),
            ],
        ),
        case(
            of(Type::Int64, "io.debezium.time.NanoTime"),
            "time without time zone",
            vec![(Int64(1_234_567_000), "00:00:01.234567")],
        ),
        case(
            of(Type::String, "io.debezium.time.ZonedTime"),
            "time with time zone",
            vec![
                (text("23:59:59.999999+15:59"), "23:59:59.999999+15:59"),
                (text("24:00:00Z"), "24:00:00+00"),
            ],
        ),
        case(
            of(Type::Int64, "io.debezium.time.Timestamp"),
            "timestamp without time zone",
            vec![
                (Int64(1_582_934_400_123), "2020-02-29 00:00:00.123"),
                (Int64(9_223_372_036_825_200), "infinity"),
            ],
        ),
        case(
            of(Type::Int64, "org.apache.kafka.connect.data.Timestamp"),
            "timestamp without time zone",
            vec![(Int64(-1), "1969-12-31 23:59:59.999")],
        ),
        case(
            of(Type::Int64, "io.debezium.time.MicroTimestamp"),
            "timestamp without time zone",
            vec![
                (Int64(-1), "1969-12-31 23:59:59.999999"),
                (Int64(MAX_TIMESTAMP), "294247-01-10 04:00:54.775806"),
                (Int64(-62_135_596_800_000_001), "0001-12-31 23:59:59.999999 BC"),
                (Int64(-210_866_803_200_000_000), "4714-11-24 00:00:00 BC"),
                (Int64(9_223_372_036_825_200_000), "infinity"),
                (Int64(-9_223_372_036_832_400_000), "-infinity"),
            ],
        ),
        case(
            of(Type::Int64, "io.debezium.time.NanoTimestamp"),
            "timestamp without time zone",
            vec![(Int64(1_234_567_000), "1970-01-01 00:00:01.234567")],
        ),
        case(
            of(Type::String, "io.debezium.time.ZonedTimestamp"),
            "timestamp with time zone",
            vec![
                (
                    text("2020-02-29T01:02:03.123456Z"),
                    "2020-02-29 01:02:03.123456+00",
                ),
                (text("2020-02-29T01:02:03+02:00"), "2020-02-28 23:02:03+00"),
                (text("-0043-03-15T12:00:00Z"), "0044-03-15 12:00:00+00 BC"),
                (text("+294246-12-31T00:00:00Z"), "294246-12-31 00:00:00+00"),
                (
                    text("294276-12-31T23:59:59.999999Z"),
                    "294276-12-31 23:59:59.999999+00",
                ),
                (text("infinity"), "infinity"),
                (text("-290308-12-21T19:59:27.600Z"), "-infinity"),
            ],
        ),
        case(
            of(Type::Int64, "io.debezium.time.MicroDuration"),
            "interval",
            vec![
                (Int64(93_784_000_001), "26:03:04.000001"),
                (Int64(-1), "-00:00:00.000001"),
                (Int64(i64::MAX), "2562047788:00:54.775807"),
            ],
        ),
        case(
            of(Type::String, "io.debezium.time.Interval"),
            "interval",
            vec![
                (text("P1Y2M3DT4H5M6.789S"), "1 year 2 mons 3 days 04:05:06.789"),
                (text("P-1Y2M-3DT-4H-5M-6.789S"), "-10 mons -3 days -04:05:06.789"),
                (text("P0Y0M0DT0H0M0S"), "00:00:00"),
            ],
        ),
        case(
            of(Type::String, "io.debezium.data.Uuid"),
            "uuid",
            vec![(
                text("6f1c7c1e-9f5d-4c0a-8d1f-000000000001"),
                "6f1c7c1e-9f5d-4c0a-8d1f-000000000001",
            )],
        ),
        case(
            of(Type::String, "io.debezium.data.Json"),
            "json",
            vec![(
                text("{\"b\": 1.0,  \"a\":\"\\u0000\\t\", \"b\":[]}"),
                "{\"b\": 1.0,  \"a\":\"\\u0000\\t\", \"b\":[]}",
            )],
        ),
        case(
            of(Type::String, "io.debezium.data.Xml"),
            "xml",
            vec![(text("<a b=\"c\">ü&amp;</a>"), "<a b=\"c\">ü&amp;</a>")],
        ),
        case(
            of(Type::String, "io.debezium.data.Enum"),
            "text",
            vec![(text("it's"), "it's")],
        ),
        case(
            of(Type::String, "io.debezium.data.Ltree"),
            "text",
            vec![(text("a.b"), "a.b")],
        ),
        case(
            of(Type::Bytes, "io.debezium.data.Bits").parameter("length", "12"),
            "bit varying",
            vec![
                (bytes(&[0b1010_0101, 0b1]), "000110100101"),
                (bytes(&[1]), "000000000001"),
            ],
        ),
        case(
            Schema::array(int32().optional()),
            "integer[]",
            vec![
                (list(vec![int(1), Value::Null, int(-3)]), "{1,NULL,-3}"),
                (list(vec![]), "{}"),
            ],
        ),
        case(
            Schema::array(string().optional()),
            "text[]",
            vec![(
                list(vec![
                    text("a"),
                    text(""),
                    Value::Null,
                    text("NULL"),
                    text("q\"b\\c{},'"),
                    text("ä\n"),
                ]),
                "{a,\"\",NULL,\"NULL\",\"q\\\"b\\\\c{},'\",\"ä\n\"}",
            )],
        ),
        case(
            Schema::array(of(Type::Int64, "io.debezium.time.MicroTimestamp").optional()),
            "timestamp without time zone[]",
            vec![(
                list(vec![
                    Int64(0),
                    Int64(9_223_372_036_825_200_000),
                    Int64(-62_135_596_800_000_001),
                ]),
                "{\"1970-01-01 00:00:00\",infinity,\"0001-12-31 23:59:59.999999 BC\"}",
            )],
        ),
        case(
            Schema::array(decimal(1)),
            "numeric[]",
            vec![(list(vec![number("1.5", 1), number("-2.0", 1)]), "{1.5,-2.0}")],
        ),
        case(
            Schema::array(Schema::new(Type::Bool)),
            "boolean[]",
            vec![(list(vec![Bool(true), Bool(false)]), "{t,f}")],
        ),
        case(
            Schema::array(Schema::new(Type::Bytes)),
            "bytea[]",
            vec![(list(vec![bytes(&[0, 255])]), "{\"\\\\x00ff\"}")],
        ),
        case(
            Schema::array(Schema::array(int32())),
            "integer[]",
            vec![(
                list(vec![list(vec![int(1), int(2)]), list(vec![int(3), int(4)])]),
                "{{1,2},{3,4}}",
            )],
        ),
        case(
            Schema::map(string(), string().optional()),
            "jsonb",
            vec![(
                Value::Map(vec![(text("k\"1"), text("v")), (text("n"), Value::Null)]),
                "{\"n\": null, \"k\\\"1\": \"v\"}",
            )],
        ),
        case(
            inner.clone(),
            "jsonb",
            vec![(Value::Struct(vec![int(1), text("x")]), "{\"a\": 1, \"b\": \"x\"}")],
        ),
        case(
            Schema::array(inner),
            "jsonb[]",
            vec![(
                list(vec![Value::Struct(vec![int(1), Value::Null])]),
                "{\"{\\\"a\\\": 1, \\\"b\\\": null}\"}",
            )],
        ),
    ]
}

#[tokio::test]
async fn in_columns_made_for_them() {
    let postgres = Postgres::shared();
    let cases = made();
    let columns: Vec<(String, Schema)> = std::iter::once(("id".to_owned(), int32()))
        .chain(
            cases
                .iter()
                .enumerate()
                .map(|(n, (schema, _, _))| (format!("c{n}"), schema.clone().optional())),
        )
        .collect();
    let columns: Vec<_> = columns
        .iter()
        .map(|(name, schema)| (name.as_str(), schema.clone()))
        .collect();
    let table = Table::new("t", &columns);
    let deepest = cases.iter().map(|(_, _, values)| values.len()).max().unwrap();
    // The row n holds each type's value n, or NULL where it has no more.
    let messages: Vec<_> = (0..=deepest)
        .map(|n| {
            let values = cases
                .iter()
                .map(|(_, _, values)| values.get(n).map_or(Value::Null, |(value, _)| value.clone()));
            table.write("c", std::iter::once(int(n as i32)).chain(values).collect())
        })
        .collect();
    let copy = [
        ("auto.create", "true"),
        ("pk.mode", "record_key"),
        ("batch.copy.rows", "1"),
    ];
    for settings in [&UPSERT[..], &copy[..]] {
        let database = postgres.database().await;
        let mut sink = Sink::start(&postgres, &database, settings, &["t"]).await;
        sink.put(&messages).await.unwrap();
        assert_eq!(sink.metric("batches-one-by-one"), 0);
        for (column, (schema, ty, values)) in cases.iter().enumerate() {
            let types = format!(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute \
                 WHERE attrelid = 't'::regclass AND attname = 'c{column}'"
            );
            assert_eq!(rows(&postgres, &database, &types).await, [*ty], "{schema:?}");
            let found = rows(
                &postgres,
                &database,
                &format!("SELECT c{column}::text AS v FROM t ORDER BY id"),
            )
            .await;
            for (n, found) in found.iter().enumerate() {
                let expected = values.get(n).map_or("-", |(_, text)| text);
                assert_eq!(found, expected, "{schema:?} {ty}");
            }
        }
    }
}

#[tokio::test]
async fn in_columns_of_other_types() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
             CREATE TYPE mood AS ENUM ('sad', 'very glad'); CREATE TYPE pair AS (a int, b text);
             CREATE DOMAIN positive AS int CHECK (value > 0)",
        )
        .await;
    let map = || Schema::map(string(), string().optional());
    let pairs = || Value::Map(vec![(text("a b"), text("c\"d")), (text("n"), Value::Null)]);
    let micros = || of(Type::Int64, "io.debezium.time.MicroTimestamp");
    let cases: Vec<(Schema, Value, &str, &str)> = vec![
        (int32(), int(5), "text", "5"),
        (int32(), int(5), "numeric(6,2)", "5.00"),
        (int32(), int(5), "positive", "5"),
        (int32(), int(5), "oid", "5"),
        (Schema::new(Type::Int64), Value::Int64(7), "varchar(3)", "7"),
        (Schema::new(Type::Bool), Value::Bool(true), "int", "1"),
        (Schema::new(Type::Bool), Value::Bool(true), "bit(1)", "1"),
        (Schema::new(Type::Bool), Value::Bool(true), "text", "true"),
        (Schema::new(Type::Bool), Value::Bool(false), "jsonb", "false"),
        (string(), text("NaN"), "numeric", "NaN"),
        (string(), text("-Infinity"), "numeric", "-Infinity"),
        (string(), text("very glad"), "mood", "very glad"),
        (
            string(),
            text("{\"very glad\",sad}"),
            "mood[]",
            "{\"very glad\",sad}",
        ),
        (string(), text("{{1,2},{3,NULL}}"), "int[]", "{{1,2},{3,NULL}}"),
        (string(), text("[0:1]={7,8}"), "int[]", "[0:1]={7,8}"),
        (string(), text("[1,5)"), "int4range", "[1,5)"),
        (string(), text("(1,\"x y\")"), "pair", "(1,\"x y\")"),
        (string(), text("10.1.0.0/16"), "inet", "10.1.0.0/16"),
        (
            string(),
            text("08:00:2b:01:02:03"),
            "macaddr",
            "08:00:2b:01:02:03",
        ),
        (string(), text("(1,2),(0,0)"), "box", "(1,2),(0,0)"),
        (string(), text("'cat':1 'fat':2"), "tsvector", "'cat':1 'fat':2"),
        (string(), text("CaSe"), "citext", "CaSe"),
        (string(), text("10110"), "varbit", "10110"),
        (string(), text("x "), "char(3)", "x"),
        (string(), text("2020-01-01"), "date", "2020-01-01"),
        (
            of(Type::String, "io.debezium.data.Ltree"),
            text("a.b"),
            "ltree",
            "a.b",
        ),
        (
            of(Type::String, "io.debezium.data.Json"),
            text("{\"b\":1,\"a\":2}"),
            "jsonb",
            "{\"a\": 2, \"b\": 1}",
        ),
        (
            of(Type::String, "io.debezium.data.Json"),
            text("{\"b\":null,\"a\":\"x\"}"),
            "hstore",
            "\"a\"=>\"x\", \"b\"=>NULL",
        ),
        (decimal(2), number("-1234.50", 2), "money", "-$1,234.50"),
        (decimal(2), number("0.25", 2), "double precision", "0.25"),
        (decimal(2), number("1.00", 2), "text", "1.00"),
        (variable(), variable_number("1.5", 1), "text", "1.5"),
        (Schema::new(Type::Float64), Value::Float64(0.5), "numeric", "0.5"),
        (Schema::new(Type::Bytes), bytes(b"\x01"), "text", "\\x01"),
        (
            of(Type::Int32, "io.debezium.time.Date"),
            int(1),
            "timestamptz",
            "1970-01-02 00:00:00+00",
        ),
        (micros(), Value::Int64(0), "timestamptz", "1970-01-01 00:00:00+00"),
        (
            micros(),
            Value::Int64(1_700_000),
            "timestamp(0)",
            "1970-01-01 00:00:02",
        ),
        (micros(), Value::Int64(0), "text", "1970-01-01 00:00:00"),
        (
            of(Type::String, "io.debezium.time.ZonedTimestamp"),
            text("2020-01-01T01:00:00Z"),
            "timestamp",
            "2020-01-01 01:00:00",
        ),
        (
            of(Type::String, "io.debezium.time.Interval"),
            text("P1M"),
            "text",
            "P1M",
        ),
        (
            of(Type::Bytes, "io.debezium.data.Bits").parameter("length", "4"),
            bytes(&[5]),
            "bit(4)",
            "0101",
        ),
        (
            Schema::array(int32()),
            list(vec![int(1), int(2)]),
            "bigint[]",
            "{1,2}",
        ),
        (
            Schema::array(int32()),
            list(vec![int(1), int(2)]),
            "text[]",
            "{1,2}",
        ),
        (
            Schema::array(int32()),
            list(vec![int(1), int(2)]),
            "jsonb",
            "[1, 2]",
        ),
        (
            Schema::array(int32()),
            list(vec![int(1), int(2)]),
            "text",
            "[1,2]",
        ),
        (
            Schema::array(map()),
            list(vec![pairs()]),
            "hstore[]",
            r#"{"\"n\"=>NULL, \"a b\"=>\"c\\\"d\""}"#,
        ),
        (map(), pairs(), "hstore", r#""n"=>NULL, "a b"=>"c\"d""#),
        (map(), pairs(), "json", r#"{"a b":"c\"d","n":null}"#),
        (map(), pairs(), "text", r#"{"a b":"c\"d","n":null}"#),
        (
            point(),
            Value::Struct(vec![
                Value::Float64(1.5),
                Value::Float64(-2.0),
                Value::Null,
                Value::Null,
            ]),
            "point",
            "(1.5,-2)",
        ),
    ];
    // One table, as a target would be: a column a case.
    let definitions: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(n, (_, _, ty, _))| format!("c{n} {ty}"))
        .collect();
    let mut values = BTreeMap::new();
    for (settings, name) in [
        (&UPSERT[..], "upserted"),
        (&[("batch.copy.rows", "1")][..], "copied"),
    ] {
        postgres
            .execute(
                &database,
                &format!(
                    "CREATE TABLE {name} (id int PRIMARY KEY, {})",
                    definitions.join(", ")
                ),
            )
            .await;
        let columns: Vec<(String, Schema)> = std::iter::once(("id".to_owned(), int32()))
            .chain(
                cases
                    .iter()
                    .enumerate()
                    .map(|(n, (schema, ..))| (format!("c{n}"), schema.clone())),
            )
            .collect();
        let columns: Vec<_> = columns
            .iter()
            .map(|(name, schema)| (name.as_str(), schema.clone()))
            .collect();
        let table = Table::new(name, &columns);
        let mut sink = Sink::start(&postgres, &database, settings, &[name]).await;
        let row = std::iter::once(int(1))
            .chain(cases.iter().map(|(_, value, ..)| value.clone()))
            .collect();
        sink.put(&[table.write("c", row)]).await.unwrap();
        for (n, (schema, _, ty, expected)) in cases.iter().enumerate() {
            let found = rows(
                &postgres,
                &database,
                &format!("SELECT c{n}::text AS v FROM {name}"),
            )
            .await;
            assert_eq!(found, [*expected], "{schema:?} in {ty}, {name}");
            values.insert((name, n), found);
        }
    }
    assert_eq!(values.len(), cases.len() * 2);
}
