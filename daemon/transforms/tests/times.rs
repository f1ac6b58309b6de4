//! TimestampConverter: every form into every form.

mod support;

use support::*;
use tidewater_plugin_api::{Schema, Value, logical};
use tidewater_transforms::Datum;

/// 2021-03-09T07:05:04.030Z.
const MILLIS: i64 = 1_615_273_504_030;
const DAYS: i32 = 18_695;
const OF_DAY: i32 = 25_504_030;
const ISO: &str = "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'";
const WRITTEN: &str = "2021-03-09T07:05:04.030Z";

fn timestamp() -> Schema {
    int64().named(logical::CONNECT_TIMESTAMP)
}

#[test]
fn every_form_becomes_every_form() {
    let inputs = [
        (timestamp(), Value::Int64(MILLIS), true, true),
        (
            int64().named(logical::TIMESTAMP),
            Value::Int64(MILLIS),
            true,
            true,
        ),
        (
            int64().named(logical::MICRO_TIMESTAMP),
            Value::Int64(MILLIS * 1000 + 7),
            true,
            true,
        ),
        (
            int64().named(logical::NANO_TIMESTAMP),
            Value::Int64(MILLIS * 1_000_000 + 7),
            true,
            true,
        ),
        (int64(), Value::Int64(MILLIS), true, true),
        (string(), text(WRITTEN), true, true),
        (
            int32().named(logical::CONNECT_DATE),
            Value::Int32(DAYS),
            true,
            false,
        ),
        (int32().named(logical::DATE), Value::Int32(DAYS), true, false),
        (
            int32().named(logical::CONNECT_TIME),
            Value::Int32(OF_DAY),
            false,
            true,
        ),
        (
            int64().named(logical::MICRO_TIME),
            Value::Int64(i64::from(OF_DAY) * 1000),
            false,
            true,
        ),
    ];
    for (schema, value, has_date, has_time) in inputs {
        let days = if has_date { DAYS } else { 0 };
        let of_day = if has_time { OF_DAY } else { 0 };
        let millis = i64::from(days) * 86_400_000 + i64::from(of_day);
        let date = if has_date { "2021-03-09" } else { "1970-01-01" };
        let time = if has_time { "07:05:04.030" } else { "00:00:00.000" };
        for (target, expected) in [
            ("Timestamp", format!("int64<Timestamp> {millis}")),
            ("Date", format!("int32<Date> {days}")),
            ("Time", format!("int32<Time> {of_day}")),
            ("unix", format!("int64 {millis}")),
            ("string", format!("string \"{date}T{time}Z\"")),
        ] {
            let settings = [("target.type", target), ("format", ISO)];
            let datum = typed(schema.clone(), value.clone());
            assert_eq!(
                outcome("TimestampConverter", &settings, &datum),
                expected,
                "{schema:?}"
            );
            let optional = schema.clone().optional();
            let datum = st(vec![
                ("t", optional, value.clone()),
                ("u", int8(), Value::Int8(1)),
            ]);
            let settings = [("target.type", target), ("format", ISO), ("field", "t")];
            let (kind, shown) = expected.split_once(' ').expect("type and value");
            let expected = format!("{{t: {kind}? {shown}, u: int8 1}}");
            assert_eq!(outcome("TimestampConverter", &settings, &datum), expected);
        }
    }
}

#[test]
fn precisions_nulls_paths_and_schemaless() {
    const V2: (&str, &str) = ("field.syntax.version", "V2");
    let unix: (&str, &str) = ("target.type", "unix");
    let as_timestamp: (&str, &str) = ("target.type", "Timestamp");
    let field: (&str, &str) = ("field", "t");
    let (inner, value) = nested(vec![("t", int64(), Value::Int64(1))]);
    check(
        "TimestampConverter",
        vec![
            (
                &[unix, ("unix.precision", "seconds")],
                typed(timestamp(), Value::Int64(-1500)),
                "int64 -1",
            ),
            (
                &[unix, ("unix.precision", "microseconds")],
                typed(timestamp(), Value::Int64(5)),
                "int64 5000",
            ),
            (
                &[unix, ("unix.precision", "nanoseconds")],
                typed(timestamp(), Value::Int64(i64::MAX)),
                "int64 9223372036854775807",
            ),
            (
                &[as_timestamp, ("unix.precision", "seconds")],
                typed(int64(), Value::Int64(5)),
                "int64<Timestamp> 5000",
            ),
            (
                &[as_timestamp, ("unix.precision", "nanoseconds")],
                plain(Value::Int64(5_000_000)),
                "int64 5",
            ),
            (
                &[("target.type", "Date")],
                typed(timestamp(), Value::Int64(-1)),
                "int32<Date> -1",
            ),
            (
                &[("target.type", "Time")],
                typed(timestamp(), Value::Int64(-1)),
                "int32<Time> 86399999",
            ),
            (
                &[as_timestamp],
                typed(int64().optional(), Value::Null),
                "int64<Timestamp>? null",
            ),
            (&[as_timestamp], Datum::null(), "null"),
            (
                &[as_timestamp, field],
                st(vec![("t", int64().optional(), Value::Null)]),
                "{t: int64<Timestamp>? null}",
            ),
            (
                &[as_timestamp, field],
                st(vec![("x", int64(), Value::Int64(1))]),
                "{x: int64 1}",
            ),
            (
                &[as_timestamp, field],
                map(vec![("t", Value::Int64(1))]),
                "{t int64 1}",
            ),
            (&[as_timestamp, field], map(vec![]), "{t null}"),
            (
                &[("target.type", "string"), ("format", "yyyy"), field],
                map(vec![("t", Value::Int64(0))]),
                "{t \"1970\"}",
            ),
            (
                &[as_timestamp, ("field", "a.t"), V2],
                st(vec![("a", inner, value)]),
                "{a: {t: int64<Timestamp> 1}}",
            ),
            (
                &[unix],
                typed(
                    string().named(logical::ZONED_TIMESTAMP),
                    text("1970-01-01T01:00:01+01:00"),
                ),
                "int64 1000",
            ),
            (&[unix], typed(string(), text(WRITTEN)), "error: …set format"),
            (
                &[unix, ("format", "yyyy/MM")],
                typed(string(), text("secret")),
                "error: …\"yyyy/MM\"",
            ),
            (
                &[unix],
                typed(float64(), Value::Float64(1.0)),
                "error: …is of type double",
            ),
            (&[unix], plain(Value::Int8(1)), "error: …is of type int8"),
            (
                &[unix, field],
                typed(int64(), Value::Int64(1)),
                "error: …expected struct",
            ),
            (
                &[("target.type", "Date")],
                typed(int64(), Value::Int64(i64::MAX)),
                "error: …unix.precision",
            ),
            (
                &[("target.type", "string"), ("format", "y")],
                typed(int64(), Value::Int64(i64::MAX)),
                "error: …years",
            ),
        ],
    );
    let problems = problems_of("TimestampConverter$Value", &[("target.type", "string")]);
    assert!(problems.contains("transforms.t.format"), "{problems}");
    let problems = problems_of("TimestampConverter$Value", &[("target.type", "strng")]);
    assert!(problems.contains("did you mean \"string\""), "{problems}");
    let problems = problems_of(
        "TimestampConverter$Value",
        &[("target.type", "unix"), ("format", "YYYY")],
    );
    assert!(problems.contains("the letter Y is not supported"), "{problems}");
}
