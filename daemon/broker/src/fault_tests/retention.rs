//! Retention and the deletion of records while the power fails, or an operation of the disk: the log begins where it
//! was said to, or later where that was asked for; and from there on everything is there, and nothing that was aborted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fastrand::Rng;

use super::memory_disk::{MemoryDisk, Moment, Operation};
use super::power_failure::{Kept, Replay};
use crate::clock::ManualClock;
use crate::environment::Environment;
use crate::{
    BatchBuilder, Broker, BrokerOptions, Compression, DeleteBefore, Error, Isolation, RecoveryAction, Result,
    Start, TopicConfig,
};

const NOW: i64 = 1_700_000_000_000;

/// What was acknowledged, and when.
#[derive(Default, Clone)]
struct Ledger {
    /// Committed records by offset.
    rows: BTreeMap<u64, (String, Moment)>,
    /// What was to be written, and may have been although that was not acknowledged.
    tried: BTreeSet<String>,
    /// Where the log was said to begin, from when on.
    starts: Vec<(u64, Moment)>,
    /// The latest it was asked to begin.
    asked: u64,
}

fn open(disk: &MemoryDisk) -> Broker {
    let environment = Environment {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(NOW)),
    };
    let options = BrokerOptions {
        segment_bytes: 600,
        checkpoint_bytes: 1_500,
        index_interval_bytes: 150,
        flush_threads: 1,
        ..BrokerOptions::new("/tidewater")
    };
    let broker = Broker::open_on(environment, options).unwrap();
    for (_, action) in broker.recovery().actions() {
        let harmful = matches!(
            action,
            RecoveryAction::SegmentQuarantined { .. } | RecoveryAction::CheckpointLost { .. }
        );
        assert!(!harmful, "nothing durable is damaged: {action}");
    }
    broker
}

/// Writes records in and outside of transactions, some of which are aborted.
async fn write(disk: &MemoryDisk, broker: &Broker, count: usize, ledger: &mut Ledger) -> Result<()> {
    let producer = broker.producer("p").await?;
    for n in 0..count {
        let value = format!("{} {n}", ledger.rows.len());
        let batch = || {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(NOW, None, Some(value.as_bytes()), &[]);
            batch.push(NOW, None, Some(value.as_bytes()), &[]);
            batch
        };
        if n % 4 != 1 {
            ledger.tried.insert(value.clone());
        }
        let offset = match n % 4 {
            0 => {
                let mut transaction = producer.begin()?;
                transaction.append("t", 0, batch()).await?;
                transaction.commit().await?.partitions[0].base_offset
            }
            1 => {
                let mut transaction = producer.begin()?;
                transaction.append("t", 0, batch()).await?;
                transaction.abort().await?;
                continue;
            }
            _ => broker.append("t", 0, batch()).await?,
        };
        for offset in [offset, offset + 1] {
            ledger.rows.insert(offset, (value.clone(), disk.now()));
        }
    }
    Ok(())
}

async fn delete(disk: &MemoryDisk, broker: &Broker, before: DeleteBefore, ledger: &mut Ledger) -> Result<()> {
    let to = match before {
        DeleteBefore::Offset(offset) => offset,
        DeleteBefore::HighWatermark => broker.offsets("t", 0)?.high_watermark,
    };
    ledger.asked = ledger.asked.max(to);
    let start = broker.delete_records("t", 0, before).await?;
    ledger.starts.push((start, disk.now()));
    Ok(())
}

/// Deletes inside a segment, then retention by size, then all.
async fn shorten(disk: &MemoryDisk, broker: &Broker, ledger: &mut Ledger) -> Result<()> {
    delete(disk, broker, DeleteBefore::Offset(ledger.asked + 11), ledger).await?;
    write(disk, broker, 6, ledger).await?;
    ledger.asked = broker.offsets("t", 0)?.high_watermark;
    broker
        .alter_topic("t", &[("retention.bytes", Some("900"))])
        .await?;
    broker.run_housekeeping_now();
    let start = broker.offsets("t", 0)?.log_start;
    // That it begins there already is answered once it is durable.
    delete(disk, broker, DeleteBefore::Offset(start), ledger).await?;
    broker.alter_topic("t", &[("retention.bytes", None)]).await?;
    write(disk, broker, 3, ledger).await?;
    delete(disk, broker, DeleteBefore::HighWatermark, ledger).await?;
    write(disk, broker, 3, ledger).await
}

