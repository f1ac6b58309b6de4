//! Operations of the disk that fail: the log concerned stops if nobody can tell what is on disk, all others go on, and
//! nothing acknowledged is lost.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

use super::crash_ledger::Ledger;
use super::crash_registers::{AGAIN, KEYED};
use super::crash_workload::{Failures, Workload, batch};
use super::memory_disk::{MemoryDisk, Operation};
use super::power_failure::{Kept, Replay};
use crate::{
    BatchBuilder, Broker, BrokerOptions, Error, Isolation, RecoveryAction, Result, Start, TopicConfig,
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn open(disk: &MemoryDisk) -> Result<Broker> {
    let options = BrokerOptions {
        segment_bytes: 4_000,
        checkpoint_bytes: 2_000,
        index_interval_bytes: 500,
        flush_threads: 1,
        // The records have timestamps of long ago.
        topic_defaults: [("retention.ms".to_owned(), "-1".to_owned())].into(),
        ..BrokerOptions::new("/tidewater")
    };
    Broker::open_on(Arc::new(disk.clone()), options)
}

fn one(value: &str) -> BatchBuilder {
    batch(&[value.to_owned()])
}

/// The committed records of a partition.
fn committed(broker: &Broker, partition: u32) -> Vec<(u64, String)> {
    let mut reader = broker
        .reader("t", partition, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut all = Vec::new();
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        all.extend(fetched.records().map(|r| (r.offset, text(r.value))));
    }
    all
}

/// Fails the syncs of the files whose path contains `part`.
fn fail_syncs(disk: &MemoryDisk, part: String) {
    disk.fail(move |operation, path| {
        let fails = operation == Operation::Sync && path.to_string_lossy().contains(&part);
        fails.then(|| io::Error::from_raw_os_error(EIO))
    });
}

#[tokio::test]
async fn a_log_whose_sync_failed_stops_and_the_transaction_is_gone() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    let id = broker.create_topic("t", TopicConfig::new(2)).await.unwrap().id;
    let producer = broker.producer("p").await.unwrap();
    broker.append("t", 0, one("before")).await.unwrap();

    fail_syncs(&disk, format!("{id}/0/"));
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, one("x")).await.unwrap();
    transaction.append("t", 1, one("y")).await.unwrap();
    transaction
        .commit_group_offsets("g", &[("s", 0, 1)])
        .await
        .unwrap();
    let failed = transaction.commit().await;
    assert!(matches!(failed, Err(Error::LogFailed { .. })), "{failed:?}");
    disk.heal();

    // The log that failed stays so, although the disk answers again; the others go on.
    let refused = broker.append("t", 0, one("z")).await;
    assert!(
        matches!(&refused, Err(Error::LogFailed { reason, .. }) if reason.contains("os error 5")),
        "{refused:?}"
    );
    assert_eq!(broker.offsets("t", 0).unwrap().high_watermark, 1);
    assert_eq!(committed(&broker, 0).len(), 1);
    assert!(committed(&broker, 1).is_empty());
    broker.append("t", 1, one("other")).await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 1, one("next")).await.unwrap();
    transaction.commit().await.unwrap();
    assert!(broker.close().await.is_err(), "closing says that a log failed");
    drop((producer, broker));

    // All its bytes are in the files after all, and still it does not come back.
    disk.heal();
    let broker = open(&disk).unwrap();
    assert_eq!(committed(&broker, 0).len(), 1);
    let values: Vec<_> = committed(&broker, 1)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, ["other", "next"]);
    assert!(broker.group_offsets("g").is_empty());
    broker.append("t", 0, one("again")).await.unwrap();
}

#[tokio::test]
async fn a_commit_the_transaction_log_cannot_take_back_is_unknown_until_reopened() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let producer = broker.producer("p").await.unwrap();

    fail_syncs(&disk, "/transactions/".to_owned());
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, one("x")).await.unwrap();
    transaction.append("t", 1, one("y")).await.unwrap();
    transaction
        .commit_group_offsets("g", &[("s", 0, 1)])
        .await
        .unwrap();
    assert!(matches!(
        transaction.commit().await,
        Err(Error::CommitUnknown { .. })
    ));
    assert!(matches!(producer.begin(), Err(Error::CommitUnknown { .. })));
    assert!(matches!(
        broker.producer("p").await,
        Err(Error::CommitUnknown { .. } | Error::Fenced { .. })
    ));
    // Nothing of it shows, whatever is written behind it.
    broker.append("t", 1, one("plain")).await.unwrap();
    assert!(committed(&broker, 0).is_empty() && committed(&broker, 1).is_empty());
    drop((producer, broker));

    // The next start decides, for all partitions and the offset alike. Here the record had reached the file.
    disk.heal();
    let broker = open(&disk).unwrap();
    let values: Vec<_> = committed(&broker, 1)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, ["y", "plain"]);
    assert_eq!(committed(&broker, 0).len(), 1);
    assert_eq!(broker.group_offsets("g").len(), 1);
    let completed = |action: &RecoveryAction| matches!(action, RecoveryAction::TransactionCommitted { .. });
    assert_eq!(
        broker
            .recovery()
            .actions()
            .filter(|(_, action)| completed(action))
            .count(),
        3
    );
}

