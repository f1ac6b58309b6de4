//! The transforms that move, drop, add and mask fields.

mod support;

use support::*;
use tidewater_plugin_api::{Schema, Value, logical};
use tidewater_transforms::{Datum, Record};

const V2: (&str, &str) = ("field.syntax.version", "V2");
const KEEP_NULL: (&str, &str) = ("replace.null.with.default", "false");

type Settings<'a> = &'a [(&'a str, &'a str)];

fn one() -> Value {
    Value::Int32(1)
}

/// `{a: {b: int32, c: string?}, d: int32}`.
fn deep() -> Datum {
    let (inner, value) = nested(vec![("b", int32(), one()), ("c", string().optional(), text("x"))]);
    st(vec![("a", inner, value), ("d", int32(), Value::Int32(2))])
}

/// The same, with `a` null.
fn shallow() -> Datum {
    let (inner, _) = nested(vec![("b", int32(), one()), ("c", string().optional(), text("x"))]);
    st(vec![
        ("a", inner.optional(), Value::Null),
        ("d", int32(), Value::Int32(2)),
    ])
}

fn deep_map() -> Datum {
    map(vec![
        ("a", pairs(vec![("b", one()), ("c", text("x"))])),
        ("d", Value::Int32(2)),
    ])
}

fn defaulted() -> Datum {
    st(vec![
        (
            "a",
            int32().optional().default_value(Value::Int32(7)),
            Value::Null,
        ),
        ("b", int32(), one()),
    ])
}

#[test]
fn extract_field() {
    check(
        "ExtractField",
        vec![
            (&[("field", "d")], deep(), "int32 2"),
            (&[("field", "a")], deep(), "{b: int32 1, c: string? \"x\"}"),
            (&[("field", "a.c"), V2], deep(), "string? \"x\""),
            (&[("field", "a.b"), V2], shallow(), "int32 null"),
            (&[("field", "a.b"), V2], deep_map(), "int32 1"),
            (&[("field", "a.b")], deep_map(), "null"),
            (&[("field", "d.x"), V2], deep_map(), "null"),
            (&[("field", "x")], deep_map(), "null"),
            (&[("field", "a")], Datum::null(), "null"),
            (&[("field", "a")], defaulted(), "int32?=7 7"),
            (&[("field", "a"), KEEP_NULL], defaulted(), "int32?=7 null"),
            (
                &[("field", "x")],
                deep(),
                "error: …field \"x\" of the value is missing",
            ),
            (&[("field", "d.x"), V2], deep(), "error: …is missing"),
            (
                &[("field", "a")],
                typed(int32(), one()),
                "error: …is of type int32, expected struct",
            ),
            (&[("field", "a")], plain(one()), "error: …expected map"),
        ],
    );
}

#[test]
fn hoist_field() {
    check(
        "HoistField",
        vec![
            (&[("field", "f")], typed(int32(), one()), "{f: int32 1}"),
            (&[("field", "f")], plain(one()), "{f int32 1}"),
            (&[("field", "f")], Datum::null(), "{f null}"),
            (
                &[("field", "f")],
                typed(int32().optional(), Value::Null),
                "{f: int32? null}",
            ),
            (
                &[("field", "f")],
                typed(int32(), Value::Null),
                "error: …is missing",
            ),
            (
                &[("field", "f"), ("hoisted", "d")],
                deep(),
                "{a: {b: int32 1, c: string? \"x\"}, d: {f: int32 2}}",
            ),
            (
                &[("field", "f"), ("hoisted", "a.b"), V2],
                deep(),
                "{a: {b: {f: int32 1}, c: string? \"x\"}, d: int32 2}",
            ),
            (
                &[("field", "f"), ("hoisted", "d")],
                map(vec![("d", one())]),
                "{d {f int32 1}}",
            ),
            (
                &[("field", "f"), ("hoisted", "d")],
                plain(one()),
                "error: …expected map",
            ),
        ],
    );
}