/// Holds what is shown against what was acknowledged by a moment.
fn check(broker: &Broker, ledger: &Ledger, by: Moment, what: &str) {
    let offsets = broker.offsets("t", 0).unwrap();
    let start = offsets.log_start;
    let said = ledger.starts.iter().filter(|(_, at)| *at <= by);
    let said = said.map(|(start, _)| *start).max().unwrap_or(0);
    assert!(
        (said..=ledger.asked).contains(&start),
        "{what}: begins at {start}, was said to at {said} and asked to at {} at the latest",
        ledger.asked
    );
    let mut reader = broker
        .reader("t", 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut shown = BTreeMap::new();
    while let Some(fetched) = reader.try_next(400).unwrap() {
        for record in fetched.records() {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert!(record.offset >= start, "{what}");
            let known = ledger.rows.get(&record.offset).is_some_and(|row| row.0 == value);
            assert!(
                known || ledger.tried.contains(&value),
                "{what}: {value} at {}",
                record.offset
            );
            shown.insert(record.offset, value);
        }
    }
    let expected = ledger.rows.range(start..).filter(|(_, row)| row.1 <= by);
    for (offset, row) in expected {
        assert_eq!(shown.get(offset), Some(&row.0), "{what}: offset {offset} is lost");
    }
}

/// The files of the partition are those of its segments.
fn check_files(broker: &Broker, what: &str) {
    let log = broker.log("t", 0).unwrap();
    let mut names = log.disk.list(&log.dir).unwrap();
    names.retain(|name| {
        std::path::Path::new(name)
            .extension()
            .is_some_and(|e| e == "log" || e == "cleaned")
    });
    let state = log.state.lock();
    let segments = state.sealed.len() + usize::from(state.active.file.exists());
    assert_eq!(names.len(), segments, "{what}: {names:?}");
}

#[tokio::test]
async fn the_power_fails_at_every_moment_of_shortening_a_log() {
    let disk = MemoryDisk::new();
    let mut ledger = Ledger::default();
    let broker = open(&disk);
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    write(&disk, &broker, 20, &mut ledger).await.unwrap();
    let begun = disk.now();
    shorten(&disk, &broker, &mut ledger).await.unwrap();
    let ended = disk.now();
    assert!(broker.metrics().partitions.iter().any(|p| p.removed_segments > 5));
    check(&broker, &ledger, ended, "at the end");
    drop(broker);

    let (base, history) = disk.history();
    let mut random = Rng::with_seed(11);
    let mut replay = Replay::new(&base, &history);
    for moment in begun..=ended {
        replay.advance(moment);
        let kept = Kept::EACH.map(|kept| (replay.power_failure(kept, &mut random), format!("{kept:?}")));
        let killed = (MemoryDisk::after(&base, &history[..moment]), "killed".to_owned());
        for (disk, how) in kept.into_iter().chain([killed]) {
            let what = format!("{how} at {moment} of {begun} to {ended}");
            let broker = open(&disk);
            check(&broker, &ledger, moment, &what);
            check_files(&broker, &what);
            // Not each time all over: a sample of what follows.
            if random.u8(..8) == 0 {
                let start = broker.offsets("t", 0).unwrap().log_start;
                let mut after = Ledger {
                    starts: vec![(start, 0)],
                    asked: start,
                    ..Ledger::default()
                };
                let mut reader = broker
                    .reader("t", 0, Start::Earliest, Isolation::ReadCommitted)
                    .unwrap();
                while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
                    after.rows.extend(fetched.records().map(|record| {
                        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                        (record.offset, (value, 0))
                    }));
                }
                write(&disk, &broker, 8, &mut after).await.unwrap();
                shorten(&disk, &broker, &mut after).await.unwrap();
                check(&broker, &after, disk.now(), &what);
                drop(broker);
                check(&open(&disk), &after, disk.now(), &what);
            }
        }
    }
}

