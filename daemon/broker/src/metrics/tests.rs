//! What the metrics say after known work.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::disk::measured::Latencies;
use crate::log::compaction::CleanerLimits;
use crate::{BatchBuilder, Broker, BrokerOptions, Compression, Isolation, Start, TopicConfig};

fn batch(records: usize) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        batch.push(1, None, Some(b"value"), &[]);
    }
    batch
}

fn partition(metrics: &Metrics, topic: &str, partition: u32) -> PartitionMetrics {
    let mut found = metrics.partitions.iter();
    found
        .find(|p| &*p.topic == topic && p.partition == partition)
        .unwrap()
        .clone()
}

#[tokio::test]
async fn what_goes_in_and_out_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        segment_bytes: 400,
        ..BrokerOptions::new(dir.path())
    };
    let broker = Broker::open(options).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let before = broker.metrics();
    let (mut bytes, mut largest) = (0, 0);
    for records in [1, 2, 30] {
        largest = batch(records).bytes() as u64;
        bytes += largest;
        broker.append("t", 1, batch(records)).await.unwrap();
    }
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 1, batch(4)).await.unwrap();
    broker
        .commit_group_offsets("g", &[("t", 1, 3), ("gone", 0, 7)])
        .await
        .unwrap();
    let mut reader = broker
        .reader("t", 1, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let (mut read, mut fetches) = (0, 0);
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        read += fetched.records().count() as u64;
        fetches += 1;
    }

    let metrics = broker.metrics();
    let p1 = partition(&metrics, "t", 1);
    assert_eq!((p1.appends, p1.records_in), (4, 37));
    assert_eq!(p1.bytes_in, bytes + batch(4).bytes() as u64);
    assert_eq!((p1.fetches, p1.records_out, p1.bytes_out), (fetches, read, bytes));
    assert_eq!((p1.log_start, p1.last_stable, p1.end), (0, 33, 37));
    assert_eq!(p1.size_bytes, p1.bytes_in);
    assert!(p1.segments > 1 && largest > 400, "{}", p1.segments);
    assert_eq!(p1.open_transactions, 1);
    assert!(p1.oldest_transaction_seconds.is_some_and(|age| age >= 0.0));
    let p0 = partition(&metrics, "t", 0);
    assert_eq!((p0.appends, p0.end, p0.open_transactions), (0, 0, 0));

    let syncs = &metrics.broker.fsync_seconds;
    assert!(syncs.count >= before.broker.fsync_seconds.count + 3);
    assert!(syncs.buckets.iter().map(|bucket| bucket.1).is_sorted() && syncs.sum > 0.0);
    assert!(metrics.broker.directory_syncs > before.broker.directory_syncs);
    assert_eq!(
        (metrics.broker.fsync_errors, metrics.broker.appends_waiting),
        (0, 0)
    );
    assert_eq!(metrics.groups.len(), 2);
    assert_eq!(
        (metrics.groups[0].topic.as_str(), metrics.groups[0].lag),
        ("gone", None)
    );
    assert_eq!(
        (metrics.groups[1].committed, metrics.groups[1].lag),
        (3, Some(30))
    );
    // The batch of the open transaction may not be synced yet, and holds its bytes until it is.
    assert!(metrics.broker.in_flight_bytes <= batch(4).bytes());

    transaction.commit().await.unwrap();
    let metrics = broker.metrics();
    let p1 = partition(&metrics, "t", 1);
    assert_eq!((p1.open_transactions, p1.oldest_transaction_seconds), (0, None));
    assert_eq!(
        (p1.records_in, p1.end),
        (37, 38),
        "a marker is an offset, and no record"
    );
    let json = serde_json::to_value(&metrics).unwrap();
    assert_eq!(
        json["partitions"].as_array().unwrap().len(),
        metrics.partitions.len()
    );
    broker.close().await.unwrap();
    assert!(broker.metrics().broker.checkpoints > 0);
}

#[test]
fn a_histogram_adds_up() {
    let latencies = Latencies::default();
    for micros in [1, 100, 101, 20_000_000] {
        latencies.record(std::time::Duration::from_micros(micros));
    }
    let histogram = Histogram::of(&latencies);
    assert_eq!(histogram.buckets[..2], [(0.0001, 2), (0.00025, 3)]);
    assert_eq!(histogram.buckets.last(), Some(&(10.0, 3)));
    assert_eq!(histogram.count, 4);
    assert!((histogram.sum - 20.000_202).abs() < 1e-9);
}

#[tokio::test]
async fn each_sync_is_counted_where_it_happened() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(BrokerOptions::new(dir.path())).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    for _ in 0..3 {
        broker.append("t", 1, batch(1)).await.unwrap();
    }
    broker.append("t", 0, batch(5)).await.unwrap();
    let metrics = broker.metrics();
    for (number, syncs) in [(0, 1), (1, 3)] {
        let took = partition(&metrics, "t", number).fsync_seconds;
        // One after the other, each with nothing else to sync.
        assert_eq!(took.count, syncs);
        assert!(took.sum > 0.0 && took.sum <= metrics.broker.fsync_seconds.sum);
    }
    let topics = metrics.topics();
    let t = &topics["t"];
    let bytes = 3 * batch(1).bytes() as u64 + batch(5).bytes() as u64;
    assert_eq!(
        (t.partitions, t.records_in, t.bytes_in, t.fsyncs),
        (2, 8, bytes, 4)
    );
    assert_eq!(
        (t.records_out, t.segments, t.size_bytes, t.open_transactions),
        (0, 2, bytes, 0)
    );
}

#[tokio::test]
async fn what_compaction_took_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        segment_bytes: 1_000,
        ..BrokerOptions::new(dir.path())
    };
    let broker = Broker::open(options).unwrap();
    let settings = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
    let config = TopicConfig {
        settings,
        ..TopicConfig::new(1)
    };
    broker.create_topic("t", config).await.unwrap();
    let log = broker.log("t", 0).unwrap();
    let mut written = 0;
    while log.state.lock().sealed.len() < 3 {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(1, Some(b"key"), Some(&[b'v'; 100]), &[]);
        batch.push(1, Some(format!("{written}").as_bytes()), Some(&[b'v'; 100]), &[]);
        written += batch.bytes() as u64;
        broker.append("t", 0, batch).await.unwrap();
    }
    let before = partition(&broker.metrics(), "t", 0);
    assert_eq!((before.compaction_passes, before.size_bytes), (0, written));
    let sealed = log.state.lock().sealed.clone();
    let (sealed_bytes, sealed_batches) = (sealed.iter().map(|s| s.size).sum::<u64>(), sealed[2].next / 2);
    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        key_bytes: 10_000,
        stop: &stop,
    };
    log.compact(limits).unwrap();
    let after = partition(&broker.metrics(), "t", 0);
    assert_eq!(after.compaction_passes, 1);
    // All but the last record of the key that every batch has.
    assert_eq!(after.compacted_records, sealed_batches - 1);
    assert_eq!(after.compacted_bytes_before, sealed_bytes);
    let went = before.size_bytes - after.size_bytes;
    assert_eq!(after.compacted_bytes_before - after.compacted_bytes_after, went);
    assert!(went > 0);
    let mut left = broker
        .reader("t", 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut records = 0;
    while let Some(fetched) = left.try_next(1 << 20).unwrap() {
        records += fetched.records().count() as u64;
    }
    assert_eq!(records, before.records_in - after.compacted_records);

    // Nothing new: nothing counted.
    log.compact(limits).unwrap();
    assert_eq!(
        partition(&broker.metrics(), "t", 0).compacted_records,
        after.compacted_records
    );
}
