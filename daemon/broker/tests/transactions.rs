//! Transactions that end otherwise than their producer meant: by time-out, by a newer instance, by a restart; and what an
//! operator sees of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use support::{batch, options, read};
use tidewater_broker::{
    Broker, BrokerOptions, Clock, Error, Isolation, ManualClock, ProducerOptions, RecoveryAction, Sequence,
    TopicConfig, TransactionState,
};

const MINUTE: Duration = Duration::from_mins(1);
const NOW: i64 = 1_700_000_000_000;

async fn open_at(clock: &Arc<ManualClock>, options: BrokerOptions) -> Broker {
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    let broker = Broker::open_with_clock(options, clock).unwrap();
    if broker.topic("t").is_none() {
        broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    }
    broker
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

fn committed(broker: &Broker, partition: u32) -> Vec<String> {
    let all = read(broker, "t", partition, Isolation::ReadCommitted);
    all.into_iter().map(|(_, value)| value).collect()
}

fn timeout(transaction_timeout: Duration) -> ProducerOptions {
    ProducerOptions { transaction_timeout }
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_lives_on() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let broker = open_at(&clock, options(&dir)).await;
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["late"])).await.unwrap();
    transaction.append("t", 1, batch(&["late"])).await.unwrap();
    transaction
        .commit_group_offsets("g", &[("s", 0, 1)])
        .await
        .unwrap();
    broker.append("t", 0, batch(&["behind"])).await.unwrap();

    clock.advance(MINUTE.checked_sub(Duration::from_millis(1)).unwrap());
    broker.run_housekeeping_now();
    assert!(committed(&broker, 0).is_empty());
    transaction.append("t", 0, batch(&["still"])).await.unwrap();

    clock.advance(Duration::from_millis(1));
    broker.run_housekeeping_now();
    assert_eq!(committed(&broker, 0), ["behind"]);
    assert!(broker.group_offsets("g").is_empty());
    let refused = transaction.append("t", 0, batch(&["x"])).await;
    assert!(
        matches!(&refused, Err(Error::TransactionTimedOut { timeout: MINUTE, .. })),
        "{refused:?}"
    );
    assert!(refused.unwrap_err().to_string().contains("begin it again"));
    assert!(matches!(
        transaction.commit_group_offsets("g", &[("s", 0, 1)]).await,
        Err(Error::TransactionTimedOut { .. })
    ));

    // The next one of the same producer, while the handle of the old is still there.
    let mut next = producer.begin().unwrap();
    next.append("t", 0, batch(&["next"])).await.unwrap();
    assert!(matches!(
        transaction.commit().await,
        Err(Error::TransactionTimedOut { .. })
    ));
    next.commit().await.unwrap();
    assert_eq!(committed(&broker, 0), ["behind", "next"]);
    assert!(committed(&broker, 1).is_empty());

    // Aborting one that timed out says so as well; a committed one never times out.
    let transaction = producer.begin().unwrap();
    clock.advance(MINUTE);
    broker.run_housekeeping_now();
    assert!(matches!(
        transaction.abort().await,
        Err(Error::TransactionTimedOut { .. })
    ));
    broker.close().await.unwrap();
    drop((broker, producer));
    let broker = open_at(&clock, options(&dir)).await;
    assert!(broker.recovery().is_clean());
    assert_eq!(committed(&broker, 0), ["behind", "next"]);
}

/// On the time of the machine, by the broker's own thread.
#[tokio::test]
async fn time_outs_need_nobody_to_ask() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let slow = broker.producer("slow").await.unwrap();
    let _slow = slow.begin().unwrap();
    let quick = broker
        .producer_with("quick", timeout(Duration::from_millis(20)))
        .await
        .unwrap();
    let mut transaction = quick.begin().unwrap();
    transaction.append("t", 0, batch(&["x"])).await.unwrap();
    broker.append("t", 0, batch(&["behind"])).await.unwrap();
    let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
    let fetched = reader.next(1 << 20).await.unwrap();
    assert_eq!(fetched.records().next().unwrap().value, Some(&b"behind"[..]));
    assert!(matches!(
        transaction.commit().await,
        Err(Error::TransactionTimedOut { .. })
    ));
    assert_eq!(broker.transactions().len(), 1, "the other is as it was");
}

