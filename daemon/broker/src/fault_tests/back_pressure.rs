//! A disk slower than its writers: what is written and not on disk never passes the limit (invariant 6), who waits is
//! served in turn, and nothing is dropped. Judged from outside, by the history of the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::memory_disk::{Event, MemoryDisk, NodeId};
use crate::{BatchBuilder, Broker, BrokerOptions, Compression, Isolation, Start, TopicConfig};

const PARTITIONS: u32 = 12;
/// Every record begins with this and the number of its writer.
const MARK: &[u8] = b"writer-";

fn open(disk: &MemoryDisk, in_flight_bytes: usize, flush_threads: usize) -> Broker {
    let options = BrokerOptions {
        in_flight_bytes,
        flush_threads,
        ..BrokerOptions::new("/tidewater")
    };
    Broker::open_on(Arc::new(disk.clone()), options).unwrap()
}

/// A batch of one record, of about `bytes` bytes.
fn batch(writer: usize, number: usize, bytes: usize) -> BatchBuilder {
    let mut value = format!("writer-{writer:03}-{number:03}-").into_bytes();
    value.resize(bytes.saturating_sub(75).max(value.len()), b'.');
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(0, None, Some(&value), &[]);
    batch
}

/// Who wrote these bytes, and which of theirs it was, if it is a batch of the test.
fn author(bytes: &[u8]) -> Option<(usize, usize)> {
    let at = bytes.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let number = |range: std::ops::Range<usize>| std::str::from_utf8(&bytes[range]).unwrap().parse().unwrap();
    Some((number(at..at + 3), number(at + 4..at + 7)))
}

/// What the disk saw: who wrote, in order, and the most bytes there ever were between a write and the sync after it.
fn seen(disk: &MemoryDisk) -> (Vec<(usize, usize)>, usize) {
    let (mut order, mut most) = (Vec::new(), 0);
    let mut unsynced: HashMap<NodeId, Vec<(usize, usize)>> = HashMap::new();
    for (moment, event) in disk.history().1.into_iter().enumerate() {
        match event {
            Event::Write { file, bytes, .. } => {
                if let Some(author) = author(&bytes) {
                    order.push(author);
                    unsynced.entry(file).or_default().push((moment, bytes.len()));
                }
            }
            Event::Synced { file, begun } => {
                unsynced.entry(file).or_default().retain(|(at, _)| *at >= begun);
            }
            _ => {}
        }
        most = most.max(unsynced.values().flatten().map(|(_, bytes)| bytes).sum());
    }
    (order, most)
}

/// Everything that can be read, by partition.
fn stored(broker: &Broker) -> Vec<Vec<(usize, usize)>> {
    let read = |partition| {
        let mut reader = broker
            .reader("t", partition, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        let mut all = Vec::new();
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            all.extend(fetched.records().map(|r| author(r.value.unwrap()).unwrap()));
        }
        all
    };
    (0..PARTITIONS).map(read).collect()
}

/// Has each sync wait until it is let through. Answers where syncs say that they began, and where one is let through;
/// all are once that is dropped.
fn slow(disk: &MemoryDisk) -> (UnboundedReceiver<()>, Sender<()>) {
    let (began, syncs) = unbounded_channel();
    let (let_through, gate) = channel();
    let gate = Mutex::new(gate);
    disk.during_syncs(move || {
        let _ = began.send(());
        let _ = gate.lock().recv();
    });
    (syncs, let_through)
}

#[tokio::test]
async fn who_waits_for_room_is_served_in_turn() {
    const WRITERS: usize = 100;
    const LIMIT: usize = 10_000;
    let disk = MemoryDisk::new();
    let broker = open(&disk, LIMIT, 1);
    broker
        .create_topic("t", TopicConfig::new(PARTITIONS))
        .await
        .unwrap();
    let (mut syncs, let_through) = slow(&disk);

    // Small ones, large ones, some that take the whole room: none is passed by those behind it.
    let mut random = Rng::with_seed(3);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let bytes = match writer % 10 {
            9 => LIMIT,
            _ => random.usize(100..3_000),
        };
        let (broker, batch) = (broker.clone(), batch(writer, 0, bytes));
        assert!(batch.bytes() <= LIMIT);
        let partition = random.u32(0..PARTITIONS);
        writers.spawn(async move { broker.append("t", partition, batch).await.unwrap() });
    }
    let in_flight = &broker.shared.flusher.in_flight;
    let mut waited = 0;
    loop {
        tokio::select! {
            Some(()) = syncs.recv() => {
                assert!(in_flight.taken() <= LIMIT);
                waited = waited.max(in_flight.waiting());
                let_through.send(()).unwrap();
            }
            written = writers.join_next() => match written {
                Some(written) => drop(written.unwrap()),
                None => break,
            },
        }
    }
    drop(let_through);
    assert!(
        waited > WRITERS / 2,
        "{waited} waited at once: the disk was not slow"
    );
    assert_eq!((in_flight.taken(), in_flight.waiting()), (0, 0));
    let (order, most) = seen(&disk);
    let in_turn: Vec<_> = (0..WRITERS).map(|writer| (writer, 0)).collect();
    assert_eq!(order, in_turn);
    assert!((LIMIT / 2..=LIMIT).contains(&most), "{most} bytes at most");
    assert_eq!(stored(&broker).iter().map(Vec::len).sum::<usize>(), WRITERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_stay_within_the_room_and_lose_nothing() {
    const WRITERS: usize = 64;
    const EACH: usize = 30;
    const LIMIT: usize = 20_000;
    let disk = MemoryDisk::new();
    let broker = open(&disk, LIMIT, 4);
    broker
        .create_topic("t", TopicConfig::new(PARTITIONS))
        .await
        .unwrap();
    // Some syncs take long, others overtake them.
    let syncs = AtomicUsize::new(0);
    disk.during_syncs(move || {
        for _ in 0..syncs.fetch_add(1, Ordering::Relaxed) % 7 * 10 {
            std::thread::yield_now();
        }
    });
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let broker = broker.clone();
        writers.push(tokio::spawn(async move {
            let mut random = Rng::with_seed(writer as u64);
            let partition = writer as u32 % PARTITIONS;
            let mut number = 0;
            while number < EACH {
                let batch = batch(writer, number, random.usize(100..LIMIT / 4));
                // Who loses patience takes nothing with them: neither room nor the turn of another.
                if random.u8(..) < 50 {
                    let late = broker.append("t", partition, self::batch(writer, 999, LIMIT / 4));
                    tokio::select! {
                        biased;
                        () = tokio::task::yield_now() => {}
                        _ = late => {}
                    }
                }
                broker.append("t", partition, batch).await.unwrap();
                number += 1;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let stored = stored(&broker);
    for writer in 0..WRITERS {
        let own = stored[writer % PARTITIONS as usize]
            .iter()
            .filter(|(w, number)| *w == writer && *number != 999)
            .map(|(_, number)| *number);
        assert!(own.eq(0..EACH), "writer {writer}");
    }
    broker.close().await.unwrap();
    let in_flight = &broker.shared.flusher.in_flight;
    assert_eq!((in_flight.taken(), in_flight.waiting()), (0, 0));
    let most = seen(&disk).1;
    assert!((LIMIT / 2..=LIMIT).contains(&most), "{most} bytes at most");
}
