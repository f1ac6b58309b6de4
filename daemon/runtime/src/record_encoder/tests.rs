use std::sync::Arc;

use bytes::Bytes;
use tidewater_broker::{BrokerOptions, Isolation, Start};
use tidewater_plugin_api::frame::SchemaCache;
use tidewater_plugin_api::{FrameBuilder, Schema, Type, Value};

use super::*;
use crate::administration::Administration as _;
use crate::converter::{JsonConverter, SimpleHeaderConverter, StringConverter};
use crate::embedded::EmbeddedBroker;

struct Bench {
    log: tidewater_broker::Broker,
    broker: EmbeddedBroker,
    encoder: RecordEncoder,
    _folder: tempfile::TempDir,
}

type Row = (Option<String>, Option<String>, Vec<(String, Option<String>)>);

fn converters() -> Converters {
    Converters {
        key: Box::new(StringConverter),
        value: Box::new(JsonConverter::new(false)),
        header: Box::new(SimpleHeaderConverter),
    }
}

impl Bench {
    fn new(partitions: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = tidewater_broker::Broker::open(BrokerOptions::new(folder.path())).unwrap();
        let options = EncoderOptions {
            compression: Compression::None,
            batch_bytes: BATCH_BYTES,
            partitioning: Partitioning::default(),
            topics: TopicRules::partitions(partitions),
        };
        Self {
            broker: EmbeddedBroker::new(log.clone()),
            encoder: RecordEncoder::new(converters(), options),
            log,
            _folder: folder,
        }
    }

    /// What stands in a partition once `batches` are committed.
    async fn stored(&self, batches: Batches, topic: &str, partition: u32) -> Vec<Row> {
        let mut producer = self.broker.producer("test").await.unwrap();
        producer.commit(self.encoder.finish(batches)).await.unwrap();
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let mut reader = self
            .log
            .reader(topic, partition, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        let mut rows = Vec::new();
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            for record in fetched.records() {
                let headers = record
                    .headers()
                    .map(|(name, value)| (name.to_owned(), text(value)));
                rows.push((text(record.key), text(record.value), headers.collect()));
            }
        }
        rows
    }
}

fn frame(build: impl FnOnce(&mut FrameBuilder)) -> Frame {
    let mut builder = FrameBuilder::new();
    build(&mut builder);
    Frame::parse(builder.finish(), &mut SchemaCache::default()).unwrap()
}

fn text() -> SchemaRef {
    Arc::new(Schema::new(Type::String))
}

/// Three records, of which the second has a value that is no value of its schema.
fn with_a_bad_one() -> Frame {
    frame(|batch| {
        let schema = text();
        let id = batch.schema(&schema).unwrap();
        for value in ["one", "two", "three"] {
            let topic = batch.topic("t").unwrap();
            let mut record = batch.record(topic);
            record
                .key_value(id, Some(&schema), &Value::String(format!("k-{value}")))
                .unwrap();
            if value == "two" {
                record.value(id, |writer| writer.raw(&[9, 0, 0, 0, b'x']));
            } else {
                record
                    .value_value(id, Some(&schema), &Value::String(value.into()))
                    .unwrap();
            }
            record
                .header("n", id, Some(&schema), Some(&Value::String(value.into())))
                .unwrap();
            record.push().unwrap();
        }
    })
}

#[tokio::test]
async fn a_record_that_cannot_be_converted_leaves_no_trace_and_the_next_goes_on() {
    let mut bench = Bench::new(1);
    let frame = with_a_bad_one();
    bench.encoder.prepare_frame(&frame, &bench.broker).await.unwrap();
    let mut batches = Batches::default();
    let mut faults = Vec::new();
    for record in frame.records() {
        if let Err(fault) = bench.encoder.push_frame_record(&record, &mut batches) {
            faults.push(fault);
        }
    }
    assert_eq!((batches.len(), faults.len()), (2, 1));
    assert_eq!(faults[0].part, Part::Value);
    assert_eq!(faults[0].part.stage(), Some("VALUE_CONVERTER"));
    assert_eq!(
        faults[0].class,
        Some("org.apache.kafka.connect.json.JsonConverter")
    );
    assert!(
        faults[0].to_string().starts_with("value: malformed value"),
        "{}",
        faults[0]
    );

    let row = |value: &str| -> Row {
        (
            Some(format!("k-{value}")),
            Some(format!("\"{value}\"")),
            vec![("n".into(), Some(value.into()))],
        )
    };
    assert_eq!(bench.stored(batches, "t", 0).await, [row("one"), row("three")]);

    let Err(error) = bench.encoder.encode(&frame, &bench.broker).await else {
        panic!("a frame that cannot be converted whole")
    };
    assert!(
        error.to_string().starts_with("value of a record for topic t: "),
        "{error}"
    );
}

