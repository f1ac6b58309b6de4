use tidewater_broker::{BatchBuilder, BrokerOptions, Compression, Fetched, Isolation, Start, TopicConfig};
use tidewater_plugin_api::Frame;
use tidewater_plugin_api::frame::SchemaCache;

use super::*;
use crate::converter::{JsonConverter, SimpleHeaderConverter, StringConverter};

type Raw<'a> = (
    Option<&'a [u8]>,
    Option<&'a [u8]>,
    &'a [(&'a str, Option<&'a [u8]>)],
);

/// Records as a sink's reader gets them.
async fn fetched(records: &[Raw<'_>]) -> Fetched {
    let folder = tempfile::tempdir().unwrap();
    let log = tidewater_broker::Broker::open(BrokerOptions::new(folder.path())).unwrap();
    log.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    for (number, (key, value, headers)) in records.iter().enumerate() {
        batch.push(1000 + number as i64, *key, *value, headers);
    }
    log.append("t", 0, batch).await.unwrap();
    let mut reader = log
        .reader("t", 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let fetched = reader.next(1 << 20).await.unwrap();
    log.close().await.unwrap();
    fetched
}

fn decoder() -> RecordDecoder {
    RecordDecoder::new(Converters {
        key: Box::new(StringConverter),
        value: Box::new(JsonConverter::new(false)),
        header: Box::new(SimpleHeaderConverter),
    })
}

fn place() -> TopicPartition {
    TopicPartition {
        topic: "t".into(),
        partition: 0,
    }
}

#[tokio::test]
async fn a_record_for_a_chain_is_the_record_of_a_frame() {
    let headers: &[(&str, Option<&[u8]>)] = &[
        ("list", Some(b"[\"a\",\"b\"]")),
        ("n", Some(b"42")),
        ("none", None),
        ("raw", Some(b"\xff")),
    ];
    let fetched = fetched(&[
        (Some(b"k"), Some(b"{\"a\":[1,null]}"), headers),
        (None, None, &[]),
    ])
    .await;
    let (mut to_frame, mut to_chain) = (FrameBuilder::new(), FrameBuilder::new());
    let topic: Arc<str> = "t".into();
    for record in fetched.records() {
        decoder().push(&place(), &record, &mut to_frame).unwrap();
        let mut owned = decoder().record(&topic, 0, &record).unwrap();
        owned.push_to(&mut to_chain).unwrap();
    }
    let cache = &mut SchemaCache::default();
    let direct = Frame::parse(to_frame.finish(), cache).unwrap();
    let through = Frame::parse(to_chain.finish(), cache).unwrap();
    for (direct, through) in direct.records().zip(through.records()) {
        assert_eq!((direct.topic(), direct.partition()), ("t", Some(0)));
        assert_eq!(
            (direct.offset(), direct.timestamp()),
            (through.offset(), through.timestamp())
        );
        assert_eq!(
            (direct.key(), direct.key_schema()),
            (through.key(), through.key_schema())
        );
        assert_eq!(
            (direct.value(), direct.value_schema()),
            (through.value(), through.value_schema())
        );
        let headers = |record: tidewater_plugin_api::Record<'_>| -> Vec<_> {
            let headers = record.headers().map(|header| header.unwrap());
            headers
                .map(|header| (header.name.to_owned(), format!("{:?}", header.value)))
                .collect()
        };
        assert_eq!(headers(direct), headers(through));
    }
    let types: Vec<_> = direct
        .record(0)
        .headers()
        .map(|header| header.unwrap().value.kind())
        .collect();
    assert_eq!(types, ["array", "int8", "null", "bytes"]);
    assert!(direct.record(1).value().unwrap().is_null() && direct.record(1).key_bytes().is_none());
}

#[tokio::test]
async fn a_record_that_cannot_be_converted_leaves_no_trace_and_the_next_goes_on() {
    let fetched = fetched(&[
        (Some(b"k"), Some(b"1"), &[]),
        (Some(b"\xff"), Some(b"2"), &[]),
        (Some(b"k"), Some(b"{\"a\":"), &[]),
        (Some(b"k"), Some(b"4"), &[]),
    ])
    .await;
    let mut decoder = decoder();
    let mut batch = FrameBuilder::new();
    let mut faults = Vec::new();
    for record in fetched.records() {
        if let Err(fault) = decoder.push(&place(), &record, &mut batch) {
            assert_eq!(
                decoder.record(&"t".into(), 0, &record).unwrap_err(),
                fault,
                "a chain meets the same fault"
            );
            faults.push((record.offset, fault));
        }
    }
    let said: Vec<_> = faults
        .iter()
        .map(|(offset, fault)| (*offset, fault.part.stage().unwrap(), fault.class.unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            (
                1,
                "KEY_CONVERTER",
                "org.apache.kafka.connect.storage.StringConverter"
            ),
            (
                2,
                "VALUE_CONVERTER",
                "org.apache.kafka.connect.json.JsonConverter"
            ),
        ]
    );
    let frame = Frame::parse(batch.finish(), &mut SchemaCache::default()).unwrap();
    let offsets: Vec<_> = frame.records().map(|record| record.offset()).collect();
    assert_eq!(offsets, [Some(0), Some(3)]);
}
