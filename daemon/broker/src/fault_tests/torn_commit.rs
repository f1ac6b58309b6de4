//! A commit record whose batches were torn off must not come to hold later, when their offsets were given out again: the
//! abort record that recovery writes is durable before that. The argument is in [`commit`](crate::transaction::commit).

use std::io;
use std::sync::{Arc, mpsc};

use fastrand::Rng;
use parking_lot::Mutex;

use super::crash_workload::batch;
use super::memory_disk::{Event, MemoryDisk, Node, NodeId, Operation, ROOT};
use super::power_failure::{Kept, Replay};
use crate::{BatchBuilder, Broker, BrokerOptions, Isolation, RecoveryAction, Start, TopicConfig};

const ENOSPC: i32 = 28;

/// Bytes between checkpoints.
const WITH_EACH_SYNC: u64 = 1;
const RARELY: u64 = 1 << 30;

fn open(disk: &MemoryDisk, checkpoint_bytes: u64) -> Broker {
    let options = BrokerOptions {
        checkpoint_bytes,
        flush_threads: 1,
        ..BrokerOptions::new("/tidewater")
    };
    Broker::open_on(Arc::new(disk.clone()), options).unwrap()
}

fn one(value: &str) -> BatchBuilder {
    batch(&[value.to_owned()])
}

fn committed(broker: &Broker, partition: u32) -> Vec<String> {
    let mut reader = broker
        .reader("t", partition, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut all = Vec::new();
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        all.extend(fetched.records().map(|r| text(r.value)));
    }
    all
}

/// The file or directory that was last created at a path.
fn node(base: &[Node], history: &[Event], path: &str) -> NodeId {
    let step = |at: NodeId, part: &str| {
        let created = history.iter().rev().find_map(|event| match event {
            Event::Created { dir, name, node, .. } if *dir == at && name == part => Some(*node),
            _ => None,
        });
        let known = || match &base[at] {
            Node::Dir(names) => names[part],
            Node::File(_) => panic!("{path}"),
        };
        created.unwrap_or_else(known)
    };
    path.split('/').filter(|part| !part.is_empty()).fold(ROOT, step)
}

fn segment(dir: &str) -> String {
    format!("{dir}/{:020}.log", 0)
}

/// The power fails here, with all names and none of the bytes that were not synced.
fn fail_power(base: &[Node], history: &[Event]) -> MemoryDisk {
    let mut replay = Replay::new(base, history);
    replay.advance(history.len());
    replay.power_failure(Kept::Names, &mut Rng::with_seed(1))
}

/// The transaction is torn and aborted; its offsets go to others, whose checkpoint makes them look like those the commit
/// record lists; and the part that is left has no marker, since there was no space for one. Then the power fails again,
/// before anything but recovery itself had synced the transaction log.
#[tokio::test]
async fn a_torn_transaction_stays_aborted_when_others_have_its_offsets() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, RARELY);
    let id = broker.create_topic("t", TopicConfig::new(2)).await.unwrap().id;
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, one("half")).await.unwrap();
    transaction.append("t", 1, one("other half")).await.unwrap();
    transaction.commit().await.unwrap();
    // As if the power had failed during the commit, when all was synced but the second partition.
    let (base, mut history) = disk.history();
    drop((broker, producer));
    let partition = |number: u32| format!("/tidewater/topics/{id}/{number}");
    let torn = node(&base, &history, &segment(&partition(1)));
    history.retain(|event| !matches!(event, Event::Synced { file, .. } if *file == torn));

    let disk = fail_power(&base, &history);
    let by_flusher = Arc::new(Mutex::new(Vec::new()));
    let (told, checkpoint_written) = mpsc::channel();
    let (full, checkpoint) = (partition(0), format!("{}/checkpoint", partition(1)));
    let threads = Arc::clone(&by_flusher);
    disk.fail(move |operation, path| {
        let path = path.to_str().unwrap();
        match operation {
            Operation::Write if path.starts_with(&full) => return Some(io::Error::from_raw_os_error(ENOSPC)),
            Operation::Sync if path == segment("/tidewater/transactions") => {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                threads.lock().push(name.starts_with("log-flush"));
            }
            // It would follow the syncs that are taken back below.
            Operation::Rename if path.starts_with("/tidewater/transactions/") => {
                return Some(io::Error::from_raw_os_error(ENOSPC));
            }
            Operation::Rename if path.starts_with(&checkpoint) => {
                // Nobody waits for those that come later.
                let _ = told.send(());
            }
            _ => {}
        }
        None
    });
    let broker = open(&disk, WITH_EACH_SYNC);
    let aborted = |action: &RecoveryAction| matches!(action, RecoveryAction::TransactionAborted { .. });
    assert_eq!(
        broker
            .recovery()
            .actions()
            .filter(|(_, action)| aborted(action))
            .count(),
        1
    );
    assert!(committed(&broker, 0).is_empty());
    while checkpoint_written.try_recv().is_ok() {}
    assert_eq!(broker.append("t", 1, one("new")).await.unwrap(), 0);
    // It is renamed with the disk locked, so it is there when the history is asked for.
    checkpoint_written.recv().unwrap();
    let (base, history) = disk.history();
    drop(broker);

    // The flusher's syncs of the transaction log may take any time: say that none had ended.
    let transactions = node(&base, &history, &segment("/tidewater/transactions"));
    let mut syncs = by_flusher.lock().clone().into_iter();
    let ended = |event: &Event| match event {
        Event::Synced { file, .. } if *file == transactions => !syncs.next().unwrap(),
        _ => true,
    };
    let history: Vec<_> = history.into_iter().filter(ended).collect();
    let broker = open(&fail_power(&base, &history), RARELY);
    assert_eq!(committed(&broker, 1), ["new"]);
    assert!(
        committed(&broker, 0).is_empty(),
        "one half of a transaction shows"
    );
}

/// A batch sent again is acknowledged once it is durable, not because it is known.
#[tokio::test]
async fn a_duplicate_of_what_is_not_on_disk_is_not_acknowledged() {
    let disk = MemoryDisk::new();
    let broker = open(&disk, RARELY);
    let id = broker.create_topic("t", TopicConfig::new(1)).await.unwrap().id;
    let send = |broker: Broker, base_sequence| async move {
        let sequence = crate::Sequence {
            producer_id: 3,
            epoch: 0,
            base_sequence,
        };
        let appended = broker.append_with_sequence("t", 0, one("x"), sequence).await;
        appended.map(|appended| (appended.base_offset, appended.duplicate))
    };
    assert_eq!(send(broker.clone(), 0).await.unwrap(), (0, false));
    disk.fail(move |operation, path| {
        let fails = operation == Operation::Sync && path.to_string_lossy().contains(&format!("{id}/0/"));
        fails.then(|| io::Error::from_raw_os_error(5))
    });
    for _ in 0..2 {
        let failed = send(broker.clone(), 1).await;
        assert!(
            matches!(failed, Err(crate::Error::LogFailed { .. })),
            "{failed:?}"
        );
    }
    // What was durable before is so still.
    assert_eq!(send(broker.clone(), 0).await.unwrap(), (0, true));
    disk.heal();
    drop(broker);

    let broker = open(&disk, RARELY);
    let (offset, _) = send(broker.clone(), 1).await.unwrap();
    assert_eq!(offset, 1);
    assert_eq!(send(broker.clone(), 1).await.unwrap(), (1, true));
    assert_eq!(committed(&broker, 0), ["x", "x"]);
}
