//! Opening fails at any operation of the disk: it keeps nothing open, and the next opening finds everything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::crash_workload::batch;
use super::memory_disk::MemoryDisk;
use crate::{Broker, BrokerOptions, Isolation, Start, TopicConfig};

fn open(disk: &MemoryDisk) -> crate::Result<Broker> {
    let options = BrokerOptions {
        segment_bytes: 400,
        checkpoint_bytes: 300,
        flush_threads: 1,
        ..BrokerOptions::new("/tidewater")
    };
    Broker::open_on(Arc::new(disk.clone()), options)
}

/// A disk of a process that was killed: with transactions open, and committed without their markers.
fn killed() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let open_transactions = runtime.block_on(async {
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
        open
    });
    let (base, history) = disk.history();
    drop(open_transactions);
    MemoryDisk::after(&base, &history)
}

fn check(broker: &Broker) {
    for partition in 0..2 {
        let mut reader = broker
            .reader("t", partition, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        let mut found = Vec::new();
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            found.extend(fetched.records().map(|record| record.value.unwrap()[0]));
        }
        assert_eq!(found, b"024");
    }
    assert_eq!(broker.group_offsets("g")[&("source".to_owned(), 0)], 4);
}

#[test]
fn an_opening_that_fails_keeps_nothing_open() {
    let (base, history) = killed().history();
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
            check(&open(&disk).unwrap());
        } else if hit.load(Ordering::SeqCst) == 0 {
            assert!(failed > 20, "{failed} of {n}");
            return;
        }
    }
}
