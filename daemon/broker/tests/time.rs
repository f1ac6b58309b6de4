//! Finding records by time: exact to the record, whatever order the timestamps have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Random, options};
use tidewater_broker::{
    BatchBuilder, Broker, BrokerOptions, Compression, Error, Isolation, Start, TopicConfig,
};

fn small(dir: &tempfile::TempDir) -> BrokerOptions {
    BrokerOptions {
        segment_bytes: 2_000,
        index_interval_bytes: 200,
        ..options(dir)
    }
}

/// Appends batches of records with these timestamps.
async fn append(broker: &Broker, timestamps: &[i64], per_batch: usize, compression: Compression) {
    for batch in timestamps.chunks(per_batch) {
        let mut builder = BatchBuilder::new(compression);
        for timestamp in batch {
            builder.push(*timestamp, Some(b"key"), Some(b"some value"), &[]);
        }
        broker.append("t", 0, builder).await.unwrap();
    }
}

fn first_at(timestamps: &[i64], wanted: i64) -> Option<u64> {
    timestamps.iter().position(|t| *t >= wanted).map(|i| i as u64)
}

async fn check(broker: &Broker, timestamps: &[i64]) {
    for wanted in -3..=1_003 {
        let found = broker.offset_for_time("t", 0, wanted).await.unwrap();
        assert_eq!(found, first_at(timestamps, wanted), "at {wanted}");
    }
}

#[tokio::test]
async fn the_first_record_not_earlier_is_found_over_segments_with_timestamps_in_any_order() {
    for (round, compression) in [Compression::None, Compression::Lz4].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Broker::open(small(&dir)).unwrap();
        broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
        assert_eq!(broker.offset_for_time("t", 0, 0).await.unwrap(), None);
        let mut random = Random::new(round as u64);
        // A clock that runs forward, stands, jumps back, and is set far ahead for a while.
        let mut now = 0;
        let mut timestamps = Vec::new();
        for _ in 0..600 {
            now = match random.below(60) {
                0 => random.below(400) as i64,
                1 => now + 90,
                n => now + i64::from(n % 3 == 0),
            };
            timestamps.push(now);
        }
        append(&broker, &timestamps, 7, compression).await;
        check(&broker, &timestamps).await;
        broker.close().await.unwrap();
        drop(broker);
        broker = Broker::open(small(&dir)).unwrap();
        check(&broker, &timestamps).await;
        append(&broker, &[1_001, 1_003, 1_002], 3, compression).await;
        timestamps.extend([1_001, 1_003, 1_002]);
        check(&broker, &timestamps).await;
    }
}

#[tokio::test]
async fn a_reader_begins_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    append(&broker, &[10, 30, 20, 40], 2, Compression::None).await;
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(50, None, None, &[]);
    transaction.append("t", 0, batch).await.unwrap();
    broker.append("t", 0, support::batch(&["later"])).await.unwrap();

    let position = |timestamp, isolation| {
        let reader = broker.reader("t", 0, Start::Timestamp(timestamp), isolation);
        reader.unwrap().position()
    };
    assert_eq!(position(25, Isolation::ReadCommitted), 1);
    assert_eq!(position(31, Isolation::ReadCommitted), 3);
    // The open transaction is not there for readers of committed data: they begin where it does.
    assert_eq!(position(41, Isolation::ReadCommitted), 4);
    assert_eq!(position(41, Isolation::ReadUncommitted), 4);
    assert_eq!(position(51, Isolation::ReadUncommitted), 6);
    let mut reader = broker
        .reader("t", 0, Start::Timestamp(11), Isolation::ReadCommitted)
        .unwrap();
    let fetched = reader.try_next(1 << 20).unwrap().unwrap();
    assert_eq!(fetched.records().next().unwrap().timestamp, 30);
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn indexes_that_are_missing_short_or_of_other_segments_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = small(&dir);
    options.segment_bytes = 3_000;
    let mut broker = Broker::open(options.clone()).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let timestamps: Vec<_> = (0..600).map(|i| i * 2 - (i % 7) * 5).collect();
    append(&broker, &timestamps, 5, Compression::None).await;
    let topic = dir
        .path()
        .join("data/topics")
        .join(broker.topic("t").unwrap().id.to_string());
    for damage in ["remove", "halve", "empty", "swap", "flip"] {
        broker.close().await.unwrap();
        drop(broker);
        let indexes = files(&topic, "index");
        assert!(indexes.len() > 3);
        let first = fs::read(&indexes[0]).unwrap();
        for (i, path) in indexes.iter().enumerate() {
            let mut bytes = fs::read(path).unwrap();
            match damage {
                "remove" => fs::remove_file(path).unwrap(),
                "halve" => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                "empty" => fs::write(path, b"").unwrap(),
                "swap" => fs::write(path, if i == 0 { &bytes } else { &first }).unwrap(),
                _ => {
                    let at = bytes.len() / 3;
                    // The last segment may be too short to have entries.
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 8;
                    }
                    fs::write(path, &bytes).unwrap();
                }
            }
        }
        broker = Broker::open(options.clone()).unwrap();
        check(&broker, &timestamps).await;
    }
}

#[tokio::test]
async fn a_damaged_segment_is_an_error_and_not_another_answer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(small(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let timestamps: Vec<_> = (0..600).collect();
    append(&broker, &timestamps, 5, Compression::None).await;
    broker.close().await.unwrap();
    drop(broker);
    let log = files(&dir.path().join("data/topics"), "log")
        .into_iter()
        .find(|path| fs::metadata(path).unwrap().len() > 1_000)
        .unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[100] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let broker = Broker::open(small(&dir)).unwrap();
    let found = broker.offset_for_time("t", 0, 1).await;
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
    // What lies in others is found as before.
    assert_eq!(broker.offset_for_time("t", 0, 500).await.unwrap(), Some(500));
}
