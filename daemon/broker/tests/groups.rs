//! Members of a group on a real broker: they join, leave and come back, topics come, grow and go; each partition has
//! one reader at a time, and nothing is lost at a rebalance.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use support::group::{assigned, broker_with, earliest, member, part, parts, values};
use support::{batch, options, read};
use tidewater_broker::{
    Assignor, Broker, ConsumerEvent, ConsumerOptions, Error, GroupState, Isolation, ManualClock,
    OffsetCommit, OffsetReset, TopicConfig,
};

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
    let ConsumerEvent::Lost(partitions) = consumer.poll_event(1).await.unwrap() else {
        panic!("not lost");
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
async fn offsets_of_a_deleted_topic_are_none_of_the_one_created_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 2).await;
    broker.append("t", 0, batch(&["a"])).await.unwrap();
    let mut consumer = member(&broker, earliest("g"), &["t"]);
    let mut alone = broker.consumer(earliest("alone")).unwrap();
    alone.assign(&[part("t", 0)]).unwrap();
    assert_eq!(
        assigned(consumer.poll_event(1).await.unwrap()),
        parts("t", &[0, 1])
    );
    assert_eq!(values(&mut consumer).await, ["a"]);
    assert_eq!(values(&mut alone).await, ["a"]);
    let before = consumer.group_metadata();

    broker.delete_topic("t").await.unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, batch(&["b", "c"])).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    let late = [OffsetCommit::new("t", 0, 1)];
    for refused in [
        consumer.commit().await,
        transaction.commit_offsets_of(&before, &late).await,
    ] {
        assert!(
            matches!(refused, Err(Error::IllegalGeneration { .. })),
            "{refused:?}"
        );
    }
    assert!(matches!(alone.commit().await, Err(Error::TopicDeleted { .. })));
    assert!(
        broker
            .groups()
            .iter()
            .all(|group| broker.group_offsets(group).is_empty())
    );

    // It is told of both, and the new one has fewer partitions.
    let ConsumerEvent::Lost(lost) = consumer.poll_event(1).await.unwrap() else {
        panic!("not lost");
    };
    assert_eq!(
        (lost, consumer.assignment()),
        (parts("t", &[0, 1]), &parts("t", &[0]))
    );
    assert_eq!(assigned(consumer.poll_event(1).await.unwrap()), parts("t", &[0]));
    assert_eq!(values(&mut consumer).await, ["b", "c"]);
    assert!(transaction.commit_offsets_of(&before, &late).await.is_err());
    consumer.commit().await.unwrap();
    assert_eq!(broker.group_offsets("g"), [(("t".to_owned(), 0), 2)].into());
}

#[tokio::test]
async fn a_pattern_follows_the_topics_that_match() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 1).await;
    broker
        .create_topic("shop.orders", TopicConfig::new(2))
        .await
        .unwrap();
    let mut consumer = broker.consumer(earliest("g")).unwrap();
    assert!(matches!(
        consumer.subscribe_pattern("shop("),
        Err(Error::InvalidOption { .. })
    ));
    consumer.subscribe_pattern("shop[.].+").unwrap();
    assert_eq!(
        assigned(consumer.poll_event(1).await.unwrap()),
        parts("shop.orders", &[0, 1])
    );
    let waiting = tokio::spawn(async move {
        let event = consumer.poll_event(1).await.unwrap();
        (consumer, assigned(event))
    });
    tokio::task::yield_now().await;
    for (topic, partitions) in [("workshop.x", 1), ("shop.items", 3)] {
        broker
            .create_topic(topic, TopicConfig::new(partitions))
            .await
            .unwrap();
    }
    let (mut consumer, items) = waiting.await.unwrap();
    assert_eq!(items, parts("shop.items", &[0, 1, 2]));
    let described = broker.describe_group("g");
    assert_eq!(described.members[0].pattern.as_deref(), Some("shop[.].+"));
    let matched: BTreeSet<Arc<str>> = ["shop.items".into(), "shop.orders".into()].into();
    assert_eq!(
        (&described.members[0].topics, consumer.subscription()),
        (&matched, matched.clone())
    );

    broker.delete_topic("shop.orders").await.unwrap();
    let ConsumerEvent::Lost(lost) = consumer.poll_event(1).await.unwrap() else {
        panic!("not lost");
    };
    assert_eq!(lost, parts("shop.orders", &[0, 1]));
    // Another member subscribes by name: each topic goes to who wants it.
    let mut named = member(&broker, earliest("g"), &["t"]);
    assert_eq!(assigned(named.poll_event(1).await.unwrap()), parts("t", &[0]));
    assert_eq!(broker.describe_group("g").state, GroupState::Stable);
    consumer.subscribe_pattern("nothing").unwrap();
    assert!(matches!(
        consumer.poll_event(1).await.unwrap(),
        ConsumerEvent::Revoked(_)
    ));
    assert!(consumer.subscription().is_empty());
}

#[tokio::test]
async fn each_event_counts_as_a_poll() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = Broker::open_with_clock(options(&dir), Arc::<ManualClock>::clone(&clock)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let slow = ConsumerOptions {
        session_timeout: Duration::from_hours(2),
        heartbeat_interval: Duration::from_hours(1),
        max_poll_interval: Duration::from_secs(40),
        ..earliest("g")
    };
    let mut consumer = member(&broker, slow, &["t"]);
    assigned(consumer.poll_event(1).await.unwrap());
    broker.delete_topic("t").await.unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    // Both are known at once, and given one after the other.
    assert!(matches!(
        consumer.poll_event(1).await.unwrap(),
        ConsumerEvent::Lost(_)
    ));
    clock.advance(Duration::from_secs(30));
    assigned(consumer.poll_event(1).await.unwrap());
    clock.advance(Duration::from_secs(30));
    broker.run_housekeeping_now();
    assert_eq!(broker.describe_group("g").members.len(), 1);
    clock.advance(Duration::from_secs(10));
    broker.run_housekeeping_now();
    assert_eq!(broker.describe_group("g").members.len(), 0);
}