#[tokio::test]
async fn time_outs_are_checked() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut options = options(&dir);
    options.transaction_max_timeout = Duration::from_secs(30);
    let broker = open_at(&clock, options.clone()).await;
    for wrong in [Duration::ZERO, Duration::from_secs(31)] {
        let refused = broker.producer_with("p", timeout(wrong)).await.map(drop);
        assert!(
            matches!(
                refused,
                Err(Error::InvalidOption {
                    name: "transaction_timeout",
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    // The default is shortened to what is allowed.
    let producer = broker.producer("p").await.unwrap();
    let _transaction = producer.begin().unwrap();
    assert_eq!(broker.transactions()[0].timeout, Duration::from_secs(30));
    drop(broker);
    options.data_dir = dir.path().join("other");
    for wrong in [Duration::ZERO, Duration::MAX] {
        options.transaction_max_timeout = wrong;
        let refused = Broker::open(options.clone()).map(drop);
        assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn open_transactions_are_described() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let broker = open_at(&clock, options(&dir)).await;
    let b = broker.producer("b").await.unwrap();
    let a = broker.producer_with("a", timeout(5 * MINUTE)).await.unwrap();
    assert!(broker.transactions().is_empty());
    let mut first = b.begin().unwrap();
    clock.advance(Duration::from_secs(10));
    let second = a.begin().unwrap();
    first.append("t", 1, batch(&["x"])).await.unwrap();
    first.commit_group_offsets("g", &[("s", 0, 1)]).await.unwrap();
    let all = broker.transactions();
    let summary: Vec<_> = all
        .iter()
        .map(|t| {
            (
                t.transactional_id.as_str(),
                t.producer_id,
                t.epoch,
                t.state,
                t.since,
            )
        })
        .collect();
    let ongoing = TransactionState::Ongoing;
    assert_eq!(
        summary,
        [
            ("a", a.id(), a.epoch(), ongoing, NOW + 10_000),
            ("b", b.id(), b.epoch(), ongoing, NOW)
        ]
    );
    assert_eq!((all[0].timeout, all[1].timeout), (5 * MINUTE, MINUTE));
    assert!(all[0].partitions.is_empty());
    let places = [("t".to_owned(), 1), ("__consumer_offsets".to_owned(), 0)];
    assert_eq!(all[1].partitions, places);
    first.commit().await.unwrap();
    second.abort().await.unwrap();
    assert!(broker.transactions().is_empty());
}

/// A process that dies leaves transactions open; whoever opens the directory next need not wait for their time-out.
#[tokio::test]
async fn what_a_dead_process_left_open_is_aborted_when_the_broker_opens() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let broker = open_at(&clock, options(&dir)).await;
    let producer = broker.producer_with("p", timeout(15 * MINUTE)).await.unwrap();
    let (id, epoch) = (producer.id(), producer.epoch());
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["open"])).await.unwrap();
    broker.append("t", 0, batch(&["behind"])).await.unwrap();
    // As the process would leave it: nothing is dropped, so nothing is aborted.
    let copy = tempfile::tempdir().unwrap();
    support::copy_dir(&dir.path().join("data"), &copy.path().join("data"));

    let reopened = open_at(&clock, options(&copy)).await;
    let aborted = |action: &RecoveryAction| matches!(action, RecoveryAction::TransactionAborted { .. });
    assert_eq!(
        reopened
            .recovery()
            .actions()
            .filter(|(_, action)| aborted(action))
            .count(),
        1
    );
    assert!(reopened.transactions().is_empty());
    assert_eq!(committed(&reopened, 0), ["behind"]);
    // Its name goes on with the next epoch, and times out as ever.
    let producer = reopened.producer("p").await.unwrap();
    assert_eq!((producer.id(), producer.epoch()), (id, epoch + 1));
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["again"])).await.unwrap();
    clock.advance(MINUTE);
    reopened.run_housekeeping_now();
    assert!(matches!(
        transaction.commit().await,
        Err(Error::TransactionTimedOut { .. })
    ));
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["again"])).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(committed(&reopened, 0), ["behind", "again"]);
}

