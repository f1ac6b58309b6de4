//! Change events: ExtractNewRecordState and ByLogicalTableRouter.

mod support;

use support::*;
use tidewater_plugin_api::{Schema, Value};
use tidewater_transforms::{Datum, Record};

fn row_schema() -> Schema {
    let (schema, _) = nested(vec![
        ("id", int32(), Value::Int32(0)),
        ("to", string().optional(), Value::Null),
    ]);
    schema.named("shop.orders.Value").optional()
}

fn row(id: i32) -> Value {
    Value::Struct(vec![Value::Int32(id), text("elsewhere")])
}

fn source() -> (Schema, Value) {
    nested(vec![
        ("table", string(), text("orders")),
        ("ts_ms", int64(), Value::Int64(5)),
    ])
}

fn event_of(before: Value, after: Value, op: &str) -> Record {
    let (source_schema, source) = source();
    let (schema, value) = nested(vec![
        ("before", row_schema(), before),
        ("after", row_schema(), after),
        ("source", source_schema, source),
        ("op", string(), text(op)),
        ("ts_ms", int64().optional(), Value::Int64(9)),
    ]);
    let mut record = Record::new("shop.orders", typed(schema.named("shop.orders.Envelope"), value));
    record.key = st(vec![("id", int32(), Value::Int32(1))]);
    record
}

fn update() -> Record {
    event_of(row(1), row(2), "u")
}

fn delete() -> Record {
    event_of(row(1), Value::Null, "d")
}

fn tombstone() -> Record {
    let mut record = Record::new("shop.orders", Datum::null());
    record.key = st(vec![("id", int32(), Value::Int32(1))]);
    record
}

fn untyped(record: &Record) -> Record {
    let mut record = record.clone();
    if record.value.is_null() {
        return record;
    }
    let named = |value: &Value| match value {
        Value::Struct(columns) => pairs(vec![("id", columns[0].clone()), ("to", columns[1].clone())]),
        other => other.clone(),
    };
    let Value::Struct(parts) = record.value.take().expect("decoded") else {
        panic!("an event is a struct");
    };
    let (_, source) = source();
    let Value::Struct(source) = source else {
        panic!("a struct")
    };
    record.value = map(vec![
        ("before", named(&parts[0])),
        ("after", named(&parts[1])),
        (
            "source",
            pairs(vec![("table", source[0].clone()), ("ts_ms", source[1].clone())]),
        ),
        ("op", parts[3].clone()),
        ("ts_ms", parts[4].clone()),
    ]);
    record
}

const CLASS: &str = "io.debezium.transforms.ExtractNewRecordState";

/// The value and headers of what comes out, without the schema's name.
fn state(settings: &[(&str, &str)], record: &Record) -> String {
    let found = whole(CLASS, settings, record).replace("<shop.orders.Value>", "");
    found.replace("shop.orders {id: int32 1} -> ", "")
}