/// Reads and commits until told to stop; what it was given goes to the ledger.
async fn note_all(
    broker: Broker,
    mut stop: tokio::sync::watch::Receiver<bool>,
    ledger: Arc<Mutex<BTreeMap<(u32, u64), u32>>>,
) {
    let mut consumer = member(&broker, earliest("g"), &["t"]);
    loop {
        let event = tokio::select! {
            event = consumer.poll_event(200) => event.unwrap(),
            _ = stop.changed() => return consumer.close().await.unwrap(),
        };
        if let ConsumerEvent::Records(records) = event {
            for record in records.records() {
                let place = (records.partition.partition, record.offset);
                *ledger.lock().entry(place).or_default() += 1;
            }
            consumer.commit().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_added_to_a_running_group_are_shared_out_and_nothing_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 2).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let ledger = Arc::new(Mutex::new(BTreeMap::new()));
    let run = |_| tokio::spawn(note_all(broker.clone(), stopped.clone(), Arc::clone(&ledger)));
    let readers: Vec<_> = (0..3).map(run).collect();
    let mut written = 0;
    for partitions in [2, 5, 7] {
        if partitions > 2 {
            broker.add_partitions("t", partitions).await.unwrap();
        }
        for i in 0..20 * partitions {
            broker.append("t", i % partitions, batch(&["a"])).await.unwrap();
            written += 1;
        }
    }
    while ledger.lock().len() < written {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let described = broker.describe_group("g");
    let mut loads: Vec<_> = described.members.iter().map(|m| m.assignment.len()).collect();
    loads.sort_unstable();
    assert_eq!((described.state, loads), (GroupState::Stable, vec![2, 2, 3]));
    stop.send(true).unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    let expected: BTreeMap<_, _> = (0..7)
        .flat_map(|p| {
            let offsets = read(&broker, "t", p, Isolation::ReadCommitted).into_iter();
            offsets.map(move |(offset, _)| ((p, offset), 1))
        })
        .collect();
    assert_eq!(*ledger.lock(), expected);
    let committed: u64 = broker.group_offsets("g").values().sum();
    assert_eq!(committed as usize, written);
}

#[tokio::test]
async fn who_is_expelled_while_it_waits_for_records_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = Broker::open_with_clock(options(&dir), Arc::<ManualClock>::clone(&clock)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let mut consumer = member(&broker, earliest("g"), &["t"]);
    assigned(consumer.poll_event(1).await.unwrap());
    let before = consumer.group_metadata();
    let waiting = tokio::spawn(async move {
        let event = consumer.poll_event(1).await.unwrap();
        (consumer, event)
    });
    tokio::task::yield_now().await;
    // No heartbeat comes in this time.
    clock.advance(Duration::from_secs(46));
    broker.run_housekeeping_now();
    let (mut consumer, event) = waiting.await.unwrap();
    assert!(matches!(event, ConsumerEvent::Lost(lost) if lost == parts("t", &[0])));
    // It has joined anew by then.
    assert_eq!(assigned(consumer.poll_event(1).await.unwrap()), parts("t", &[0]));
    assert_ne!(consumer.group_metadata().member_id, before.member_id);
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    let late = transaction
        .commit_offsets_of(&before, &[OffsetCommit::new("t", 0, 0)])
        .await;
    assert!(matches!(late, Err(Error::UnknownMember { .. })));
}

#[tokio::test]
async fn closing_within_a_rebalance_commits_and_hands_over() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(&dir, 2).await;
    for p in 0..2 {
        broker.append("t", p, batch(&["a"])).await.unwrap();
    }
    let auto = ConsumerOptions {
        auto_commit_interval: Some(Duration::from_hours(1)),
        ..earliest("g")
    };
    let mut first = member(&broker, auto.clone(), &["t"]);
    for _ in 0..2 {
        assert_eq!(values(&mut first).await, ["a"]);
    }
    let mut second = member(&broker, auto, &["t"]);
    let waiting = tokio::spawn(async move {
        let mut got = BTreeSet::new();
        while got.len() < 2 {
            got.extend(assigned(second.poll_event(1).await.unwrap()));
        }
        second
    });
    assert!(matches!(
        first.poll_event(1).await.unwrap(),
        ConsumerEvent::Revoked(_)
    ));
    // It never gives up what it was told to: it goes.
    first.close().await.unwrap();
    let mut second = waiting.await.unwrap();
    for p in 0..2 {
        broker.append("t", p, batch(&["b"])).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(values(&mut second).await, ["b"]);
    }
    // Nor does one that is dropped within a rebalance hold anything up.
    let third = member(&broker, earliest("g"), &["t"]);
    assert!(matches!(
        second.poll_event(1).await.unwrap(),
        ConsumerEvent::Revoked(_)
    ));
    drop(third);
    let ConsumerEvent::Assigned(back) = second.poll_event(1).await.unwrap() else {
        panic!("not assigned");
    };
    assert_eq!((back.len(), second.assignment()), (1, &parts("t", &[0, 1])));
}
