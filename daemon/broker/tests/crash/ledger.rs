//! The ledger kept outside the process that is killed, and holding a directory against it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidewater_broker::{Broker, Isolation, RecoveryAction, Start};
use uuid::Uuid;

use crate::hash;
use crate::process::{NUMBERED, VISITOR, WRITERS, numbered_values};
use crate::shown::Shown;
use crate::support::Random;

/// Partition of a topic, by the topic's id.
type Place = (Uuid, u32);

/// How much was proven.
#[derive(Debug, Default)]
pub struct Totals {
    acknowledged_records: u64,
    transactions: u64,
    numbered_batches: u64,
    sent_again: u64,
    key_changes: u64,
    group_offsets: u64,
    topics: u64,
    opened_again: u64,
    tails_cut: u64,
    committed_by_recovery: u64,
    aborted_by_recovery: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.acknowledged_records += other.acknowledged_records;
        self.transactions += other.transactions;
        self.numbered_batches += other.numbered_batches;
        self.sent_again += other.sent_again;
        self.key_changes += other.key_changes;
        self.group_offsets += other.group_offsets;
        self.topics += other.topics;
        self.opened_again += other.opened_again;
        self.tails_cut += other.tails_cut;
        self.committed_by_recovery += other.committed_by_recovery;
        self.aborted_by_recovery += other.aborted_by_recovery;
    }

    /// Whether enough went on for the test to mean something.
    pub fn plausible(&self, rounds: u64) -> bool {
        self.acknowledged_records > 20 * rounds
            && self.transactions > rounds
            && self.numbered_batches > rounds
            && self.sent_again > 0
            && self.key_changes > rounds
            && self.group_offsets > rounds
            && self.topics > 0
    }
}

/// A value that is set over and over: the last that was acknowledged, and those tried since.
#[derive(Debug)]
struct Register<T> {
    holds: Option<T>,
    tried: Vec<T>,
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self {
            holds: None,
            tried: Vec::new(),
        }
    }
}

impl<T: PartialEq + std::fmt::Debug + Copy> Register<T> {
    fn acknowledge(&mut self, value: T) {
        self.holds = Some(value);
        self.tried.clear();
    }

    /// What is found is decided from now on.
    fn check(&mut self, found: Option<T>, what: &str) {
        let possible = found == self.holds || found.is_some_and(|found| self.tried.contains(&found));
        assert!(possible, "{what} is {found:?}, and not as in {self:?}");
        self.holds = found;
        self.tried.clear();
    }
}

#[derive(Debug, Default)]
struct Topic {
    partitions: Register<u32>,
    setting: Register<u64>,
    deleting: bool,
}

/// A numbered producer: its id, and where the batches are that were acknowledged.
#[derive(Debug, Default)]
struct Numbered {
    id: Option<i64>,
    sent: BTreeMap<u64, u64>,
}

impl Numbered {
    /// The first batch that was not acknowledged.
    fn next(&self) -> u64 {
        let in_order = (0..).zip(self.sent.keys());
        in_order.take_while(|(n, sent)| n == *sent).count() as u64
    }
}

/// What may be the last of a key: the offset and hash that was acknowledged, and what was tried since.
#[derive(Debug, Default)]
struct Key {
    at: Option<u64>,
    value: Option<u64>,
    tried: Vec<Option<u64>>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// Hashes of records that were acknowledged or seen.
    records: BTreeMap<(Place, u64), u64>,
    /// How many transactions of a writer were acknowledged.
    transactions: HashMap<u64, u64>,
    numbered: HashMap<u64, Numbered>,
    keys: HashMap<String, Key>,
    group_offset: Register<u64>,
    topics: BTreeMap<Uuid, Topic>,
    /// A topic may be there whose id was not said.
    creating: bool,
    /// The process has come to opening the directory.
    pub opening: bool,
    /// How many processes were killed since the last check.
    pub kills: u64,
    pub totals: Totals,
}

pub fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

impl Ledger {
    pub fn created(&mut self, id: Uuid, partitions: u32) {
        self.topics
            .entry(id)
            .or_default()
            .partitions
            .acknowledge(partitions);
        self.creating = false;
    }

