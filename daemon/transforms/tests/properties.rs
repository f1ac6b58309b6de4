//! Whatever a record holds and however a chain is configured: no panic, and what comes out fits its schema.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use support::*;
use tidewater_plugin_api::{Field, Schema, SchemaRef, Type, Value, logical};
use tidewater_transforms::{Chain, Datum, Header, Record};

/// Names that the configurations below ask for.
const NAMES: [&str; 6] = ["a", "b", "a.b", "id", "op", "t"];

fn leaf() -> impl Strategy<Value = Schema> {
    let plain = prop_oneof![
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
    let named = select(vec![
        (Type::Bytes, logical::DECIMAL),
        (Type::Int32, logical::CONNECT_DATE),
        (Type::Int32, logical::CONNECT_TIME),
        (Type::Int64, logical::CONNECT_TIMESTAMP),
        (Type::Int64, logical::MICRO_TIMESTAMP),
        (Type::String, logical::ZONED_TIMESTAMP),
    ]);
    prop_oneof![
        3 => plain.prop_map(Schema::new),
        1 => named.prop_map(|(ty, name)| Schema::new(ty).named(name).parameter("scale", "3")),
    ]
}

fn schema() -> impl Strategy<Value = SchemaRef> {
    let optional =
        |(schema, optional): (Schema, bool)| Arc::new(if optional { schema.optional() } else { schema });
    (leaf(), any::<bool>())
        .prop_map(optional)
        .prop_recursive(3, 24, 5, move |inner| {
            let fields = prop::collection::vec((select(&NAMES[..]), inner.clone()), 0..6);
            let structure = (fields, any::<bool>()).prop_map(|(fields, event)| {
                let mut unique: Vec<Field> = Vec::new();
                for (name, schema) in fields {
                    if unique.iter().all(|field| &*field.name != name) {
                        unique.push(Field::new(name, schema));
                    }
                }
                if !event {
                    return Schema::structure(unique);
                }
                let parts = ["before", "after", "source"].into_iter().zip(unique);
                let fields = parts
                    .map(|(name, field)| Field::new(name, field.schema))
                    .collect();
                Schema::structure(fields).named("x.Envelope")
            });
            let any_of = prop_oneof![
                3 => structure,
                1 => inner.clone().prop_map(Schema::array),
                1 => inner.prop_map(|inner| Schema::map(Schema::new(Type::String), inner)),
            ];
            (any_of, any::<bool>()).prop_map(optional)
        })
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec!["", "1", "300", "-1.5", "true", "2020-02-03", "t", "1e999"]).prop_map(ToOwned::to_owned),
        any::<String>(),
    ]
}

fn value(schema: &Schema) -> BoxedStrategy<Value> {
    let some = match &schema.ty {
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Int8 => any::<i8>().prop_map(Value::Int8).boxed(),
        Type::Int16 => any::<i16>().prop_map(Value::Int16).boxed(),
        Type::Int32 => any::<i32>().prop_map(Value::Int32).boxed(),
        Type::Int64 => any::<i64>().prop_map(Value::Int64).boxed(),
        Type::Float32 => any::<f32>().prop_map(Value::Float32).boxed(),
        Type::Float64 => any::<f64>().prop_map(Value::Float64).boxed(),
        Type::String => words().prop_map(Value::String).boxed(),
        Type::Bytes => prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| Value::Bytes(bytes.into()))
            .boxed(),
        Type::Array(element) => prop::collection::vec(value(element), 0..3)
            .prop_map(Value::Array)
            .boxed(),
        Type::Map(_, element) => {
            prop::collection::vec((words().prop_map(Value::String), value(element)), 0..3)
                .prop_map(Value::Map)
                .boxed()
        }
        Type::Struct(fields) => {
            let values: Vec<_> = fields.iter().map(|field| value(&field.schema)).collect();
            values.prop_map(Value::Struct).boxed()
        }
    };
    if schema.optional {
        prop_oneof![1 => Just(Value::Null), 3 => some].boxed()
    } else {
        some
    }
}

/// A value without schema.
fn untyped() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(Value::Int32),
        any::<i64>().prop_map(Value::Int64),
        any::<f64>().prop_map(Value::Float64),
        words().prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let names = [&NAMES[..], &["before", "after", "source"]].concat();
        let key = prop_oneof![9 => select(names).prop_map(text), 1 => any::<i8>().prop_map(Value::Int8)];
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => prop::collection::vec((key, inner), 0..6).prop_map(Value::Map),
        ]
    })
}

fn datum() -> impl Strategy<Value = Datum> {
    let fitting = schema().prop_flat_map(|schema| {
        let value = value(&schema);
        (Just(schema), value).prop_map(|(schema, value)| Datum::new(Some(schema), value))
    });
    prop_oneof![
        5 => (fitting, any::<bool>()).prop_map(|(datum, encode)| if encode { encoded(&datum) } else { datum }),
        2 => untyped().prop_map(|value| Datum::new(None, value)),
        1 => schema().prop_map(|schema| Datum::new(Some(schema), Value::Null)),
    ]
}

