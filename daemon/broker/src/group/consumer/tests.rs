//! Positions, lag and resets at the edges of a log: where it is empty, begins late, ends with what was aborted, or has
//! gaps.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::*;
use crate::group::administration::OffsetReset;
use crate::group::consumer::options::AutoOffsetReset;
use crate::log::compaction::CleanerLimits;
use crate::{BatchBuilder, BrokerOptions, Compression, Start, TopicConfig};

async fn broker(dir: &tempfile::TempDir, settings: &[(&str, &str)]) -> Broker {
    let options = BrokerOptions {
        segment_bytes: 300,
        ..BrokerOptions::new(dir.path())
    };
    let broker = Broker::open(options).unwrap();
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let config = TopicConfig {
        settings: settings.iter().map(own).collect(),
        ..TopicConfig::new(1)
    };
    broker.create_topic("t", config).await.unwrap();
    broker
}

fn batch(time: i64, key: &str) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(time, Some(key.as_bytes()), Some(&[b'v'; 100]), &[]);
    batch
}

fn p0() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// A consumer of the partition for group `g`.
fn consumer(broker: &Broker, reset: AutoOffsetReset) -> Consumer {
    let options = ConsumerOptions {
        auto_offset_reset: reset,
        ..ConsumerOptions::new("g")
    };
    let mut consumer = broker.consumer(options).unwrap();
    consumer.assign(&[p0()]).unwrap();
    consumer
}

async fn offsets(consumer: &mut Consumer) -> Vec<u64> {
    let polled = consumer.poll(1 << 20).await.unwrap();
    polled.records().map(|record| record.offset).collect()
}

/// There is nothing for it to read.
async fn nothing(consumer: &mut Consumer) {
    let polled = tokio::time::timeout(Duration::from_millis(20), consumer.poll(1)).await;
    assert!(polled.is_err());
}

fn stands(consumer: &Consumer) -> (Option<u64>, Option<u64>) {
    (consumer.position(&p0()), consumer.lag(&p0()))
}

#[tokio::test]
async fn of_an_empty_partition_all_is_zero() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir, &[]).await;
    let mut consumer = consumer(&broker, AutoOffsetReset::None);
    assert_eq!(stands(&consumer), (None, None), "not looked up yet");
    consumer.seek_to_beginning(&[p0()]).unwrap();
    assert_eq!(stands(&consumer), (Some(0), Some(0)));
    consumer.seek_to_end(&[p0()]).unwrap();
    consumer.seek_to_time(&p0(), i64::MIN).await.unwrap();
    consumer.seek(&p0(), Start::Timestamp(0)).unwrap();
    assert_eq!(stands(&consumer), (Some(0), Some(0)));
    assert!(matches!(
        consumer.seek(&p0(), 1),
        Err(Error::OffsetOutOfRange { end: 0, .. })
    ));
    consumer.commit().await.unwrap();
    let lag = broker.group_lag("g")[&("t".to_owned(), 0)];
    assert_eq!((lag.committed, lag.end, lag.lag), (0, 0, 0));
    for to in [
        OffsetReset::Earliest,
        OffsetReset::Latest,
        OffsetReset::Time(5),
        OffsetReset::Shift(3),
    ] {
        let moved = broker.reset_group_offsets("g", &[("t", 0)], to).await.unwrap();
        assert_eq!(moved[&("t".to_owned(), 0)], 0, "{to:?}");
    }
}

#[tokio::test]
async fn where_the_log_begins_later_than_what_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir, &[]).await;
    for time in 0..10 {
        broker.append("t", 0, batch(1_000 + time, "k")).await.unwrap();
    }
    broker.commit_group_offsets("g", &[("t", 0, 1)]).await.unwrap();
    let mut behind = consumer(&broker, AutoOffsetReset::Earliest);
    assert_eq!(offsets(&mut behind).await[0], 1);
    behind.seek(&p0(), 1).unwrap();
    // As retention does.
    let log = broker.log("t", 0).unwrap();
    log.drop_before(5);
    let start = broker.offsets("t", 0).unwrap().log_start;
    assert!((2..=5).contains(&start), "{start}");

    // What is gone is no lag.
    assert_eq!(stands(&behind), (Some(1), Some(10 - start)));
    assert_eq!(broker.group_lag("g")[&("t".to_owned(), 0)].lag, 10 - start);
    assert_eq!(broker.metrics().groups[0].lag, Some(10 - start));
    assert_eq!(offsets(&mut behind).await[0], start);
    let mut earliest = consumer(&broker, AutoOffsetReset::Earliest);
    assert_eq!(offsets(&mut earliest).await[0], start);
    let mut latest = consumer(&broker, AutoOffsetReset::Latest);
    nothing(&mut latest).await;
    assert_eq!(stands(&latest), (Some(10), Some(0)));
    let mut none = consumer(&broker, AutoOffsetReset::None);
    assert!(matches!(
        none.poll(1).await,
        Err(Error::OffsetOutOfRange { offset: 1, .. })
    ));
    assert!(matches!(
        none.seek(&p0(), start - 1),
        Err(Error::OffsetOutOfRange { .. })
    ));
    none.seek_to_time(&p0(), 0).await.unwrap();
    assert_eq!(stands(&none).0, Some(start));
    assert_eq!(offsets(&mut none).await[0], start);
    for (to, expected) in [
        (OffsetReset::Shift(-1), start),
        (OffsetReset::Offset(0), start),
        (OffsetReset::Time(0), start),
        (OffsetReset::Time(1_008), 8),
    ] {
        let moved = broker.reset_group_offsets("g", &[("t", 0)], to).await.unwrap();
        assert_eq!(moved[&("t".to_owned(), 0)], expected, "{to:?}");
    }
}

