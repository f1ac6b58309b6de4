//! The committed offsets of groups: metadata, which commit holds, reset, deletion, expiry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::group::{HOUR, earliest, member, values};
use support::{batch, options};
use tidewater_broker::{Broker, BrokerOptions, Error, ManualClock, OffsetCommit, OffsetReset, TopicConfig};

fn place(topic: &str, partition: u32) -> (String, u32) {
    (topic.to_owned(), partition)
}

async fn broker_with_records(options: BrokerOptions) -> Broker {
    let broker = Broker::open(options).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    for value in ["a", "b", "c", "d"] {
        broker.append("t", 0, batch(&[value])).await.unwrap();
    }
    broker
}

#[tokio::test]
async fn metadata_and_time_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_records(options(&dir)).await;
    let commit = OffsetCommit {
        metadata: "line 7",
        ..OffsetCommit::new("t", 0, 2)
    };
    broker.commit_offsets("g", &[commit]).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    let commit = OffsetCommit {
        metadata: "line 9",
        ..OffsetCommit::new("t", 1, 3)
    };
    transaction.commit_offsets("g", &[commit]).await.unwrap();
    transaction.commit().await.unwrap();

    let before = broker.committed_offsets("g");
    assert_eq!(before[&place("t", 0)].metadata, "line 7");
    assert_eq!(before[&place("t", 1)].metadata, "line 9");
    assert!(before[&place("t", 0)].commit_time > 1_600_000_000_000);
    drop(producer);
    broker.close().await.unwrap();
    drop(broker);
    let broker = Broker::open(options(&dir)).unwrap();
    assert_eq!(broker.committed_offsets("g"), before);

    let long = "x".repeat(4097);
    let commit = OffsetCommit {
        metadata: &long,
        ..OffsetCommit::new("t", 0, 9)
    };
    let refused = broker.commit_offsets("g", &[commit]).await;
    assert!(matches!(refused, Err(Error::OffsetMetadataTooLarge { .. })));
    assert_eq!(broker.committed_offsets("g"), before);
}

#[tokio::test]
async fn the_commit_with_the_highest_record_holds() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_records(options(&dir)).await;
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction
        .commit_group_offsets("g", &[("t", 0, 1), ("t", 1, 1)])
        .await
        .unwrap();
    broker.commit_group_offsets("g", &[("t", 0, 3)]).await.unwrap();
    // Deleted after the record of the transaction: it stays so when the transaction commits.
    broker
        .delete_partition_offsets("g", &[("t", 1), ("t", 7)])
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let expected = [(place("t", 0), 3)].into();
    assert_eq!(broker.group_offsets("g"), expected);
    drop(producer);
    broker.close().await.unwrap();
    drop(broker);
    let broker = Broker::open(options(&dir)).unwrap();
    assert_eq!(broker.group_offsets("g"), expected);
}

#[tokio::test]
async fn offsets_of_aborted_transactions_are_none_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_records(options(&dir)).await;
    broker.commit_group_offsets("g", &[("t", 0, 1)]).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let left = broker.producer("left").await.unwrap();
    let mut aborted = producer.begin().unwrap();
    aborted
        .commit_group_offsets("g", &[("t", 0, 3), ("t", 1, 3)])
        .await
        .unwrap();
    aborted.abort().await.unwrap();
    let mut open = left.begin().unwrap();
    open.commit_group_offsets("h", &[("t", 0, 3)]).await.unwrap();
    // Makes what is before durable, too.
    broker.commit_group_offsets("i", &[("t", 0, 1)]).await.unwrap();
    let expected = [(place("t", 0), 1)].into();
    assert_eq!(broker.group_offsets("g"), expected);
    assert!(broker.group_offsets("h").is_empty());
    broker.close().await.unwrap();
    drop((producer, left, open, broker));
    let broker = Broker::open(options(&dir)).unwrap();
    assert_eq!(broker.group_offsets("g"), expected);
    assert_eq!(broker.groups(), ["g", "i"]);
}

#[tokio::test]
async fn offsets_are_reset_within_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_records(options(&dir)).await;
    broker.commit_group_offsets("g", &[("t", 0, 3)]).await.unwrap();
    for (to, expected) in [
        (OffsetReset::Earliest, 0),
        (OffsetReset::Latest, 4),
        (OffsetReset::Offset(2), 2),
        (OffsetReset::Shift(1), 3),
        (OffsetReset::Shift(-2), 1),
        (OffsetReset::Shift(-5), 0),
        (OffsetReset::Offset(99), 4),
    ] {
        let moved = broker.reset_group_offsets("g", &[("t", 0)], to).await.unwrap();
        assert_eq!(moved, [(place("t", 0), expected)].into(), "{to:?}");
        assert_eq!(broker.group_offsets("g"), moved);
    }
    // All or nothing.
    let shift = OffsetReset::Shift(-1);
    let refused = broker
        .reset_group_offsets("g", &[("t", 0), ("t", 1)], shift)
        .await;
    assert!(matches!(
        refused,
        Err(Error::NoCommittedOffset { partition: 1, .. })
    ));
    let refused = broker
        .reset_group_offsets("g", &[("t", 0), ("u", 0)], OffsetReset::Earliest)
        .await;
    assert!(matches!(refused, Err(Error::UnknownTopic { .. })));
    assert_eq!(broker.group_offsets("g")[&place("t", 0)], 4);
}

