//! Frames come out as they went in, and bytes of a faulty plugin give errors, never panics (invariant 7).

mod generated;

use std::sync::Arc;

use bytes::Bytes;
use generated::{encoded, pair, untyped, walk};
use proptest::prelude::*;
use tidewater_plugin_api::frame::{DESCRIPTOR_SIZE, SchemaCache, SchemaId};
use tidewater_plugin_api::{Frame, FrameBuilder, Schema, SchemaRef, SourcePosition, Type, Value};

type Typed = (SchemaRef, Value);

#[derive(Clone, Debug)]
struct Made {
    topic: String,
    key: Option<Typed>,
    value: Option<Typed>,
    untyped_value: Option<Value>,
    headers: Vec<(String, Option<Typed>)>,
    timestamp: Option<i64>,
    partition: Option<u32>,
    offset: Option<u64>,
}

fn made() -> impl Strategy<Value = Made> {
    (
        "[a-z]{1,3}",
        prop::option::of(pair()),
        prop::option::of(pair()),
        prop::option::of(untyped()),
        prop::collection::vec((".{0,5}", prop::option::of(pair())), 0..3),
        prop::option::of(any::<i64>().prop_filter("i64::MIN is none", |millis| *millis != i64::MIN)),
        prop::option::of(0..=i32::MAX as u32),
        prop::option::of(0..=i64::MAX as u64),
    )
        .prop_map(
            |(topic, key, value, untyped_value, headers, timestamp, partition, offset)| Made {
                topic,
                key,
                value,
                untyped_value,
                headers,
                timestamp,
                partition,
                offset,
            },
        )
}

fn build(records: &[Made]) -> Bytes {
    let mut batch = FrameBuilder::new();
    for made in records {
        let topic = batch.topic(&made.topic).expect("few topics");
        let mut id =
            |typed: Option<&Typed>| typed.map(|(schema, _)| batch.schema(schema).expect("few schemas"));
        let (key, value) = (id(made.key.as_ref()), id(made.value.as_ref()));
        let headers: Vec<_> = made.headers.iter().map(|(_, typed)| id(typed.as_ref())).collect();
        let mut record = batch.record(topic);
        if let (Some(id), Some((schema, key))) = (key, &made.key) {
            record.key_value(id, Some(schema), key).expect("it fits");
        }
        if let (Some(id), Some((schema, value))) = (value, &made.value) {
            record.value_value(id, Some(schema), value).expect("it fits");
        } else if let Some(value) = &made.untyped_value {
            record
                .value_value(SchemaId::NONE, None, value)
                .expect("it needs no schema");
        }
        for ((name, typed), id) in made.headers.iter().zip(headers) {
            let id = id.unwrap_or(SchemaId::NONE);
            let (schema, value) = typed.as_ref().map(|(schema, value)| (&**schema, value)).unzip();
            record.header(name, id, schema, value).expect("it fits");
        }
        if let Some(millis) = made.timestamp {
            record.timestamp(millis);
        }
        if let Some(partition) = made.partition {
            record.partition(partition);
        }
        if let Some(offset) = made.offset {
            record.offset(offset);
        }
        record.push().expect("it is small");
    }
    batch.finish()
}