#[tokio::test]
async fn records_out_of_a_chain_are_as_those_of_a_frame() {
    let mut bench = Bench::new(4);
    let frame = frame(|batch| {
        let schema = text();
        for key in ["a", "b", "c", "d"] {
            let (key, value) = (Value::String(key.into()), Value::String(format!("v-{key}")));
            batch
                .push("frame", Some((&schema, &key)), (&schema, &value))
                .unwrap();
        }
    });
    bench.encoder.prepare_frame(&frame, &bench.broker).await.unwrap();
    let mut batches = Batches::default();
    for record in frame.records() {
        bench.encoder.push_frame_record(&record, &mut batches).unwrap();
        // Once as it came, encoded, and once looked into.
        for topic in ["shared", "decoded"] {
            let mut owned = transforms::Record::from_frame(&frame, &record).unwrap();
            owned.topic = topic.into();
            if topic == "decoded" {
                owned.key.value().unwrap();
                owned.value.value().unwrap();
            }
            bench.encoder.prepare(&owned, &bench.broker).await.unwrap();
            bench.encoder.push(&owned, &mut batches).unwrap();
        }
    }
    let finished = bench.encoder.finish(batches);
    let mut producer = bench.broker.producer("test").await.unwrap();
    producer.commit(finished).await.unwrap();
    let mut all = 0;
    for partition in 0..4 {
        let rows = bench.stored(Batches::default(), "frame", partition).await;
        all += rows.len();
        for topic in ["shared", "decoded"] {
            assert_eq!(bench.stored(Batches::default(), topic, partition).await, rows);
        }
    }
    assert_eq!(all, 4);
}

#[tokio::test]
async fn nulls_headers_and_tombstones_of_a_chain_keep_their_form() {
    let mut bench = Bench::new(1);
    let mut record = transforms::Record::new("t", Datum::null());
    record.headers = vec![
        transforms::Header::new("null", Datum::null()),
        transforms::Header::new("number", Datum::new(None, Value::Int64(7))),
        transforms::Header::new("same", Datum::new(None, Value::String("a".into()))),
        transforms::Header::new("same", Datum::new(None, Value::String("b".into()))),
    ];
    bench.encoder.prepare(&record, &bench.broker).await.unwrap();
    let mut batches = Batches::default();
    bench.encoder.push(&record, &mut batches).unwrap();
    assert!(batches.bytes() > 0);
    let rows = bench.stored(batches, "t", 0).await;
    let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    assert_eq!(
        rows,
        [(
            None,
            None,
            vec![
                header("null", None),
                header("number", Some("7")),
                header("same", Some("a")),
                header("same", Some("b")),
            ]
        )]
    );
}

#[tokio::test]
async fn partitions_that_are_not_there_and_values_that_do_not_fit_are_faults_of_the_record() {
    let mut bench = Bench::new(2);
    let mut record = transforms::Record::new("t", Datum::new(Some(text()), Value::Int32(1)));
    bench.encoder.prepare(&record, &bench.broker).await.unwrap();
    let mut batches = Batches::default();
    let fault = bench.encoder.push(&record, &mut batches).unwrap_err();
    assert_eq!((fault.part, fault.class), (Part::Value, None));

    record.value = Datum::null();
    record.partition = Some(2);
    let fault = bench.encoder.push(&record, &mut batches).unwrap_err();
    assert_eq!(fault.part, Part::Partition);
    assert!(
        fault.to_string().contains("partition 2 of topic t, which has 2"),
        "{fault}"
    );

    record.partition = Some(1);
    record.key = Datum::encoded(Some(text()), Bytes::from_static(&[1]));
    let fault = bench.encoder.push(&record, &mut batches).unwrap_err();
    assert_eq!(fault.part, Part::Key);

    record.key = Datum::null();
    record.headers.push(transforms::Header::new(
        "h",
        Datum::encoded(Some(text()), Bytes::from_static(&[1])),
    ));
    let fault = bench.encoder.push(&record, &mut batches).unwrap_err();
    assert_eq!(fault.part, Part::Header("h".into()));
    assert!(batches.is_empty() && bench.encoder.finish(batches).is_empty());
}