/// Many instances of one producer at once: every record that was committed is there once, and at any moment one instance
/// at most could commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_instances_commits_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let instance = |broker: Broker, next: Arc<AtomicU64>| async move {
        let (mut committed, mut fenced) = (Vec::new(), 0);
        for round in 0..25 {
            let producer = broker.producer("one").await;
            let producer = match producer {
                Ok(producer) => producer,
                Err(e) => panic!("taking over: {e}"),
            };
            // Goes on until another takes over, or for three transactions.
            for _ in 0..3 {
                let number = next.fetch_add(1, Ordering::SeqCst);
                let value = format!("{number}");
                let done: Result<_, Error> = async {
                    let mut transaction = producer.begin()?;
                    transaction.append("t", 0, batch(&[value.as_str()])).await?;
                    if round % 2 == 0 {
                        tokio::task::yield_now().await;
                    }
                    transaction.append("t", 1, batch(&[value.as_str()])).await?;
                    transaction.commit().await
                }
                .await;
                match done {
                    Ok(at) => committed.push((at.partitions[0].base_offset, number)),
                    Err(Error::Fenced { .. }) => {
                        fenced += 1;
                        break;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        (committed, fenced)
    };
    let tasks: Vec<_> = (0..8)
        .map(|_| tokio::spawn(instance(broker.clone(), Arc::clone(&next))))
        .collect();
    let (mut all, mut fenced) = (Vec::new(), 0);
    for task in tasks {
        let (committed, lost) = task.await.unwrap();
        all.extend(committed);
        fenced += lost;
    }
    assert!(fenced > 0, "nobody was in the way of anybody");
    all.sort_unstable();
    let expected: Vec<_> = all.iter().map(|(_, number)| number.to_string()).collect();
    assert_eq!(committed(&broker, 0), expected);
    assert_eq!(committed(&broker, 1), expected);
    assert!(broker.transactions().is_empty());
    assert_eq!(broker.producer("one").await.unwrap().epoch(), 200);
}

/// Time-outs, commits, aborts and newer instances at once: whatever a commit answers, that is what readers see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_races_with_its_end_tells_what_readers_see() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let broker = open_at(&clock, options(&dir)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reaper = {
        let (broker, clock, stop) = (broker.clone(), Arc::clone(&clock), Arc::clone(&stop));
        tokio::task::spawn_blocking(move || {
            while !stop.load(Ordering::SeqCst) {
                clock.advance(Duration::from_millis(7));
                broker.run_housekeeping_now();
                std::thread::yield_now();
            }
        })
    };
    let writer = |broker: Broker, name: &'static str| async move {
        let (mut committed, mut ended) = (Vec::new(), 0);
        let mut producer = None;
        for i in 0..150 {
            if producer.is_none() {
                let options = timeout(Duration::from_millis(20));
                producer = Some(broker.producer_with(name, options).await.unwrap());
            }
            let value = format!("{name}{i}");
            let done: Result<_, Error> = async {
                let mut transaction = producer.as_ref().unwrap().begin()?;
                transaction.append("t", 0, batch(&[value.as_str()])).await?;
                transaction.append("t", 1, batch(&[value.as_str()])).await?;
                transaction.commit().await
            }
            .await;
            match done {
                Ok(_) => committed.push(value),
                Err(Error::TransactionTimedOut { .. }) => ended += 1,
                Err(Error::Fenced { .. }) => producer = None,
                Err(other) => panic!("{other}"),
            }
        }
        (committed, ended)
    };
    // Two of one name, which fence each other, and one alone.
    let names = ["a", "b", "b"];
    let tasks: Vec<_> = names
        .map(|name| tokio::spawn(writer(broker.clone(), name)))
        .into();
    let (mut expected, mut ended) = (Vec::new(), 0);
    for task in tasks {
        let (values, late) = task.await.unwrap();
        expected.extend(values);
        ended += late;
    }
    stop.store(true, Ordering::SeqCst);
    reaper.await.unwrap();
    assert!(
        ended > 0 && !expected.is_empty(),
        "{ended} ended, {} committed",
        expected.len()
    );
    expected.sort_unstable();
    for partition in 0..2 {
        let mut values = committed(&broker, partition);
        values.sort_unstable();
        assert_eq!(values, expected);
    }
}

