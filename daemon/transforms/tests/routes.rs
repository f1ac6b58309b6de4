//! The transforms that choose a topic, and the expressions they and the filter take.

mod support;

use support::*;
use tidewater_plugin_api::{Schema, Value, logical};
use tidewater_transforms::{Datum, Record};

fn to(topic: &str) -> Record {
    Record::new(topic, Datum::null())
}

#[test]
fn regex_router() {
    let table = [
        ("public\\.(.*)", "shop-$1", "public.orders", "shop-orders"),
        ("public", "x", "public.orders", "public.orders"),
        ("(?!internal).*", "x", "internal.a", "internal.a"),
        ("(?<db>\\w+)\\.(\\w+)", "$2-${db}", "a.b", "b-a"),
    ];
    for (regex, replacement, topic, expected) in table {
        let settings = [("regex", regex), ("replacement", replacement)];
        assert_eq!(
            whole("RegexRouter", &settings, &to(topic)),
            format!("{expected} null -> null")
        );
    }
    let empty = whole("RegexRouter", &[("regex", "a"), ("replacement", "")], &to("a"));
    assert!(empty.contains("the new name is empty"), "{empty}");
    let slow = [("regex", "(a|b|ab)*(?=c)x"), ("replacement", "x")];
    assert!(whole("RegexRouter", &slow, &to(&"ab".repeat(2000))).contains("less backtracking"));
    assert!(
        problems_of("RegexRouter", &[("regex", "("), ("replacement", "")]).contains("no regular expression")
    );
    assert!(
        problems_of("RegexRouter", &[("regex", "a"), ("replacement", "$1")]).contains("names the group 1")
    );
}

#[test]
fn timestamp_router() {
    let mut record = to("orders");
    record.timestamp = Some(0);
    assert_eq!(
        whole("TimestampRouter", &[], &record),
        "orders-19700101 null -> null"
    );
    let settings = [
        ("topic.format", "${timestamp}/${topic}"),
        ("timestamp.format", "yyyy-MM"),
    ];
    assert_eq!(
        whole("TimestampRouter", &settings, &record),
        "1970-01/orders null -> null"
    );
    // What is remembered of one record does not stick to the next.
    let mut chain = chain_of("TimestampRouter", &[]);
    for (topic, timestamp, expected) in [
        ("a", 0, "a-19700101"),
        ("a", 1, "a-19700101"),
        ("b", 1, "b-19700101"),
        ("b", 86_400_000, "b-19700102"),
        ("a", 0, "a-19700101"),
    ] {
        let mut record = to(topic);
        record.timestamp = Some(timestamp);
        let routed = chain.apply(record).expect("routed").expect("kept");
        assert_eq!(&*routed.topic, expected);
    }
    assert!(whole("TimestampRouter", &[], &to("x")).contains("timestamp is missing"));
    record.timestamp = Some(i64::MAX);
    assert!(whole("TimestampRouter", &[], &record).contains("beyond the years"));
    assert!(problems_of("TimestampRouter", &[("timestamp.format", "ww")]).contains("the letter w"));
}

fn order() -> Record {
    let (after, value) = nested(vec![
        ("id", int64(), Value::Int64(7)),
        (
            "total",
            bytes().named(logical::DECIMAL).parameter("scale", "2"),
            Value::Bytes(vec![0x30, 0x39].into()),
        ),
        (
            "tags",
            Schema::array(string()),
            Value::Array(vec![text("new"), text("big")]),
        ),
        ("note", string().optional(), Value::Null),
    ]);
    let event = st(vec![
        ("before", after.clone().optional(), Value::Null),
        ("after", after.optional(), value),
        ("op", string(), text("c")),
    ]);
    let mut record = Record::new("shop.orders", event);
    record.key = st(vec![("id", int64(), Value::Int64(7))]);
    record.partition = Some(2);
    record.timestamp = Some(1000);
    record.headers = vec![header("h", "x")];
    record
}

#[test]
fn conditions() {
    let mut encoded_order = order();
    encoded_order.value = encoded(&encoded_order.value);
    encoded_order.key = encoded(&encoded_order.key);
    let untyped = Record::new(
        "shop.orders",
        map(vec![(
            "after",
            pairs(vec![
                ("id", Value::Int64(7)),
                ("tags", Value::Array(vec![text("new"), text("big")])),
            ]),
        )]),
    );
    let both = [
        ("value.after.id == 7", true),
        ("value.after.id > 7", false),
        ("value.after['id'] in [6, 7]", true),
        ("has(value.after.note)", true),
        ("has(value.after.nothing)", false),
        ("'id' in value.after", true),
        ("value.after.tags.exists(tag, tag == 'big')", true),
        ("value.after.tags.all(tag, size(tag) == 3)", true),
        ("value.after.map(k, k).exists(k, k == 'id')", true),
        ("topic.startsWith('shop.')", true),
        ("topic.matches('^shop[.]o.*s$')", true),
    ];
    let typed = [
        ("value.op == 'c' && value.before == null", true),
        ("value.before == value.after", false),
        ("value.after == value.after", true),
        ("value.after.total > 123.0 && value.after.total < 124.0", true),
        ("value.after.note == null", true),
        ("key.id == value.after.id", true),
        ("partition == 2 && timestamp == 1000", true),
        ("header.h.value == 'x' && !has(header.g)", true),
        ("valueSchema.type == 'struct' && valueSchema.name == null", true),
        ("size(value) == 3", true),
    ];
    for (condition, kept) in both.iter().chain(&typed) {
        for record in [&order(), &encoded_order] {
            let mut chain = chain_of("ExpressionFilter", &[("condition", condition)]);
            let found = chain.apply(record.clone()).expect(condition);
            assert_eq!(found.is_some(), *kept, "{condition}");
            if let Some(found) = found {
                assert_eq!(show_record(&mut found.clone()), show_record(&mut record.clone()));
            }
        }
    }
    for (condition, kept) in both {
        if condition.contains("note") {
            continue;
        }
        let mut chain = chain_of("ExpressionFilter", &[("condition", condition)]);
        assert_eq!(
            chain.apply(untyped.clone()).expect(condition).is_some(),
            kept,
            "{condition}"
        );
    }
}