#[tokio::test]
async fn each_operation_of_shortening_a_log_fails_once() {
    let (mut refused, mut stopped) = (0, 0);
    for n in 0.. {
        let disk = MemoryDisk::new();
        let mut ledger = Ledger::default();
        let broker = open(&disk);
        broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
        write(&disk, &broker, 16, &mut ledger).await.unwrap();

        let (count, hit) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let fault = Arc::clone(&hit);
        disk.fail(move |operation, path| {
            let partition = path.parent().is_some_and(|dir| dir.ends_with("0")) || path.ends_with("0");
            if !partition || operation == Operation::Read || count.fetch_add(1, Ordering::SeqCst) != n {
                return None;
            }
            fault.store(true, Ordering::SeqCst);
            let full = matches!(
                operation,
                Operation::Create | Operation::Write | Operation::Rename
            );
            Some(io::Error::from_raw_os_error(if full { 28 } else { 5 }))
        });
        let what = format!("operation {n}");
        let result = shorten(&disk, &broker, &mut ledger).await;
        disk.heal();
        // What it was asked to and did not answer may have happened, and may not.
        check(&broker, &ledger, disk.now(), &what);
        refused += usize::from(result.is_err());
        let again = match result {
            Ok(()) => delete(&disk, &broker, DeleteBefore::Offset(ledger.asked), &mut ledger).await,
            Err(_) => delete(&disk, &broker, DeleteBefore::HighWatermark, &mut ledger).await,
        };
        match again {
            Ok(()) => {}
            Err(Error::LogFailed { .. }) => stopped += 1,
            Err(error) => panic!("{what}: {error}"),
        }
        check(&broker, &ledger, disk.now(), &what);
        drop(broker);
        let end = disk.now();
        let (base, history) = disk.history();
        let broker = open(&disk);
        check(&broker, &ledger, end, &what);
        check_files(&broker, &what);
        let mut replay = Replay::new(&base, &history);
        replay.advance(end);
        for kept in Kept::EACH {
            let disk = replay.power_failure(kept, &mut Rng::with_seed(n as u64));
            check(&open(&disk), &ledger, end, &format!("{what}, then {kept:?}"));
        }
        if !hit.load(Ordering::SeqCst) {
            assert!(refused > 5 && stopped > 5, "{refused} and {stopped} of {n}");
            return;
        }
    }
}

#[tokio::test]
async fn retention_makes_room_on_a_full_disk() {
    let disk = MemoryDisk::new();
    let mut ledger = Ledger::default();
    let broker = open(&disk);
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    write(&disk, &broker, 20, &mut ledger).await.unwrap();
    broker
        .alter_topic("t", &[("retention.bytes", Some("1000000"))])
        .await
        .unwrap();
    // Not a byte, until an index is gone, which is the first that can go.
    let room = Arc::new(AtomicBool::new(false));
    let freed = Arc::clone(&room);
    disk.fail(move |operation, path| {
        if operation == Operation::Remove && path.extension().is_some_and(|e| e == "index") {
            freed.store(true, Ordering::SeqCst);
        }
        let takes = matches!(operation, Operation::Create | Operation::Write);
        let log = path.parent().is_some_and(|dir| dir.ends_with("0"));
        (takes && log && !freed.load(Ordering::SeqCst)).then(|| io::Error::from_raw_os_error(28))
    });
    let refused = write(&disk, &broker, 4, &mut ledger).await;
    assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    ledger.asked = broker.offsets("t", 0).unwrap().high_watermark;
    broker
        .alter_topic("t", &[("retention.bytes", Some("900"))])
        .await
        .unwrap();
    broker.run_housekeeping_now();
    let start = broker.offsets("t", 0).unwrap().log_start;
    assert!(start > 0);
    delete(&disk, &broker, DeleteBefore::Offset(start), &mut ledger)
        .await
        .unwrap();
    write(&disk, &broker, 4, &mut ledger).await.unwrap();
    check(&broker, &ledger, disk.now(), "with room again");
}