fn record(datum: impl Strategy<Value = Datum> + Clone) -> impl Strategy<Value = Record> {
    let headers = prop::collection::vec((select(&["h", "a"][..]), datum.clone()), 0..3);
    (
        datum.clone(),
        datum,
        headers,
        any::<Option<i64>>(),
        any::<Option<u16>>(),
    )
        .prop_map(|(key, value, headers, timestamp, number)| {
            let mut record = Record::new("shop.orders", value);
            record.key = key;
            record.headers = headers
                .into_iter()
                .map(|(name, value)| Header::new(name, value))
                .collect();
            record.timestamp = timestamp;
            record.partition = number.map(u32::from);
            record.offset = number.map(u64::from);
            record
        })
}

/// Configurations of every class.
const CHAINS: [(&str, Settings<'static>); 36] = [
    ("Cast$Value", &[("spec", "a:int8,b:string,id:boolean,t:float32")]),
    (
        "Cast$Key",
        &[("spec", "a.b:string,b:int64"), ("field.syntax.version", "V2")],
    ),
    ("Cast$Value", &[("spec", "string")]),
    ("Cast$Value", &[("spec", "int32")]),
    ("DropHeaders", &[("headers", "h")]),
    ("ExtractField$Value", &[("field", "a")]),
    (
        "ExtractField$Key",
        &[("field", "a.b"), ("field.syntax.version", "V2")],
    ),
    ("Filter", &[]),
    ("Flatten$Value", &[]),
    ("Flatten$Key", &[("delimiter", "")]),
    (
        "HeaderFrom$Value",
        &[("fields", "a,b"), ("headers", "x,y"), ("operation", "move")],
    ),
    (
        "HeaderFrom$Key",
        &[
            ("fields", "a.b"),
            ("headers", "x"),
            ("operation", "copy"),
            ("field.syntax.version", "V2"),
        ],
    ),
    ("HoistField$Value", &[("field", "a")]),
    (
        "HoistField$Key",
        &[("field", "x"), ("hoisted", "a.b"), ("field.syntax.version", "V2")],
    ),
    (
        "InsertField$Value",
        &[
            ("topic.field", "a"),
            ("partition.field", "p!"),
            ("timestamp.field", "ts"),
        ],
    ),
    (
        "InsertField$Value",
        &[
            ("offset.field", "a.b.c"),
            ("static.field", "id"),
            ("static.value", "x"),
            ("field.syntax.version", "V2"),
        ],
    ),
    ("InsertHeader", &[("header", "h"), ("value.literal", "1.5")]),
    ("MaskField$Value", &[("fields", "a,b,id,t,x")]),
    (
        "MaskField$Key",
        &[
            ("fields", "a.b,id"),
            ("replacement", "7"),
            ("field.syntax.version", "V2"),
        ],
    ),
    ("RegexRouter", &[("regex", "(.*)\\.(.*)"), ("replacement", "$2")]),
    ("ReplaceField$Value", &[("exclude", "a,x"), ("renames", "b:c")]),
    (
        "ReplaceField$Key",
        &[("include", "a.b,id"), ("field.syntax.version", "V2")],
    ),
    (
        "SetSchemaMetadata$Value",
        &[("schema.name", "n"), ("schema.version", "3")],
    ),
    (
        "TimestampConverter$Value",
        &[
            ("field", "t"),
            ("target.type", "string"),
            ("format", "yyyy-MM-dd G EEE hh:mm a"),
        ],
    ),
    (
        "TimestampConverter$Key",
        &[
            ("field", "a.b"),
            ("target.type", "Date"),
            ("format", "yyyy"),
            ("field.syntax.version", "V2"),
        ],
    ),
    (
        "TimestampConverter$Value",
        &[
            ("target.type", "unix"),
            ("format", "yyyy-MM-dd"),
            ("unix.precision", "nanoseconds"),
        ],
    ),
    (
        "TimestampConverter$Value",
        &[("field", "a"), ("target.type", "Time")],
    ),
    ("TimestampRouter", &[]),
    ("ValueToKey", &[("fields", "a,id")]),
    ("ValueToKey", &[("fields", "a.b"), ("field.syntax.version", "V2")]),
    (
        "ExtractNewRecordState",
        &[
            ("add.fields", "op,a"),
            ("add.headers", "op,b"),
            ("delete.tombstone.handling.mode", "rewrite"),
        ],
    ),
    (
        "ExtractNewRecordState",
        &[("route.by.field", "a"), ("drop.tombstones", "false")],
    ),
    (
        "ByLogicalTableRouter",
        &[("topic.regex", "shop.*"), ("topic.replacement", "all")],
    ),
    (
        "ExpressionFilter",
        &[
            ("condition", "value.a.b == key.a || header.h.value == 1"),
            ("null.handling.mode", "evaluate"),
        ],
    ),
    (
        "ExpressionFilter",
        &[(
            "condition",
            "value.a == value.b || size(value.a) > 1 || value.a.exists(x, x == value.b)",
        )],
    ),
    (
        "ContentBasedRouter",
        &[("topic.expression", "string(value.a) + string(key.b)")],
    ),
];

fn fits(record: &Record) {
    let headers = record.headers.iter().map(|header| &header.value);
    for datum in [&record.key, &record.value].into_iter().chain(headers) {
        datum
            .encode(&mut Vec::new())
            .expect("what comes out fits its schema");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_class_takes_every_record(record in record(datum().boxed())) {
        for (class, settings) in CHAINS {
            if let Ok(Some(found)) = chain_of(class, settings).apply(record.clone()) {
                fits(&found);
            }
        }
    }

    #[test]
    fn transforms_follow_one_another(
        record in record(datum().boxed()),
        chosen in prop::collection::vec(select(&CHAINS[..]), 1..5),
    ) {
        let names: Vec<String> = (0..chosen.len()).map(|index| format!("t{index}")).collect();
        let mut all = config(&[("transforms", &names.join(","))]);
        for (name, (class, settings)) in names.iter().zip(chosen) {
            all.insert(format!("transforms.{name}.type"), class.to_owned());
            all.extend(settings.iter().map(|(key, value)| (format!("transforms.{name}.{key}"), (*value).to_owned())));
        }
        let mut chain = Chain::new(&all).expect("a good configuration");
        if let Ok(Some(found)) = chain.apply(record) {
            fits(&found);
        }
    }

    /// A value that is not what its schema says gives an error or passes; it does no harm.
    #[test]
    fn what_does_not_fit_its_schema_is_survived(
        schemas in (schema(), schema()),
        values in (schema().prop_flat_map(|schema| value(&schema)), untyped()),
    ) {
        let mut record = Record::new("t", Datum::new(Some(schemas.0), values.0));
        record.key = Datum::new(Some(schemas.1), values.1);
        for (class, settings) in CHAINS {
            let _ = chain_of(class, settings).apply(record.clone());
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_survived(schema in schema(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        for schema in [Some(schema), None] {
            let mut record = Record::new("t", Datum::encoded(schema.clone(), bytes.clone().into()));
            record.key = record.value.clone();
            for (class, settings) in CHAINS {
                let _ = chain_of(class, settings).apply(record.clone());
            }
        }
    }

    #[test]
    fn a_record_that_no_transform_is_for_stays_as_it_is(record in record(datum().boxed())) {
        for (class, settings) in CHAINS {
            let mut all = config_of(class, settings);
            all.extend(config(&[
                ("transforms.t.predicate", "p"),
                ("predicates", "p"),
                ("predicates.p.type", "TopicNameMatches"),
                ("predicates.p.pattern", "another"),
            ]));
            let mut chain = Chain::new(&all).expect("a good configuration");
            let found = chain.apply(record.clone()).expect("no error").expect("kept");
            // NaN is not itself, but its text is.
            prop_assert_eq!(format!("{found:?}"), format!("{record:?}"));
        }
    }

    /// Whatever stands in a configuration, it is taken or refused.
    #[test]
    fn every_configuration_is_survived(
        first in prop_oneof![any::<String>(), "[a-z.`$(){}\\[\\]?*+|0-9' ,:!-]{0,24}", "[yMdHhmsSzXGEuaDk' :.T-]{0,16}"],
        second in prop_oneof![any::<String>(), "[a-z$\\\\{}0-9]{0,8}"],
        record in record(datum().boxed()),
    ) {
        let tried: [(&str, &[(&str, &str)]); 9] = [
            ("Cast$Value", &[("spec", &first), ("field.syntax.version", "V2")]),
            ("ReplaceField$Value", &[("exclude", &first), ("renames", &second), ("field.syntax.version", "V2")]),
            ("InsertField$Value", &[("topic.field", &first), ("field.syntax.version", "V2")]),
            ("RegexRouter", &[("regex", &first), ("replacement", &second)]),
            ("TimestampConverter$Value", &[("target.type", "string"), ("format", &first), ("field", "t")]),
            ("TimestampRouter", &[("topic.format", &second), ("timestamp.format", &first)]),
            ("InsertHeader", &[("header", "h"), ("value.literal", &first)]),
            ("ExtractNewRecordState", &[("add.fields", &first), ("add.headers", &second)]),
            ("ExpressionFilter", &[("condition", &first), ("topic.regex", &second)]),
        ];
        for (class, settings) in tried {
            if let Ok(mut chain) = Chain::new(&config_of(class, settings)) {
                let _ = chain.apply(record.clone());
            }
        }
    }
}
