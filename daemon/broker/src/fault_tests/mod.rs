//! What only shows when the disk fails or the power goes: syncs that fail, and every legal state of the files after a
//! power failure. The function that syncs a file is replaced by one that fails or keeps a record; all else is real.

mod watched_disk;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::watched_disk::{SyncHook, WatchedDisk};
use crate::disk::DiskFile;
use crate::{
    BatchBuilder, Broker, BrokerOptions, Committed, Compression, Error, Isolation, RecoveryAction, Start,
    TopicConfig,
};

const PARTITIONS: u32 = 3;
const WRITERS: u32 = 3;

fn batch(values: &[String]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for value in values {
        batch.push(1, None, Some(value.as_bytes()), &[]);
    }
    batch
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

/// Fails the syncs of the files whose path contains what is set.
#[derive(Clone, Default)]
struct FailingDisk(Arc<Mutex<Option<String>>>);

impl FailingDisk {
    fn sync(&self) -> SyncHook {
        let failing = Arc::clone(&self.0);
        Arc::new(move |file: &dyn DiskFile, path: &Path| {
            let fails = failing
                .lock()
                .as_ref()
                .is_some_and(|part| path.to_string_lossy().contains(part));
            if fails {
                Err(io::Error::from_raw_os_error(5))
            } else {
                file.sync_data()
            }
        })
    }

    fn fail(&self, part: &str) {
        *self.0.lock() = Some(part.to_owned());
    }
}

#[tokio::test]
async fn a_log_whose_sync_failed_stops_and_the_transaction_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let broker = Broker::open_on(Arc::new(WatchedDisk(disk.sync())), BrokerOptions::new(dir.path())).unwrap();
    let id = broker.create_topic("t", TopicConfig::new(2)).await.unwrap().id;
    let producer = broker.producer("p").await.unwrap();
    broker.append("t", 0, one("before")).await.unwrap();

    disk.fail(&format!("{id}/0/"));
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, one("x")).await.unwrap();
    transaction.append("t", 1, one("y")).await.unwrap();
    transaction
        .commit_group_offsets("g", &[("s", 0, 1)])
        .await
        .unwrap();
    let failed = transaction.commit().await;
    assert!(matches!(failed, Err(Error::LogFailed { .. })), "{failed:?}");
    disk.0.lock().take();

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
    let broker = Broker::open(BrokerOptions::new(dir.path())).unwrap();
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
    let dir = tempfile::tempdir().unwrap();
    let disk = FailingDisk::default();
    let broker = Broker::open_on(Arc::new(WatchedDisk(disk.sync())), BrokerOptions::new(dir.path())).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let producer = broker.producer("p").await.unwrap();

    disk.fail("/transactions/");
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
    let broker = Broker::open(BrokerOptions::new(dir.path())).unwrap();
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

/// Remembers how much of each file is on disk; the rest may be there after a power failure, or not, or in pieces.
struct Disk {
    synced: Mutex<HashMap<PathBuf, u64>>,
    /// Held for writing while the power fails: no sync completes then.
    power: RwLock<()>,
}

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            synced: Mutex::default(),
            power: RwLock::new(()),
        })
    }

    fn sync(self: &Arc<Self>) -> SyncHook {
        let disk = Arc::clone(self);
        Arc::new(move |file: &dyn DiskFile, path: &Path| {
            let length = file.size()?;
            // Others write and sync meanwhile.
            std::thread::yield_now();
            let _power = disk.power.read();
            if path.extension().is_some_and(|extension| extension == "log") {
                disk.synced.lock().insert(path.to_owned(), length);
            }
            Ok(())
        })
    }

    /// Copies the files as a power failure right now could leave them.
    fn power_failure(&self, from: &Path, to: &Path, random: &mut Random) {
        let _power = self.power.write();
        let synced = self.synced.lock().clone();
        self.copy(from, to, &synced, random);
    }

    #[expect(clippy::self_only_used_in_recursion, reason = "the copy belongs to the disk")]
    fn copy(&self, from: &Path, to: &Path, synced: &HashMap<PathBuf, u64>, random: &mut Random) {
        fs::create_dir_all(to).unwrap();
        let mut entries: Vec<_> = fs::read_dir(from)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        // Checkpoints last: they speak of the segments, and are replaced after those were synced.
        entries.sort_by_key(|path| path.file_name().is_some_and(|name| name == "checkpoint"));
        for path in entries {
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                self.copy(&path, &target, synced, random);
                continue;
            }
            // Temporary and removed files may go while this looks.
            let Ok(mut bytes) = fs::read(&path) else { continue };
            if path.extension().is_some_and(|extension| extension == "log") {
                tear(
                    &mut bytes,
                    synced.get(&path).copied().unwrap_or(0) as usize,
                    random,
                );
            }
            fs::write(&target, bytes).unwrap();
        }
    }
}