    /// What the next process needs to know of each numbered producer: its id and the batch it goes on with.
    pub fn numbered_state(&self) -> String {
        let state = |writer| {
            let numbered = self.numbered.get(&writer);
            let known = numbered.and_then(|n| Some(format!("{}:{}", n.id?, n.next())));
            known.unwrap_or_else(|| "new".to_owned())
        };
        (0..NUMBERED).map(state).collect::<Vec<_>>().join(" ")
    }

    /// Takes in a line; answers whether it acknowledges something.
    pub fn note(&mut self, line: &str) -> bool {
        let fields: Vec<_> = line.split(' ').collect();
        match fields[..] {
            ["opening"] => self.opening = true,
            ["batch", topic, partition, base, ref hashes @ ..] => {
                let place = (number(topic), number(partition));
                for (offset, hash) in (number(base)..).zip(hashes) {
                    let before = self.records.insert((place, offset), number(hash));
                    assert_eq!(before, None, "offset {offset} of {place:?} was given out twice");
                }
                self.totals.acknowledged_records += hashes.len() as u64;
                return true;
            }
            ["transaction", writer, count] => {
                self.transactions.insert(number(writer), number(count));
                self.totals.transactions += 1;
                return true;
            }
            ["numbering", writer, id] => {
                self.numbered.entry(number(writer)).or_default().id = Some(number(id));
            }
            ["sent", writer, n, base, duplicate] => {
                let (n, base) = (number(n), number(base));
                let numbered = self.numbered.entry(number(writer)).or_default();
                let before = numbered.sent.insert(n, base);
                assert!(before.is_none_or(|before| before == base), "batch {n} has moved");
                self.totals.numbered_batches += 1;
                self.totals.sent_again += u64::from(duplicate == "true");
                return true;
            }
            ["keying", key, value] => {
                let value = (value != "-").then(|| number(value));
                self.keys.entry(key.to_owned()).or_default().tried.push(value);
            }
            ["keyed", key, offset] => {
                let key = self.keys.get_mut(key).unwrap();
                key.at = Some(number(offset));
                key.value = key.tried.pop().unwrap();
                key.tried.clear();
                self.totals.key_changes += 1;
                return true;
            }
            ["committing", next] => self.group_offset.tried.push(number(next)),
            ["committed", next] => {
                self.group_offset.acknowledge(number(next));
                self.totals.group_offsets += 1;
                return true;
            }
            _ => return self.note_topic(&fields),
        }
        false
    }

    fn note_topic(&mut self, fields: &[&str]) -> bool {
        match *fields {
            ["creating"] => self.creating = true,
            ["created", id, partitions] => {
                self.created(number(id), number(partitions));
                self.totals.topics += 1;
                return true;
            }
            ["found", id, partitions] => {
                let id = number(id);
                if let Some(known) = self.topics.get_mut(&id) {
                    known.deleting = false;
                } else {
                    assert!(self.creating, "topic {id} is invented");
                    self.created(id, number(partitions));
                }
            }
            ["growing", id, total] => self.topic(id).partitions.tried.push(number(total)),
            ["grown", id, total] => {
                self.topic(id).partitions.acknowledge(number(total));
                return true;
            }
            ["altering", id, value] => self.topic(id).setting.tried.push(number(value)),
            ["altered", id, value] => {
                self.topic(id).setting.acknowledge(number(value));
                return true;
            }
            ["deleting", id] => self.topic(id).deleting = true,
            ["deleted", id] => {
                let id: Uuid = number(id);
                self.topics.remove(&id);
                self.records.retain(|((topic, _), _), _| *topic != id);
                return true;
            }
            // What the test harness prints.
            _ => {}
        }
        false
    }

    fn topic(&mut self, id: &str) -> &mut Topic {
        self.topics.entry(number(id)).or_default()
    }