#[test]
fn deletes_and_tombstones() {
    let updated = "?{id: int32 2, to: string? \"elsewhere\"}";
    let marked = |id: u8, gone: bool| {
        format!("{{id: int32 {id}, to: string? \"elsewhere\", __deleted: string? \"{gone}\"}}")
    };
    let (kept, gone) = (marked(2, false), marked(1, true));
    let modern = "delete.tombstone.handling.mode";
    let table: [(Settings<'_>, &str, &str, &str); 9] = [
        (&[], updated, "struct? null", "dropped"),
        (&[(modern, "tombstone")], updated, "struct? null", "dropped"),
        (&[(modern, "drop")], updated, "dropped", "dropped"),
        (&[(modern, "rewrite")], &kept, &gone, "dropped"),
        (&[(modern, "rewrite-with-tombstone")], &kept, &gone, "null"),
        (
            &[("delete.handling.mode", "none"), ("drop.tombstones", "false")],
            updated,
            "struct? null",
            "null",
        ),
        (&[("delete.handling.mode", "rewrite")], &kept, &gone, "dropped"),
        (&[("drop.tombstones", "false")], updated, "dropped", "null"),
        (
            &[("delete.handling.mode", "drop"), ("drop.tombstones", "true")],
            updated,
            "dropped",
            "dropped",
        ),
    ];
    for (settings, of_update, of_delete, of_tombstone) in table {
        assert_eq!(state(settings, &update()), of_update, "update {settings:?}");
        assert_eq!(state(settings, &delete()), of_delete, "delete {settings:?}");
        assert_eq!(
            state(settings, &tombstone()),
            of_tombstone,
            "tombstone {settings:?}"
        );
        // Without schema, the same comes out, as a map.
        let plain = |expected: &str| {
            expected
                .replace(": int32", " int32")
                .replace(": string?", "")
                .replace("?{", "{")
                .replace("struct? null", "null")
        };
        for (record, expected) in [
            (update(), of_update),
            (delete(), of_delete),
            (tombstone(), of_tombstone),
        ] {
            assert_eq!(
                state(settings, &untyped(&record)),
                plain(expected),
                "{settings:?}"
            );
        }
    }
}

#[test]
fn what_is_added() {
    let fields: &[(&str, &str)] = &[("add.fields", "op,table,source.ts_ms,ts_ms:at,nothing")];
    let added = "{id: int32 2, to: string? \"elsewhere\", __op: string? \"u\", __table: string? \"orders\", \
                 __source_ts_ms: int64? 5, __at: int64? 9}";
    assert_eq!(state(fields, &update()), added);
    assert_eq!(
        state(fields, &untyped(&update())),
        "{id int32 2, to \"elsewhere\", __op \"u\", __table \"orders\", __source_ts_ms int64 5, __at int64 9}"
    );
    let rewritten = [
        ("add.fields", "op"),
        ("delete.tombstone.handling.mode", "rewrite"),
        ("add.fields.prefix", "_"),
    ];
    assert_eq!(
        state(&rewritten, &delete()),
        "{id: int32 1, to: string? \"elsewhere\", __deleted: string? \"true\", _op: string? \"d\"}"
    );
    let headers: &[(&str, &str)] = &[("add.headers", "op,source.table"), ("add.headers.prefix", "")];
    assert_eq!(
        state(headers, &update()),
        "?{id: int32 2, to: string? \"elsewhere\"} | op: string? \"u\" | source_table: string? \"orders\""
    );
    assert_eq!(
        state(headers, &untyped(&delete())),
        "null | op: \"d\" | source_table: \"orders\""
    );
    let kept = [
        ("add.headers", "op"),
        ("delete.tombstone.handling.mode", "rewrite-with-tombstone"),
    ];
    assert_eq!(state(&kept, &tombstone()), "null | __op: string \"d\"");
    let clash = state(
        &[("add.fields", "table:to"), ("add.fields.prefix", "")],
        &update(),
    );
    assert!(clash.contains("a name that is free"), "{clash}");
    assert!(problems_of(CLASS, &[("add.fields", "a.b.c")]).contains("names no part"));
}

#[test]
fn routing_and_what_is_no_event() {
    let routed = whole(CLASS, &[("route.by.field", "to")], &update());
    assert!(routed.starts_with("elsewhere "), "{routed}");
    let routed = whole(CLASS, &[("route.by.field", "to")], &untyped(&delete()));
    assert!(routed.starts_with("elsewhere "), "{routed}");
    let missing = whole(CLASS, &[("route.by.field", "nothing")], &update());
    assert!(
        missing.contains("field \"nothing\" of the value is missing"),
        "{missing}"
    );
    let number = whole(CLASS, &[("route.by.field", "id")], &update());
    assert!(number.contains("is of type int32, expected string"), "{number}");
    assert_eq!(
        whole(CLASS, &[], &event_of(Value::Null, Value::Null, "t")),
        "dropped"
    );
    let rewrite = [("delete.tombstone.handling.mode", "rewrite")];
    assert_eq!(
        whole(CLASS, &rewrite, &event_of(Value::Null, Value::Null, "d")),
        "dropped"
    );
    for datum in [
        typed(int32(), Value::Int32(1)),
        st(vec![("a", int32(), Value::Int32(1))]),
        map(vec![("op", text("u"))]),
        plain(text("x")),
    ] {
        let record = Record::new("heartbeat", datum);
        assert_eq!(
            whole(CLASS, &[], &record),
            show_record(&mut record.clone()),
            "passes"
        );
    }
}

#[test]
fn by_logical_table_router() {
    let class = "ByLogicalTableRouter";
    let one = [("topic.regex", "shop\\.(.*)"), ("topic.replacement", "all")];
    let unchanged = show_record(&mut update());
    assert_eq!(
        whole(
            class,
            &[("topic.regex", "else.*"), ("topic.replacement", "all")],
            &update()
        ),
        unchanged
    );
    let key = "all <all.Key>{id: int32 1, __dbz__physicalTableIdentifier: string \"shop.orders\"} -> ";
    let routed = whole(class, &one, &update());
    assert!(routed.starts_with(key), "{routed}");
    let value = &routed[key.len()..];
    assert!(
        value.starts_with("<all.Envelope>{before: <all.Value>?{id: int32 1"),
        "{value}"
    );
    assert_eq!(whole(class, &one, &tombstone()), format!("{key}null"));
    let shared = [one[0], one[1], ("key.enforce.uniqueness", "false")];
    assert!(whole(class, &shared, &tombstone()).starts_with("all <all.Key>{id: int32 1} -> "));
    let short = [
        one[0],
        one[1],
        ("key.field.name", "table"),
        ("key.field.regex", "shop\\.(.*)"),
        ("key.field.replacement", "$1"),
    ];
    assert!(whole(class, &short, &tombstone()).contains("{id: int32 1, table: string \"orders\"}"));
    let clash = [one[0], one[1], ("key.field.name", "id")];
    assert!(whole(class, &clash, &tombstone()).contains("set key.field.name"));
    let mut keyless = update();
    keyless.key = Datum::null();
    assert!(whole(class, &one, &keyless).starts_with("all null -> <all.Envelope>"));
    let mut number = update();
    number.key = typed(int32(), Value::Int32(1));
    assert!(whole(class, &one, &number).contains("key.enforce.uniqueness=false"));
    assert!(whole(class, &shared, &number).starts_with("all int32 1 -> "));
    number.key = map(vec![("id", Value::Int32(1))]);
    assert!(
        whole(class, &one, &number).contains("{id int32 1, __dbz__physicalTableIdentifier \"shop.orders\"}")
    );
    let half = [one[0], one[1], ("key.field.regex", "x")];
    assert!(problems_of(class, &half).contains("key.field.replacement"));
}

#[test]
fn events_stay_encoded_on_their_way_to_another_topic() {
    let mut record = update();
    record.value = encoded(&record.value);
    let settings = [("topic.regex", ".*"), ("topic.replacement", "all")];
    let routed = chain_of("ByLogicalTableRouter", &settings).apply(record.clone());
    let routed = routed.expect("routed").expect("kept");
    assert_eq!(routed.value.as_encoded(), record.value.as_encoded());
    assert!(routed.value.as_encoded().is_some());
}
