//! Opening fails at any operation of the disk: it keeps nothing open, and the next opening finds everything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;

use super::crash_workload::batch;
use super::memory_disk::{Event, MemoryDisk, Node};
use super::power_failure::{Kept, Replay};
use crate::{Broker, BrokerOptions, Isolation, RecoveryAction, Start, TopicConfig};

fn open(disk: &MemoryDisk) -> crate::Result<Broker> {
    let options = BrokerOptions {
        segment_bytes: 400,
        checkpoint_bytes: 300,
        flush_threads: 1,
        ..BrokerOptions::new("/tidewater")
    };
    Broker::open_on(Arc::new(disk.clone()), options)
}

/// A disk left by a power failure, on which recovery has much to do: transactions were open, and one is torn although
/// its commit had begun, so that it is aborted for good.
fn left_by_a_power_failure() -> (Vec<Node>, Vec<Event>) {
    let disk = MemoryDisk::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let broker = open(&disk).unwrap();
        broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
        let mut open = Vec::new();
        for n in 0..6 {
            let id = format!("p{n}");
            let mut transaction = broker.producer(&id).await.unwrap().begin().unwrap();
            for partition in 0..2 {
                let values = [format!("{n} {}", "x".repeat(100))];
                transaction.append("t", partition, batch(&values)).await.unwrap();
            }
            let offset = [("source", 0, n)];
            transaction.commit_group_offsets("g", &offset).await.unwrap();
            if n % 2 == 0 {
                transaction.commit().await.unwrap();
            } else {
                open.push(transaction);
            }
        }
    });
    let (base, history) = disk.history();
    let mut random = Rng::with_seed(1);
    let mut replay = Replay::new(&base, &history);
    let mut at = 0;
    while at < history.len() {
        at += 1;
        replay.advance(at);
        let disk = replay.power_failure(Kept::Some, &mut random);
        let left = disk.history();
        let broker = open(&disk).unwrap();
        let torn = broker.recovery().actions().any(|(_, action)| {
            matches!(action, RecoveryAction::TransactionAborted { reason, .. } if reason.contains("had begun"))
        });
        if torn {
            return left;
        }
    }
    panic!("no transaction was torn");
}

/// What readers of committed data get, and the group's offset.
fn shown(broker: &Broker) -> (Vec<u8>, Option<u64>) {
    let mut found = Vec::new();
    for partition in 0..2 {
        let mut reader = broker
            .reader("t", partition, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            found.extend(fetched.records().map(|record| record.value.unwrap()[0]));
        }
    }
    let offsets = broker.group_offsets("g");
    (found, offsets.get(&("source".to_owned(), 0)).copied())
}

#[test]
fn an_opening_that_fails_keeps_nothing_open() {
    let (base, history) = left_by_a_power_failure();
    let expected = shown(&open(&MemoryDisk::after(&base, &history)).unwrap());
    let mut failed = 0;
    for n in 0.. {
        let disk = MemoryDisk::after(&base, &history);
        let (count, hit) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let fault = Arc::clone(&hit);
        disk.fail(move |_, _| {
            let fails = count.fetch_add(1, Ordering::SeqCst) == n;
            fault.fetch_add(usize::from(fails), Ordering::SeqCst);
            fails.then(|| io::Error::from_raw_os_error(5))
        });
        let opened = open(&disk);
        disk.heal();
        if let Err(error) = opened {
            failed += 1;
            assert_eq!(disk.handles(), 1, "operation {n} failed: {error}");
            assert_eq!(shown(&open(&disk).unwrap()), expected, "operation {n}");
        } else if hit.load(Ordering::SeqCst) == 0 {
            assert!(failed > 20, "{failed} of {n}");
            return;
        }
    }
}
