//! What one consumer does on a real broker: it seeks, pauses, resets, commits by itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::group::{broker_with, earliest, member, part, values};
use support::{batch, options};
use tidewater_broker::{
    AutoOffsetReset, BatchBuilder, Broker, Compression, ConsumerEvent, ConsumerOptions, Error, ManualClock,
    OffsetReset, Start, TopicConfig,
};

#[tokio::test]
async fn an_assigned_consumer_seeks_pauses_and_resets() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 2).await;
    let (p0, p1) = (part("t", 0), part("t", 1));
    for time in [1_000, 2_000, 3_000] {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(time, None, Some(time.to_string().as_bytes()), &[]);
        broker.append("t", 0, batch).await.unwrap();
    }
    let none = ConsumerOptions {
        auto_offset_reset: AutoOffsetReset::None,
        ..ConsumerOptions::new("g")
    };
    let mut consumer = broker.consumer(none).unwrap();
    assert!(matches!(consumer.poll(1).await, Err(Error::NotSubscribed { .. })));
    assert!(matches!(
        consumer.assign(&[part("t", 2)]),
        Err(Error::UnknownPartition { .. })
    ));
    consumer.assign(std::slice::from_ref(&p0)).unwrap();
    assert!(matches!(
        consumer.poll(1).await,
        Err(Error::NoCommittedOffset { .. })
    ));
    assert!(matches!(consumer.seek(&p1, 0), Err(Error::NotAssigned { .. })));
    assert!(matches!(
        consumer.seek(&p0, 4),
        Err(Error::OffsetOutOfRange { .. })
    ));
    consumer.seek(&p0, 1).unwrap();
    assert_eq!(values(&mut consumer).await, ["2000", "3000"]);
    consumer.seek_to_time(&p0, 2_500).await.unwrap();
    assert_eq!(consumer.position(&p0), Some(2));
    consumer.seek_to_time(&p0, 3_500).await.unwrap();
    assert_eq!((consumer.position(&p0), consumer.lag(&p0)), (Some(3), Some(0)));
    consumer.seek_to_beginning(std::slice::from_ref(&p0)).unwrap();
    assert_eq!(consumer.lag(&p0), Some(3));
    consumer.seek_to_end(std::slice::from_ref(&p0)).unwrap();
    consumer.commit().await.unwrap();
    assert_eq!(consumer.committed(&p0).await.unwrap().offset, 3);
    consumer.seek(&p0, Start::Earliest).unwrap();
    consumer.pause(&p0).unwrap();
    let paused = tokio::time::timeout(Duration::from_millis(20), consumer.poll(1 << 20)).await;
    assert!(paused.is_err());
    consumer.resume(&p0).unwrap();
    assert_eq!(values(&mut consumer).await.len(), 3);

    // Where the group has committed, in another consumer; and a group without members commits from outside.
    drop(consumer);
    let reset = broker
        .reset_group_offsets("g", &[("t", 0)], OffsetReset::Time(2_500))
        .await
        .unwrap();
    assert_eq!(reset[&("t".to_owned(), 0)], 2);
    let mut consumer = broker.consumer(earliest("g")).unwrap();
    consumer.assign(&[p0.clone(), p1.clone()]).unwrap();
    assert_eq!(values(&mut consumer).await, ["3000"]);
    broker.append("t", 1, batch(&["x"])).await.unwrap();
    assert_eq!(values(&mut consumer).await, ["x"]);

    // Reset by policy when what is committed is not there.
    broker.commit_group_offsets("g", &[("t", 1, 77)]).await.unwrap();
    let mut consumer = broker.consumer(earliest("g")).unwrap();
    consumer.assign(&[p1]).unwrap();
    assert_eq!(values(&mut consumer).await, ["x"]);
    broker.delete_topic("t").await.unwrap();
    assert!(matches!(consumer.poll(1).await, Err(Error::TopicDeleted { .. })));
}

#[tokio::test]
async fn auto_commit_commits_what_was_given_before() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 1).await;
    broker.append("t", 0, batch(&["a"])).await.unwrap();
    let auto = ConsumerOptions {
        auto_commit_interval: Some(Duration::from_millis(1)),
        ..earliest("g")
    };
    let mut consumer = member(&broker, auto, &["t"]);
    assert_eq!(values(&mut consumer).await, ["a"]);
    // While it waits for more, what it gave is committed.
    let waiting = tokio::spawn(async move {
        let given = values(&mut consumer).await;
        (consumer, given)
    });
    while broker.group_offsets("g").values().next() != Some(&1) {
        tokio::task::yield_now().await;
    }
    broker.append("t", 0, batch(&["b"])).await.unwrap();
    let (consumer, given) = waiting.await.unwrap();
    assert_eq!(given, ["b"]);
    consumer.close().await.unwrap();
    assert_eq!(broker.group_offsets("g")[&("t".to_owned(), 0)], 2);
}

