//! What the broker is asked to do while the disk is watched: a bit of everything, noted in the [`Ledger`].

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

use super::crash_ledger::{
    Append, Claim, GROUP, GroupOffset, Ledger, OS, Part, Place, Seen, TopicLife, Transaction, group,
};
use super::crash_registers::{Register, VISITORS};
use super::memory_disk::{MemoryDisk, Moment};
use crate::log::producers::KEPT;
use crate::{BatchBuilder, Broker, Compression, Error, Result, Sequence, TopicConfig};

const PARTITIONS: u32 = 3;
/// Producer ids nobody else gets here.
const NUMBERED: i64 = 1 << 40;

/// The workload and what it notes.
pub(super) struct Workload {
    pub(super) disk: MemoryDisk,
    pub(super) broker: Broker,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    /// Values are told apart by it.
    pub(super) generation: u32,
    pub(super) seed: u64,
    /// What the disk does to the broker's calls, if it does not work well.
    pub(super) failures: Option<Failures>,
}

/// Errors that were met.
#[derive(Default)]
pub(super) struct Failures {
    pub(super) met: Mutex<Vec<Error>>,
    /// Logs that said they had stopped.
    stopped: Mutex<HashSet<Place>>,
}

impl Workload {
    /// Runs `steps` steps of each of its writers, which take turns.
    pub(super) async fn run(&self, steps: usize) {
        if self.broker.topic("t").is_none() {
            self.create("t", TopicConfig::new(PARTITIONS)).await;
        }
        if self.broker.topic(OS).is_none() {
            let mut config = TopicConfig::new(1);
            config.settings.insert("durability".to_owned(), "os".to_owned());
            self.create(OS, config).await;
        }
        tokio::join!(
            self.transactions(0, steps),
            self.transactions(1, steps),
            self.appends(steps),
            self.topics(steps / 4),
            self.offsets(steps),
            self.numbered(steps),
            self.to_the_system(steps),
            self.keys(steps),
            self.grow(steps / 8),
            self.come_again(steps / 8),
        );
    }

    /// The result, if there is one; errors are for a disk that fails.
    pub(super) fn ok<T>(&self, result: Result<T>) -> Option<T> {
        match (result, &self.failures) {
            (Ok(value), _) => Some(value),
            (Err(e), Some(failures)) => {
                failures.met.lock().push(e);
                None
            }
            (Err(e), None) => panic!("{e}"),
        }
    }

    /// Whether a log is known to have stopped.
    fn has_stopped(&self, place: &Place) -> bool {
        let failures = self.failures.as_ref();
        failures.is_some_and(|failures| failures.stopped.lock().contains(place))
    }

    /// As [`ok`](Self::ok), of a write to a log: one that had `stopped` when it was begun stays so.
    fn written<T>(&self, place: &Place, stopped: bool, result: Result<T>) -> Option<T> {
        assert!(!stopped || result.is_err(), "{place:?} had stopped");
        if let (Some(failures), Err(Error::LogFailed { .. })) = (&self.failures, &result) {
            failures.stopped.lock().insert(place.clone());
        }
        self.ok(result)
    }

    pub(super) fn now(&self) -> Moment {
        self.disk.now()
    }

    pub(super) fn random(&self, part: u64) -> Rng {
        Rng::with_seed(self.seed.wrapping_mul(31).wrapping_add(part))
    }

    /// Values that no other has, mostly short, at times of several pages.
    pub(super) fn values(&self, name: &str, random: &mut Rng) -> Vec<String> {
        let count = random.usize(1..4);
        let size = if random.u32(..8) == 0 { 5_000 } else { 200 };
        let generation = self.generation;
        (0..count)
            .map(|i| format!("{generation} {name}.{i}|{}", "x".repeat(random.usize(..size))))
            .collect()
    }

    pub(super) async fn create(&self, name: &str, config: TopicConfig) {
        let life = TopicLife {
            created: Claim::begun(self.now()),
            deleted: None,
        };
        self.ledger.lock().topics.insert(name.to_owned(), life);
        let created = self.broker.create_topic(name, config).await;
        if self.ok(created).is_none() {
            return;
        }
        let now = self.now();
        let mut ledger = self.ledger.lock();
        ledger.topics.get_mut(name).unwrap().created.acknowledged = Some(now);
    }

    /// Appends a batch outside transactions.
    pub(super) async fn append(&self, place: Place, values: Vec<String>) {
        let index = self.note(&place, &values, None);
        let stopped = self.has_stopped(&place);
        let appended = self.broker.append(&place.0, place.1, batch(&values)).await;
        if let Some(base) = self.written(&place, stopped, appended) {
            self.acknowledge(index, base);
        }
    }

