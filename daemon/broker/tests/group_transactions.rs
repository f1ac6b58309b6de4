//! Exactly once through a group: what is consumed in transactions counts once, whoever dies, hangs or comes back, and
//! whatever happens to the partitions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use support::group::{HOUR, assigned, earliest, member, parts, values};
use support::{Random, batch, options, read};
use tidewater_broker::{
    Assignor, BatchBuilder, Broker, Compression, ConsumerEvent, ConsumerOptions, Error, GroupState,
    Isolation, ManualClock, OffsetCommit, TopicConfig,
};

#[tokio::test]
async fn a_zombie_is_fenced_in_transactions_too() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = Broker::open_with_clock(options(&dir), Arc::<ManualClock>::clone(&clock)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, batch(&["a", "b"])).await.unwrap();
    // Heartbeats do not come in the time of the test.
    let hangs = ConsumerOptions {
        session_timeout: 2 * HOUR,
        heartbeat_interval: HOUR,
        max_poll_interval: Duration::from_secs(40),
        ..earliest("g")
    };
    let mut zombie = member(&broker, hangs.clone(), &["t"]);
    assert_eq!(values(&mut zombie).await, ["a", "b"]);
    let metadata = zombie.group_metadata();
    let producer = broker.producer("zombie").await.unwrap();
    let mut good = producer.begin().unwrap();
    good.commit_offsets_of(&metadata, &[OffsetCommit::new("t", 0, 1)])
        .await
        .unwrap();
    let late = broker.producer("late").await.unwrap();
    let mut late = late.begin().unwrap();

    clock.advance(Duration::from_secs(20));
    let mut heir = member(&broker, hangs, &["t"]);
    clock.advance(Duration::from_secs(20));
    broker.run_housekeeping_now();
    let described = broker.describe_group("g");
    assert_eq!((described.members.len(), described.generation), (1, 3));

    // It has the partition, and waits for what the transaction of before commits.
    assert_eq!(assigned(heir.poll_event(1).await.unwrap()), parts("t", &[0]));
    let early = tokio::time::timeout(Duration::from_millis(20), heir.poll(1 << 20)).await;
    assert!(early.is_err(), "it began before the offsets were decided");
    good.commit().await.unwrap();
    assert_eq!(values(&mut heir).await, ["b"]);

    let offsets = [OffsetCommit::new("t", 0, 2)];
    let refused = late.commit_offsets_of(&metadata, &offsets).await;
    assert!(
        matches!(&refused, Err(Error::UnknownMember { reason, .. }) if reason.contains("max.poll")),
        "{refused:?}"
    );
    assert!(matches!(zombie.commit().await, Err(Error::UnknownMember { .. })));
    assert_eq!(broker.group_offsets("g")[&("t".to_owned(), 0)], 1);
    // It learns what it lost, and joins anew.
    let ConsumerEvent::Lost(lost) = zombie.poll_event(1).await.unwrap() else {
        panic!("not lost");
    };
    assert_eq!(lost, parts("t", &[0]));
    let again = tokio::time::timeout(Duration::from_millis(20), zombie.poll(1 << 20)).await;
    assert!(again.is_err());
    assert_eq!(broker.describe_group("g").members.len(), 2);
    drop(heir);
    assert_eq!(values(&mut zombie).await, ["b"]);
    zombie.commit().await.unwrap();
    assert_eq!(broker.group_offsets("g")[&("t".to_owned(), 0)], 2);
}

#[tokio::test]
async fn an_abandoned_transaction_holds_up_the_next_owner_until_it_times_out() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = Broker::open_with_clock(options(&dir), Arc::<ManualClock>::clone(&clock)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, batch(&["a", "b"])).await.unwrap();
    let mut first = member(&broker, earliest("g"), &["t"]);
    assert_eq!(values(&mut first).await, ["a", "b"]);
    let producer = broker.producer("p").await.unwrap();
    let mut abandoned = producer.begin().unwrap();
    let offsets = [OffsetCommit::new("t", 0, 2)];
    abandoned
        .commit_offsets_of(&first.group_metadata(), &offsets)
        .await
        .unwrap();
    drop(first);
    let mut next = member(&broker, earliest("g"), &["t"]);
    let waiting = tokio::spawn(async move { values(&mut next).await });
    while broker.describe_group("g").state != GroupState::Stable {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    // More than a transaction may take.
    for _ in 0..2 {
        clock.advance(Duration::from_secs(40));
        broker.run_housekeeping_now();
    }
    assert_eq!(waiting.await.unwrap(), ["a", "b"]);
    assert!(abandoned.commit().await.is_err());
}

/// What the members of a group processed, by topic partition and offset.
type Ledger = Arc<Mutex<BTreeMap<(u32, u64), Vec<String>>>>;