#[test]
fn mask_field() {
    let all = st(vec![
        ("i", int8(), Value::Int8(5)),
        ("f", float64(), Value::Float64(1.5)),
        ("b", bool(), Value::Bool(true)),
        ("s", string().optional(), text("secret")),
        ("n", string().optional(), Value::Null),
        ("y", bytes(), Value::Bytes("secret".into())),
        (
            "m",
            bytes().named(logical::DECIMAL).parameter("scale", "2"),
            Value::Bytes(vec![1, 2].into()),
        ),
        ("l", Schema::array(int8()), Value::Array(vec![Value::Int8(1)])),
        ("t", int64().named(logical::CONNECT_TIMESTAMP), Value::Int64(9)),
    ]);
    check(
        "MaskField",
        vec![
            (
                &[("fields", "i,f,b,s,n,y,m,l,t")],
                all,
                "{i: int8 0, f: double 0.0, b: boolean false, s: string? \"\", n: string? null, y: bytes [], \
                 m: bytes<Decimal> [0], l: array [], t: int64<Timestamp> 0}",
            ),
            (
                &[("fields", "a.c"), V2],
                deep(),
                "{a: {b: int32 1, c: string? \"\"}, d: int32 2}",
            ),
            (
                &[("fields", "a.c"), V2],
                deep_map(),
                "{a {b int32 1, c \"\"}, d int32 2}",
            ),
            (
                &[("fields", "d,x")],
                deep(),
                "{a: {b: int32 1, c: string? \"x\"}, d: int32 0}",
            ),
            (&[("fields", "x")], map(vec![("d", one())]), "{d int32 1, x null}"),
            (
                &[("fields", "d"), ("replacement", "42")],
                map(vec![("d", one())]),
                "{d int32 42}",
            ),
            (
                &[("fields", "d"), ("replacement", "***")],
                map(vec![("d", text("x"))]),
                "{d \"***\"}",
            ),
            (
                &[("fields", "d"), ("replacement", "***")],
                map(vec![("d", one())]),
                "error: …no such number",
            ),
            (
                &[("fields", "d"), ("replacement", "300")],
                map(vec![("d", Value::Int8(1))]),
                "error: …out of its range",
            ),
            (
                &[("fields", "m"), ("replacement", "1.5")],
                st(vec![(
                    "m",
                    bytes().named(logical::DECIMAL).parameter("scale", "2"),
                    Value::Bytes(vec![1].into()),
                )]),
                "{m: bytes<Decimal> [0, 150]}",
            ),
            (
                &[("fields", "b"), ("replacement", "1")],
                st(vec![("b", bool(), Value::Bool(true))]),
                "error: …is of type boolean",
            ),
            (&[("fields", "a")], deep(), "error: …name the fields within it"),
            (&[("fields", "a")], Datum::null(), "null"),
            (
                &[("fields", "a")],
                typed(int32(), one()),
                "error: …expected struct",
            ),
            (&[("fields", "a")], defaulted(), "{a: int32?=7 0, b: int32 1}"),
        ],
    );
    assert!(problems_of("MaskField$Value", &[]).contains("fields"));
    let within = problems_of("MaskField$Value", &[("fields", "a,a.b"), V2]);
    assert!(within.contains("one within the other"), "{within}");
}

#[test]
fn replace_field() {
    check(
        "ReplaceField",
        vec![
            (&[("exclude", "a")], deep(), "{d: int32 2}"),
            (&[("blacklist", "a")], deep(), "{d: int32 2}"),
            (&[("include", "d")], deep(), "{d: int32 2}"),
            (&[("whitelist", "d")], deep_map(), "{d int32 2}"),
            (&[("include", "d,a"), ("exclude", "a")], deep(), "{d: int32 2}"),
            (
                &[("renames", "d:e")],
                deep(),
                "{a: {b: int32 1, c: string? \"x\"}, e: int32 2}",
            ),
            (&[("renames", "d:e"), ("include", "d")], deep_map(), "{e int32 2}"),
            (
                &[("exclude", "a.b"), V2],
                deep(),
                "{a: {c: string? \"x\"}, d: int32 2}",
            ),
            (&[("exclude", "a.b"), V2], deep_map(), "{a {c \"x\"}, d int32 2}"),
            (
                &[("exclude", "a.b")],
                deep(),
                "{a: {b: int32 1, c: string? \"x\"}, d: int32 2}",
            ),
            (&[("include", "a.b"), V2], deep(), "{a: {b: int32 1}}"),
            (&[("include", "a.b,d.x"), V2], deep_map(), "{a {b int32 1}}"),
            (&[("include", "d.x"), V2], deep(), "{}"),
            (
                &[("renames", "a.b:e"), V2],
                deep(),
                "{a: {e: int32 1, c: string? \"x\"}, d: int32 2}",
            ),
            (
                &[("renames", "a.b:e"), V2],
                deep_map(),
                "{a {e int32 1, c \"x\"}, d int32 2}",
            ),
            (
                &[("exclude", "a.b"), V2],
                shallow(),
                "{a: struct? null, d: int32 2}",
            ),
            (&[("exclude", "b")], defaulted(), "{a: int32?=7 7}"),
            (&[("exclude", "b"), KEEP_NULL], defaulted(), "{a: int32?=7 null}"),
            (&[], deep_map(), "{a {b int32 1, c \"x\"}, d int32 2}"),
            (&[("exclude", "b")], Datum::null(), "null"),
            (
                &[("exclude", "b")],
                typed(int32(), one()),
                "error: …expected struct",
            ),
        ],
    );
    assert!(problems_of("ReplaceField$Value", &[("renames", "a")]).contains("old:new"));
    let twice = problems_of("ReplaceField$Value", &[("exclude", "a"), ("blacklist", "b")]);
    assert!(
        twice.contains("transforms.t.blacklist") && twice.contains("keep one"),
        "{twice}"
    );
}