#[tokio::test]
async fn the_workers_own_topics_are_not_for_sources() {
    let mut bench = Bench::new(1);
    let record = transforms::Record::new(crate::offsets::TOPIC, Datum::null());
    let error = bench.encoder.prepare(&record, &bench.broker).await.unwrap_err();
    assert!(error.to_string().contains("another topic"), "{error}");
    let fault = bench.encoder.push(&record, &mut Batches::default()).unwrap_err();
    assert_eq!(fault.part, Part::Whole);
}

#[tokio::test]
async fn topics_are_created_by_the_rules_or_not_at_all() {
    let mut bench = Bench::new(1);
    let rules = &mut bench.encoder.options.topics;
    rules.groups.push(crate::topic_rules::TopicGroup {
        include: vec![regex::Regex::new("^wide").unwrap()],
        exclude: Vec::new(),
        topic: crate::topic_rules::NewTopic {
            partitions: 5,
            settings: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        },
    });
    for topic in ["wide.one", "plain"] {
        let record = transforms::Record::new(topic, Datum::null());
        bench.encoder.prepare(&record, &bench.broker).await.unwrap();
    }
    let wide = bench.log.topic("wide.one").unwrap();
    assert_eq!(
        (
            wide.partitions,
            wide.settings.get("cleanup.policy").map(String::as_str)
        ),
        (5, Some("compact"))
    );
    assert_eq!(bench.log.topic("plain").unwrap().partitions, 1);

    bench.encoder.options.topics.enabled = false;
    let record = transforms::Record::new("another", Datum::null());
    let error = bench.encoder.prepare(&record, &bench.broker).await.unwrap_err();
    assert!(
        error.to_string().contains("topic.creation.enable=true"),
        "{error}"
    );
    bench
        .broker
        .ensure_topic("another", 3, &BTreeMap::new())
        .await
        .unwrap();
    bench.encoder.prepare(&record, &bench.broker).await.unwrap();
}

#[tokio::test]
async fn batches_close_at_their_size() {
    let mut bench = Bench::new(1);
    bench.encoder.options.batch_bytes = 4096;
    let mut batches = Batches::default();
    let record = transforms::Record::new("t", Datum::new(None, Value::String("x".repeat(1000))));
    bench.encoder.prepare(&record, &bench.broker).await.unwrap();
    for _ in 0..10 {
        bench.encoder.push(&record, &mut batches).unwrap();
    }
    let finished = bench.encoder.finish(batches);
    let counts: Vec<usize> = finished.iter().map(|batch| batch.records.len()).collect();
    assert_eq!(counts, [4, 4, 2]);
}

#[tokio::test]
async fn partitions_that_are_added_are_used_and_topics_that_were_deleted_are_made_anew() {
    let mut bench = Bench::new(1);
    bench.encoder = RecordEncoder::new(
        converters(),
        EncoderOptions {
            partitioning: Partitioning::RoundRobin,
            ..bench.encoder.options.clone()
        },
    );
    let record = transforms::Record::new("t", Datum::null());
    let mut partitions = Vec::new();
    for step in ["made", "grown", "deleted"] {
        match step {
            "grown" => bench.broker.add_partitions("t", 3).await.unwrap(),
            "deleted" => bench.broker.delete_topic("t").await.unwrap(),
            _ => {}
        }
        let mut batches = Batches::default();
        for _ in 0..3 {
            bench.encoder.prepare(&record, &bench.broker).await.unwrap();
            bench.encoder.push(&record, &mut batches).unwrap();
        }
        partitions.push(bench.encoder.finish(batches).len());
    }
    assert_eq!(partitions, [1, 3, 1]);
    assert_eq!(bench.log.topic("t").unwrap().partitions, 1);
}