fn parse(bytes: Bytes) -> Frame {
    Frame::parse(bytes, &mut SchemaCache::default()).expect("it is a frame")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn frames_roundtrip(records in prop::collection::vec(made(), 0..6)) {
        let frame = parse(build(&records));
        prop_assert_eq!(frame.len(), records.len());
        for (record, made) in frame.records().zip(&records) {
            prop_assert_eq!(record.topic(), &made.topic);
            prop_assert_eq!(record.timestamp(), made.timestamp);
            prop_assert_eq!(record.partition(), made.partition);
            prop_assert_eq!(record.offset(), made.offset);
            let expect = |typed: Option<&Typed>| typed.map(|(schema, value)| encoded(Some(schema), value));
            let key = expect(made.key.as_ref());
            prop_assert_eq!(record.key_bytes(), key.as_deref());
            prop_assert_eq!(record.key_schema().map(|s| &**s), made.key.as_ref().map(|(s, _)| &**s));
            let value = expect(made.value.as_ref()).or(made.untyped_value.as_ref().map(|value| encoded(None, value)));
            prop_assert_eq!(record.value_bytes(), value.as_deref());
            let headers: Vec<_> = record.headers().collect::<Result<_, _>>().expect("they are well formed");
            prop_assert_eq!(headers.len(), made.headers.len());
            for (header, (name, typed)) in headers.iter().zip(&made.headers) {
                prop_assert_eq!(header.name, name);
                let read = header.value.to_value().expect("it is one");
                if let Some((schema, value)) = typed {
                    prop_assert_eq!(encoded(Some(schema), &read), encoded(Some(schema), value));
                } else {
                    prop_assert_eq!(read, Value::Null);
                }
            }
        }
        walk(&frame);
    }

    #[test]
    fn arbitrary_bytes_are_no_frame_and_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        if magic && bytes.len() >= 12 {
            bytes[..8].copy_from_slice(b"TWFRAME1");
            bytes[8..12].copy_from_slice(&[1, 0, DESCRIPTOR_SIZE as u8, 0]);
        }
        if let Ok(frame) = Frame::parse(bytes.into(), &mut SchemaCache::default()) {
            walk(&frame);
        }
    }

    #[test]
    fn mutated_frames_are_no_harm(
        records in prop::collection::vec(made(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..6),
        in_header in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = build(&records).to_vec();
        for (at, byte) in changes {
            let at = at.index(if in_header { 64 } else { bytes.len() });
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(frame) = Frame::parse(bytes.into(), &mut SchemaCache::default()) {
            walk(&frame);
        }
    }
}

#[test]
fn every_cut_of_a_frame_is_refused() {
    let schema = Arc::new(Schema::new(Type::String));
    let mut batch = FrameBuilder::new();
    for text in ["one", "two", "three"] {
        batch
            .push("topic", None, (&schema, &Value::String(text.into())))
            .expect("it fits");
    }
    let frame = batch.finish();
    for end in 0..frame.len() {
        assert!(
            Frame::parse(frame.slice(..end), &mut SchemaCache::default()).is_err(),
            "{end} bytes"
        );
    }
}

#[test]
fn a_record_that_is_not_pushed_leaves_no_trace() {
    let schema = Arc::new(Schema::new(Type::String));
    let mut batch = FrameBuilder::new();
    let topic = batch.topic("topic").expect("one topic");
    let id = batch.schema(&schema).expect("one schema");
    let before = {
        batch
            .push("topic", None, (&schema, &Value::String("kept".into())))
            .expect("it fits");
        batch.bytes()
    };
    let mut record = batch.record(topic);
    record.value(id, |writer| writer.string("dropped"));
    drop(record);
    assert!(
        batch.push("topic", None, (&schema, &Value::Int8(1))).is_err(),
        "it does not fit the schema"
    );
    assert_eq!(batch.bytes(), before);
    assert_eq!(parse(batch.finish()).len(), 1);
}

#[test]
fn positions_and_reused_buffers() {
    let position = |name: &str, offset: i64| SourcePosition {
        partition: serde_json::Map::from_iter([("p".to_owned(), name.into())]),
        offset: Some(serde_json::Map::from_iter([("o".to_owned(), offset.into())])),
    };
    let mut batch = FrameBuilder::new();
    assert!(batch.is_empty());
    batch.position(position("a", 1));
    batch.position(position("b", 2));
    batch.position(position("a", 3));
    assert!(!batch.is_empty(), "a position alone is something to send");
    let frame = batch.finish_vec();
    assert!(batch.is_empty() && batch.bytes() == 0, "nothing is kept");
    assert_eq!(
        parse(frame.clone().into()).positions(),
        [position("a", 3), position("b", 2)]
    );

    // A buffer that is used again brings nothing of what it held.
    batch.reuse(frame);
    let schema = Arc::new(Schema::new(Type::String));
    batch
        .push("t", None, (&schema, &Value::String("new".into())))
        .expect("it fits");
    let frame = parse(batch.finish());
    assert_eq!((frame.len(), frame.positions().len()), (1, 0));
    assert_eq!(frame.record(0).value().expect("a value").as_str(), Some("new"));
    batch.reuse(vec![1; 100]);
    assert!(parse(batch.finish()).is_empty());
}

#[test]
fn descriptors_of_a_later_version_are_read() {
    // The same frame, its descriptors 8 bytes longer.
    let schema = Arc::new(Schema::new(Type::Int64));
    let mut batch = FrameBuilder::new();
    for number in 0..3 {
        batch
            .push("t", None, (&schema, &Value::Int64(number)))
            .expect("it fits");
    }
    let old = batch.finish();
    let word = |at: usize| u32::from_le_bytes([old[at], old[at + 1], old[at + 2], old[at + 3]]) as usize;
    let descriptors = word(24);
    let mut new = old[..descriptors].to_vec();
    for index in 0..3 {
        let at = descriptors + index * DESCRIPTOR_SIZE;
        new.extend_from_slice(&old[at..at + DESCRIPTOR_SIZE]);
        new.extend_from_slice(&[0xee; 8]);
    }
    new.extend_from_slice(&old[descriptors + 3 * DESCRIPTOR_SIZE..]);
    new[10..12].copy_from_slice(&(DESCRIPTOR_SIZE as u16 + 8).to_le_bytes());
    for table in [28, 36, 44] {
        let moved = (word(table) + 3 * 8) as u32;
        new[table..table + 4].copy_from_slice(&moved.to_le_bytes());
    }
    let numbers: Vec<_> = parse(new.into())
        .records()
        .map(|record| record.value().expect("a value").as_i64())
        .collect();
    assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
}