/// Consumes and copies in transactions until `stop`, or until it "dies" at some point or other.
async fn copier(
    broker: Broker,
    name: usize,
    seed: u64,
    mut stop: tokio::sync::watch::Receiver<bool>,
    ledger: Ledger,
) {
    let mut random = Random::new(seed);
    let mut life = 0;
    while !*stop.borrow() {
        life += 1;
        let options = ConsumerOptions {
            client_id: format!("copier-{name}"),
            session_timeout: Duration::from_millis(400),
            heartbeat_interval: Duration::from_millis(50),
            max_poll_interval: Duration::from_millis(150),
            assignor: Assignor::Sticky,
            ..earliest("copiers")
        };
        let mut consumer = member(&broker, options, &["t"]);
        let transactional_id = format!("copier-{name}-{life}");
        let producer = broker.producer(&transactional_id).await.unwrap();
        let rounds = 5 + random.below(30);
        for _ in 0..rounds {
            let event = tokio::select! {
                event = consumer.poll_event(500) => event.unwrap(),
                _ = stop.changed() => break,
            };
            let ConsumerEvent::Records(records) = event else {
                continue;
            };
            let mut transaction = producer.begin().unwrap();
            let mut copy = BatchBuilder::new(Compression::None);
            for record in records.records() {
                copy.push(1, None, record.value, &[]);
                let place = (records.partition.partition, record.offset);
                ledger
                    .lock()
                    .entry(place)
                    .or_default()
                    .push(transactional_id.clone());
            }
            transaction
                .append("copy", records.partition.partition, copy)
                .await
                .unwrap();
            let metadata = consumer.group_metadata();
            match random.below(12) {
                // Hangs for longer than it may, before or after it commits its offsets: a zombie.
                0 => tokio::time::sleep(Duration::from_millis(250)).await,
                // Dies within the transaction.
                1 => break,
                _ => {}
            }
            let offset = OffsetCommit::new("t", records.partition.partition, records.next_offset());
            match transaction.commit_offsets_of(&metadata, &[offset]).await {
                Ok(()) => {
                    if random.below(20) == 0 {
                        tokio::time::sleep(Duration::from_millis(250)).await;
                    }
                    transaction.commit().await.unwrap();
                }
                Err(Error::UnknownMember { .. } | Error::IllegalGeneration { .. }) => {
                    transaction.abort().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        if random.below(2) == 0 {
            consumer.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_consumed_in_transactions_is_copied_once_whoever_dies() {
    /// At the beginning, and after partitions were added under way.
    const FIRST: u32 = 4;
    const PARTITIONS: u32 = 7;
    const RECORDS: usize = 600;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    for topic in ["t", "copy"] {
        broker.create_topic(topic, TopicConfig::new(FIRST)).await.unwrap();
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ledger = Ledger::default();
    let copiers: Vec<_> = (0..5)
        .map(|name| {
            let seed = 77 + name as u64;
            tokio::spawn(copier(
                broker.clone(),
                name,
                seed,
                stopped.clone(),
                Arc::clone(&ledger),
            ))
        })
        .collect();
    for i in 0..RECORDS {
        if i == RECORDS / 2 {
            for topic in ["copy", "t"] {
                broker.add_partitions(topic, PARTITIONS).await.unwrap();
            }
        }
        let partition = i as u32 % if i < RECORDS / 2 { FIRST } else { PARTITIONS };
        broker
            .append("t", partition, batch(&[&i.to_string()]))
            .await
            .unwrap();
        if i % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let every = |broker: &Broker| {
        let copied = |p| read(broker, "copy", p, Isolation::ReadCommitted).len();
        (0..PARTITIONS).map(copied).sum::<usize>()
    };
    let all = async {
        while every(&broker) < RECORDS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(100), all).await;
    assert!(
        done.is_ok(),
        "{} of {RECORDS}: {:?}",
        every(&broker),
        broker.describe_group("copiers")
    );
    stop.send(true).unwrap();
    for copier in copiers {
        copier.await.unwrap();
    }
    let mut again = 0;
    for p in 0..PARTITIONS {
        // Once each, in order (invariants 5 and 2), though some were processed more than once.
        let source: Vec<_> = read(&broker, "t", p, Isolation::ReadCommitted)
            .into_iter()
            .map(|(_, v)| v)
            .collect();
        let copied: Vec<_> = read(&broker, "copy", p, Isolation::ReadCommitted)
            .into_iter()
            .map(|(_, v)| v)
            .collect();
        assert_eq!(copied, source, "partition {p}");
        for offset in 0..source.len() as u64 {
            again += ledger.lock()[&(p, offset)].len() - 1;
        }
        let committed = broker.group_offsets("copiers")[&("t".to_owned(), p)];
        assert_eq!(committed as usize, source.len());
    }
    assert!(again > 0, "nobody died at a bad time: the test tested nothing");
    broker.close().await.unwrap();
}
