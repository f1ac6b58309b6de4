//! Compaction while the power fails, or an operation of the disk: the last record of each key is there, and nothing that
//! was aborted; and what was begun is completed later.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::memory_disk::{MemoryDisk, Moment, Operation};
use super::power_failure::{Kept, Replay};
use crate::clock::ManualClock;
use crate::environment::Environment;
use crate::log::compaction::{Cleaned, CleanerLimits};
use crate::{
    BatchBuilder, Broker, BrokerOptions, Compression, Isolation, RecoveryAction, Start, TopicConfig,
};

const START: i64 = 1_700_000_000_000;
const KEYS: usize = 7;

/// What was acknowledged, by offset.
type Rows = BTreeMap<u64, (String, Option<String>)>;

fn open(disk: &MemoryDisk, clock: &Arc<ManualClock>) -> Broker {
    let environment = Environment {
        disk: Arc::new(disk.clone()),
        clock: clock.clone(),
    };
    let options = BrokerOptions {
        segment_bytes: 1_500,
        checkpoint_bytes: 3_000,
        index_interval_bytes: 300,
        flush_threads: 1,
        ..BrokerOptions::new("/tidewater")
    };
    let broker = Broker::open_on(environment, options).unwrap();
    for (_, action) in broker.recovery().actions() {
        let harmless = matches!(
            action,
            RecoveryAction::TailCut { .. } | RecoveryAction::TransactionAborted { .. }
        );
        assert!(harmless, "nothing durable is damaged: {action}");
    }
    broker
}

async fn create(broker: &Broker) {
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "1000"),
    ];
    let config = TopicConfig {
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..TopicConfig::new(1)
    };
    broker.create_topic("t", config).await.unwrap();
}

/// Writes records in and outside of transactions, some of which are aborted.
async fn write(broker: &Broker, from: usize, count: usize, rows: &mut Rows) {
    let producer = broker.producer("p").await.unwrap();
    for n in from..from + count {
        let key = format!("k{}", n * 5 % KEYS);
        let value = (n % 6 != 0).then(|| format!("{n}-{}", "v".repeat(60)));
        let batch = || {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(
                START,
                Some(key.as_bytes()),
                value.as_ref().map(String::as_bytes),
                &[],
            );
            batch
        };
        let offset = match n % 4 {
            0 => {
                let mut transaction = producer.begin().unwrap();
                transaction.append("t", 0, batch()).await.unwrap();
                transaction.commit().await.unwrap().partitions[0].base_offset
            }
            1 => {
                let mut transaction = producer.begin().unwrap();
                transaction.append("t", 0, batch()).await.unwrap();
                transaction.abort().await.unwrap();
                continue;
            }
            _ => broker.append("t", 0, batch()).await.unwrap(),
        };
        rows.insert(offset, (key, value));
    }
}

fn compact(broker: &Broker) -> crate::Result<Cleaned> {
    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        // A few keys at a time.
        key_bytes: 6 * 24,
        stop: &stop,
    };
    broker.log("t", 0)?.compact(limits)
}

/// All records are acknowledged ones in order, and of each key the last is there, unless it is a tombstone.
fn check(broker: &Broker, rows: &Rows, moment: &str) {
    let mut reader = broker
        .reader("t", 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut last, mut next) = (BTreeMap::new(), 0);
    while let Some(fetched) = reader.try_next(500).unwrap() {
        for record in fetched.records() {
            assert!(record.offset >= next, "{moment}: offsets rise");
            next = record.offset + 1;
            let row = (text(record.key.unwrap()), record.value.map(text));
            assert_eq!(
                rows.get(&record.offset),
                Some(&row),
                "{moment}: offset {}",
                record.offset
            );
            last.insert(row.0, row.1);
        }
    }
    let mut expected: BTreeMap<_, _> = rows.values().cloned().collect();
    expected.retain(|_, value| value.is_some());
    last.retain(|_, value| value.is_some());
    assert_eq!(last, expected, "{moment}: the last of each key");
}

/// Names of the partition's files, indexes aside.
fn segments(broker: &Broker) -> Vec<String> {
    let log = broker.log("t", 0).unwrap();
    let mut names = log.disk.list(&log.dir).unwrap();
    names.retain(|name| !name.contains(".index") && !name.starts_with("checkpoint"));
    names
}

/// The files are those that are listed, and the one written to.
fn check_files(broker: &Broker, moment: &str) {
    let sealed = broker.log("t", 0).unwrap().state.lock().sealed.len();
    let names = segments(broker);
    assert_eq!(names.len(), sealed + 1, "{moment}: {names:?}");
}