#[tokio::test]
async fn a_shift_counts_from_what_an_open_transaction_commits() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_records(options(&dir)).await;
    broker.commit_group_offsets("g", &[("t", 0, 1)]).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction
        .commit_group_offsets("g", &[("t", 0, 3)])
        .await
        .unwrap();
    let reset = {
        let broker = broker.clone();
        tokio::spawn(async move {
            broker
                .reset_group_offsets("g", &[("t", 0)], OffsetReset::Shift(-1))
                .await
        })
    };
    tokio::task::yield_now().await;
    assert!(!reset.is_finished());
    transaction.commit().await.unwrap();
    assert_eq!(reset.await.unwrap().unwrap()[&place("t", 0)], 2);
}

#[tokio::test]
async fn a_deleted_topic_takes_its_offsets_along() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with_records(options(&dir)).await;
    broker
        .commit_group_offsets("g", &[("t", 0, 3), ("other", 0, 5)])
        .await
        .unwrap();
    broker.commit_group_offsets("h", &[("t", 1, 3)]).await.unwrap();
    broker.delete_topic("t").await.unwrap();
    let kept = [(place("other", 0), 5)].into();
    assert_eq!(
        (broker.groups(), broker.group_offsets("g")),
        (vec!["g".to_owned()], kept)
    );
    broker.delete_group_offsets("g").await.unwrap();
    drop(broker);
    assert!(Broker::open(options(&dir)).unwrap().groups().is_empty());
}

#[tokio::test]
async fn offsets_expire_in_groups_without_members_only() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let week = 7 * 24 * HOUR;
    let expiring = BrokerOptions {
        offsets_retention: Some(week),
        ..options(&dir)
    };
    let open = || Broker::open_with_clock(expiring.clone(), Arc::<ManualClock>::clone(&clock)).unwrap();
    let broker = open();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, batch(&["a"])).await.unwrap();
    broker.commit_group_offsets("old", &[("t", 0, 1)]).await.unwrap();
    // A transaction under way commits for it, too: nothing of it may go meanwhile.
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    broker.commit_group_offsets("open", &[("t", 0, 0)]).await.unwrap();
    transaction
        .commit_group_offsets("open", &[("t", 0, 1)])
        .await
        .unwrap();
    let mut live = member(&broker, earliest("live"), &["t"]);
    assert_eq!(values(&mut live).await, ["a"]);
    live.commit().await.unwrap();

    // The clock runs backwards: nothing is older for it.
    clock.set_wall_clock(1_600_000_000_000);
    broker.run_housekeeping_now();
    assert_eq!(broker.groups(), ["live", "old", "open"]);
    clock.set_wall_clock(1_700_000_000_000 + i64::try_from(week.as_millis()).unwrap() - 1);
    broker.run_housekeeping_now();
    assert_eq!(broker.group_offsets("old").len(), 1);
    clock.set_wall_clock(1_700_000_000_000 + i64::try_from(week.as_millis()).unwrap());
    broker.commit_group_offsets("new", &[("t", 0, 1)]).await.unwrap();
    broker.run_housekeeping_now();
    // Its own commit comes after those of expiry.
    broker.commit_group_offsets("new", &[("t", 0, 1)]).await.unwrap();
    assert_eq!(broker.groups(), ["live", "new", "open"]);
    transaction.commit().await.unwrap();
    assert_eq!(broker.group_offsets("open")[&("t".to_owned(), 0)], 1);

    // From when the last member is gone it counts anew.
    drop(live);
    broker.run_housekeeping_now();
    broker.commit_group_offsets("new", &[("t", 0, 1)]).await.unwrap();
    assert!(!broker.group_offsets("live").is_empty());
    clock.advance(week);
    broker.run_housekeeping_now();
    broker.commit_group_offsets("last", &[("t", 0, 1)]).await.unwrap();
    assert_eq!(broker.groups(), ["last"]);
    drop(producer);
    broker.close().await.unwrap();
    drop(broker);

    // After opening, groups have as long as after losing their members: they may have had some until it closed.
    clock.advance(6 * 24 * HOUR);
    let broker = open();
    assert_eq!(broker.groups(), ["last"]);
    clock.advance(25 * HOUR);
    broker.run_housekeeping_now();
    broker
        .commit_group_offsets("other", &[("t", 0, 1)])
        .await
        .unwrap();
    assert_eq!(broker.groups(), ["last", "other"]);
    clock.advance(week);
    broker.run_housekeeping_now();
    broker.commit_group_offsets("end", &[("t", 0, 1)]).await.unwrap();
    assert_eq!(broker.groups(), ["end"]);
}