    fn note(&self, place: &Place, values: &[String], sequence: Option<Sequence>) -> usize {
        let claim = Claim::begun(self.now());
        let mut ledger = self.ledger.lock();
        ledger.appends.push(Append {
            place: place.clone(),
            values: values.to_vec(),
            base: 0,
            sequence,
            claim,
        });
        ledger.appends.len() - 1
    }

    fn acknowledge(&self, index: usize, base: u64) {
        let now = self.now();
        let entry = &mut self.ledger.lock().appends[index];
        entry.base = base;
        entry.claim.acknowledged = Some(now);
    }

    /// Numbered batches, some sent twice at once.
    async fn numbered(&self, steps: usize) {
        let mut random = self.random(102);
        let mut next = [0; PARTITIONS as usize];
        for step in 0..steps {
            let partition = random.u32(..PARTITIONS);
            let place = ("t".to_owned(), partition);
            let values = self.values(&format!("n{step}"), &mut random);
            let base_sequence = &mut next[partition as usize];
            let sequence = Sequence {
                producer_id: NUMBERED + i64::from(self.generation),
                epoch: 0,
                base_sequence: *base_sequence,
            };
            let index = self.note(&place, &values, Some(sequence));
            let stopped = self.has_stopped(&place);
            let send = || {
                self.broker
                    .append_with_sequence("t", partition, batch(&values), sequence)
            };
            let sent = if random.u32(..3) == 0 {
                let (one, two) = tokio::join!(send(), send());
                if let (Ok(one), Ok(two)) = (&one, &two) {
                    assert!(one.base_offset == two.base_offset && one.duplicate != two.duplicate);
                }
                one
            } else {
                send().await
            };
            // One whose fate is not known would be sent until it is.
            let Some(sent) = self.written(&place, stopped, sent) else {
                return;
            };
            *base_sequence += values.len() as i32;
            self.acknowledge(index, sent.base_offset);
        }
    }

    /// Sends the last numbered batches again: those that are there are not written twice, others are written.
    pub(super) async fn send_again(&self) {
        let ledger = self.ledger.lock().clone();
        let numbered = |append: &&Append| append.sequence.is_some() && append.place.0 == "t";
        let mut by_partition: BTreeMap<(u32, i64), Vec<(Append, bool)>> = BTreeMap::new();
        let there = ledger.appends.iter().map(|append| (append, true));
        for (append, there) in there.chain(ledger.lost.iter().map(|append| (append, false))) {
            if numbered(&append) {
                let id = append.sequence.map_or(0, |sequence| sequence.producer_id);
                let of = by_partition.entry((append.place.1, id)).or_default();
                of.push((append.clone(), there));
            }
        }
        for ((partition, _), mut batches) in by_partition {
            batches.sort_by_key(|(append, _)| append.sequence.map(|sequence| sequence.base_sequence));
            let kept = batches
                .iter()
                .filter(|(_, there)| *there)
                .count()
                .saturating_sub(KEPT);
            for (append, there) in batches.split_off(kept) {
                let Some(sequence) = append.sequence else { continue };
                let index = (!there).then(|| self.note(&append.place, &append.values, append.sequence));
                let batch = batch(&append.values);
                let sent = self
                    .broker
                    .append_with_sequence("t", partition, batch, sequence)
                    .await;
                let sent = sent.unwrap();
                assert_eq!(sent.duplicate, there, "{sequence:?} of {partition} sent again");
                if let Some(index) = index {
                    let mut ledger = self.ledger.lock();
                    ledger.gone.retain(|(value, _)| !append.values.contains(value));
                    ledger.lost.retain(|lost| lost.values != append.values);
                    drop(ledger);
                    self.acknowledge(index, sent.base_offset);
                } else {
                    assert_eq!(
                        sent.base_offset, append.base,
                        "{sequence:?} of {partition} sent again"
                    );
                }
            }
        }
    }