#[test]
fn flatten() {
    let list = || Schema::array(int8());
    let items = || Value::Array(vec![Value::Int8(1)]);
    let (inner, value) = nested(vec![("l", list(), items())]);
    let (default_inner, _) = nested(vec![("b", int32(), one()), ("c", string().optional(), text("x"))]);
    let default_inner = default_inner
        .optional()
        .default_value(Value::Struct(vec![Value::Int32(5), Value::Null]));
    check(
        "Flatten",
        vec![
            (&[], deep(), "{a.b: int32 1, a.c: string? \"x\", d: int32 2}"),
            (
                &[("delimiter", "_")],
                deep(),
                "{a_b: int32 1, a_c: string? \"x\", d: int32 2}",
            ),
            (
                &[("delimiter", "")],
                deep(),
                "{ab: int32 1, ac: string? \"x\", d: int32 2}",
            ),
            (
                &[],
                shallow(),
                "{a.b: int32? null, a.c: string? null, d: int32 2}",
            ),
            (&[], deep_map(), "{a.b int32 1, a.c \"x\", d int32 2}"),
            (
                &[],
                map(vec![("a", Value::Null), ("b", one())]),
                "{a null, b int32 1}",
            ),
            (&[], map(vec![("a", items())]), "{a array [1]}"),
            (&[], st(vec![("a", inner, value)]), "{a.l: array [1]}"),
            (
                &[],
                st(vec![("a", default_inner, Value::Null)]),
                "{a.b: int32?=5 null, a.c: string? null}",
            ),
            (&[], Datum::null(), "null"),
            (&[], typed(int32(), one()), "error: …expected struct"),
            (
                &[],
                st(vec![("m", Schema::map(string(), int8()), Value::Map(vec![]))]),
                "error: …field \"m\" of the value is of type map",
            ),
            (
                &[],
                plain(Value::Map(vec![(Value::Int8(1), one())])),
                "error: …strings as keys",
            ),
        ],
    );
    let (inner, value) = nested(vec![("b", int32(), one())]);
    let clash = st(vec![("a.b", int32(), one()), ("a", inner, value)]);
    check("Flatten", vec![(&[], clash, "error: …two fields")]);
}

