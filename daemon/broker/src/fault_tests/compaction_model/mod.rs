//! Compaction against a map: random keys, tombstones, transactions, rounds, clocks, and the power failing in the middle
//! of a round.
//!
//! The model is the list of all that was ever acknowledged, with its offset. What is read must be of it, in order and
//! at its offset; of each key the last must be there, and of what a round has read nothing else. A tombstone stays for
//! `delete.retention.ms` from the first round on that has read it, and goes with the first round after that.

mod check;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::memory_disk::{MemoryDisk, Moment};
use super::power_failure::{Kept, Replay};
use crate::batch::compression::Compression;
use crate::clock::ManualClock;
use crate::environment::Environment;
use crate::log::compaction::{Cleaned, CleanerLimits};
use crate::{
    BatchBuilder, Broker, BrokerOptions, Producer, Reader, RecoveryAction, Sequence, TopicConfig, Transaction,
};

const START: i64 = 1_700_000_000_000;
const TOMBSTONE_MS: i64 = 1_000;
const KEYS: u8 = 6;
const PRODUCERS: usize = 2;
/// A producer id nobody else gets here.
const NUMBERED: i64 = 1 << 40;

/// A key, and the size of its new value; none deletes it.
type Change = (u8, Option<u8>);

#[derive(Debug, Clone)]
enum Step {
    Put {
        changes: Vec<Change>,
        codec: usize,
    },
    /// By a producer that numbers its batches.
    Numbered(Vec<Change>),
    /// Its last batch, once more.
    Again,
    /// Begins a transaction where none is open.
    Write {
        producer: usize,
        changes: Vec<Change>,
    },
    End {
        producer: usize,
        commit: bool,
    },
    /// A round, with memory for so many keys.
    Compact {
        keys: usize,
    },
    Advance(u64),
    /// Somebody sets the clock back.
    SetBack(i64),
    /// The power fails during a round, or the process is killed.
    Fail {
        part: u8,
        kept: Option<Kept>,
        seed: u64,
    },
    Close,
    /// A reader goes on from where it was.
    Follow {
        reads: usize,
        max_bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || {
        let size = prop_oneof![1 => Just(None), 3 => (0..200_u8).prop_map(Some)];
        prop::collection::vec((0..KEYS, size), 1..4)
    };
    let producer = || 0..PRODUCERS;
    let kept = prop_oneof![Just(None), (0..4_usize).prop_map(|kept| Some(Kept::EACH[kept]))];
    prop_oneof![
        10 => (changes(), 0..5_usize).prop_map(|(changes, codec)| Step::Put { changes, codec }),
        3 => changes().prop_map(Step::Numbered),
        1 => Just(Step::Again),
        5 => (producer(), changes()).prop_map(|(producer, changes)| Step::Write { producer, changes }),
        4 => (producer(), any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        4 => prop_oneof![3..8_usize, Just(10_000)].prop_map(|keys| Step::Compact { keys }),
        3 => (0..800_u64).prop_map(Step::Advance),
        1 => (0..1_500_i64).prop_map(Step::SetBack),
        2 => (any::<u8>(), kept, any::<u64>()).prop_map(|(part, kept, seed)| Step::Fail { part, kept, seed }),
        1 => Just(Step::Close),
        3 => (0..9_usize, 1..2_000_usize).prop_map(|(reads, max_bytes)| Step::Follow { reads, max_bytes }),
    ]
}

#[derive(Debug, Clone)]
struct Row {
    key: String,
    value: Option<String>,
    timestamp: i64,
    /// Which transaction it is of.
    transaction: Option<usize>,
    /// The earliest time of a round after it was written, until one is known to have read it.
    earliest: Option<i64>,
    /// Of a tombstone: the time of the first round that is known to have read it.
    latest: Option<i64>,
}

struct Run {
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
    broker: Broker,
    producers: Vec<Option<Producer>>,
    open: Vec<Option<(Transaction, usize)>>,
    rows: BTreeMap<u64, Row>,
    /// Of each transaction, whether it was committed; `None` while it is open.
    outcomes: Vec<Option<bool>>,
    /// The last numbered batch: its changes, sequence and offset.
    numbered: Option<(Vec<Row>, i32, u64)>,
    reader: Option<Reader>,
    followed: u64,
    written: usize,
    /// The latest time at which there was a round.
    last_round: i64,
    /// The power failed in the middle of a round.
    broken_off: bool,
}

fn open(disk: &MemoryDisk, clock: &Arc<ManualClock>) -> Broker {
    let environment = Environment {
        disk: Arc::new(disk.clone()),
        clock: clock.clone(),
    };
    let options = BrokerOptions {
        segment_bytes: 900,
        checkpoint_bytes: 2_000,
        index_interval_bytes: 200,
        flush_threads: 1,
        ..BrokerOptions::new("/tidewater")
    };
    let broker = Broker::open_on(environment, options).unwrap();
    for (_, action) in broker.recovery().actions() {
        let damage = matches!(
            action,
            RecoveryAction::SegmentQuarantined { .. } | RecoveryAction::CheckpointLost { .. }
        );
        assert!(!damage, "nothing durable is damaged: {action}");
    }
    broker
}

fn batch(rows: &[Row], codec: Compression) -> BatchBuilder {
    let mut batch = BatchBuilder::new(codec);
    for row in rows {
        let value = row.value.as_ref().map(String::as_bytes);
        batch.push(row.timestamp, Some(row.key.as_bytes()), value, &[]);
    }
    batch
}

impl Run {
    async fn new() -> Self {
        let (disk, clock) = (MemoryDisk::new(), Arc::new(ManualClock::new(START)));
        let broker = open(&disk, &clock);
        let tombstones = TOMBSTONE_MS.to_string();
        let settings = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", &tombstones),
        ];
        let config = TopicConfig {
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..TopicConfig::new(1)
        };
        broker.create_topic("t", config).await.unwrap();
        Self {
            disk,
            clock,
            broker,
            producers: (0..PRODUCERS).map(|_| None).collect(),
            open: (0..PRODUCERS).map(|_| None).collect(),
            rows: BTreeMap::new(),
            outcomes: Vec::new(),
            numbered: None,
            reader: None,
            followed: 0,
            written: 0,
            last_round: i64::MIN,
            broken_off: false,
        }
    }

    fn now(&self) -> i64 {
        crate::Clock::now_ms(self.clock.as_ref())
    }

    fn end(&self) -> u64 {
        self.broker.offsets("t", 0).unwrap().end
    }

    /// Rows to write, of which no two have the same value.
    fn make(&mut self, changes: &[Change], transaction: Option<usize>) -> Vec<Row> {
        let timestamp = self.now();
        let row = |(key, size): &Change| {
            self.written += 1;
            let value = size.map(|size| format!("{}-{}", self.written, "v".repeat(size.into())));
            Row {
                key: format!("k{key}"),
                value,
                timestamp,
                transaction,
                earliest: None,
                latest: None,
            }
        };
        changes.iter().map(row).collect()
    }

    fn note(&mut self, base: u64, rows: Vec<Row>) {
        for (offset, row) in (base..).zip(rows) {
            let before = self.rows.insert(offset, row);
            let aborted = |row: Row| row.transaction.is_some_and(|t| self.outcomes[t] == Some(false));
            assert!(before.is_none_or(aborted), "offset {offset} was given out twice");
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Put { changes, codec } => {
                let rows = self.make(&changes, None);
                let batch = batch(&rows, Compression::ALL[codec]);
                let base = self.broker.append("t", 0, batch).await.unwrap();
                self.note(base, rows);
            }
            Step::Numbered(changes) => {
                let rows = self.make(&changes, None);
                let next = self
                    .numbered
                    .as_ref()
                    .map_or(0, |(rows, first, _)| first + rows.len() as i32);
                let (base, duplicate) = self.send(&rows, next).await;
                assert!(!duplicate);
                self.note(base, rows.clone());
                self.numbered = Some((rows, next, base));
            }
            Step::Again => {
                if let Some((rows, sequence, base)) = self.numbered.clone() {
                    assert_eq!(self.send(&rows, sequence).await, (base, true));
                }
            }
            Step::Write { producer, changes } => self.write(producer, &changes).await,
            Step::End { producer, commit } => self.end_transaction(producer, commit).await,
            Step::Compact { keys } => self.compact(keys).await,
            Step::Advance(ms) => self.clock.advance(Duration::from_millis(ms)),
            Step::SetBack(ms) => self.clock.set_wall_clock(self.now() - ms),
            Step::Fail { part, kept, seed } => self.fail(part, kept, seed),
            Step::Close => {
                self.broker.close().await.unwrap();
                self.open_again(self.disk.clone());
            }
            Step::Follow { reads, max_bytes } => self.follow(reads, max_bytes),
        }
    }

    async fn send(&self, rows: &[Row], base_sequence: i32) -> (u64, bool) {
        let sequence = Sequence {
            producer_id: NUMBERED,
            epoch: 0,
            base_sequence,
        };
        let batch = batch(rows, Compression::None);
        let sent = self.broker.append_with_sequence("t", 0, batch, sequence).await;
        let sent = sent.unwrap();
        (sent.base_offset, sent.duplicate)
    }

    async fn write(&mut self, producer: usize, changes: &[Change]) {
        if self.open[producer].is_none() {
            if self.producers[producer].is_none() {
                let new = self.broker.producer(&format!("p{producer}")).await.unwrap();
                self.producers[producer] = Some(new);
            }
            let begun = self.producers[producer].as_ref().unwrap().begin().unwrap();
            self.open[producer] = Some((begun, self.outcomes.len()));
            self.outcomes.push(None);
        }
        let number = self.open[producer].as_ref().unwrap().1;
        let rows = self.make(changes, Some(number));
        let base = self.end();
        let transaction = &mut self.open[producer].as_mut().unwrap().0;
        let batch = batch(&rows, Compression::Lz4);
        transaction.append("t", 0, batch).await.unwrap();
        self.note(base, rows);
    }

    async fn end_transaction(&mut self, producer: usize, commit: bool) {
        let Some((transaction, number)) = self.open[producer].take() else {
            return;
        };
        self.outcomes[number] = Some(commit);
        if commit {
            transaction.commit().await.unwrap();
        } else {
            transaction.abort().await.unwrap();
        }
    }

    /// Everything before was read by a round.
    fn cleaned(&self) -> u64 {
        self.broker.log("t", 0).unwrap().state.lock().cleaned
    }

    fn round(&mut self, keys: usize) -> Cleaned {
        let now = self.now();
        self.last_round = self.last_round.max(now);
        for row in self.rows.values_mut().filter(|row| row.latest.is_none()) {
            row.earliest = Some(row.earliest.map_or(now, |earliest| earliest.min(now)));
        }
        let stop = AtomicBool::new(false);
        let limits = CleanerLimits {
            key_bytes: keys * 24,
            stop: &stop,
        };
        self.broker.log("t", 0).unwrap().compact(limits).unwrap()
    }

    async fn compact(&mut self, keys: usize) {
        // What is not on disk yet, markers of aborted transactions above all, is not compacted.
        let log = self.broker.log("t", 0).unwrap();
        log.durable(log.end()).await.unwrap();
        let before = self.broker.offsets("t", 0).unwrap();
        self.round(keys);
        let after = self.broker.offsets("t", 0).unwrap();
        assert_eq!((before.log_start, before.end), (after.log_start, after.end));
        let (now, cleaned) = (self.now(), self.cleaned());
        let shown = self.check();
        for (offset, row) in self.rows.range_mut(..cleaned) {
            if row.value.is_some() || row.transaction.is_some_and(|t| self.outcomes[t] != Some(true)) {
                continue;
            }
            let latest = *row.latest.get_or_insert(now);
            assert!(
                latest + TOMBSTONE_MS > now || !shown.iter().any(|shown| shown.0 == *offset),
                "the tombstone at {offset} was read at {latest} and is there at {now}"
            );
        }
        let files = self.disk.files();
        assert_eq!(
            self.round(keys),
            Cleaned::default(),
            "a second round finds nothing to do"
        );
        assert_eq!(self.disk.files(), files);
    }

    /// The power fails at a moment of a round, or the process is killed then.
    fn fail(&mut self, part: u8, kept: Option<Kept>, seed: u64) {
        let begun = self.disk.now();
        self.round(5);
        let ended = self.disk.now();
        let at: Moment = begun + (ended - begun) * usize::from(part) / 255;
        let (base, history) = self.disk.history();
        let disk = if let Some(kept) = kept {
            let mut replay = Replay::new(&base, &history);
            replay.advance(at);
            replay.power_failure(kept, &mut Rng::with_seed(seed))
        } else {
            MemoryDisk::after(&base, &history[..at])
        };
        self.broken_off = true;
        self.open_again(disk);
    }

    /// Transactions that were open are aborted, by closing or by recovery.
    fn open_again(&mut self, disk: MemoryDisk) {
        for open in &mut self.open {
            if let Some((transaction, number)) = open.take() {
                self.outcomes[number] = Some(false);
                drop(transaction);
            }
        }
        self.producers.iter_mut().for_each(|producer| *producer = None);
        self.reader = None;
        self.disk = disk;
        // The other is on the disk it had, which nobody looks at any more.
        let before = std::mem::replace(&mut self.broker, open(&MemoryDisk::new(), &self.clock));
        drop(before);
        self.broker = open(&self.disk, &self.clock);
        self.check();
    }
}

fn cases(default: u32) -> u32 {
    std::env::var("TIDEWATER_MODEL_CASES").map_or(default, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(40), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_is_a_map(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in steps {
                run.step(step).await;
            }
            run.check();
            run.compact(10_000).await;
        });
    }
}
