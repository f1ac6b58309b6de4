//! Records per second through each transform, one thread, and through a chain of three.
//!
//! ```text
//! cargo run --release -p tidewater-transforms --example throughput
//! ```
//!
//! Each record is a change event or its row, encoded as a frame has it; decoding it, where a transform needs that, counts,
//! and so does encoding what comes out.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewater_plugin_api::{ConfigMap, Field, Schema, SchemaRef, Type, Value};
use tidewater_transforms::{Chain, Datum, Record};

/// How long each is measured.
const SPAN: Duration = Duration::from_millis(700);

fn row() -> (SchemaRef, Value) {
    let text = |optional: bool| {
        let schema = Schema::new(Type::String);
        Arc::new(if optional { schema.optional() } else { schema })
    };
    let (required, optional) = (text(false), text(true));
    let mut fields = vec![
        Field::new("id", Schema::new(Type::Int64)),
        Field::new("created", Schema::new(Type::Int64)),
        Field::new("amount", Schema::new(Type::Float64)),
    ];
    let mut values = vec![
        Value::Int64(4711),
        Value::Int64(1_615_273_504_030),
        Value::Float64(12.5),
    ];
    for index in 0..7 {
        let schema = if index % 2 == 0 { &required } else { &optional };
        fields.push(Field::new(format!("column{index}"), schema.clone()));
        values.push(Value::String(format!("a text of column {index}")));
    }
    let schema = Schema::structure(fields).named("shop.orders.Value").optional();
    (Arc::new(schema), Value::Struct(values))
}

fn event() -> (SchemaRef, Value) {
    let (row_schema, row) = row();
    let text = Arc::new(Schema::new(Type::String));
    let source = Schema::structure(vec![
        Field::new("table", text.clone()),
        Field::new("lsn", Schema::new(Type::Int64)),
    ]);
    let schema = Schema::structure(vec![
        Field::new("before", row_schema.clone()),
        Field::new("after", row_schema),
        Field::new("source", source),
        Field::new("op", text),
    ]);
    let source = Value::Struct(vec![Value::String("orders".into()), Value::Int64(99)]);
    let value = Value::Struct(vec![Value::Null, row, source, Value::String("c".into())]);
    (Arc::new(schema.named("shop.orders.Envelope")), value)
}

fn record((schema, value): (SchemaRef, Value)) -> Record {
    let mut bytes = Vec::new();
    value
        .encode(Some(&schema), &mut bytes)
        .expect("a value of its schema");
    let mut record = Record::new("shop.orders", Datum::encoded(Some(schema), Bytes::from(bytes)));
    let key = Arc::new(Schema::structure(vec![Field::new(
        "id",
        Schema::new(Type::Int64),
    )]));
    record.key = Datum::encoded(
        Some(key),
        Bytes::copy_from_slice(&[8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
    );
    record.timestamp = Some(1_615_273_504_030);
    record
}

fn chain(transforms: &[(&str, &[(&str, &str)])]) -> Chain {
    let names: Vec<String> = (0..transforms.len()).map(|index| format!("t{index}")).collect();
    let mut config = ConfigMap::from([("transforms".to_owned(), names.join(","))]);
    for (name, (class, settings)) in names.iter().zip(transforms) {
        config.insert(format!("transforms.{name}.type"), (*class).to_owned());
        for (key, value) in *settings {
            config.insert(format!("transforms.{name}.{key}"), (*value).to_owned());
        }
    }
    Chain::new(&config).expect("a good configuration")
}

fn measure(name: &str, mut chain: Chain, record: &Record) {
    let mut out = Vec::with_capacity(4096);
    let mut run = |count: u32| {
        for _ in 0..count {
            let found = chain.apply(record.clone()).expect("no error");
            if let Some(found) = black_box(found) {
                out.clear();
                found
                    .value
                    .encode(&mut out)
                    .expect("what comes out fits its schema");
            }
        }
    };
    run(2_000);
    let (start, mut records) = (Instant::now(), 0_u64);
    while start.elapsed() < SPAN {
        run(1_000);
        records += 1_000;
    }
    let rate = records as f64 / start.elapsed().as_secs_f64();
    println!("{name:<38} {rate:>12.0} records/s {:>8.0} ns", 1e9 / rate);
}

fn main() {
    let (row, event) = (record(row()), record(event()));
    println!(
        "a row of 10 columns, {} bytes",
        row.value.as_encoded().map_or(0, Bytes::len)
    );
    measure("(no transform)", Chain::default(), &row);
    let of_rows: [(&str, &[(&str, &str)]); 17] = [
        (
            "RegexRouter",
            &[("regex", "shop\\.(.*)"), ("replacement", "all-$1")],
        ),
        ("TimestampRouter", &[]),
        ("InsertHeader", &[("header", "h"), ("value.literal", "1")]),
        ("SetSchemaMetadata$Value", &[("schema.name", "new")]),
        ("MaskField$Value", &[("fields", "column1")]),
        ("Cast$Value", &[("spec", "id:string,amount:int32")]),
        (
            "ReplaceField$Value",
            &[("exclude", "column1,column2"), ("renames", "id:key")],
        ),
        ("ExtractField$Value", &[("field", "id")]),
        ("HoistField$Value", &[("field", "row")]),
        ("Flatten$Value", &[]),
        (
            "InsertField$Value",
            &[("topic.field", "t"), ("timestamp.field", "at")],
        ),
        (
            "HeaderFrom$Value",
            &[("fields", "id"), ("headers", "id"), ("operation", "copy")],
        ),
        ("ValueToKey", &[("fields", "id,column0")]),
        (
            "TimestampConverter$Value",
            &[
                ("field", "created"),
                ("target.type", "string"),
                ("format", "yyyy-MM-dd HH:mm:ss.SSS"),
            ],
        ),
        (
            "ExpressionFilter",
            &[("condition", "value.amount > 10.0 && value.id != 1")],
        ),
        (
            "ContentBasedRouter",
            &[("topic.expression", "value.id == 4711 ? 'special' : null")],
        ),
        (
            "ByLogicalTableRouter",
            &[("topic.regex", "shop\\..*"), ("topic.replacement", "all")],
        ),
    ];
    for (class, settings) in of_rows {
        measure(class, chain(&[(class, settings)]), &row);
    }
    println!(
        "a change event of it, {} bytes",
        event.value.as_encoded().map_or(0, Bytes::len)
    );
    let unwrap: (&str, &[(&str, &str)]) = ("ExtractNewRecordState", &[("add.fields", "op,lsn")]);
    measure("ExtractNewRecordState", chain(&[unwrap]), &event);
    let mask: (&str, &[(&str, &str)]) = ("MaskField$Value", &[("fields", "column1")]);
    let route: (&str, &[(&str, &str)]) = ("RegexRouter", &[("regex", "shop\\.(.*)"), ("replacement", "$1")]);
    measure(
        "ExtractNewRecordState, MaskField, …",
        chain(&[unwrap, mask, route]),
        &event,
    );
}