#[tokio::test]
async fn auto_commits_come_by_the_clock_of_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = Broker::open_with_clock(options(&dir), Arc::<ManualClock>::clone(&clock)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, batch(&["a"])).await.unwrap();
    let auto = ConsumerOptions {
        auto_commit_interval: Some(Duration::from_secs(5)),
        ..earliest("g")
    };
    let mut consumer = member(&broker, auto, &["t"]);
    assert_eq!(values(&mut consumer).await, ["a"]);
    let waiting = tokio::spawn(async move { values(&mut consumer).await });
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(4));
    broker.run_housekeeping_now();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(broker.group_offsets("g").is_empty());
    clock.advance(Duration::from_secs(1));
    broker.run_housekeeping_now();
    while broker.group_offsets("g").values().next() != Some(&1) {
        tokio::task::yield_now().await;
    }
    broker.append("t", 0, batch(&["b"])).await.unwrap();
    assert_eq!(waiting.await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_failed_auto_commit_is_told_and_holds_up_no_reading() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = Broker::open_with_clock(options(&dir), Arc::<ManualClock>::clone(&clock)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let auto = ConsumerOptions {
        auto_commit_interval: Some(Duration::from_secs(5)),
        ..earliest("g")
    };
    let mut consumer = broker.consumer(auto).unwrap();
    consumer.assign(&[part("t", 0)]).unwrap();
    broker.append("t", 0, batch(&["a"])).await.unwrap();
    assert_eq!(values(&mut consumer).await, ["a"]);
    // A group that has members takes no offsets of others.
    let other = member(&broker, earliest("g"), &["t"]);
    broker.append("t", 0, batch(&["b"])).await.unwrap();
    clock.advance(Duration::from_secs(5));
    assert!(matches!(consumer.poll(1).await, Err(Error::GroupNotEmpty { .. })));
    assert_eq!(values(&mut consumer).await, ["b"]);
    drop(other);
    clock.advance(Duration::from_secs(5));
    broker.append("t", 0, batch(&["c"])).await.unwrap();
    assert_eq!(values(&mut consumer).await, ["c"]);
    assert_eq!(broker.group_offsets("g")[&("t".to_owned(), 0)], 2);
    consumer.close().await.unwrap();
    assert_eq!(broker.group_offsets("g")[&("t".to_owned(), 0)], 3);
}

#[tokio::test]
async fn what_was_taken_away_does_not_hold_up_the_commit_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 1).await;
    broker.create_topic("u", TopicConfig::new(1)).await.unwrap();
    let auto = ConsumerOptions {
        auto_commit_interval: Some(Duration::from_hours(1)),
        ..earliest("g")
    };
    let mut consumer = member(&broker, auto.clone(), &["t", "u"]);
    for topic in ["t", "u"] {
        broker.append(topic, 0, batch(&[topic])).await.unwrap();
        assert_eq!(values(&mut consumer).await, [topic]);
    }
    broker.delete_topic("t").await.unwrap();
    consumer.close().await.unwrap();
    assert_eq!(broker.group_offsets("g"), [(("u".to_owned(), 0), 1)].into());

    // Nor is committed what did not move.
    let before = broker.committed_offsets("g");
    let mut again = member(&broker, auto, &["u"]);
    let waited = tokio::time::timeout(Duration::from_millis(20), again.poll(1)).await;
    assert!(waited.is_err() && again.position(&part("u", 0)) == Some(1));
    again.close().await.unwrap();
    assert_eq!(broker.committed_offsets("g"), before);
}

#[tokio::test]
async fn what_was_given_is_committed_before_its_partition_goes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 2).await;
    for p in 0..2 {
        broker.append("t", p, batch(&["a", "b"])).await.unwrap();
    }
    let auto = ConsumerOptions {
        auto_commit_interval: Some(Duration::from_hours(1)),
        ..earliest("g")
    };
    let mut first = member(&broker, auto.clone(), &["t"]);
    for _ in 0..2 {
        assert_eq!(values(&mut first).await, ["a", "b"]);
    }
    let mut second = member(&broker, auto, &["t"]);
    let ConsumerEvent::Revoked(revoked) = first.poll_event(1).await.unwrap() else {
        panic!("not revoked");
    };
    let place = ("t".to_owned(), revoked.first().unwrap().partition);
    assert_eq!(broker.group_offsets("g"), [(place.clone(), 2)].into());
    broker.append("t", place.1, batch(&["c"])).await.unwrap();
    let held = tokio::spawn(async move { first.poll(1).await.map(drop) });
    assert_eq!(values(&mut second).await, ["c"]);
    held.abort();
}