#[tokio::test]
async fn where_the_log_ends_with_what_was_aborted_or_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir, &[]).await;
    broker.append("t", 0, batch(1_000, "a")).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let mut aborted = producer.begin().unwrap();
    for _ in 0..3 {
        aborted.append("t", 0, batch(2_000, "b")).await.unwrap();
    }
    aborted.abort().await.unwrap();
    let log = broker.log("t", 0).unwrap();
    log.synced(5).await.unwrap();
    // 0 counts, 1 to 3 are aborted, 4 is the marker.
    let mut consumer = consumer(&broker, AutoOffsetReset::Earliest);
    assert_eq!(offsets(&mut consumer).await, [0]);
    nothing(&mut consumer).await;
    assert_eq!(
        stands(&consumer),
        (Some(5), Some(0)),
        "what was aborted is passed over"
    );
    consumer.commit().await.unwrap();
    assert_eq!(broker.group_lag("g")[&("t".to_owned(), 0)].lag, 0);

    // The end for readers of committed data is before what is open.
    let mut open = producer.begin().unwrap();
    open.append("t", 0, batch(3_000, "c")).await.unwrap();
    broker.append("t", 0, batch(3_500, "d")).await.unwrap();
    consumer.seek_to_beginning(&[p0()]).unwrap();
    consumer.seek_to_end(&[p0()]).unwrap();
    assert_eq!(stands(&consumer), (Some(5), Some(0)));
    consumer.seek_to_time(&p0(), 3_200).await.unwrap();
    assert_eq!(
        stands(&consumer),
        (Some(6), Some(0)),
        "found, and read once what is before is decided"
    );
    consumer.seek_to_time(&p0(), 4_000).await.unwrap();
    assert_eq!(stands(&consumer).0, Some(5));
    open.commit().await.unwrap();
    assert_eq!(offsets(&mut consumer).await, [5]);
    assert_eq!(offsets(&mut consumer).await, [6]);
}

#[tokio::test]
async fn where_compaction_left_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir, &[("cleanup.policy", "compact")]).await;
    let log = broker.log("t", 0).unwrap();
    let mut end = 0;
    while log.state.lock().sealed.len() < 3 {
        end = broker
            .append("t", 0, batch(1_000 + end as i64, "k"))
            .await
            .unwrap()
            + 1;
    }
    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        key_bytes: 10_000,
        stop: &stop,
    };
    log.compact(limits).unwrap();
    // One record of the compacted segments stays: the last.
    let last = log.state.lock().active.base - 1;
    let mut consumer = consumer(&broker, AutoOffsetReset::Earliest);
    for into in 0..=last {
        consumer.seek(&p0(), into).unwrap();
        assert_eq!(
            stands(&consumer),
            (Some(into), Some(end - into)),
            "an offset in a gap is good"
        );
        assert_eq!(offsets(&mut consumer).await[0], last);
        consumer.seek_to_time(&p0(), 1_000 + into as i64).await.unwrap();
        assert_eq!(offsets(&mut consumer).await[0], last, "of the time {into}");
    }
    while stands(&consumer).1 != Some(0) {
        offsets(&mut consumer).await;
    }
    assert_eq!(stands(&consumer).0, Some(end));
}

#[tokio::test]
async fn a_partition_paused_before_the_first_poll_gives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir, &[]).await;
    broker.append("t", 0, batch(1_000, "a")).await.unwrap();
    let mut consumer = consumer(&broker, AutoOffsetReset::Earliest);
    consumer.pause(&p0()).unwrap();
    nothing(&mut consumer).await;
    assert_eq!(
        (consumer.paused().len(), stands(&consumer)),
        (1, (Some(0), Some(1)))
    );
    consumer.resume(&p0()).unwrap();
    assert_eq!(offsets(&mut consumer).await, [0]);
    // Nor one that is sought first.
    consumer.assign(&[]).unwrap();
    consumer.assign(&[p0()]).unwrap();
    assert!(consumer.paused().is_empty());
    consumer.pause(&p0()).unwrap();
    consumer.seek(&p0(), 0).unwrap();
    nothing(&mut consumer).await;
}
