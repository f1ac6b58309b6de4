//! The stages one by one, each over all records: which of them costs what.

use std::sync::Arc;

use tidewater_broker::{BrokerOptions, Compression};
use tidewater_plugin_api::{ConfigMap, Frame, FrameBuilder, TopicPartition};
use tidewater_plugin_host::TaskIdentity;
use tidewater_runtime::broker::Broker;
use tidewater_runtime::converter::{Converters, Role, create};
use tidewater_runtime::embedded::EmbeddedBroker;
use tidewater_runtime::partitioner::Partitioning;
use tidewater_runtime::record_decoder::RecordDecoder;
use tidewater_runtime::record_encoder::{BATCH_BYTES, Batches, EncoderOptions, RecordEncoder};
use tidewater_runtime::schema_store::SchemaStore;
use tidewater_runtime::topic_rules::TopicRules;
use tidewater_transforms::{Chain, Record};

use crate::bed::{converters, cpu, keys, registry};

/// Bytes at which a transaction is full, as for a source task that is busy.
const TRANSACTION_BYTES: usize = 4 << 20;

/// Prints a line for each size of records and batches.
pub async fn measure(names: &[&str], records: usize) {
    println!(
        "Processor seconds per million records, stage by stage; what is in parentheses is not part of the plain way."
    );
    println!(
        "{:<9}{:>6}{:>7} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>12} {:>10}",
        "converter",
        "bytes",
        "batch",
        "poll",
        "encode",
        "commit",
        "fetch",
        "decode",
        "put",
        "total",
        "(transform)",
        "(encode)"
    );
    for name in names {
        for bytes in [100, 1000] {
            for batch in [1, 100, 1000, 5000] {
                // One record a poll takes as long as hundreds: fewer will do.
                let count = if batch == 1 { records / 10 } else { records };
                // So that what waits between the stages stays within memory.
                let count = count.min((400 << 20) / bytes);
                line(name, bytes, batch, count).await;
            }
        }
    }
}