#[tokio::test]
async fn the_power_fails_at_every_moment_of_a_compaction() {
    let (disk, clock) = (MemoryDisk::new(), Arc::new(ManualClock::new(START)));
    let mut rows = Rows::new();
    let broker = open(&disk, &clock);
    create(&broker).await;
    write(&broker, 0, 90, &mut rows).await;
    compact(&broker).unwrap();
    write(&broker, 90, 60, &mut rows).await;
    // The tombstones of the first time go now.
    clock.advance(Duration::from_secs(2));
    broker.append("t", 0, last(&mut rows, &broker)).await.unwrap();
    let begun: Moment = disk.now();
    let cleaned = compact(&broker).unwrap();
    assert!(cleaned.passes > 1 && cleaned.written > 0, "{cleaned:?}");
    check(&broker, &rows, "compacted");
    let ended = disk.now();
    drop(broker);

    let (base, history) = disk.history();
    let mut random = Rng::with_seed(7);
    let mut replay = Replay::new(&base, &history);
    let mut leftovers = 0;
    for moment in begun..=ended {
        replay.advance(moment);
        let kept = Kept::EACH.map(|kept| (replay.power_failure(kept, &mut random), format!("{kept:?}")));
        let killed = (MemoryDisk::after(&base, &history[..moment]), "killed".to_owned());
        for (disk, how) in kept.into_iter().chain([killed]) {
            let moment = format!("{how} at {moment} of {begun} to {ended}");
            let broker = open(&disk, &clock);
            check(&broker, &rows, &moment);
            check_files(&broker, &moment);
            leftovers += usize::from(segments(&broker).len() > 3);
            if how == "killed" {
                // What recovery did to files that may not be durable; the power fails before it did more.
                let (base, history) = disk.history();
                let mut replay = Replay::new(&base, &history);
                replay.advance(history.len());
                for _ in 0..4 {
                    let disk = replay.power_failure(Kept::Some, &mut random);
                    check(
                        &open(&disk, &clock),
                        &rows,
                        &format!("{moment}, then the power failed"),
                    );
                }
            }
            // Not each time all over: a sample of what follows.
            if random.u8(..8) == 0 {
                compact(&broker).unwrap();
                check(&broker, &rows, &moment);
                let mut more = rows.clone();
                write(&broker, 1_000, 20, &mut more).await;
                compact(&broker).unwrap();
                check(&broker, &more, &moment);
                check_files(&broker, &moment);
            }
        }
    }
    assert!(leftovers > 0);
}

/// A record that is not acknowledged yet, and counts from now on.
fn last(rows: &mut Rows, broker: &Broker) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(START, Some(b"last"), Some(b"x"), &[]);
    let offset = broker.offsets("t", 0).unwrap().end;
    rows.insert(offset, ("last".to_owned(), Some("x".to_owned())));
    batch
}

#[tokio::test]
async fn each_operation_of_a_compaction_fails_once() {
    let mut failed = 0;
    for n in 0.. {
        let (disk, clock) = (MemoryDisk::new(), Arc::new(ManualClock::new(START)));
        let mut rows = Rows::new();
        let broker = open(&disk, &clock);
        create(&broker).await;
        write(&broker, 0, 60, &mut rows).await;
        broker.append("t", 0, last(&mut rows, &broker)).await.unwrap();

        let (count, hit) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let fault = Arc::clone(&hit);
        disk.fail(move |operation, path| {
            let partition = path.parent().is_some_and(|dir| dir.ends_with("0")) || path.ends_with("0");
            if !partition || count.fetch_add(1, Ordering::SeqCst) != n {
                return None;
            }
            fault.fetch_add(1, Ordering::SeqCst);
            let full = matches!(
                operation,
                Operation::Create | Operation::Write | Operation::Rename
            );
            Some(io::Error::from_raw_os_error(if full { 28 } else { 5 }))
        });
        let moment = format!("operation {n}");
        let result = compact(&broker);
        disk.heal();
        check(&broker, &rows, &moment);
        if hit.load(Ordering::SeqCst) == 0 {
            assert!(n > 30 && failed > n / 2, "{failed} of {n}");
            return;
        }
        failed += usize::from(result.is_err());
        if let Err(error) = result {
            let again = compact(&broker);
            assert!(again.is_ok(), "{moment}: {error}, then {again:?}");
        }
        check(&broker, &rows, &moment);
        write(&broker, 1_000, 10, &mut rows).await;
        check(&broker, &rows, &moment);
        drop(broker);
        let broker = open(&disk, &clock);
        check(&broker, &rows, &moment);
        check_files(&broker, &moment);
    }
}
