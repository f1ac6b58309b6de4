//! postgres-source: every type, by the snapshot and by the stream, gives the same expected value.
#![allow(clippy::unwrap_used)] // a failure is the message

mod source_driver;
mod support;

use serde_json::{Value as Json, json};
use source_driver::Driver;
use support::Postgres;

/// A type, a literal of it, and the value and schema name it becomes; an empty name is a plain type.
type Case = (&'static str, &'static str, Json, &'static str);

const BITS: &str = "io.debezium.data.Bits";
const DATE: &str = "io.debezium.time.Date";
const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
const DURATION: &str = "io.debezium.time.MicroDuration";
const JSON: &str = "io.debezium.data.Json";
const LTREE: &str = "io.debezium.data.Ltree";
const MICRO_TIME: &str = "io.debezium.time.MicroTime";
const MICRO_TIMESTAMP: &str = "io.debezium.time.MicroTimestamp";
const TIME: &str = "io.debezium.time.Time";
const TIMESTAMP: &str = "io.debezium.time.Timestamp";
const UUID: &str = "io.debezium.data.Uuid";
const VARIABLE: &str = "io.debezium.data.VariableScaleDecimal";
const XML: &str = "io.debezium.data.Xml";
const ZONED_TIME: &str = "io.debezium.time.ZonedTime";
const ZONED: &str = "io.debezium.time.ZonedTimestamp";

/// What is made before the tables.
const PRELUDE: &str = "
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
    CREATE TYPE mood AS ENUM ('sad', 'so, so', 'happy');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN price AS numeric(8, 2);
    CREATE DOMAIN names AS text[];";

fn cases() -> Vec<Case> {
    let mut cases = vec![
        ("bool", "true", json!(true), ""),
        ("int2", "-32768", json!(-32768), ""),
        ("int4", "2147483647", json!(2_147_483_647), ""),
        ("int8", "-9223372036854775808", json!(i64::MIN), ""),
        ("oid", "4294967295", json!(4_294_967_295_u32), ""),
        ("float4", "1.1", json!(1.1), ""),
        ("float4", "NaN", json!("NaN"), ""),
        ("float8", "0.1", json!(0.1), ""),
        ("float8", "1e-300", json!(1e-300), ""),
        ("float8", "-Infinity", json!("-Infinity"), ""),
        (
            "text",
            "it's \"quoted\" \\ and\ttabbed\nüñí",
            json!("it's \"quoted\" \\ and\ttabbed\nüñí"),
            "",
        ),
        ("text", "", json!(""), ""),
        ("text", "\\N", json!("\\N"), ""),
        ("varchar(5)", "abc", json!("abc"), ""),
        ("char(5)", "abc", json!("abc  "), ""),
        ("name", "pg", json!("pg"), ""),
        ("citext", "MiXed", json!("MiXed"), ""),
        ("bytea", "\\x00ff10", json!("AP8Q"), ""),
        ("bytea", "\\x", json!(""), ""),
        (
            "json",
            "{\"a\": 1,  \"a\": 2}",
            json!("{\"a\": 1,  \"a\": 2}"),
            JSON,
        ),
        (
            "jsonb",
            "{\"b\":1,\"a\":[null]}",
            json!("{\"a\": [null], \"b\": 1}"),
            JSON,
        ),
        ("xml", "<a>1</a>", json!("<a>1</a>"), XML),
        (
            "uuid",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            UUID,
        ),
        ("ltree", "a.b_c.d", json!("a.b_c.d"), LTREE),
        ("mood", "so, so", json!("so, so"), "io.debezium.data.Enum"),
        ("pair", "(1,\"x y\")", json!("(1,\"x y\")"), ""),
        ("positive", "7", json!(7), ""),
        ("names", "{a,NULL}", json!(["a", null]), ""),
        (
            "hstore",
            "a=>1, \"b c\"=>NULL",
            json!("{\"a\":\"1\",\"b c\":null}"),
            JSON,
        ),
        ("inet", "10.1.2.3/8", json!("10.1.2.3/8"), ""),
        ("cidr", "10.0.0.0/8", json!("10.0.0.0/8"), ""),
        ("macaddr", "08:00:2b:01:02:03", json!("08:00:2b:01:02:03"), ""),
        (
            "macaddr8",
            "08:00:2b:01:02:03:04:05",
            json!("08:00:2b:01:02:03:04:05"),
            "",
        ),
        ("int4range", "[1,10)", json!("[1,10)"), ""),
        ("int4multirange", "{[1,3),[5,9)}", json!("{[1,3),[5,9)}"), ""),
        (
            "tstzrange",
            "[2024-01-01 00:00+02,)",
            json!("[\"2023-12-31 22:00:00+00\",)"),
            "",
        ),
        ("point", "(1.5,-2)", json!("(1.5,-2)"), ""),
        ("polygon", "((0,0),(1,1),(1,0))", json!("((0,0),(1,1),(1,0))"), ""),
        ("tsvector", "fat:2A cat:1", json!("'cat':1 'fat':2A"), ""),
        ("tsquery", "fat & !cat", json!("'fat' & !'cat'"), ""),
        ("pg_lsn", "16/B374D848", json!("16/B374D848"), ""),
        ("int2vector", "1 2", json!("1 2"), ""),
        ("bit", "1", json!(true), ""),
        ("bit(3)", "101", json!("BQ=="), BITS),
        ("bit(12)", "100000000001", json!("AQg="), BITS),
        ("varbit(8)", "00101", json!("00101"), ""),
    ];
    cases.extend(numbers());
    cases.extend(times());
    cases.extend(arrays());
    cases
}

fn numbers() -> Vec<Case> {
    let variable = |scale: i32, value: &str| json!({"scale": scale, "value": value});
    vec![
        ("numeric(10,2)", "12345.6", json!(12345.60), DECIMAL),
        ("numeric(10,2)", "-0.05", json!(-0.05), DECIMAL),
        ("numeric(5,-2)", "12345", json!(12300), DECIMAL),
        (
            "numeric(30,0)",
            "123456789012345678901234567890",
            json!(1.234_567_890_123_456_8e29),
            DECIMAL,
        ),
        ("numeric", "1.50", variable(2, "AJY="), VARIABLE),
        (
            "numeric",
            "-12345678901234567890.123",
            variable(3, "/WK9SbGJjr27NQ=="),
            VARIABLE,
        ),
        ("price", "9.9", json!(9.9), DECIMAL),
        ("money", "-1234.56", json!(-1234.56), DECIMAL),
    ]
}

fn times() -> Vec<Case> {
    vec![
        ("date", "2024-02-29", json!(19782), DATE),
        ("date", "0044-03-15 BC", json!(-735_160), DATE),
        ("date", "infinity", json!(i32::MAX), DATE),
        ("date", "-infinity", json!(i32::MIN), DATE),
        ("time", "24:00:00", json!(86_400_000_000_i64), MICRO_TIME),
        ("time(3)", "12:34:56.789", json!(45_296_789), TIME),
        ("time", "00:00:00.000001", json!(1), MICRO_TIME),
        (
            "timetz",
            "12:00:00.5+05:30",
            json!("12:00:00.5+05:30"),
            ZONED_TIME,
        ),
        ("timetz", "12:00:00+00", json!("12:00:00Z"), ZONED_TIME),
        (
            "timestamp",
            "2024-01-02 03:04:05.678901",
            json!(1_704_164_645_678_901_i64),
            MICRO_TIMESTAMP,
        ),
        (
            "timestamp(3)",
            "2024-01-02 03:04:05.678",
            json!(1_704_164_645_678_i64),
            TIMESTAMP,
        ),
        ("timestamp(0)", "1969-12-31 23:59:59", json!(-1000), TIMESTAMP),
        (
            "timestamp",
            "infinity",
            json!(9_223_372_036_825_200_000_i64),
            MICRO_TIMESTAMP,
        ),
        (
            "timestamp",
            "-infinity",
            json!(-9_223_372_036_832_400_000_i64),
            MICRO_TIMESTAMP,
        ),
        (
            "timestamptz",
            "2024-01-02 03:04:05.6+02",
            json!("2024-01-02T01:04:05.600000Z"),
            ZONED,
        ),
        (
            "timestamptz(0)",
            "2024-01-02 03:04:05+00",
            json!("2024-01-02T03:04:05Z"),
            ZONED,
        ),
        ("timestamptz", "infinity", json!("infinity"), ZONED),
        (
            "timestamptz",
            "0044-03-15 12:00:00+00 BC",
            json!("-0043-03-15T12:00:00.000000Z"),
            ZONED,
        ),
        (
            "timestamptz",
            "294276-12-31 00:00:00+00",
            json!("+294276-12-31T00:00:00.000000Z"),
            ZONED,
        ),
        (
            "interval",
            "1 day 02:03:04.5",
            json!(93_784_500_000_i64),
            DURATION,
        ),
        (
            "interval",
            "1 month -1 day",
            json!(2_629_800_000_000_i64 - 86_400_000_000),
            DURATION,
        ),
        ("interval", "-00:00:00.000001", json!(-1), DURATION),
    ]
}

fn arrays() -> Vec<Case> {
    vec![
        ("int4[]", "{1,NULL,-3}", json!([1, null, -3]), ""),
        ("int4[]", "{}", json!([]), ""),
        (
            "text[]",
            "{a,\"b \\\"c\\\\\",NULL,\"NULL\",\"\"}",
            json!(["a", "b \"c\\", null, "NULL", ""]),
            "",
        ),
        ("numeric(5,1)[]", "{1.5,NULL}", json!([1.5, null]), ""),
        ("date[]", "{1970-01-02,infinity}", json!([1, i32::MAX]), ""),
        (
            "timestamptz[]",
            "{2024-01-02 03:04:05+00}",
            json!(["2024-01-02T03:04:05.000000Z"]),
            "",
        ),
        (
            "uuid[]",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            json!(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
            "",
        ),
        ("bytea[]", "{\"\\\\\\\\x00ff\"}", json!(["XHgwMGZm"]), ""),
        ("bool[]", "{t,f}", json!([true, false]), ""),
        ("jsonb[]", "{\"{\\\"a\\\": 1}\"}", json!(["{\"a\": 1}"]), ""),
        ("mood[]", "{sad,\"so, so\"}", json!(["sad", "so, so"]), ""),
        (
            "box[]",
            "{(1,1),(0,0);(3,3),(2,2)}",
            json!(["(1,1),(0,0)", "(3,3),(2,2)"]),
            "",
        ),
        ("int4[][]", "{{1,2},{3,4}}", json!("{{1,2},{3,4}}"), ""),
        ("pair[]", "{\"(1,x)\"}", json!(["(1,x)"]), ""),
    ]
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[tokio::test]
async fn every_type_reads_the_same_by_snapshot_and_stream() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let cases = cases();
    let columns: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(index, (ty, ..))| format!("c{index} {ty}"))
        .collect();
    let literals: Vec<String> = cases.iter().map(|(_, text, ..)| literal(text)).collect();
    let insert = |id: u32| format!("INSERT INTO types VALUES ({id}, {})", literals.join(", "));
    // Settings that would change the text of values, were they not pinned.
    let hostile = format!(
        "ALTER DATABASE {database} SET datestyle = 'German'; ALTER DATABASE {database} SET timezone = 'Asia/Kolkata';
         ALTER DATABASE {database} SET intervalstyle = 'sql_standard'; ALTER DATABASE {database} SET bytea_output = 'escape';
         ALTER DATABASE {database} SET extra_float_digits = -5"
    );
    postgres
        .execute(&database, &format!("{hostile}; {PRELUDE}"))
        .await;
    let create = format!("CREATE TABLE types (id int PRIMARY KEY, {})", columns.join(", "));
    let in_utc = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD';";
    postgres
        .execute(
            &database,
            &format!("{in_utc} {create}; {}; INSERT INTO types VALUES (2)", insert(1)),
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    let mut records = driver.snapshot().await;
    postgres
        .execute(
            &database,
            &format!("{in_utc} {}; INSERT INTO types VALUES (4)", insert(3)),
        )
        .await;
    records.extend(driver.take_records(2).await);

    let mut faults = Vec::new();
    for (index, (ty, text, expected, name)) in cases.iter().enumerate() {
        let column = format!("c{index}");
        for record in [&records[0], &records[2]] {
            let found = &record.after()[&column];
            let same = match (found.as_f64(), expected.as_f64()) {
                (Some(found), Some(expected)) if !found.to_bits().eq(&expected.to_bits()) => {
                    (found - expected).abs() < f64::from(f32::EPSILON) * 10.0 && ty.starts_with("float4")
                }
                (Some(_), Some(_)) => true,
                _ => found == expected,
            };
            let schema = record.field_schema(&column);
            if !same || schema["name"].as_str().unwrap_or_default() != *name {
                faults.push(format!(
                    "{ty} {text:?} by {}: {found} ({schema}), expected {expected} ({name})",
                    record.op()
                ));
            }
        }
        for record in [&records[1], &records[3]] {
            if !record.after()[&column].is_null() {
                faults.push(format!(
                    "{ty} NULL by {}: {}",
                    record.op(),
                    record.after()[&column]
                ));
            }
        }
        if records[0].after()[&column] != records[2].after()[&column]
            || records[0].field_schema(&column) != records[2].field_schema(&column)
        {
            faults.push(format!("{ty} {text:?}: snapshot and stream differ"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    driver.stop().await;
}

#[tokio::test]
async fn types_can_be_sent_in_other_ways() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE EXTENSION hstore;
             CREATE TABLE modes (id int PRIMARY KEY, n numeric(6,2), u numeric, m money, d date, t time, ts timestamp,
               i interval, b bytea, h hstore);
             INSERT INTO modes VALUES (1, 'NaN', '-Infinity', 1.5, '1970-01-02', '00:00:01', '1970-01-01 00:00:01.5',
               '1 year 2 months -3 days 04:05:06.7', '\\xfbff', 'a=>1, b=>NULL')",
        )
        .await;
    let read = async |slot: &str, settings: &[(&str, &str)]| {
        let mut all = vec![("slot.name", slot)];
        all.extend_from_slice(settings);
        let mut driver = Driver::start(&postgres, &database, &all, None).await;
        let record = driver.snapshot().await.remove(0);
        driver.stop().await;
        record
    };
    let text = read(
        "modes1",
        &[
            ("decimal.handling.mode", "string"),
            ("time.precision.mode", "connect"),
            ("interval.handling.mode", "string"),
            ("binary.handling.mode", "base64-url-safe"),
            ("hstore.handling.mode", "map"),
        ],
    )
    .await;
    assert_eq!(
        text.after(),
        &json!({"id": 1, "n": "NaN", "u": "-Infinity", "m": "1.50", "d": 1, "t": 1000, "ts": 1500,
            "i": "P1Y2M-3DT4H5M6.7S", "b": "-_8=", "h": {"a": "1", "b": null}})
    );
    assert_eq!(
        text.field_schema("ts")["name"],
        "org.apache.kafka.connect.data.Timestamp"
    );
    assert_eq!(text.field_schema("i")["name"], "io.debezium.time.Interval");
    let double = read(
        "modes2",
        &[
            ("decimal.handling.mode", "double"),
            ("time.precision.mode", "adaptive_time_microseconds"),
            ("binary.handling.mode", "hex"),
        ],
    )
    .await;
    assert_eq!(double.after()["n"], "NaN");
    assert_eq!(double.after()["u"], "-Infinity");
    assert_eq!(double.after()["m"], 1.5);
    assert_eq!(double.after()["t"], 1_000_000);
    assert_eq!(double.after()["b"], "fbff");
}

#[tokio::test]
async fn a_value_that_its_type_cannot_hold_turns_the_column_into_text() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TYPE mood AS ENUM ('sad');
             CREATE TABLE odd (id int PRIMARY KEY, n numeric(6,2), a int4[], ts timestamp, m mood);
             INSERT INTO odd VALUES (1, 1.5, '{1}', '2024-01-01', 'sad'), (2, 'NaN', '{{1},{2}}', '294276-12-31', 'sad'),
               (3, 2.5, '[0:0]={3}', '2024-01-01', 'sad')",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    let rows = driver.snapshot().await;
    assert_eq!(rows[0].after()["n"], 1.5);
    assert_eq!(rows[0].after()["a"], json!([1]));
    assert_eq!(rows[1].after()["n"], "NaN");
    assert_eq!(rows[1].after()["a"], "{{1},{2}}");
    assert_eq!(rows[1].after()["ts"], "294276-12-31 00:00:00");
    assert_eq!(rows[1].field_schema("n")["type"], "string");
    assert_eq!(rows[2].after()["n"], "2.50");
    assert_eq!(rows[2].after()["a"], "[0:0]={3}");
    // A label that came after the schema was made.
    postgres
        .execute(&database, "INSERT INTO odd (id, m) VALUES (4, 'sad')")
        .await;
    assert_eq!(
        driver.take_records(1).await[0].field_schema("m")["parameters"]["allowed"],
        "sad"
    );
    postgres
        .execute(&database, "ALTER TYPE mood ADD VALUE 'glad'")
        .await;
    postgres
        .execute(&database, "INSERT INTO odd (id, m) VALUES (5, 'glad')")
        .await;
    let glad = driver.take_records(1).await.remove(0);
    assert_eq!(glad.after()["m"], "glad");
    assert_eq!(glad.field_schema("m")["parameters"]["allowed"], "sad,glad");
    driver.stop().await;
}

#[tokio::test]
async fn columns_can_be_chosen_and_their_types_told() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE people (id int PRIMARY KEY, name varchar(20), salary numeric(9,2), secret text,
               twice int GENERATED ALWAYS AS (2) STORED);
             INSERT INTO people VALUES (1, 'Ann', 10, 'x')",
        )
        .await;
    let settings = [
        ("column.exclude.list", "public.people.(secret|id)"),
        ("column.propagate.source.type", "public.people.*"),
        ("message.key.columns", "(.*).people:name,id"),
    ];
    let mut driver = Driver::start(&postgres, &database, &settings, None).await;
    let row = driver.snapshot().await.remove(0);
    postgres.execute(&database, "UPDATE people SET salary = 11").await;
    let update = driver.take_records(1).await.remove(0);
    assert_eq!(row.after(), &json!({"name": "Ann", "salary": 10.0}));
    assert_eq!(update.after(), &json!({"name": "Ann", "salary": 11.0}));
    assert_eq!(
        (&row.key, &update.key),
        (&json!({"name": "Ann", "id": 1}), &json!({"name": "Ann", "id": 1}))
    );
    let parameters = &row.field_schema("salary")["parameters"];
    assert_eq!(parameters["__debezium.source.column.type"], "NUMERIC");
    assert_eq!(parameters["__debezium.source.column.length"], "9");
    assert_eq!(parameters["__debezium.source.column.scale"], "2");
    assert_eq!(
        row.field_schema("name")["parameters"]["__debezium.source.column.length"],
        "20"
    );
    driver.stop().await;
}

#[tokio::test]
async fn dates_and_times_are_what_postgresql_counts() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    // From 4713 BC to the year 294246, in steps that meet every day of a year and every hour of a day.
    postgres
        .execute(
            &database,
            "CREATE TABLE moments AS
               SELECT i::int AS id, moment, moment::date AS day, moment::date - '1970-01-01'::date AS days,
                 (extract(epoch FROM moment) * 1000000)::int8 AS micros, moment::time AS time,
                 (extract(epoch FROM moment::time) * 1000000)::int8 AS time_micros,
                 moment - '2000-01-01'::timestamp AS span,
                 (extract(epoch FROM moment - '2000-01-01'::timestamp) * 1000000)::int8 AS span_micros
               FROM (SELECT i, '4713-01-01 BC'::timestamp + i * interval '54592 days 07:31:29.123457' AS moment
                     FROM generate_series(0, 2000) i) m;
             ALTER TABLE moments ADD PRIMARY KEY (id)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    let rows = driver.snapshot().await;
    assert_eq!(rows.len(), 2001);
    for row in rows {
        let row = row.after();
        assert_eq!(row["moment"], row["micros"], "{row}");
        assert_eq!(row["day"], row["days"], "{row}");
        assert_eq!(row["time"], row["time_micros"], "{row}");
        assert_eq!(row["span"], row["span_micros"], "{row}");
    }
    driver.stop().await;
}