    pub fn note_recovery(&mut self, broker: &Broker) {
        self.totals.opened_again += 1;
        for (partition, action) in broker.recovery().actions() {
            match action {
                RecoveryAction::TailCut { .. } => self.totals.tails_cut += 1,
                RecoveryAction::TransactionCommitted { .. } => self.totals.committed_by_recovery += 1,
                RecoveryAction::TransactionAborted { .. } => self.totals.aborted_by_recovery += 1,
                RecoveryAction::SegmentRemoved { .. } => {}
                // A process that dies damages nothing that was whole.
                action => panic!("{partition:?}: {action}"),
            }
        }
    }

    /// Holds what is there against what was said; takes over what was done without having been said.
    pub fn check(&mut self, broker: &Broker, random: &mut Random) {
        self.check_topics(broker);
        let mut shown = Shown::default();
        for topic in broker.topics() {
            if topic.name.starts_with("__") || topic.name == "keyed" {
                continue;
            }
            for partition in 0..topic.partitions {
                self.check_partition(broker, &topic.name, (topic.id, partition), &mut shown);
            }
        }
        for (batch, (found, count)) in &shown.batches {
            assert_eq!(found, count, "batch {batch} is whole, and there once");
        }
        self.check_numbered(broker, &shown);
        self.check_transactions(broker, &shown);
        self.check_keys(broker, random);
        let place = ("source".to_owned(), 0);
        let offset = broker.group_offsets("plain").get(&place).copied();
        self.group_offset.check(offset, "the group's offset");
    }

    fn check_topics(&mut self, broker: &Broker) {
        let there = broker.topics();
        let ids: BTreeSet<_> = there.iter().map(|topic| topic.id).collect();
        for (id, topic) in &self.topics {
            assert!(ids.contains(id) || topic.deleting, "topic {id} is lost");
        }
        self.topics.retain(|id, _| ids.contains(id));
        self.records
            .retain(|((topic, _), _), _| self.topics.contains_key(topic));
        for topic in there.iter().filter(|topic| !topic.name.starts_with("__")) {
            let known = self.topics.entry(topic.id).or_insert_with(|| {
                assert!(
                    self.creating && topic.name == VISITOR,
                    "{} is invented",
                    topic.name
                );
                Topic {
                    partitions: Register {
                        holds: Some(topic.partitions),
                        tried: Vec::new(),
                    },
                    ..Topic::default()
                }
            });
            known.deleting = false;
            known.partitions.check(Some(topic.partitions), &topic.name);
            let setting = topic
                .settings
                .get("index.interval.bytes")
                .map(|value| number(value));
            known.setting.check(setting, &topic.name);
        }
        self.creating = false;
        if broker.topic(VISITOR).is_none() {
            assert!(
                broker.group_offsets("visitors").is_empty(),
                "offsets of a topic that is gone"
            );
        }
    }

    fn check_partition(&mut self, broker: &Broker, topic: &str, place: Place, shown: &mut Shown) {
        let mut acknowledged: BTreeMap<u64, u64> = self
            .records
            .range((place, 0)..=(place, u64::MAX))
            .map(|((_, offset), hash)| (*offset, *hash))
            .collect();
        let mut reader = broker
            .reader(topic, place.1, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            for record in fetched.records() {
                let value = std::str::from_utf8(record.value.unwrap()).unwrap();
                let found = hash(value);
                let said = acknowledged.remove(&record.offset);
                assert!(
                    said.is_none_or(|hash| hash == found),
                    "{topic} {place:?} {}: {value}",
                    record.offset
                );
                self.records.insert((place, record.offset), found);
                shown.note(value, record.offset);
            }
        }
        let offsets = broker.offsets(topic, place.1).unwrap();
        assert_eq!(offsets.last_stable, offsets.end, "all is decided");
        assert_eq!(reader.position(), offsets.end);
        assert!(
            acknowledged.is_empty(),
            "{topic} {place:?}: acknowledged and lost: {acknowledged:?}"
        );
    }