#[test]
fn what_an_expression_does_not_read_stays_encoded() {
    let mut record = order();
    record.value = encoded(&record.value);
    let mut chain = chain_of(
        "ExpressionFilter",
        &[("condition", "topic == 'shop.orders' && key.id == 7")],
    );
    let kept = chain.apply(record.clone()).expect("evaluated").expect("kept");
    assert_eq!(kept.value.as_encoded(), record.value.as_encoded());
    assert!(kept.value.as_encoded().is_some());
}

#[test]
fn nulls_topics_and_languages() {
    let class = "io.debezium.transforms.Filter";
    let condition = ("condition", "value == null");
    let table: [(Settings<'_>, Record, &str); 5] = [
        (&[("condition", "value.op == 'x'")], to("a"), "a null -> null"),
        (&[condition, ("null.handling.mode", "drop")], to("a"), "dropped"),
        (
            &[condition, ("null.handling.mode", "evaluate")],
            to("a"),
            "a null -> null",
        ),
        (
            &[
                ("condition", "false"),
                ("topic.regex", "b.*"),
                ("null.handling.mode", "evaluate"),
            ],
            to("a"),
            "a null -> null",
        ),
        (
            &[
                ("condition", "false"),
                ("topic.regex", "a.*"),
                ("null.handling.mode", "evaluate"),
            ],
            to("ab"),
            "dropped",
        ),
    ];
    for (settings, record, expected) in table {
        assert_eq!(whole(class, settings, &record), expected, "{settings:?}");
    }
    let error = whole(class, &[("condition", "value.nothing == 1")], &order());
    assert!(error.contains("nothing") && error.contains("has("), "{error}");
    let error = whole(class, &[("condition", "value.op")], &order());
    assert!(error.contains("of type string, expected bool"), "{error}");
    let error = whole(class, &[("condition", "value.op < 1")], &order());
    assert!(
        error.starts_with("error: condition") && !error.contains("\"c\""),
        "{error}"
    );
    for (settings, expected) in [
        (&[("condition", "value.op ==")][..], "no expression of CEL"),
        (&[("condition", "valeu.op == 'c'")], "did you mean value?"),
        (&[("condition", "true"), ("language", "jsr223.groovy")], "Groovy"),
        (&[("condition", "true"), ("language", "js")], "language=cel"),
        (&[("language", "cel")], "condition"),
        (
            &[("condition", "true"), ("topic.regex", "(")],
            "no regular expression",
        ),
    ] {
        let problems = problems_of(class, settings);
        assert!(problems.contains(expected), "{problems}");
    }
    let deep = "[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))";
    assert!(problems_of(class, &[("condition", deep)]).contains("deep"));
    for deep in [
        format!("{}true{}", "(".repeat(3000), ")".repeat(3000)),
        "[".repeat(8000),
        format!("{}true", "!".repeat(8000)),
        format!("{}1 == 1", "- ".repeat(4000)),
        "true ? true : ".repeat(500) + "true",
        "1 + ".repeat(2000) + "1 == 1",
        "value".to_owned() + &".a".repeat(4000),
    ] {
        let problems = problems_of(class, &[("condition", &deep)]);
        assert!(problems.contains("nests more than"), "{problems:.300}");
    }
    // What nests as deep as it may is evaluated on the small stack of a thread.
    let sums = format!("{}1{} == 1", "(0 + ".repeat(30), ")".repeat(30));
    let lists = format!("size({}1{}) == 1", "[".repeat(30), "]".repeat(30));
    let chain = "0 + ".repeat(60) + "1 == 1";
    let conditions = "false ? true : ".repeat(30) + "true";
    let accesses = format!("!has(value{}) || true", ".after".repeat(50));
    for allowed in [sums, lists, chain, conditions, accesses] {
        assert_ne!(
            whole(class, &[("condition", &allowed)], &order()),
            "dropped",
            "{allowed}"
        );
    }
    // These do not nest, however long they are.
    let flat = "topic == 'a' || ".repeat(400) + "topic == 'b'";
    assert_eq!(whole(class, &[("condition", &flat)], &order()), "dropped");
    let long = format!("topic == '{}'", "x".repeat(9000));
    assert!(problems_of(class, &[("condition", &long)]).contains("longer than"));
}

#[test]
fn content_based_router() {
    let class = "ContentBasedRouter";
    for (expression, expected) in [
        ("value.op == 'c' ? 'created' : null", "created"),
        ("value.op == 'u' ? 'updated' : null", "shop.orders"),
        ("topic + '.' + value.op", "shop.orders.c"),
        ("topic", "shop.orders"),
    ] {
        let found = whole(class, &[("topic.expression", expression)], &order());
        assert!(
            found.starts_with(&format!("{expected} ")),
            "{expression}: {found}"
        );
    }
    assert!(whole(class, &[("topic.expression", "''")], &order()).contains("name is empty"));
    assert!(whole(class, &[("topic.expression", "1")], &order()).contains("expected string or null"));
}