/// Has the operation `which` fail that is the `nth` of its kind, once; answers whether it came to that.
fn fail_nth(disk: &MemoryDisk, which: &'static [Operation], nth: usize, error: i32) -> Arc<Mutex<bool>> {
    let failed = Arc::new(Mutex::new(false));
    let (mut count, told) = (0, Arc::clone(&failed));
    disk.fail(move |operation, _: &Path| {
        if !which.contains(&operation) {
            return None;
        }
        count += 1;
        (count == nth).then(|| {
            *told.lock() = true;
            io::Error::from_raw_os_error(error)
        })
    });
    failed
}

/// Runs a workload while the `nth` operation fails, then opens the broker on what is left: as the process would find it
/// after a restart, and as after a power failure. Answers whether it came to that operation.
fn one_failure(which: &'static [Operation], nth: usize, error: i32) -> bool {
    let disk = MemoryDisk::new();
    let failed = fail_nth(&disk, which, nth, error);
    let mut random = Rng::with_seed(nth as u64);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut ledger = Ledger::default();
    if let Ok(broker) = open(&disk) {
        let workload = Workload {
            disk: disk.clone(),
            broker,
            ledger: Arc::default(),
            generation: 0,
            seed: nth as u64,
            failures: Some(Failures::default()),
        };
        runtime.block_on(workload.run(4));
        if error == ENOSPC {
            runtime.block_on(all_take_writes(&workload));
        }
        if random.bool() {
            let closed = runtime.block_on(workload.broker.close());
            assert!(*failed.lock() || closed.is_ok(), "{closed:?}");
        }
        let Workload {
            ledger: noted,
            broker,
            ..
        } = workload;
        drop(broker);
        ledger = Arc::into_inner(noted).unwrap().into_inner();
    }
    disk.heal();
    let end = disk.now();
    let (base, history) = disk.history();

    let broker = open(&disk).unwrap();
    ledger.at(end).check(&broker, disk.now());
    drop(broker);
    let mut replay = Replay::new(&base, &history);
    replay.advance(end);
    for kept in Kept::EACH {
        let disk = replay.power_failure(kept, &mut random);
        let broker = open(&disk).unwrap();
        ledger.restarted_at(end).check(&broker, disk.now());
    }
    *failed.lock()
}

/// There is space again: no log has stopped.
async fn all_take_writes(workload: &Workload) {
    workload.disk.heal();
    for topic in workload.broker.topics() {
        for partition in 0..topic.partitions {
            // What those two take is up to the workload.
            let own = [KEYED, AGAIN].contains(&topic.name.as_str());
            if !topic.name.starts_with("__") && !own {
                let name = format!("again {}", topic.name);
                workload
                    .append(
                        (topic.name.clone(), partition),
                        vec![format!("{name} {partition}")],
                    )
                    .await;
            }
        }
    }
    workload
        .broker
        .commit_group_offsets("again", &[("t", 0, 1)])
        .await
        .unwrap();
    let producer = workload.broker.producer("again").await.unwrap();
    producer.begin().unwrap().abort().await.unwrap();
    for error in workload
        .failures
        .iter()
        .flat_map(|failures| failures.met.lock().clone())
    {
        assert!(
            matches!(error, Error::DiskFull { .. } | Error::UnknownTopic { .. }),
            "{error}"
        );
    }
}

fn each_failure(which: &'static [Operation], error: i32) {
    let mut nth = 1;
    while one_failure(which, nth, error) {
        nth += 1;
    }
    assert!(nth > 10, "{nth} operations");
}

#[test]
fn whichever_sync_fails_nothing_acknowledged_is_lost_and_other_logs_go_on() {
    each_failure(&[Operation::Sync, Operation::SyncDir], EIO);
}

#[test]
fn whichever_write_finds_no_space_nothing_acknowledged_is_lost_and_all_logs_go_on() {
    each_failure(&[Operation::Write, Operation::Create], ENOSPC);
}

#[test]
fn whichever_name_cannot_be_changed_nothing_acknowledged_is_lost() {
    each_failure(&[Operation::Rename, Operation::Remove, Operation::Resize], EIO);
}