    /// The batches of each producer are there from the first on, once each, and those that were acknowledged.
    fn check_numbered(&mut self, broker: &Broker, shown: &Shown) {
        for writer in 0..NUMBERED {
            let numbered = self.numbered.entry(writer).or_default();
            let there: Vec<_> = shown
                .numbered
                .range((writer, 0)..=(writer, u64::MAX))
                .map(|((_, n), at)| (*n, at))
                .collect();
            for (expected, (n, (base, values))) in (0..).zip(&there) {
                assert_eq!(
                    *n, expected,
                    "batches of writer {writer} are missing or out of order"
                );
                assert_eq!(
                    *values,
                    numbered_values(writer, *n),
                    "batch {n} of writer {writer}"
                );
                let before = numbered.sent.insert(*n, *base);
                assert!(before.is_none_or(|before| before == *base), "batch {n} has moved");
            }
            assert_eq!(numbered.sent.len(), there.len(), "acknowledged and lost");
            assert!(
                there.is_sorted_by_key(|(_, (base, _))| *base),
                "in the order they were sent"
            );
            assert!(there.is_empty() || broker.topic("numbered").is_some());
        }
    }

    fn check_transactions(&mut self, broker: &Broker, shown: &Shown) {
        for (key, (found, total)) in &shown.transactions {
            assert_eq!(found, total, "transaction {key:?} is whole, and there once");
        }
        for writer in 0..WRITERS {
            let next = broker
                .group_offsets(&format!("g{writer}"))
                .get(&("source".to_owned(), 0))
                .copied()
                .unwrap_or(0);
            let acknowledged = self.transactions.get(&writer).copied().unwrap_or(0);
            // Those of processes that were killed one after the other may have been committed without saying so.
            let most = acknowledged + self.kills;
            assert!(
                (acknowledged..=most).contains(&next),
                "{next} after {acknowledged}"
            );
            let ours = shown.transactions.range((writer, 0)..=(writer, u64::MAX));
            let last = ours.last().map_or(0, |((_, n), _)| n + 1);
            assert!(
                last <= next,
                "transaction {last} of writer {writer} shows, its offset is {next}"
            );
            self.transactions.insert(writer, next);
        }
        self.kills = 0;
    }

    /// The last of each key is what was acknowledged, or tried since; readers from anywhere find it.
    fn check_keys(&mut self, broker: &Broker, random: &mut Random) {
        let all = read_keys(broker, 0);
        let mut last = HashMap::new();
        for (offset, key, value) in &all {
            last.insert(key, (*offset, value));
            let fields: Vec<_> = value.as_deref().unwrap_or("-").split(' ').collect();
            assert_ne!(fields[0], "aborted", "an aborted record shows");
            if let ["transaction", writer, n, ..] = fields[..] {
                let next = self.transactions[&number(writer)];
                assert!(number::<u64>(n) < next, "{value:?} shows, the offset is {next}");
            }
        }
        for key in last.keys() {
            assert!(self.keys.contains_key(*key), "{key} is invented");
        }
        for (name, key) in &mut self.keys {
            if let Some((offset, value)) = last.get(name) {
                let value = value.as_deref().map(hash);
                let fits = match key.at {
                    Some(at) if at == *offset => value == key.value,
                    at => at < Some(*offset) && key.tried.contains(&value),
                };
                assert!(fits, "{name} is {value:?} at {offset}, and not as in {key:?}");
                (key.at, key.value) = (Some(*offset), value);
            } else {
                let gone = key.value.is_none() || key.tried.contains(&None);
                assert!(gone, "{name} is lost: {key:?}");
                key.value = None;
            }
            key.tried.clear();
        }
        let end = broker.offsets("keyed", 0).unwrap().end;
        for _ in 0..3 {
            let from = random.below(end + 1);
            let rest = all.partition_point(|(offset, ..)| *offset < from);
            assert_eq!(read_keys(broker, from), all[rest..], "from {from}");
        }
    }
}

type KeyRow = (u64, String, Option<String>);

fn read_keys(broker: &Broker, from: u64) -> Vec<KeyRow> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut reader = broker.reader("keyed", 0, from, Isolation::ReadCommitted).unwrap();
    let mut rows = Vec::new();
    while let Some(fetched) = reader.try_next(4_000).unwrap() {
        let records = fetched.records();
        rows.extend(records.map(|r| (r.offset, text(r.key.unwrap()), r.value.map(text))));
    }
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(reader.lag(), 0, "stranded at {}", reader.position());
    rows
}