    /// Appends that are acknowledged once the system has them.
    async fn to_the_system(&self, steps: usize) {
        let mut random = self.random(103);
        for step in 0..steps {
            let values = self.values(&format!("o{step}"), &mut random);
            self.append((OS.to_owned(), 0), values).await;
            // Nothing to wait for: others have their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Transactions over some partitions and the writer's offset; some are aborted, some fenced by a new instance.
    async fn transactions(&self, writer: u32, steps: usize) {
        let mut random = self.random(u64::from(writer));
        let id = format!("w{writer}");
        let Some(mut producer) = self.ok(self.broker.producer(&id).await) else {
            return;
        };
        let key = ("source".to_owned(), 0);
        let first = self
            .broker
            .group_offsets(&group(writer))
            .get(&key)
            .map_or(1, |last| last + 1);
        // Numbers that were begun and came to nothing are not used again.
        let first = first + u64::from(self.generation) * 1_000_000;
        for number in first..first + steps as u64 {
            let Some(mut transaction) = self.ok(producer.begin()) else {
                return;
            };
            let mut parts = Vec::new();
            for batch_number in 0..random.u32(1..6) {
                let partition = random.u32(..PARTITIONS);
                let values = self.values(&format!("t{writer}-{number}-{batch_number}"), &mut random);
                let appended = transaction.append("t", partition, batch(&values)).await;
                if self.ok(appended).is_some() {
                    let place = ("t".to_owned(), partition);
                    parts.push(Part {
                        place,
                        values,
                        base: None,
                    });
                }
                if random.bool() {
                    tokio::task::yield_now().await;
                }
            }
            let offset = [("source", 0, number)];
            let offset = transaction.commit_group_offsets(&group(writer), &offset).await;
            // Without its offset the transaction is not what the ledger takes it for.
            let way = if self.ok(offset).is_some() {
                random.u32(..8)
            } else {
                0
            };
            let claim = (way > 1).then(|| Claim::begun(self.now()));
            let index = {
                let mut ledger = self.ledger.lock();
                ledger.transactions.push(Transaction {
                    writer,
                    number,
                    parts,
                    claim,
                });
                ledger.transactions.len() - 1
            };
            match way {
                0 => transaction.abort().await.unwrap(),
                1 => {
                    let next = self.ok(self.broker.producer(&id).await);
                    transaction.commit().await.unwrap_err();
                    let Some(next) = next else { return };
                    producer = next;
                }
                _ => {
                    let Some(committed) = self.ok(transaction.commit().await) else {
                        continue;
                    };
                    let now = self.now();
                    let entry = &mut self.ledger.lock().transactions[index];
                    for place in committed.partitions {
                        let first = |part: &&mut Part| part.place == (place.topic.clone(), place.partition);
                        entry.parts.iter_mut().find(first).unwrap().base = Some(place.base_offset);
                    }
                    entry.claim.as_mut().unwrap().acknowledged = Some(now);
                }
            }
        }
    }

    /// Appends, some at once; and looks at what readers are told.
    async fn appends(&self, steps: usize) {
        let mut random = self.random(100);
        for step in 0..steps {
            let partition = random.u32(..PARTITIONS);
            let place = ("t".to_owned(), partition);
            let one = self.append(place.clone(), self.values(&format!("a{step}"), &mut random));
            if random.bool() {
                let other = ("t".to_owned(), random.u32(..PARTITIONS));
                let two = self.append(other, self.values(&format!("b{step}"), &mut random));
                tokio::join!(one, two);
            } else {
                one.await;
            }
            let Ok(offsets) = self.broker.offsets(&place.0, place.1) else {
                continue;
            };
            let seen = Seen {
                place,
                high_watermark: offsets.high_watermark,
                last_stable: offsets.last_stable,
                at: self.now(),
            };
            self.ledger.lock().seen.push(seen);
        }
    }

    /// Topics that come, take records, and go.
    async fn topics(&self, steps: usize) {
        let mut random = self.random(101);
        for step in 0..steps {
            let name = format!("topic-{}-{step}", self.generation);
            self.create(&name, TopicConfig::new(1 + random.u32(..3))).await;
            for i in 0..random.u32(..3) {
                let values = self.values(&format!("{name}-{i}"), &mut random);
                self.append((name.clone(), 0), values).await;
            }
            // Where the disk fails it may not have come.
            if random.bool() && self.broker.topic(&name).is_some() {
                let offset = [(name.as_str(), 0, 7)];
                let register = Register::Offset(name.clone());
                let commit = self.broker.commit_group_offsets(VISITORS, &offset);
                self.set(register, Some("7".to_owned()), commit).await;
            }
            if random.bool() {
                let claim = Claim::begun(self.now());
                self.ledger.lock().topics.get_mut(&name).unwrap().deleted = Some(claim);
                if self.ok(self.broker.delete_topic(&name).await).is_none() {
                    continue;
                }
                let claim = Claim {
                    acknowledged: Some(self.now()),
                    ..claim
                };
                self.ledger.lock().topics.get_mut(&name).unwrap().deleted = Some(claim);
            }
        }
    }

    /// Group offsets outside transactions.
    async fn offsets(&self, steps: usize) {
        for step in 0..steps {
            let next = u64::from(self.generation) * 1_000_000 + step as u64;
            let index = {
                let claim = Claim::begun(self.now());
                let mut ledger = self.ledger.lock();
                ledger.offsets.push(GroupOffset { next, claim });
                ledger.offsets.len() - 1
            };
            let offsets = [("outside", 0, next)];
            let committed = self.broker.commit_group_offsets(GROUP, &offsets).await;
            if self.ok(committed).is_none() {
                continue;
            }
            let now = self.now();
            self.ledger.lock().offsets[index].claim.acknowledged = Some(now);
        }
    }
}

pub(super) fn batch(values: &[String]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for value in values {
        batch.push(1, None, Some(value.as_bytes()), &[]);
    }
    batch
}