async fn line(name: &str, bytes: usize, batch: usize, count: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = registry(folder.path());
    let log = tidewater_broker::Broker::open(BrokerOptions::new(folder.path().join("log"))).expect("a log");
    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::new(log));
    let store = Arc::new(SchemaStore::open(broker.clone()).await.expect("a store"));
    let (converter, shape) = converters(name);
    let identity = || TaskIdentity {
        connector: "way".into(),
        task: 0,
        generation: 1,
    };
    let made = || {
        let of = |name, role| create(name, role, &[].into(), &store).expect("a converter");
        Converters {
            key: of("bytes", Role::Content),
            value: of(converter, Role::Content),
            header: of("simple", Role::Header),
        }
    };
    let per_million = |since: f64| (cpu() - since) / count as f64 * 1e6;

    let config = keys([
        ("records", count.to_string()),
        ("batch", batch.to_string()),
        ("bytes", bytes.to_string()),
        ("shape", shape.to_owned()),
    ]);
    let source = registry.find("noop-source").expect("the plugin");
    let source = source
        .create_source_task(identity(), config, Vec::new())
        .expect("a task");
    source.start().await.expect("started");
    let mut frames: Vec<Frame> = Vec::new();
    let begun = cpu();
    let mut polled = 0;
    while polled < count {
        let frame = source.poll().await.expect("a frame");
        polled += frame.len();
        frames.push(frame);
    }
    let poll = per_million(begun);

    let options = EncoderOptions {
        compression: Compression::None,
        batch_bytes: BATCH_BYTES,
        partitioning: Partitioning::Key,
        topics: TopicRules::partitions(1),
    };
    let mut encoder = RecordEncoder::new(made(), options);
    let mut transactions = Vec::new();
    encoder
        .prepare_frame(&frames[0], &*broker)
        .await
        .expect("a topic");
    let begun = cpu();
    let mut open = Batches::default();
    for frame in &frames {
        encoder.prepare_frame(frame, &*broker).await.expect("prepared");
        for record in frame.records() {
            encoder.push_frame_record(&record, &mut open).expect("converted");
        }
        if open.bytes() >= TRANSACTION_BYTES {
            transactions.push(encoder.finish(std::mem::take(&mut open)));
        }
    }
    transactions.push(encoder.finish(open));
    let encode = per_million(begun);

    let mut producer = broker.producer("way").await.expect("a producer");
    let begun = cpu();
    for transaction in transactions {
        producer.commit(transaction).await.expect("committed");
    }
    let commit = per_million(begun);

    let place = TopicPartition {
        topic: "noop".into(),
        partition: 0,
    };
    let mut reader = broker.reader(&place, 0).expect("a reader");
    let mut fetched = Vec::new();
    let begun = cpu();
    let mut read = 0;
    while read < count {
        let next = reader.next(1 << 20).await.expect("records");
        read += next.len();
        fetched.push(next);
    }
    let fetch = per_million(begun);

    let mut decoder = RecordDecoder::new(made());
    let mut out = Vec::new();
    let begun = cpu();
    let mut gathered = FrameBuilder::new();
    for record in fetched.iter().flat_map(tidewater_broker::Fetched::records) {
        decoder.push(&place, &record, &mut gathered).expect("converted");
        if gathered.len() >= batch {
            out.push(gathered.finish());
        }
    }
    if !gathered.is_empty() {
        out.push(gathered.finish());
    }
    let decode = per_million(begun);

    let sink = registry.find("noop-sink").expect("the plugin");
    let sink = sink
        .create_sink_task(identity(), ConfigMap::new())
        .expect("a task");
    sink.start().await.expect("started");
    let begun = cpu();
    for frame in out {
        sink.put(frame).await.expect("put");
    }
    let put = per_million(begun);

    let (transform, encode_owned) = transformed(&frames, shape, &mut encoder, &*broker, count).await;
    let total = poll + encode + commit + fetch + decode + put;
    println!(
        "{name:<9}{bytes:>6}{batch:>7} {poll:>8.2} {encode:>9.2} {commit:>8.2} {fetch:>8.2} {decode:>8.2} {put:>8.2} {total:>8.2} {transform:>12.2} {encode_owned:>10.2}"
    );
    broker.close().await;
}

/// One transform over all records, and what it costs to convert what comes out of it.
async fn transformed(
    frames: &[Frame],
    shape: &str,
    encoder: &mut RecordEncoder,
    broker: &dyn Broker,
    count: usize,
) -> (f64, f64) {
    let class = if shape == "row" {
        "InsertField$Value"
    } else {
        "InsertHeader"
    };
    let config = keys([
        ("transforms", "t".to_owned()),
        ("transforms.t.type", class.to_owned()),
        ("transforms.t.static.field", "origin".to_owned()),
        ("transforms.t.static.value", "way".to_owned()),
        ("transforms.t.header", "origin".to_owned()),
        ("transforms.t.value.literal", "way".to_owned()),
    ]);
    let config: ConfigMap = config
        .into_iter()
        .filter(|(key, _)| {
            let of_row = key.contains(".static.");
            let of_header = key.ends_with(".header") || key.ends_with(".literal");
            if shape == "row" { !of_header } else { !of_row }
        })
        .collect();
    let mut chain = Chain::new(&config).expect("a chain");
    let mut batches = Batches::default();
    let (mut transform, mut encode) = (0.0, 0.0);
    for frame in frames {
        let begun = cpu();
        let records: Vec<Record> = frame
            .records()
            .filter_map(|record| {
                let owned = Record::from_frame(frame, &record).expect("a record");
                chain.apply(owned).expect("transformed")
            })
            .collect();
        let between = cpu();
        transform += between - begun;
        for record in &records {
            encoder.prepare(record, broker).await.expect("prepared");
            encoder.push(record, &mut batches).expect("converted");
        }
        if batches.bytes() >= TRANSACTION_BYTES {
            drop(encoder.finish(std::mem::take(&mut batches)));
        }
        encode += cpu() - between;
    }
    (transform / count as f64 * 1e6, encode / count as f64 * 1e6)
}