/// What a power failure may make of the bytes from `synced` on.
fn tear(bytes: &mut Vec<u8>, synced: usize, random: &mut Random) {
    assert!(synced <= bytes.len(), "a file never loses synced bytes");
    let unsynced = (bytes.len() - synced) as u64;
    if unsynced == 0 {
        return;
    }
    let at = synced + random.below(unsynced + 1) as usize;
    match random.below(4) {
        // The file did not grow that far.
        0 | 1 => bytes.truncate(at),
        // It grew, but the data were not written.
        2 => bytes[at..].fill(0),
        // A part of it was not written, although what comes after was.
        _ => {
            let end = bytes.len().min(at + 200);
            bytes[at..end].fill(0);
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
struct Ledger {
    /// By partition and offset.
    records: BTreeMap<(u32, u64), String>,
    /// How many transactions of each writer.
    transactions: HashMap<u32, u64>,
    /// How many records the last attempt at a transaction had, by writer and number.
    attempts: HashMap<(u32, u64), u32>,
}

/// Counts acknowledged transactions.
#[derive(Default)]
struct Acknowledged {
    count: AtomicU64,
    more: Notify,
}

/// Writes transactions until told to stop: each has records in some partitions that say how many there are in all, and
/// the writer's number of it as a group offset.
async fn write(
    broker: Broker,
    ledger: Arc<Mutex<Ledger>>,
    writer: u32,
    seed: u64,
    acks: Arc<Acknowledged>,
    stop: Arc<AtomicBool>,
) {
    let mut random = Random(seed | 1);
    let producer = broker.producer(&format!("w{writer}")).await.unwrap();
    let group = format!("g{writer}");
    let first = broker
        .group_offsets(&group)
        .get(&("s".to_owned(), 0))
        .copied()
        .unwrap_or(0);
    let mut number = first;
    while !stop.load(Ordering::SeqCst) {
        let mut transaction = producer.begin().unwrap();
        let used: Vec<u32> = (0..PARTITIONS).filter(|_| random.below(3) > 0).collect();
        let per = 1 + random.below(3) as u32;
        let total = used.len() as u32 * per;
        let aborts = random.below(5) == 0;
        let mut sent: Vec<(u32, Vec<String>)> = Vec::new();
        for partition in used {
            let pad = "x".repeat(random.below(150) as usize);
            let kind = if aborts { "aborted" } else { "t" };
            let value = |i| format!("{kind} {writer} {number} {total} {partition}.{i} {pad}");
            let values: Vec<_> = (0..per).map(value).collect();
            transaction.append("t", partition, batch(&values)).await.unwrap();
            sent.push((partition, values));
        }
        transaction
            .commit_group_offsets(&group, &[("s", 0, number + 1)])
            .await
            .unwrap();
        if aborts {
            transaction.abort().await.unwrap();
            continue;
        }
        ledger.lock().attempts.insert((writer, number), total);
        let committed = transaction.commit().await.unwrap();
        number += 1;
        ledger.lock().acknowledge(writer, number, sent, &committed);
        acks.count.fetch_add(1, Ordering::SeqCst);
        acks.more.notify_one();
        // Now and then something outside transactions.
        if random.below(4) == 0 {
            let partition = random.below(u64::from(PARTITIONS)) as u32;
            broker.append("t", partition, one("plain")).await.unwrap();
        }
    }
}

impl Ledger {
    fn acknowledge(&mut self, writer: u32, transactions: u64, sent: Vec<(u32, Vec<String>)>, at: &Committed) {
        for (partition, values) in sent {
            let place = at.partitions.iter().find(|p| p.partition == partition).unwrap();
            for (offset, value) in (place.base_offset..).zip(values) {
                self.records.insert((partition, offset), value);
            }
        }
        self.transactions.insert(writer, transactions);
    }
}

/// All acknowledged is there, transactions are whole, nothing aborted shows, and the offsets match the records.
fn check(broker: &Broker, ledger: &mut Ledger) {
    let mut seen: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    let mut totals = HashMap::new();
    let mut all = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for (offset, value) in committed(broker, partition) {
            all.insert((partition, offset), value.clone());
            if value == "plain" {
                continue;
            }
            let fields: Vec<_> = value.split(' ').collect();
            assert_eq!(fields[0], "t", "an aborted record shows: {value}");
            let key = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
            *seen.entry(key).or_default() += 1;
            totals.insert(key, fields[3].parse::<u32>().unwrap());
        }
    }
    for (place, value) in &ledger.records {
        assert_eq!(all.get(place), Some(value), "an acknowledged record at {place:?}");
    }
    for (key, count) in &seen {
        assert_eq!(
            *count, totals[key],
            "transaction {key:?} is whole, and there once"
        );
    }
    for writer in 0..WRITERS {
        let next = broker
            .group_offsets(&format!("g{writer}"))
            .get(&("s".to_owned(), 0))
            .copied()
            .unwrap_or(0);
        let acknowledged = ledger.transactions.get(&writer).copied().unwrap_or(0);
        assert!(next >= acknowledged, "{next} after {acknowledged}");
        // The offset is neither ahead of the records nor behind them.
        for number in 0..next {
            let expected = ledger.attempts[&(writer, number)];
            assert_eq!(
                seen.get(&(writer, number)).copied().unwrap_or(0),
                expected,
                "{writer} {number} of {next}"
            );
        }
        let last_seen = seen
            .keys()
            .filter(|(w, _)| *w == writer)
            .map(|(_, n)| n + 1)
            .max()
            .unwrap_or(0);
        assert!(
            last_seen <= next,
            "transaction {last_seen} of writer {writer} shows, its offset is {next}"
        );
        ledger.transactions.insert(writer, next);
    }
    ledger.records = all;
    ledger.records.retain(|_, value| value != "plain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_power_failure_at_any_moment_loses_nothing_acknowledged_and_tears_no_transaction() {
    let root = tempfile::tempdir().unwrap();
    let mut random = Random(0x5eed);
    let mut ledger = Ledger::default();
    let options = |round: u32| BrokerOptions {
        segment_bytes: 3000,
        checkpoint_bytes: 2000,
        index_interval_bytes: 300,
        ..BrokerOptions::new(root.path().join(round.to_string()))
    };
    let (mut cuts, mut completed, mut aborted) = (0, 0, 0);
    for round in 0..25 {
        let disk = Disk::new();
        let dir = options(round).data_dir;
        let broker = Broker::open_on(Arc::new(WatchedDisk(disk.sync())), options(round)).unwrap();
        for (_, action) in broker.recovery().actions() {
            match action {
                RecoveryAction::TailCut { .. } => cuts += 1,
                RecoveryAction::TransactionCommitted { .. } => completed += 1,
                RecoveryAction::TransactionAborted { .. } => aborted += 1,
                RecoveryAction::SegmentRemoved { .. } => {}
                other => panic!("nothing durable is damaged: {other}"),
            }
        }
        if round == 0 {
            broker
                .create_topic("t", TopicConfig::new(PARTITIONS))
                .await
                .unwrap();
        }
        check(&broker, &mut ledger);
        // The files as they are now are the state of the disk to begin with.
        note_lengths(&dir, &mut disk.synced.lock());

        let shared = Arc::new(Mutex::new(ledger));
        let (acks, stop) = (
            Arc::new(Acknowledged::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (broker, shared, acks, stop) = (
                broker.clone(),
                Arc::clone(&shared),
                Arc::clone(&acks),
                Arc::clone(&stop),
            );
            let seed = random.below(1 << 40);
            writers.push(tokio::spawn(write(broker, shared, writer, seed, acks, stop)));
        }
        let enough = 1 + random.below(60);
        while acks.count.load(Ordering::SeqCst) < enough {
            acks.more.notified().await;
        }
        // What is acknowledged up to here must survive.
        let acknowledged = shared.lock().clone();
        disk.power_failure(&dir, &options(round + 1).data_dir, &mut random);
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
        drop(broker);
        fs::remove_dir_all(&dir).unwrap();
        ledger = acknowledged;
        ledger.attempts.clone_from(&shared.lock().attempts);
    }
    assert!(
        cuts > 0 && completed > 0 && aborted > 0,
        "{cuts} cuts, {completed} completed, {aborted} aborted"
    );
}

fn note_lengths(dir: &Path, synced: &mut HashMap<PathBuf, u64>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            note_lengths(&path, synced);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let length = fs::metadata(&path).unwrap().len();
            synced.entry(path).or_insert(length);
        }
    }
}
