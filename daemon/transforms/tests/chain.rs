//! Chains: order, predicates, what a configuration may hold, errors, frames.

mod support;

use std::sync::Arc;

use support::*;
use tidewater_plugin_api::{Frame, FrameBuilder, Value, frame::SchemaCache};
use tidewater_transforms::{Chain, Datum, PredicateClass, Record, TransformClass, chain, class};

fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
    let problems = Chain::new(&config(pairs)).expect_err("a faulty configuration");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn transforms_work_in_order_each_with_its_predicate() {
    let config = config(&[
        ("transforms", "first, second, third"),
        ("transforms.first.type", "RegexRouter"),
        ("transforms.first.regex", "(.*)"),
        ("transforms.first.replacement", "$1-a"),
        ("transforms.first.predicate", "dead"),
        ("transforms.first.negate", "true"),
        (
            "transforms.second.type",
            "org.apache.kafka.connect.transforms.RegexRouter",
        ),
        ("transforms.second.regex", "(.*)"),
        ("transforms.second.replacement", "$1-b"),
        ("transforms.third.type", "Filter"),
        ("transforms.third.predicate", "marked"),
        ("predicates", "dead,marked,inner"),
        ("predicates.dead.type", "RecordIsTombstone"),
        (
            "predicates.marked.type",
            "org.apache.kafka.connect.transforms.predicates.HasHeaderKey",
        ),
        ("predicates.marked.name", "drop"),
        ("predicates.inner.type", "TopicNameMatches"),
        ("predicates.inner.pattern", "a.*"),
        ("connector.class", "file-source"),
    ]);
    let mut chain = Chain::new(&config).expect("a good configuration");
    let alive = Record::new("t", plain(text("x")));
    let dead = Record::new("t", Datum::null());
    let mut marked = alive.clone();
    marked.headers.push(header("drop", "x"));
    for (record, expected) in [(alive, Some("t-a-b")), (dead, Some("t-b")), (marked, None)] {
        let found = chain.apply(record).expect("no error");
        assert_eq!(found.as_ref().map(|record| &*record.topic), expected);
    }
}

#[test]
fn topic_name_matches_takes_the_whole_name() {
    for (pattern, topic, dropped) in [
        ("a.*", "abc", true),
        ("a", "abc", false),
        ("a|abc", "abc", true),
        ("(?!a).*", "abc", false),
    ] {
        let mut all = config_of("Filter", &[("predicate", "p")]);
        all.extend(config(&[
            ("predicates", "p"),
            ("predicates.p.type", "TopicNameMatches"),
            ("predicates.p.pattern", pattern),
        ]));
        let mut chain = Chain::new(&all).expect("a good configuration");
        let found = chain.apply(Record::new(topic, Datum::null())).expect("no error");
        assert_eq!(found.is_none(), dropped, "{pattern}");
    }
}

#[test]
fn every_fault_is_told_at_once_under_its_key() {
    let found = problems(&[
        ("transforms", "a,b,c,d,e,a"),
        ("transforms.a.type", "Cast"),
        ("transforms.b.type", "RegexRuoter"),
        ("transforms.c.type", "MaskField$Value"),
        ("transforms.c.feilds", "password"),
        ("transforms.c.negate", "perhaps"),
        ("transforms.d.type", "DropHeaders"),
        ("transforms.d.headers", "x"),
        ("transforms.d.predicate", "tombstnoe"),
        ("transforms.f.type", "Filter"),
        ("predicates", "tombstone,broken"),
        ("predicates.tombstone.type", "RecordIsTombstone"),
        ("predicates.broken.type", "TopicNameMatches"),
        ("predicates.broken.pattern", "("),
    ]);
    for expected in [
        "names a twice",
        "transforms.a.type = \"Cast\": does not say which half",
        "transforms.b.type = \"RegexRuoter\": is no class of transforms; did you mean RegexRouter?",
        "transforms.c.feilds: is no key of MaskField; did you mean fields?",
        "transforms.c.fields: is missing",
        "transforms.c.negate = \"perhaps\": must be true or false",
        "transforms.d.predicate = \"tombstnoe\": is not in predicates; did you mean tombstone?",
        "transforms.e.type: is missing",
        "transforms.f.type: belongs to f, which is not in transforms",
        "predicates.broken.pattern = \"(\": is no regular expression",
    ] {
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{expected} in {found:#?}"
        );
    }
    assert!(
        found.iter().all(|problem| !problem.contains("password")),
        "an unknown key's value stays hidden"
    );
    let lonely = problems(&[
        ("transforms", "a"),
        ("transforms.a.type", "Filter"),
        ("transforms.a.negate", "true"),
    ]);
    assert_eq!(lonely.len(), 1);
    assert!(lonely[0].contains("without transforms.a.predicate"));
    let sided = problems(&[("transforms", "a"), ("transforms.a.type", "RegexRouter$Value")]);
    assert!(sided[0].contains("use RegexRouter"), "{sided:?}");
}

#[test]
fn nothing_configured_does_nothing() {
    for pairs in [
        &[][..],
        &[("transforms", " ")],
        &[("name", "x"), ("transformer", "y")],
    ] {
        let mut chain = Chain::new(&config(pairs)).expect("a good configuration");
        assert!(chain.is_empty());
        let record = Record::new("t", plain(text("x")));
        assert_eq!(chain.apply(record.clone()), Ok(Some(record)));
    }
    assert!(
        chain::owns("transforms") && chain::owns("transforms.a.type") && chain::owns("predicates.p.type")
    );
    assert!(!chain::owns("transformsX") && !chain::owns("topics"));
}