#[test]
fn insert_field() {
    let full = |value: Datum| {
        let mut record = Record::new("orders", value);
        (record.partition, record.offset, record.timestamp) = (Some(3), Some(9), Some(1000));
        record
    };
    let class = "InsertField$Value";
    let all: &[(&str, &str)] = &[
        ("topic.field", "t"),
        ("partition.field", "p!"),
        ("offset.field", "o?"),
        ("timestamp.field", "ts"),
        ("static.field", "s"),
        ("static.value", " v "),
    ];
    let table = vec![
        (
            all,
            full(st(vec![("a", int32(), one())])),
            "orders null -> {a: int32 1, t: string? \"orders\", p: int32 3, o: int64? 9, ts: int64<Timestamp>? 1000, s: string? \" v \"}",
        ),
        (
            all,
            full(map(vec![("a", one())])),
            "orders null -> {a int32 1, t \"orders\", p int32 3, o int64 9, ts int64 1000, s \" v \"}",
        ),
        (
            &[("partition.field", "p"), ("timestamp.field", "ts")],
            Record::new("orders", st(vec![])),
            "orders null -> {p: int32? null, ts: int64<Timestamp>? null}",
        ),
        (
            &[("partition.field", "p"), ("timestamp.field", "ts")],
            Record::new("orders", map(vec![])),
            "orders null -> {}",
        ),
        (
            &[("topic.field", "t")],
            full(Datum::null()),
            "orders null -> null",
        ),
        (
            &[("topic.field", "a")],
            full(st(vec![("a", int32(), one()), ("b", int32(), one())])),
            "orders null -> {a: string? \"orders\", b: int32 1}",
        ),
        (
            &[("topic.field", "a"), ("field.on.existing.field", "ignore")],
            full(st(vec![("a", int32(), one())])),
            "orders null -> {a: int32 1}",
        ),
        (
            &[("topic.field", "a"), ("field.on.existing.field", "ignore")],
            full(map(vec![("a", one())])),
            "orders null -> {a int32 1}",
        ),
        (
            &[("topic.field", "a.t"), V2],
            full(deep()),
            "orders null -> {a: {b: int32 1, c: string? \"x\", t: string? \"orders\"}, d: int32 2}",
        ),
        (
            &[("topic.field", "a.t"), V2],
            full(shallow()),
            "orders null -> {a: struct? null, d: int32 2}",
        ),
        (
            &[("topic.field", "m.n.t"), ("partition.field", "m.p!"), V2],
            full(st(vec![])),
            "orders null -> {m: {n: {t: string? \"orders\"}, p: int32 3}}",
        ),
        (
            &[("topic.field", "m.n.t"), ("partition.field", "m.p!"), V2],
            full(map(vec![])),
            "orders null -> {m {n {t \"orders\"}, p int32 3}}",
        ),
        (
            &[("topic.field", "m.t"), ("field.on.missing.parent", "ignore"), V2],
            full(st(vec![])),
            "orders null -> {}",
        ),
        (
            &[("topic.field", "m.t"), ("field.on.missing.parent", "ignore"), V2],
            full(map(vec![])),
            "orders null -> {}",
        ),
        (
            &[("topic.field", "d.t"), V2],
            full(deep_map()),
            "orders null -> {a {b int32 1, c \"x\"}, d int32 2}",
        ),
    ];
    for (settings, record, expected) in table {
        assert_eq!(whole(class, settings, &record), expected, "{settings:?}");
    }
    let sourced = Record::new("orders", st(vec![]));
    let error = whole(class, &[("offset.field", "o")], &sourced);
    assert!(error.contains("offset.field is for sinks"), "{error}");
    let error = whole(class, &[("timestamp.field", "t!")], &sourced);
    assert!(error.contains("timestamp is missing"), "{error}");
    let error = whole(class, &[("topic.field", "t")], &Record::new("x", plain(one())));
    assert!(error.contains("expected map"), "{error}");
    for (settings, expected) in [
        (&[][..], "set one of"),
        (&[("static.field", "a")], "static.field needs it"),
        (&[("static.value", "a")], "static.value needs it"),
        (&[("topic.field", "`a"), V2], "partner"),
    ] {
        let problems = problems_of(class, settings);
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn header_from() {
    let class = "HeaderFrom$Value";
    let moved: &[(&str, &str)] = &[("fields", "d"), ("headers", "h"), ("operation", "move")];
    let copied: &[(&str, &str)] = &[("fields", "d"), ("headers", "h"), ("operation", "copy")];
    let inner: &[(&str, &str)] = &[("fields", "a.c,d"), ("headers", "c,d"), ("operation", "move"), V2];
    let table = vec![
        (
            moved,
            deep(),
            "t null -> {a: {b: int32 1, c: string? \"x\"}} | h: int32 2",
        ),
        (
            copied,
            deep(),
            "t null -> {a: {b: int32 1, c: string? \"x\"}, d: int32 2} | h: int32 2",
        ),
        (
            moved,
            deep_map(),
            "t null -> {a {b int32 1, c \"x\"}} | h: int32 2",
        ),
        (copied, map(vec![]), "t null -> {} | h: null"),
        (
            inner,
            deep(),
            "t null -> {a: {b: int32 1}} | c: string? \"x\" | d: int32 2",
        ),
        (
            inner,
            shallow(),
            "t null -> {a: struct? null} | c: string? null | d: int32 2",
        ),
        (moved, Datum::null(), "t null -> null"),
    ];
    for (settings, datum, expected) in table {
        assert_eq!(whole(class, settings, &Record::new("t", datum)), expected);
    }
    let mut record = Record::new("t", deep());
    record.headers.push(header("h", "there"));
    assert!(whole(class, copied, &record).ends_with("| h: string \"there\" | h: int32 2"));
    let error = whole(
        class,
        &[("fields", "x"), ("headers", "x"), ("operation", "copy")],
        &record,
    );
    assert!(error.contains("field \"x\" of the value is missing"), "{error}");
    let problems = problems_of(
        class,
        &[("fields", "a,b"), ("headers", "h"), ("operation", "copy")],
    );
    assert!(problems.contains("1 names for 2 fields"), "{problems}");
    assert!(problems_of(class, &[("fields", "a"), ("headers", "h"), ("operation", "cpoy")]).contains("copy"));
}

#[test]
fn value_to_key() {
    let table: Vec<(Settings<'_>, Datum, &str)> = vec![
        (&[("fields", "d")], deep(), "t {d: int32 2} -> "),
        (
            &[("fields", "a,d")],
            deep(),
            "t {a: {b: int32 1, c: string? \"x\"}, d: int32 2} -> ",
        ),
        (
            &[("fields", "a.b,d"), V2],
            deep(),
            "t {b: int32 1, d: int32 2} -> ",
        ),
        (&[("fields", "a.b"), V2], shallow(), "t {b: int32? null} -> "),
        (
            &[("fields", "a.b,x"), V2],
            deep_map(),
            "t {b int32 1, x null} -> ",
        ),
        (&[("fields", "a")], defaulted(), "t {a: int32?=7 7} -> "),
        (
            &[("fields", "a"), KEEP_NULL],
            defaulted(),
            "t {a: int32?=7 null} -> ",
        ),
        (
            &[("fields", "x")],
            deep(),
            "error: field \"x\" of the value is missing",
        ),
        (
            &[("fields", "x")],
            Datum::null(),
            "error: the record's value is missing",
        ),
        (
            &[("fields", "x")],
            typed(int32(), one()),
            "error: the record's value is of type int32",
        ),
    ];
    for (settings, datum, expected) in table {
        let found = whole("ValueToKey", settings, &Record::new("t", datum));
        assert!(found.starts_with(expected), "{found}");
    }
    assert!(problems_of("ValueToKey", &[("fields", "a.b,c.b"), V2]).contains("keep one"));
}

#[test]
fn headers() {
    let mut record = Record::new("t", Datum::null());
    record.headers = vec![header("a", "1"), header("b", "2"), header("a", "3")];
    assert_eq!(
        whole("DropHeaders", &[("headers", "a, x")], &record),
        "t null -> null | b: string \"2\""
    );
    record.headers.clear();
    for (literal, expected) in [
        ("42", "int8 42"),
        ("1.5", "float 1.5"),
        ("true", "boolean true"),
        (" text ", "string \" text \""),
        ("null", "null"),
        ("1970-01-02", "int32<Date> 1"),
    ] {
        let found = whole(
            "InsertHeader",
            &[("header", "h"), ("value.literal", literal)],
            &record,
        );
        assert_eq!(found, format!("t null -> null | h: {expected}"));
    }
}

#[test]
fn set_schema_metadata() {
    let datum = typed(int32().named("old").version(1), one());
    check(
        "SetSchemaMetadata",
        vec![
            (&[("schema.name", "new")], datum.clone(), "int32<new> 1"),
            (&[("schema.version", "2")], datum, "int32<old> 1"),
            (
                &[("schema.name", "new")],
                st(vec![("a", int32(), one())]),
                "<new>{a: int32 1}",
            ),
            (
                &[("schema.name", "new")],
                typed(int32().optional(), Value::Null),
                "int32<new>? null",
            ),
            (&[("schema.name", "new")], Datum::null(), "null"),
            (&[("schema.name", "new")], plain(one()), "error: …without schema"),
        ],
    );
    assert!(problems_of("SetSchemaMetadata$Key", &[]).contains("set one or both"));
}
