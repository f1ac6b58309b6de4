//! Consumer groups on a real broker: members join, leave, hang and come back while records are written; nothing is lost
//! at a rebalance, what is consumed in transactions counts once, and who was expelled commits nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use support::{Random, batch, options, read};
use tidewater_broker::{
    Assignor, AutoOffsetReset, BatchBuilder, Broker, BrokerOptions, Compression, Consumer, ConsumerEvent,
    ConsumerOptions, Error, GroupState, Isolation, ManualClock, OffsetCommit, OffsetReset, Start,
    TopicConfig, TopicPartition,
};

const HOUR: Duration = Duration::from_hours(1);

fn part(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

fn parts(topic: &str, partitions: &[u32]) -> BTreeSet<TopicPartition> {
    partitions.iter().map(|p| part(topic, *p)).collect()
}

fn earliest(group: &str) -> ConsumerOptions {
    ConsumerOptions {
        auto_offset_reset: AutoOffsetReset::Earliest,
        ..ConsumerOptions::new(group)
    }
}

fn member(broker: &Broker, options: ConsumerOptions, topics: &[&str]) -> Consumer {
    let mut consumer = broker.consumer(options).unwrap();
    consumer.subscribe(topics).unwrap();
    consumer
}

async fn broker_with(dir: &tempfile::TempDir, partitions: u32) -> Broker {
    let broker = Broker::open(options(dir)).unwrap();
    broker
        .create_topic("t", TopicConfig::new(partitions))
        .await
        .unwrap();
    broker
}

fn assigned(event: ConsumerEvent) -> BTreeSet<TopicPartition> {
    match event {
        ConsumerEvent::Assigned(partitions) => partitions,
        other => panic!("{other:?}"),
    }
}

async fn values(consumer: &mut Consumer) -> Vec<String> {
    let polled = consumer.poll(1 << 20).await.unwrap();
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    polled.records().map(|record| text(record.value)).collect()
}

#[tokio::test]
async fn a_second_member_takes_over_what_the_first_gives_up_and_commits() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 2).await;
    for p in 0..2 {
        broker.append("t", p, batch(&["a", "b"])).await.unwrap();
    }
    let mut first = member(&broker, earliest("g"), &["t"]);
    assert_eq!(assigned(first.poll_event(1).await.unwrap()), parts("t", &[0, 1]));
    assert_eq!(values(&mut first).await.len(), 2);
    assert_eq!(values(&mut first).await.len(), 2);

    let mut second = member(&broker, earliest("g"), &["t"]);
    let describing = broker.describe_group("g");
    assert_eq!(
        (describing.state, describing.members.len()),
        (GroupState::PreparingRebalance, 2)
    );
    let waiting = tokio::spawn(async move {
        let event = second.poll_event(1).await.unwrap();
        (second, assigned(event))
    });
    // The first is told, and keeps the partition until it polls again.
    let ConsumerEvent::Revoked(revoked) = first.poll_event(1).await.unwrap() else {
        panic!("not revoked");
    };
    assert_eq!(revoked.len(), 1);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    first.commit().await.unwrap();
    let held = tokio::spawn(async move {
        let polled = first.poll(1 << 20).await.unwrap();
        (first, polled.partition.clone())
    });
    let (mut second, taken) = waiting.await.unwrap();
    assert_eq!(taken, revoked);
    let taken = taken.into_iter().next().unwrap();
    let kept = part("t", 1 - taken.partition);
    broker.append("t", kept.partition, batch(&["c"])).await.unwrap();
    let (first, from) = held.await.unwrap();
    assert_eq!((&from, first.assignment()), (&kept, &[kept.clone()].into()));
    // It begins where the first has committed.
    broker.append("t", taken.partition, batch(&["d"])).await.unwrap();
    assert_eq!(values(&mut second).await, ["d"]);
    assert_eq!((second.position(&taken), second.lag(&taken)), (Some(3), Some(0)));

    let described = broker.describe_group("g");
    assert_eq!(
        (described.state, described.assignor),
        (GroupState::Stable, Some(Assignor::Sticky))
    );
    let owned: BTreeSet<_> = described
        .members
        .iter()
        .flat_map(|m| m.assignment.clone())
        .collect();
    assert_eq!(owned, parts("t", &[0, 1]));
    assert_eq!(broker.group_lag("g")[&("t".to_owned(), 0)].lag, 1);
    // Others may not change its offsets.
    let outside = broker.commit_group_offsets("g", &[("t", 0, 0)]).await;
    assert!(matches!(outside, Err(Error::GroupNotEmpty { members: 2, .. })));
    let reset = broker
        .reset_group_offsets("g", &[("t", 0)], OffsetReset::Earliest)
        .await;
    assert!(matches!(reset, Err(Error::GroupNotEmpty { .. })));
    assert!(matches!(
        broker.delete_group_offsets("g").await,
        Err(Error::GroupNotEmpty { .. })
    ));
    let other = ConsumerOptions {
        assignor: Assignor::Range,
        ..earliest("g")
    };
    let refused = broker.consumer(other).unwrap().subscribe(&["t"]);
    assert!(matches!(refused, Err(Error::InconsistentAssignor { .. })));

    drop(second);
    let mut first = first;
    assert_eq!(assigned(first.poll_event(1).await.unwrap()), [taken].into());
    first.close().await.unwrap();
    assert_eq!(broker.describe_group("g").state, GroupState::Empty);
    assert_eq!(broker.describe_group("unheard").state, GroupState::Dead);
    assert_eq!(broker.list_groups(), [("g".to_owned(), GroupState::Empty)].into());
    broker
        .reset_group_offsets("g", &[("t", 0)], OffsetReset::Earliest)
        .await
        .unwrap();
}

