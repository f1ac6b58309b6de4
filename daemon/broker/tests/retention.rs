//! Retention by time and size, and the deletion of records before an offset.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{copy_dir, drain, options, read};
use tidewater_broker::{
    AutoOffsetReset, BatchBuilder, Broker, BrokerOptions, Compression, ConsumerOptions, DeleteBefore, Error,
    Isolation, ManualClock, PartitionMetrics, ProducerOptions, Start, TopicConfig,
};

const NOW: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_hours(1);
const HOUR_MS: i64 = 3_600_000;

/// A broker on a clock that stands, and one partition `t` with these settings.
struct Bed {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    broker: Broker,
}

impl Bed {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let broker = Broker::open_with_clock(Self::options(&dir), clock.clone()).unwrap();
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = TopicConfig {
            settings: settings.collect(),
            ..TopicConfig::new(1)
        };
        broker.create_topic("t", config).await.unwrap();
        Self { dir, clock, broker }
    }

    /// Segments of three records of [`one`].
    fn options(dir: &tempfile::TempDir) -> BrokerOptions {
        BrokerOptions {
            segment_bytes: 3 * one(NOW, "0").bytes() as u64,
            topic_defaults: BTreeMap::new(),
            ..options(dir)
        }
    }

    async fn append(&self, timestamps: impl IntoIterator<Item = i64>) {
        for timestamp in timestamps {
            let end = self.broker.offsets("t", 0).unwrap().end;
            let batch = one(timestamp, &(end % 10).to_string());
            assert_eq!(self.broker.append("t", 0, batch).await.unwrap(), end);
        }
    }

    fn log_start(&self) -> u64 {
        self.broker.run_housekeeping_now();
        let start = self.broker.offsets("t", 0).unwrap().log_start;
        let reader = self
            .broker
            .reader("t", 0, Start::Earliest, Isolation::ReadCommitted);
        assert_eq!(reader.unwrap().position(), start);
        start
    }

    fn metrics(&self) -> PartitionMetrics {
        let metrics = self.broker.metrics();
        metrics.partitions.into_iter().find(|p| &*p.topic == "t").unwrap()
    }

    async fn reopen(mut self, clean: bool) -> Self {
        if clean {
            self.broker.close().await.unwrap();
        }
        let elsewhere = tempfile::tempdir().unwrap();
        self.broker = Broker::open(options(&elsewhere)).unwrap();
        self.broker = Broker::open_with_clock(Self::options(&self.dir), self.clock.clone()).unwrap();
        self
    }

    /// The files of the partition's segments, once nothing is under way.
    async fn files(&self) -> Vec<String> {
        self.broker.close().await.unwrap();
        let topics = self.dir.path().join("data/topics");
        let topic = topics.join(self.broker.topic("t").unwrap().id.to_string());
        names(&topic.join("0"))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = paths
        .filter(|path: &PathBuf| path.extension().is_some_and(|e| e == "log"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// A batch of one record, always of the same size.
fn one(timestamp: i64, value: &str) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(timestamp, Some(b"key"), Some(value.as_bytes()), &[]);
    batch
}

#[tokio::test]
async fn segments_go_once_their_last_record_is_older_than_retention_ms() {
    let bed = Bed::new(&[("retention.ms", "3600000")]).await;
    // Segments [0, 3) and [3, 6), and 6 in the active one.
    bed.append([0, 5, 2, 1, 4, 9, 3].map(|minute| NOW - HOUR_MS + minute * 60_000))
        .await;
    assert_eq!(bed.log_start(), 0);
    bed.clock.advance(Duration::from_mins(5));
    assert_eq!(bed.log_start(), 0, "it is as old, and not older");
    bed.clock.advance(Duration::from_millis(1));
    assert_eq!(bed.log_start(), 3);
    assert_eq!(bed.metrics().removed_segments, 1);
    // The active segment is older, and does not go before those before it.
    bed.clock
        .advance(Duration::from_mins(4) - Duration::from_millis(1));
    assert_eq!(bed.log_start(), 3);
    bed.clock.advance(Duration::from_millis(1));
    assert_eq!(bed.log_start(), 7, "the active one goes, too");
    let metrics = bed.metrics();
    assert_eq!(
        (metrics.removed_segments, metrics.size_bytes, metrics.segments),
        (3, 0, 1)
    );
    bed.append([NOW]).await;
    assert_eq!(
        read(&bed.broker, "t", 0, Isolation::ReadCommitted),
        [(7, "7".to_owned())]
    );
    assert_eq!(bed.files().await, ["00000000000000000007"]);
}

#[tokio::test]
async fn segments_go_while_the_log_without_them_has_retention_bytes() {
    let size = 3 * one(NOW, "0").bytes();
    for (kept, expected) in [(0, 9), (1, 6), (2 * size, 3), (2 * size + 1, 0)] {
        let bed = Bed::new(&[("retention.bytes", &kept.to_string()), ("retention.ms", "-1")]).await;
        bed.append([NOW; 9]).await;
        assert_eq!(bed.log_start(), expected, "{kept}");
        let bed = bed.reopen(true).await;
        assert_eq!(bed.log_start(), expected);
        let read = read(&bed.broker, "t", 0, Isolation::ReadCommitted);
        assert_eq!(read.len() as u64, 9 - expected);
        bed.append([NOW; 3]).await;
        assert_eq!(bed.log_start(), if expected == 9 { 12 } else { expected + 3 });
    }
}

#[tokio::test]
async fn a_topic_that_is_compacted_loses_nothing_by_age_unless_it_is_deleted_from_too() {
    for (policy, expected) in [("compact", 0), ("compact,delete", 7)] {
        let bed = Bed::new(&[
            ("cleanup.policy", policy),
            ("retention.ms", "3600000"),
            ("retention.bytes", "0"),
        ])
        .await;
        bed.append([NOW; 7]).await;
        bed.clock.advance(2 * HOUR);
        assert_eq!(bed.log_start(), expected, "{policy}");
        let left = read(&bed.broker, "t", 0, Isolation::ReadCommitted);
        let deleted = bed.broker.delete_records("t", 0, 1).await;
        if expected == 0 {
            let last_of_each_part = [5, 6].map(|n| (n, n.to_string()));
            assert_eq!(left, last_of_each_part, "6 is in the active segment");
            assert!(
                matches!(deleted, Err(Error::PolicyViolation { .. })),
                "{deleted:?}"
            );
        } else {
            assert!(left.is_empty());
            assert_eq!(deleted.unwrap(), 7);
        }
        let internal = bed.broker.delete_records("__consumer_offsets", 0, 0).await;
        assert!(matches!(internal, Err(Error::InternalTopic { .. })));
    }
}

#[tokio::test]
async fn records_without_a_time_or_with_one_to_come_are_as_old_as_when_they_were_written() {
    for timestamp in [-1, NOW + 1000 * HOUR_MS, i64::MAX] {
        for restart in [false, true] {
            let mut bed = Bed::new(&[("retention.ms", "3600000")]).await;
            bed.append([timestamp; 5]).await;
            if restart {
                bed = bed.reopen(true).await;
            }
            bed.clock.advance(HOUR);
            assert_eq!(bed.log_start(), 0, "{timestamp} {restart}");
            bed.clock.advance(Duration::from_millis(1));
            assert_eq!(bed.log_start(), 5, "{timestamp} {restart}");
        }
    }
}

#[tokio::test]
async fn a_clock_set_forward_makes_nothing_old() {
    let bed = Bed::new(&[("retention.ms", "3600000")]).await;
    bed.append([NOW; 4]).await;
    let year = 365 * 24 * HOUR_MS;
    bed.clock.set_wall_clock(NOW + year);
    assert_eq!(bed.log_start(), 0);
    bed.append([NOW + year; 4]).await;
    bed.clock.advance(HOUR / 2);
    assert_eq!(bed.log_start(), 0);
    // An hour passes by any clock: for what was there before, and after it for what came then.
    bed.clock.advance(HOUR / 2 + Duration::from_millis(1));
    assert_eq!(bed.log_start(), 8, "all were written within this hour");
    // And set right again, with records from either time.
    bed.append([NOW + year; 3]).await;
    bed.clock.set_wall_clock(NOW + HOUR_MS);
    bed.append([NOW + HOUR_MS; 3]).await;
    assert_eq!(bed.log_start(), 8);
    let bed = bed.reopen(true).await;
    assert_eq!(bed.log_start(), 8);
    bed.clock.advance(HOUR);
    assert_eq!(bed.log_start(), 8);
    bed.clock.advance(Duration::from_millis(1));
    assert_eq!(
        bed.log_start(),
        14,
        "a time to come counts from when the log was opened"
    );
}

#[tokio::test]
async fn a_clock_set_back_makes_nothing_old_and_keeps_nothing_for_ever() {
    let bed = Bed::new(&[("retention.ms", "3600000")]).await;
    bed.append([NOW; 3]).await;
    let then = NOW - 1000 * HOUR_MS;
    bed.clock.set_wall_clock(then);
    bed.append([then; 4]).await;
    bed.clock.advance(HOUR / 2);
    assert_eq!(bed.log_start(), 0);
    // Set right, what was written meanwhile has a timestamp that is old; and nothing young is before it.
    bed.broker.delete_records("t", 0, 3).await.unwrap();
    bed.clock.set_wall_clock(NOW + HOUR_MS / 2);
    bed.broker
        // Any change has the log looked at.
        .alter_topic("t", &[("segment.ms", Some("7200000"))])
        .await
        .unwrap();
    assert_eq!(bed.log_start(), 3, "young by the monotonic clock");
    bed.clock.advance(HOUR / 2 + Duration::from_millis(1));
    assert_eq!(bed.log_start(), 7);

    bed.append([NOW + HOUR_MS; 3]).await;
    bed.clock.set_wall_clock(then);
    let bed = bed.reopen(true).await;
    bed.clock.advance(HOUR);
    assert_eq!(bed.log_start(), 7);
    bed.clock.advance(Duration::from_millis(1));
    assert_eq!(bed.log_start(), 10, "counted from when the log was opened");
}

#[tokio::test]
async fn a_quiet_partition_closes_its_segment_after_segment_ms() {
    let bed = Bed::new(&[("segment.ms", "60000"), ("retention.ms", "-1")]).await;
    bed.append([NOW; 2]).await;
    bed.clock.advance(Duration::from_millis(59_999));
    bed.broker.run_housekeeping_now();
    assert_eq!(bed.metrics().segments, 1);
    bed.clock.advance(Duration::from_millis(1));
    bed.broker.run_housekeeping_now();
    assert_eq!(bed.metrics().segments, 2);
    // An empty one is not closed again; and what is written next is in order.
    bed.clock.advance(HOUR);
    bed.broker.run_housekeeping_now();
    assert_eq!(bed.metrics().segments, 2);
    bed.append([NOW; 2]).await;
    let values = [0, 1, 2, 3].map(|n| (n, n.to_string()));
    assert_eq!(read(&bed.broker, "t", 0, Isolation::ReadCommitted), values);
    let bed = bed.reopen(false).await;
    assert!(bed.broker.recovery().is_clean(), "{:?}", bed.broker.recovery());
    assert_eq!(read(&bed.broker, "t", 0, Isolation::ReadCommitted).len(), 4);
    bed.clock.advance(HOUR);
    bed.broker.run_housekeeping_now();
    assert_eq!(bed.metrics().segments, 3);
    let bed = bed.reopen(true).await;
    assert!(bed.broker.recovery().is_clean(), "{:?}", bed.broker.recovery());
    bed.append([NOW]).await;
    assert_eq!(read(&bed.broker, "t", 0, Isolation::ReadCommitted).len(), 5);
}

#[tokio::test]
async fn a_quiet_partition_is_compacted_after_max_compaction_lag_ms() {
    let bed = Bed::new(&[("cleanup.policy", "compact"), ("max.compaction.lag.ms", "60000")]).await;
    bed.append([NOW; 2]).await;
    bed.clock.advance(Duration::from_mins(1));
    bed.broker.run_housekeeping_now();
    let left = read(&bed.broker, "t", 0, Isolation::ReadCommitted);
    assert_eq!(left, [(1, "1".to_owned())]);
}

#[tokio::test]
async fn altered_settings_are_acted_on_at_once() {
    let bed = Bed::new(&[]).await;
    bed.append([NOW; 7]).await;
    bed.clock.advance(2 * HOUR);
    assert_eq!(bed.log_start(), 0);
    let mut reader = bed.broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
    drain(&mut reader);
    bed.broker
        .alter_topic("t", &[("retention.ms", Some("3600000"))])
        .await
        .unwrap();
    // By the keeper's own thread. A reader at the end is woken by what it does, and waits on.
    let wait = async {
        while bed.broker.offsets("t", 0).unwrap().log_start == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap();
    assert_eq!(bed.broker.offsets("t", 0).unwrap().log_start, 7);
    bed.append([NOW + 2 * HOUR_MS; 6]).await;
    assert_eq!(bed.log_start(), 7);
    bed.broker
        .alter_topic("t", &[("retention.bytes", Some("1"))])
        .await
        .unwrap();
    assert_eq!(bed.log_start(), 10);
}

#[tokio::test]
async fn records_are_deleted_before_an_offset_inside_a_segment() {
    let mut bed = Bed::new(&[]).await;
    bed.append((0..10).map(|n| NOW + n)).await;
    let all = read(&bed.broker, "t", 0, Isolation::ReadCommitted);
    for (before, clean) in [(4, false), (5, true), (5, false), (2, true)] {
        let start = bed.broker.delete_records("t", 0, before).await.unwrap();
        assert_eq!(start, before.max(if before == 2 { 5 } else { 0 }));
        bed = bed.reopen(clean).await;
        assert!(bed.broker.recovery().is_clean(), "{:?}", bed.broker.recovery());
        assert_eq!(bed.log_start(), start);
        let left = read(&bed.broker, "t", 0, Isolation::ReadCommitted);
        assert_eq!(left, all[start as usize..]);
        let stranded = bed.broker.reader("t", 0, start - 1, Isolation::ReadCommitted);
        assert!(matches!(stranded, Err(Error::OffsetOutOfRange { log_start, .. }) if log_start == start));
        // Times before the start are those of records that are not there.
        let found = bed.broker.offset_for_time("t", 0, NOW).await.unwrap();
        assert_eq!(found, Some(start));
    }
    assert_eq!(bed.metrics().log_start, 5);
    let beyond = bed.broker.delete_records("t", 0, 11).await;
    assert!(
        matches!(
            &beyond,
            Err(Error::OffsetOutOfRange {
                offset: 11,
                end: 10,
                ..
            })
        ),
        "{beyond:?}"
    );
    assert_eq!(bed.log_start(), 5);
    let start = bed
        .broker
        .delete_records("t", 0, DeleteBefore::HighWatermark)
        .await;
    assert_eq!(start.unwrap(), 10);
    let mut bed = bed.reopen(false).await;
    assert_eq!(bed.log_start(), 10);
    assert_eq!(bed.broker.offset_for_time("t", 0, 0).await.unwrap(), None);
    bed.append([NOW]).await;
    bed = bed.reopen(false).await;
    assert_eq!(
        read(&bed.broker, "t", 0, Isolation::ReadCommitted),
        [(10, "0".to_owned())]
    );
    assert_eq!(bed.files().await, ["00000000000000000010"]);
}

#[tokio::test]
async fn an_offset_inside_a_batch_can_be_where_the_log_begins() {
    let bed = Bed::new(&[]).await;
    for compression in [Compression::None, Compression::Zstd] {
        let mut batch = BatchBuilder::new(compression);
        for n in 0..10 {
            batch.push(NOW + n, None, Some(&[b'0' + n as u8]), &[]);
        }
        let base = bed.broker.append("t", 0, batch).await.unwrap();
        let start = bed.broker.delete_records("t", 0, base + 6).await.unwrap();
        assert_eq!(start, base + 6);
        let left = read(&bed.broker, "t", 0, Isolation::ReadCommitted);
        let expected: Vec<_> = (6..10).map(|n| (base + n, n.to_string())).collect();
        assert_eq!(left, expected);
        let found = bed.broker.offset_for_time("t", 0, NOW + 3).await.unwrap();
        assert_eq!(found, Some(start));
    }
}

#[tokio::test]
async fn transactions_lie_across_the_log_start() {
    let mut bed = Bed::new(&[]).await;
    let (one_producer, other) = (
        bed.broker.producer("one").await.unwrap(),
        bed.broker.producer("other").await.unwrap(),
    );
    let mut aborted = one_producer.begin().unwrap();
    let mut open = other.begin().unwrap();
    aborted.append("t", 0, one(NOW, "a")).await.unwrap(); // 0
    open.append("t", 0, one(NOW, "o")).await.unwrap(); // 1
    bed.append([NOW]).await; // 2
    aborted.append("t", 0, one(NOW, "a")).await.unwrap(); // 3
    aborted.abort().await.unwrap(); // 4
    bed.append([NOW]).await; // 5
    assert_eq!(bed.broker.offsets("t", 0).unwrap().last_stable, 1);
    assert_eq!(bed.broker.delete_records("t", 0, 3).await.unwrap(), 3);
    // As in Kafka the open transaction is open from the start on.
    let offsets = bed.broker.offsets("t", 0).unwrap();
    assert_eq!((offsets.log_start, offsets.last_stable), (3, 3));
    assert!(read(&bed.broker, "t", 0, Isolation::ReadCommitted).is_empty());
    let beyond = bed.broker.delete_records("t", 0, 7).await;
    assert!(matches!(beyond, Err(Error::OffsetOutOfRange { .. })));
    open.append("t", 0, one(NOW, "o")).await.unwrap(); // 6
    open.commit().await.unwrap(); // 7
    drop((one_producer, other));
    for clean in [false, true] {
        let left = read(&bed.broker, "t", 0, Isolation::ReadCommitted);
        assert_eq!(left, [(5, "5".to_owned()), (6, "o".to_owned())]);
        let all = read(&bed.broker, "t", 0, Isolation::ReadUncommitted);
        assert_eq!(all.len(), 3, "and what was aborted");
        bed = bed.reopen(clean).await;
    }
    // All of a transaction may be deleted while it is open.
    let producer = bed.broker.producer("one").await.unwrap();
    let mut open = producer.begin().unwrap();
    open.append("t", 0, one(NOW, "o")).await.unwrap(); // 8
    bed.append([NOW]).await; // 9
    let start = bed
        .broker
        .delete_records("t", 0, DeleteBefore::HighWatermark)
        .await;
    assert_eq!(start.unwrap(), 10);
    open.abort().await.unwrap(); // 10
    bed.append([NOW]).await; // 11
    drop(producer);
    for clean in [false, true, false] {
        assert_eq!(
            read(&bed.broker, "t", 0, Isolation::ReadCommitted),
            [(11, "1".to_owned())]
        );
        bed = bed.reopen(clean).await;
    }
}

#[tokio::test]
async fn a_transaction_left_open_by_a_crash_may_begin_before_the_log() {
    for delete_all in [false, true] {
        let bed = Bed::new(&[]).await;
        let producer = bed.broker.producer("p").await.unwrap();
        let mut open = producer.begin().unwrap();
        for _ in 0..4 {
            open.append("t", 0, one(NOW, "o")).await.unwrap();
        }
        bed.append([NOW]).await;
        let before = if delete_all { 5 } else { 2 };
        assert_eq!(bed.broker.delete_records("t", 0, before).await.unwrap(), before);
        // What a crash leaves.
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&bed.dir.path().join("data"), &copy.path().join("data"));
        let broker = Broker::open_with_clock(Bed::options(&copy), bed.clock.clone()).unwrap();
        assert!(!broker.recovery().is_clean());
        let offsets = broker.offsets("t", 0).unwrap();
        assert_eq!(offsets.log_start, before);
        assert_eq!(offsets.last_stable, offsets.end, "it was aborted");
        let left = read(&broker, "t", 0, Isolation::ReadCommitted);
        assert_eq!(left.len(), usize::from(!delete_all));
        open.abort().await.unwrap();
    }
}

#[tokio::test]
async fn retention_stops_at_an_open_transaction() {
    let bed = Bed::new(&[("retention.ms", "60000")]).await;
    bed.append([NOW; 3]).await;
    let slow = ProducerOptions {
        transaction_timeout: Duration::from_mins(10),
    };
    let producer = bed.broker.producer_with("p", slow).await.unwrap();
    let mut open = producer.begin().unwrap();
    open.append("t", 0, one(NOW, "o")).await.unwrap();
    bed.append([NOW; 5]).await;
    bed.clock.advance(Duration::from_mins(2));
    assert_eq!(bed.log_start(), 3);
    open.commit().await.unwrap();
    bed.append([NOW]).await;
    assert_eq!(bed.log_start(), 9, "its marker is young");
}

#[tokio::test]
async fn a_reader_that_is_stranded_is_told_so() {
    let bed = Bed::new(&[]).await;
    bed.append([NOW; 12]).await;
    let reader = |offset| {
        bed.broker
            .reader("t", 0, offset, Isolation::ReadCommitted)
            .unwrap()
    };
    let (mut fresh, mut inside, mut ahead, mut waiting) = (reader(0), reader(0), reader(7), reader(12));
    let first = inside.try_next(1).unwrap().unwrap();
    assert_eq!((first.records().count(), inside.position()), (1, 1));
    bed.broker.delete_records("t", 0, 7).await.unwrap();
    for stranded in [&mut fresh, &mut inside] {
        for _ in 0..2 {
            match stranded.next(1 << 20).await {
                Err(Error::OffsetOutOfRange {
                    log_start: 7,
                    end: 12,
                    ..
                }) => {}
                other => panic!("{other:?}"),
            }
        }
        stranded.seek(7).unwrap();
        assert_eq!(drain(stranded).len(), 5);
    }
    assert_eq!(drain(&mut ahead).len(), 5);
    assert!(waiting.try_next(1).unwrap().is_none());
    bed.append([NOW]).await;
    assert_eq!(
        waiting
            .next(1 << 20)
            .await
            .unwrap()
            .records()
            .next()
            .unwrap()
            .offset,
        12
    );
}

#[tokio::test]
async fn a_consumer_that_is_stranded_begins_where_it_was_told_to() {
    let bed = Bed::new(&[]).await;
    bed.append([NOW; 12]).await;
    for (reset, expected) in [
        (AutoOffsetReset::Earliest, Some(9)),
        (AutoOffsetReset::None, None),
    ] {
        let group = format!("{reset:?}");
        bed.broker
            .commit_group_offsets(&group, &[("t", 0, 2)])
            .await
            .unwrap();
        bed.broker.delete_records("t", 0, 9).await.unwrap();
        let lag = bed.broker.group_lag(&group)[&("t".to_owned(), 0)];
        assert_eq!(
            (lag.committed, lag.end, lag.lag),
            (2, 12, 3),
            "what is gone is not to be read"
        );
        let metrics = bed.broker.metrics();
        let group_metrics = metrics.groups.iter().find(|g| g.group == group).unwrap();
        assert_eq!(group_metrics.lag, Some(3));
        let options = ConsumerOptions {
            auto_offset_reset: reset,
            ..ConsumerOptions::new(&group)
        };
        let mut consumer = bed.broker.consumer(options).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        let first = match consumer.poll(1 << 20).await {
            Ok(records) => Some(records.fetched.records().next().unwrap().offset),
            Err(Error::OffsetOutOfRange { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(first, expected);
    }
}

/// What a reader got until the record "end", and where it was told that records are gone: from one offset to another.
async fn follow(broker: Broker, max_bytes: usize) -> (Vec<(u64, String)>, Vec<(u64, u64)>) {
    let (mut read, mut skipped) = (Vec::new(), Vec::new());
    let mut reader = broker
        .reader("t", 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    loop {
        match reader.next(max_bytes).await {
            Ok(fetched) => {
                let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
                read.extend(fetched.records().map(|r| (r.offset, text(r.value))));
                if read.last().is_some_and(|(_, value)| value == "end") {
                    return (read, skipped);
                }
            }
            Err(Error::OffsetOutOfRange { mut log_start, .. }) => {
                let from = reader.position();
                // It may be gone again until it is sought.
                while let Err(Error::OffsetOutOfRange { log_start: later, .. }) = reader.seek(log_start) {
                    log_start = later;
                }
                skipped.push((from, reader.position()));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_while_records_are_written_and_removed_gets_each_or_is_told() {
    let bed = Bed::new(&[
        ("retention.bytes", "1500"),
        ("retention.ms", "-1"),
        ("durability", "os"),
    ])
    .await;
    let done = Arc::new(AtomicBool::new(false));
    let (broker, ended) = (bed.broker.clone(), Arc::clone(&done));
    let keeper = std::thread::spawn(move || {
        while !ended.load(Ordering::SeqCst) {
            broker.run_housekeeping_now();
            std::thread::yield_now();
        }
    });
    let readers = [1, 300, 1 << 20].map(|max_bytes| tokio::spawn(follow(bed.broker.clone(), max_bytes)));
    let producer = bed.broker.producer("p").await.unwrap();
    let mut written = Vec::new();
    for n in 0..600 {
        let value = format!("{n}");
        match n % 4 {
            0 => {
                let mut aborted = producer.begin().unwrap();
                aborted.append("t", 0, one(NOW, "aborted")).await.unwrap();
                aborted.abort().await.unwrap();
            }
            1 => {
                let mut transaction = producer.begin().unwrap();
                transaction.append("t", 0, one(NOW, &value)).await.unwrap();
                let committed = transaction.commit().await.unwrap();
                written.push((committed.partitions[0].base_offset, value));
            }
            _ => {
                let base = bed.broker.append("t", 0, one(NOW, &value)).await.unwrap();
                written.push((base, value));
            }
        }
        if n % 90 == 89 {
            let high = bed.broker.offsets("t", 0).unwrap().high_watermark;
            bed.broker.delete_records("t", 0, high - 5).await.unwrap();
        }
    }
    let end = bed.broker.append("t", 0, one(NOW, "end")).await.unwrap();
    written.push((end, "end".to_owned()));
    for reader in readers {
        let (read, skipped) = reader.await.unwrap();
        let was_skipped = |offset: u64| skipped.iter().any(|(from, to)| (*from..*to).contains(&offset));
        let expected: Vec<_> = written
            .iter()
            .filter(|(offset, _)| !was_skipped(*offset))
            .cloned()
            .collect();
        assert_eq!(read, expected, "{skipped:?}");
    }
    done.store(true, Ordering::SeqCst);
    keeper.join().unwrap();
    let removed = bed.metrics().removed_segments;
    assert!(removed > 100, "{removed}");
}