#[test]
fn whichever_read_fails_nothing_acknowledged_is_lost() {
    // While opening; a reader that meets one is below.
    let disk = MemoryDisk::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let workload = Workload {
        broker: open(&disk).unwrap(),
        disk: disk.clone(),
        ledger: Arc::default(),
        generation: 0,
        seed: 3,
        failures: None,
    };
    runtime.block_on(workload.run(6));
    let Workload { ledger, broker, .. } = workload;
    drop(broker);
    let ledger = Arc::into_inner(ledger).unwrap().into_inner();
    let (base, history) = disk.history();
    let mut refused = 0;
    for nth in 1.. {
        let disk = MemoryDisk::after(&base, &history);
        let failed = fail_nth(&disk, &[Operation::Read], nth, EIO);
        refused += usize::from(open(&disk).is_err());
        disk.heal();
        let broker = open(&disk).unwrap();
        ledger.at(disk.now()).check(&broker, disk.now());
        if !*failed.lock() {
            break;
        }
    }
    assert!(refused > 5, "{refused}");
}

#[tokio::test]
async fn a_read_that_fails_is_an_error_and_the_next_succeeds() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    for i in 0..40 {
        let value = format!("{i} {}", "x".repeat(300));
        broker.append("t", 0, one(&value)).await.unwrap();
    }
    for offset in [0, 7, 20, 39] {
        let mut reader = broker.reader("t", 0, offset, Isolation::ReadCommitted).unwrap();
        let mut failures = 0;
        loop {
            let failed = fail_nth(&disk, &[Operation::Read], failures + 1, EIO);
            let read = reader.next(1).await;
            disk.heal();
            if !*failed.lock() {
                assert_eq!(read.unwrap().records().next().unwrap().offset, offset);
                break;
            }
            // A cached read that fails is tried again as one that may wait.
            if let Ok(fetched) = read {
                assert_eq!(fetched.records().next().unwrap().offset, offset);
                reader.seek(offset).unwrap();
            }
            failures += 1;
        }
        assert!(failures > 0);
    }
    assert_eq!(committed(&broker, 0).len(), 40, "no segment was set apart for it");
}

#[tokio::test]
async fn a_topic_whose_deletion_may_not_be_durable_takes_no_writes_and_may_be_created_again() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    for name in ["t", "u"] {
        broker.create_topic(name, TopicConfig::new(1)).await.unwrap();
    }
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    for name in ["t", "u"] {
        transaction.append(name, 0, one("x")).await.unwrap();
    }
    transaction.commit().await.unwrap();
    let log = broker.log("t", 0).unwrap();
    let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();

    disk.fail(|operation, path| {
        let fails = operation == Operation::SyncDir && path.ends_with("topics");
        fails.then(|| io::Error::from_raw_os_error(EIO))
    });
    let failed = broker.delete_topic("t").await;
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    // Its directory has another name: what is written there would be gone with it.
    let refused = broker.append("t", 0, one("y")).await;
    assert!(matches!(refused, Err(Error::UnknownTopic { .. })), "{refused:?}");
    assert!(matches!(reader.try_next(1), Err(Error::TopicDeleted { .. })));
    // A power failure may bring it back, and then it needs the marker, or the record of the commit.
    assert!(!log.marker_durable(producer.id(), 0, Some(u64::MAX)));
    // No second one beside it.
    let refused = broker.create_topic("t", TopicConfig::new(1)).await;
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    disk.heal();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, one("new")).await.unwrap();
    broker.delete_topic("u").await.unwrap();
    let end = disk.now();
    let (base, history) = disk.history();
    drop((producer, broker));
    let mut replay = Replay::new(&base, &history);
    replay.advance(end);
    for kept in Kept::EACH {
        let broker = open(&replay.power_failure(kept, &mut Rng::with_seed(1))).unwrap();
        assert_eq!(committed(&broker, 0), [(0, "new".to_owned())], "{kept:?}");
        assert!(broker.topic("u").is_none(), "{kept:?}");
    }
}

#[tokio::test]
async fn a_topic_that_could_not_be_created_for_certain_does_not_come_back() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    let mut stored = false;
    disk.fail(move |operation, path| {
        stored |= operation == Operation::Rename && path.ends_with("topic.tmp");
        let syncs = operation == Operation::SyncDir && path.ends_with("topics");
        let fails = stored && (syncs || operation == Operation::Remove);
        fails.then(|| io::Error::from_raw_os_error(EIO))
    });
    let failed = broker.create_topic("t", TopicConfig::new(3)).await;
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert!(broker.topic("t").is_none());
    disk.heal();
    let again = open(&disk.copy()).unwrap();
    assert!(again.topic("t").is_none() && again.recovery().is_clean());
    drop(again);
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, one("x")).await.unwrap();
    drop(broker);
    assert_eq!(committed(&open(&disk).unwrap(), 0).len(), 1);
}