#[tokio::test]
async fn topics_that_come_grow_and_go_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    let mut consumer = member(&broker, earliest("g"), &["t", "u"]);
    let waiting = tokio::spawn(async move {
        let event = consumer.poll_event(1).await.unwrap();
        (consumer, assigned(event))
    });
    tokio::task::yield_now().await;
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let (mut consumer, partitions) = waiting.await.unwrap();
    assert_eq!(partitions, parts("t", &[0]));
    broker.append("t", 0, batch(&["a"])).await.unwrap();
    assert_eq!(values(&mut consumer).await, ["a"]);
    consumer.commit().await.unwrap();

    // Deleted and created anew between two polls: it begins anew, too.
    broker.delete_topic("t").await.unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, batch(&["b"])).await.unwrap();
    assert_eq!(values(&mut consumer).await, ["b"]);

    broker.delete_topic("t").await.unwrap();
    let ConsumerEvent::Revoked(partitions) = consumer.poll_event(1).await.unwrap() else {
        panic!("not revoked");
    };
    assert_eq!(partitions, parts("t", &[0]));
    broker.create_topic("u", TopicConfig::new(2)).await.unwrap();
    assert_eq!(
        assigned(consumer.poll_event(1).await.unwrap()),
        parts("u", &[0, 1])
    );
    consumer.subscribe(&["t"]).unwrap();
    assert!(matches!(
        consumer.poll_event(1).await.unwrap(),
        ConsumerEvent::Revoked(_)
    ));

    // A consumer that waits learns that the broker closes.
    let waiting = tokio::spawn(async move { consumer.poll(1).await.map(drop) });
    tokio::task::yield_now().await;
    broker.close().await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Closed)));
}

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

#[tokio::test]
async fn a_static_member_keeps_its_partitions_while_it_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 2).await;
    let named = |name: &str| ConsumerOptions {
        group_instance_id: Some(name.to_owned()),
        ..earliest("g")
    };
    let mut one = member(&broker, named("one"), &["t"]);
    assert_eq!(assigned(one.poll_event(1).await.unwrap()).len(), 2);
    one.close().await.unwrap();
    assert_eq!(broker.describe_group("g").members.len(), 1);
    let mut back = member(&broker, named("one"), &["t"]);
    assert_eq!(assigned(back.poll_event(1).await.unwrap()).len(), 2);
    // Two at a time: the newer has it.
    let newer = member(&broker, named("one"), &["t"]);
    assert!(matches!(
        back.commit().await,
        Ok(()) | Err(Error::FencedInstance { .. })
    ));
    assert!(matches!(back.poll(1).await, Err(Error::FencedInstance { .. })));
    assert!(matches!(back.poll(1).await, Err(Error::NotSubscribed { .. })));
    assert_eq!(broker.describe_group("g").members.len(), 1);
    drop(newer);
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
    assert_eq!(open().groups(), ["last"]);
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
    const PARTITIONS: u32 = 6;
    const RECORDS: usize = 600;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    for topic in ["t", "copy"] {
        broker
            .create_topic(topic, TopicConfig::new(PARTITIONS))
            .await
            .unwrap();
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
        let partition = i as u32 % PARTITIONS;
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