#[test]
fn an_error_says_which_transform_which_field_what_and_what_to_do() {
    let mut chain = chain_of("Cast$Value", &[("spec", "a:int8")]);
    let record = Record::new("orders", st(vec![("a", string(), text("secret"))]));
    let error = chain.apply(record).expect_err("no number").to_string();
    assert_eq!(
        error,
        "transform t, a Cast$Value (topic orders): field \"a\" of the value, of type string, cannot become int8: it is no \
         such number, or out of its range; cast it to a wider type, or mend it at its source"
    );
}

#[test]
fn the_definition_has_every_key_of_what_is_listed() {
    let mut all = config_of("ReplaceField$Key", &[("predicate", "p")]);
    all.extend(config(&[
        ("predicates", "p"),
        ("predicates.p.type", "HasHeaderKey"),
    ]));
    let definition = chain::definition(&all);
    for key in [
        "transforms",
        "predicates",
        "transforms.t.type",
        "transforms.t.exclude",
        "predicates.p.name",
    ] {
        assert!(definition.find(key).is_some(), "{key}");
    }
    let blacklist = definition.find("transforms.t.blacklist").expect("an alias");
    assert_eq!(blacklist.name, "transforms.t.exclude");
    assert_eq!(blacklist.group.as_deref(), Some("Transforms: t"));
}

#[test]
fn every_class_is_documented_and_has_a_name_of_its_own() {
    let mut names: Vec<String> = class::transforms()
        .iter()
        .flat_map(TransformClass::names)
        .collect();
    names.extend(
        class::predicates()
            .iter()
            .flat_map(PredicateClass::names)
            .map(ToOwned::to_owned),
    );
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    for class in class::transforms() {
        assert!(!class.documentation.is_empty());
        for key in class.config().keys {
            assert!(!key.documentation.is_empty(), "{} {}", class.name, key.name);
            if let Some(default) = &key.default {
                assert_eq!(key.check(default), Ok(()), "{} {}", class.name, key.name);
            }
        }
    }
}

#[test]
fn records_of_a_frame_pass_as_they_are() {
    let schema = Arc::new(string().optional());
    let mut batch = FrameBuilder::new();
    batch
        .push("t", Some((&schema, &text("k"))), (&schema, &text("v")))
        .expect("pushed");
    batch
        .push("t", Some((&schema, &text("k"))), (&schema, &Value::Null))
        .expect("pushed");
    let topic = batch.topic("u").expect("a topic");
    let id = batch.schema(&schema).expect("a schema");
    let mut record = batch.record(topic);
    record.timestamp(5);
    record.partition(2);
    record.offset(9);
    record
        .header("h", id, Some(&schema), Some(&text("x")))
        .expect("a header");
    record.header("n", id, Some(&schema), None).expect("a header");
    record.push().expect("pushed");
    let first = Frame::parse(batch.finish(), &mut SchemaCache::default()).expect("a frame");

    let mut again = FrameBuilder::new();
    let mut tombstones = 0;
    for record in first.records() {
        let mut owned = Record::from_frame(&first, &record).expect("decoded");
        tombstones += u8::from(owned.value.is_null());
        if let (Some(bytes), Some(shared)) = (record.value_bytes(), owned.value.as_encoded()) {
            assert_eq!(bytes.as_ptr(), shared.as_ptr(), "shared, not copied");
        }
        owned.push_to(&mut again).expect("pushed");
    }
    assert_eq!(tombstones, 2, "an absent value, and an optional one that is null");
    let second = Frame::parse(again.finish(), &mut SchemaCache::default()).expect("a frame");
    let all = |frame: &Frame| -> Vec<Record> {
        let record = |record| Record::from_frame(frame, &record).expect("decoded");
        frame.records().map(record).collect()
    };
    assert_eq!(all(&first), all(&second));
}

#[test]
fn what_no_transform_looks_into_is_not_decoded() {
    let config = config(&[
        ("transforms", "a,b,c,d"),
        ("transforms.a.type", "RegexRouter"),
        ("transforms.a.regex", "(.*)"),
        ("transforms.a.replacement", "$1"),
        ("transforms.b.type", "InsertHeader"),
        ("transforms.b.header", "h"),
        ("transforms.b.value.literal", "1"),
        ("transforms.c.type", "SetSchemaMetadata$Value"),
        ("transforms.c.schema.name", "new"),
        ("transforms.d.type", "ExtractNewRecordState"),
    ]);
    let record = Record::new("t", encoded(&st(vec![("a", int32(), Value::Int32(1))])));
    let mut chain = Chain::new(&config).expect("a good configuration");
    let found = chain.apply(record.clone()).expect("no error").expect("kept");
    let (before, after) = (
        record.value.as_encoded().expect("encoded"),
        found.value.as_encoded(),
    );
    assert_eq!(after.map(|bytes| bytes.as_ptr()), Some(before.as_ptr()));
}

#[test]
fn a_schema_is_transformed_once() {
    let mut chain = chain_of("Cast$Value", &[("spec", "a:string")]);
    let datum = st(vec![("a", int32(), Value::Int32(1))]);
    let mut transformed = |datum: Datum| {
        let found = chain
            .apply(Record::new("t", datum))
            .expect("no error")
            .expect("kept");
        found.value.schema().cloned().expect("a schema")
    };
    let first = transformed(datum.clone());
    assert!(Arc::ptr_eq(&first, &transformed(datum.clone())));
    let equal = Datum::new(
        datum.schema().map(|schema| Arc::new((**schema).clone())),
        datum.clone().take().expect("a value"),
    );
    assert!(
        Arc::ptr_eq(&first, &transformed(equal)),
        "an equal schema shares the result"
    );
}