#[tokio::test]
async fn silent_producers_are_forgotten_unless_they_have_a_transaction_open() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut options = options(&dir);
    options.producer_id_expiration = Duration::from_hours(1);
    options.transaction_max_timeout = Duration::from_hours(10);
    let broker = open_at(&clock, options.clone()).await;
    let send = |base_sequence| {
        let sequence = Sequence {
            producer_id: 5_000,
            epoch: 3,
            base_sequence,
        };
        broker.append_with_sequence("t", 0, batch(&["x"]), sequence)
    };
    assert_eq!(send(0).await.unwrap().base_offset, 0);
    let producer = broker
        .producer_with("p", timeout(Duration::from_hours(9)))
        .await
        .unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["y"])).await.unwrap();
    clock.advance(Duration::from_mins(59));
    broker.run_housekeeping_now();
    assert!(send(0).await.unwrap().duplicate);
    assert!(matches!(send(5).await, Err(Error::OutOfOrderSequence { .. })));
    clock.advance(MINUTE + Duration::from_millis(1));
    broker.run_housekeeping_now();
    // Forgotten: it may go on anywhere, with any epoch.
    assert_eq!(send(5).await.unwrap().base_offset, 2);
    // The other is still numbered: its next batch is checked against the one before.
    let other = Sequence {
        producer_id: producer.id(),
        epoch: producer.epoch(),
        base_sequence: 7,
    };
    let gap = broker.append_with_sequence("t", 0, batch(&["z"]), other).await;
    assert!(
        matches!(gap, Err(Error::OutOfOrderSequence { expected: 1, .. })),
        "{gap:?}"
    );
    transaction.append("t", 0, batch(&["y"])).await.unwrap();
    transaction.commit().await.unwrap();
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_transactional_id_expires_if_told_so_and_nobody_has_it() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut options = options(&dir);
    options.transactional_id_expiration = Some(Duration::from_hours(24));
    let broker = open_at(&clock, options.clone()).await;
    let held = broker.producer("held").await.unwrap();
    let gone = broker.producer("gone").await.unwrap();
    let (held_id, gone_id) = (held.id(), gone.id());
    drop(gone);
    clock.advance(Duration::from_hours(23));
    broker.run_housekeeping_now();
    let again = broker.producer("gone").await.unwrap();
    assert_eq!((again.id(), again.epoch()), (gone_id, 1));
    drop(again);
    clock.advance(Duration::from_hours(24));
    broker.run_housekeeping_now();
    broker.close().await.unwrap();
    drop((broker, held));

    // Its expiry is remembered, and its producer id is not used again.
    let broker = open_at(&clock, options).await;
    let held = broker.producer("held").await.unwrap();
    assert_eq!((held.id(), held.epoch()), (held_id, 1));
    let gone = broker.producer("gone").await.unwrap();
    assert_eq!(gone.epoch(), 0);
    assert!(gone.id() != gone_id && gone.id() != held_id);
}
