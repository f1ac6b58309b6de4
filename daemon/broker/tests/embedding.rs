//! What a program that embeds the broker relies on: handles go to other threads, futures may be spawned, everything can
//! be shown.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt::Debug;

use support::group::earliest;
use support::{batch, options};
use tidewater_broker::{
    Broker, Consumer, Fetched, IdempotentProducer, Isolation, OffsetCommit, OffsetReset, PreparedBatch,
    Producer, Reader, ReaderSet, Start, TopicConfig, TopicPartition, Transaction,
};

fn shared<T: Debug + Send + Sync + 'static>() {}
fn moved<T: Debug + Send + 'static>() {}
fn spawned<T: Send>(future: T) {
    drop(future);
}

#[tokio::test]
async fn handles_are_sent_and_shown_and_every_future_can_be_spawned() {
    shared::<Broker>();
    shared::<Producer>();
    shared::<IdempotentProducer>();
    shared::<Fetched>();
    moved::<PreparedBatch>();
    moved::<Transaction>();
    moved::<Reader>();
    moved::<ReaderSet>();
    moved::<Consumer>();

    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    spawned(broker.add_partitions("t", 2));
    spawned(broker.alter_topic("t", &[]));
    spawned(broker.delete_topic("t"));
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    spawned(broker.append("t", 0, batch(&["a"])));
    spawned(broker.offset_for_time("t", 0, 1));
    spawned(broker.idempotent_producer());
    spawned(broker.commit_group_offsets("g", &[]));
    spawned(broker.reset_group_offsets("g", &[], OffsetReset::Earliest));
    spawned(broker.delete_group_offsets("g"));
    // Dropped before it was polled, none of them did anything.
    assert_eq!(
        (broker.topics().len(), broker.offsets("t", 0).unwrap().end),
        (2, 0)
    );

    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    spawned(transaction.append("t", 0, batch(&["a"])));
    spawned(transaction.commit_offsets("g", &[OffsetCommit::new("t", 0, 1)]));
    assert!(format!("{producer:?} {transaction:?}").contains("transactional_id: \"p\""));
    spawned(transaction.commit());
    let numbered = broker.idempotent_producer().await.unwrap();
    let mut prepared = numbered.prepare("t", 0, batch(&["a"])).unwrap();
    spawned(prepared.send());
    let mut reader = broker
        .reader("t", 0, Start::Latest, Isolation::ReadCommitted)
        .unwrap();
    spawned(reader.next(1));
    let mut set = broker.reader_set(Isolation::ReadUncommitted);
    spawned(set.next(1));
    let mut consumer = broker.consumer(earliest("g")).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    spawned(consumer.poll_event(1));
    spawned(consumer.commit());
    spawned(consumer.seek_to_time(&TopicPartition::new("t", 0), 1));
    assert!(format!("{broker:?} {reader:?} {set:?} {consumer:?} {prepared:?}").contains("group: \"g\""));
    spawned(consumer.close());
    assert_eq!(broker.describe_group("g").members.len(), 0);
    drop((prepared, numbered, producer));
    spawned(broker.close());
    assert_eq!(broker.offsets("t", 0).unwrap().last_stable, 0);
    broker.close().await.unwrap();
}
