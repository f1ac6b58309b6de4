//! The ledger kept outside the broker: what was begun and what was acknowledged, when; and holding a broker against it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::crash_registers::{AGAIN, KEYED, Registers};
use super::memory_disk::Moment;
use crate::{Broker, Isolation, Sequence, Start};

/// Something asked of the broker: between which events it was begun and acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) begun: Moment,
    pub(super) acknowledged: Option<Moment>,
}

/// A partition of a topic.
pub(super) type Place = (String, u32);

/// Records of one batch outside transactions.
#[derive(Debug, Clone)]
pub(super) struct Append {
    pub(super) place: Place,
    pub(super) values: Vec<String>,
    /// Where it is, once acknowledged.
    pub(super) base: u64,
    /// Of a producer that numbers its batches.
    pub(super) sequence: Option<Sequence>,
    pub(super) claim: Claim,
}

/// A transaction; `claim` is that of its commit.
#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) writer: u32,
    /// Rising with each transaction of the writer, also a group offset of it.
    pub(super) number: u64,
    pub(super) parts: Vec<Part>,
    /// `None` for one that was never to be committed.
    pub(super) claim: Option<Claim>,
}

/// A batch of a transaction.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) values: Vec<String>,
    /// Where it is, once known.
    pub(super) base: Option<u64>,
}

impl Transaction {
    fn values(&self) -> impl Iterator<Item = &String> {
        self.parts.iter().flat_map(|part| &part.values)
    }
}

/// A group offset outside transactions.
#[derive(Debug, Clone)]
pub(super) struct GroupOffset {
    pub(super) next: u64,
    pub(super) claim: Claim,
}

/// A topic that comes and goes.
#[derive(Debug, Clone)]
pub(super) struct TopicLife {
    pub(super) created: Claim,
    pub(super) deleted: Option<Claim>,
}

/// What a reader was told of a partition.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) place: Place,
    pub(super) high_watermark: u64,
    pub(super) last_stable: u64,
    pub(super) at: Moment,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) appends: Vec<Append>,
    pub(super) transactions: Vec<Transaction>,
    /// Of the group [`GROUP`].
    pub(super) offsets: Vec<GroupOffset>,
    pub(super) topics: BTreeMap<String, TopicLife>,
    pub(super) seen: Vec<Seen>,
    /// Values that did not show when the broker was opened before, with that moment: they never will.
    pub(super) gone: Vec<(String, Moment)>,
    /// Batches that did not show when the broker was opened before; the values of some are also in `gone`.
    pub(super) lost: Vec<Append>,
    pub(super) registers: Registers,
    /// The power failed, and what was acknowledged with durability `os` may be lost.
    pub(super) power_failed: bool,
}

/// The topic with durability `os`: after a power failure each partition of it has a beginning of what it had.
pub(super) const OS: &str = "os";

/// The group that commits outside transactions.
pub(super) const GROUP: &str = "outside";

/// The group of a writer.
pub(super) fn group(writer: u32) -> String {
    format!("writer-{writer}")
}

impl Claim {
    pub(super) fn begun(at: Moment) -> Self {
        Self {
            begun: at,
            acknowledged: None,
        }
    }

    /// The claim as it stood at a moment; `None` if it was not begun.
    pub(super) fn at(self, moment: Moment) -> Option<Self> {
        // What begun at 0 came before this count.
        (self.begun == 0 || self.begun < moment).then(|| Self {
            begun: self.begun,
            acknowledged: self.acknowledged.filter(|at| *at <= moment),
        })
    }

    pub(super) fn restart(&mut self) {
        // Before the first event of the new count.
        self.begun = 0;
        self.acknowledged = self.acknowledged.map(|_| 0);
    }

    pub(super) fn holds(self) -> bool {
        self.acknowledged.is_some()
    }
}

/// What a broker shows.
struct Shown {
    committed: HashMap<String, (Place, u64)>,
    uncommitted: HashMap<String, (Place, u64)>,
}

impl Shown {
    fn of(broker: &Broker) -> Self {
        let mut shown = Self {
            committed: HashMap::new(),
            uncommitted: HashMap::new(),
        };
        for topic in broker.topics() {
            // Those are looked at by `Registers`.
            if topic.name.starts_with("__") || topic.name == KEYED || topic.name == AGAIN {
                continue;
            }
            for partition in 0..topic.partitions {
                let place = (topic.name.clone(), partition);
                read_all(broker, &place, Isolation::ReadCommitted, &mut shown.committed);
                read_all(broker, &place, Isolation::ReadUncommitted, &mut shown.uncommitted);
            }
        }
        shown
    }
}

fn read_all(broker: &Broker, place: &Place, isolation: Isolation, into: &mut HashMap<String, (Place, u64)>) {
    let mut reader = broker
        .reader(&place.0, place.1, Start::Earliest, isolation)
        .unwrap();
    let mut last = None;
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        for record in fetched.records() {
            assert!(last < Some(record.offset), "offsets rise");
            last = Some(record.offset);
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            let twice = into.insert(value, (place.clone(), record.offset));
            assert!(
                twice.is_none(),
                "there twice: {place:?} {} and {twice:?}",
                record.offset
            );
        }
    }
}

impl Ledger {
    /// The ledger as it stood at a moment.
    pub(super) fn at(&self, moment: Moment) -> Self {
        let appends = self.appends.iter().filter_map(|append| {
            Some(Append {
                claim: append.claim.at(moment)?,
                ..append.clone()
            })
        });
        let transactions = self.transactions.iter().map(|transaction| Transaction {
            claim: transaction.claim.and_then(|claim| claim.at(moment)),
            ..transaction.clone()
        });
        let offsets = self.offsets.iter().filter_map(|offset| {
            Some(GroupOffset {
                claim: offset.claim.at(moment)?,
                ..offset.clone()
            })
        });
        let topics = self.topics.iter().filter_map(|(name, life)| {
            let life = TopicLife {
                created: life.created.at(moment)?,
                deleted: life.deleted.and_then(|claim| claim.at(moment)),
            };
            Some((name.clone(), life))
        });
        let seen = self.seen.iter().filter(|seen| seen.at <= moment);
        let gone = self.gone.iter().filter(|(_, at)| *at <= moment);
        Self {
            appends: appends.collect(),
            transactions: transactions.collect(),
            offsets: offsets.collect(),
            topics: topics.collect(),
            seen: seen.cloned().collect(),
            gone: gone.cloned().collect(),
            lost: self.lost.clone(),
            registers: self.registers.at(moment),
            power_failed: self.power_failed,
        }
    }

    /// The ledger at a moment from which on others are counted from 0.
    pub(super) fn restarted_at(&self, moment: Moment) -> Self {
        let mut ledger = self.at(moment);
        ledger.power_failed = true;
        let appends = ledger.appends.iter_mut().map(|append| &mut append.claim);
        let transactions = ledger
            .transactions
            .iter_mut()
            .filter_map(|transaction| transaction.claim.as_mut());
        let offsets = ledger.offsets.iter_mut().map(|offset| &mut offset.claim);
        for claim in appends.chain(transactions).chain(offsets) {
            claim.restart();
        }
        for life in ledger.topics.values_mut() {
            life.created.restart();
            if let Some(deleted) = &mut life.deleted {
                deleted.restart();
            }
        }
        ledger.registers.restart();
        for seen in &mut ledger.seen {
            seen.at = 0;
        }
        for (_, at) in &mut ledger.gone {
            *at = 0;
        }
        ledger
    }

    /// Holds the broker against the ledger; `now` is the moment it is, for what is learned. What it shows has been
    /// seen from now on, and what it does not show is gone.
    pub(super) fn check(&mut self, broker: &Broker, now: Moment) {
        self.check_topics(broker, now);
        let shown = Shown::of(broker);
        self.check_seen(broker, now);
        for (value, _) in &self.gone {
            assert!(
                !shown.committed.contains_key(value),
                "it had gone: {}",
                brief(value)
            );
        }
        let known = self.known();
        for (value, place) in shown.committed.iter().chain(&shown.uncommitted) {
            assert!(
                known.contains(value.as_str()),
                "{place:?} is invented: {}",
                brief(value)
            );
        }
        let mut gone = Vec::new();
        let mut lost: HashMap<Place, u64> = HashMap::new();
        for append in &mut self.appends {
            if !lives(&self.topics, &append.place.0) {
                continue;
            }
            let what = format!("a batch of {:?}, {:?}", append.place, append.claim);
            if let Some(base) = find(&shown.committed, &append.place, &append.values, &what) {
                assert!(!append.claim.holds() || base == append.base, "{what} moved");
                append.base = base;
                append.claim.acknowledged.get_or_insert(now);
            } else if append.place.0 == OS && self.power_failed {
                if append.claim.holds() {
                    let first = lost.entry(append.place.clone()).or_insert(u64::MAX);
                    *first = append.base.min(*first);
                }
                append.claim.acknowledged = None;
            } else {
                assert!(!append.claim.holds(), "{what} at {} is lost", append.base);
                gone.extend(append.values.iter().map(|value| (value.clone(), now)));
            }
        }
        self.lost
            .extend(self.appends.extract_if(.., |append| !append.claim.holds()));
        for append in &self.appends {
            let first = lost.get(&append.place).copied().unwrap_or(u64::MAX);
            assert!(
                append.base < first,
                "the batch at {} of {:?} is there, the one at {first} is not",
                append.base,
                append.place
            );
        }
        self.check_transactions(broker, &shown, now);
        self.gone.extend(gone);
        self.check_offsets(broker, now);
        self.registers.check(broker, now);
    }

    /// Every value that was ever given to the broker.
    fn known(&self) -> HashSet<&str> {
        let appended = self.appends.iter().flat_map(|append| &append.values);
        let committed = self.transactions.iter().flat_map(Transaction::values);
        let gone = self.gone.iter().map(|(value, _)| value);
        let lost = self.lost.iter().flat_map(|append| &append.values);
        let values = appended.chain(committed).chain(gone).chain(lost);
        values.map(String::as_str).collect()
    }

    fn check_topics(&mut self, broker: &Broker, now: Moment) {
        let names: BTreeSet<String> = broker.topics().into_iter().map(|topic| topic.name).collect();
        for name in names
            .iter()
            .filter(|name| !name.starts_with("__") && *name != AGAIN)
        {
            assert!(self.topics.contains_key(name), "topic {name} is invented");
        }
        self.topics.retain(|name, life| {
            let there = names.contains(name);
            if there {
                assert!(
                    !life.deleted.is_some_and(Claim::holds),
                    "topic {name} was deleted"
                );
                life.created.acknowledged.get_or_insert(now);
                life.deleted = None;
            } else {
                assert!(
                    !life.created.holds() || life.deleted.is_some(),
                    "topic {name} is lost"
                );
            }
            there
        });
    }

    fn check_seen(&mut self, broker: &Broker, now: Moment) {
        let mut most: HashMap<&Place, (u64, u64)> = HashMap::new();
        for seen in &self.seen {
            let most = most.entry(&seen.place).or_default();
            *most = (most.0.max(seen.high_watermark), most.1.max(seen.last_stable));
        }
        let mut news = Vec::new();
        for topic in broker.topics().into_iter().filter(|topic| topic.name != AGAIN) {
            for partition in 0..topic.partitions {
                let place = (topic.name.clone(), partition);
                let offsets = broker.offsets(&topic.name, partition).unwrap();
                let (high, stable) = match most.get(&place) {
                    Some(most) if place.0 != OS || !self.power_failed => *most,
                    _ => (0, 0),
                };
                assert!(
                    offsets.high_watermark >= high && offsets.last_stable >= stable,
                    "{place:?} goes back from {high} ({stable} stable) to {offsets:?}"
                );
                news.push(Seen {
                    place,
                    high_watermark: offsets.high_watermark,
                    last_stable: offsets.last_stable,
                    at: now,
                });
            }
        }
        self.seen = news;
    }

    /// Each is whole or not there, the acknowledged ones are, and the writer's group offset is that of the last.
    fn check_transactions(&mut self, broker: &Broker, shown: &Shown, now: Moment) {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let mut gone = Vec::new();
        for transaction in &mut self.transactions {
            let what = format!(
                "transaction {} of writer {}, {:?}",
                transaction.number, transaction.writer, transaction.claim
            );
            let mut found = Vec::new();
            for part in &mut transaction.parts {
                let at = find(&shown.committed, &part.place, &part.values, &what);
                if let Some(at) = at {
                    assert!(
                        part.base.is_none_or(|base| base == at),
                        "{what} moved in {:?}",
                        part.place
                    );
                    part.base = Some(at);
                }
                found.push(at.is_some());
            }
            let offset = broker.group_offsets(&group(transaction.writer));
            let offset = offset.get(&("source".to_owned(), 0)).copied().unwrap_or(0);
            // Without records it is the offset that tells.
            let shows = found.first().copied().unwrap_or(offset == transaction.number);
            assert!(
                found.iter().all(|part| *part == shows),
                "{what} is torn: {found:?}"
            );
            match &mut transaction.claim {
                Some(claim) if shows => {
                    claim.acknowledged.get_or_insert(now);
                    last.insert(transaction.writer, transaction.number);
                }
                Some(claim) => assert!(
                    !claim.holds() || (found.is_empty() && offset > transaction.number),
                    "{what} is lost"
                ),
                None => assert!(!shows, "{what} shows and was not to be"),
            }
            assert!(
                shows || offset != transaction.number,
                "{what} is its offset alone"
            );
            if !shows {
                gone.extend(transaction.values().map(|value| (value.clone(), now)));
            }
        }
        self.gone.extend(gone);
        self.transactions
            .retain(|transaction| transaction.claim.is_some_and(Claim::holds));
        for (writer, number) in last {
            let offset = broker.group_offsets(&group(writer))[&("source".to_owned(), 0)];
            assert_eq!(
                offset, number,
                "the group offset of writer {writer} is that of its records"
            );
        }
    }

    fn check_offsets(&mut self, broker: &Broker, now: Moment) {
        let holds = self.offsets.iter().rposition(|offset| offset.claim.holds());
        let possible: Vec<u64> = self.offsets[holds.unwrap_or(0)..]
            .iter()
            .map(|offset| offset.next)
            .collect();
        let found = broker
            .group_offsets(GROUP)
            .get(&("outside".to_owned(), 0))
            .copied();
        match found {
            Some(next) => assert!(
                possible.contains(&next),
                "group offset {next}, not of {possible:?}"
            ),
            None => assert!(holds.is_none(), "the group offset is lost: {possible:?}"),
        }
        self.offsets.clear();
        self.offsets.extend(found.map(|next| GroupOffset {
            next,
            claim: Claim {
                begun: 0,
                acknowledged: Some(now),
            },
        }));
    }
}

fn lives(topics: &BTreeMap<String, TopicLife>, name: &str) -> bool {
    topics.contains_key(name)
}

/// Where the values of a batch are, all in their order or none.
fn find(shown: &HashMap<String, (Place, u64)>, place: &Place, values: &[String], what: &str) -> Option<u64> {
    let found: Vec<_> = values.iter().filter_map(|value| shown.get(value)).collect();
    let (_, base) = found.first()?;
    assert_eq!(found.len(), values.len(), "{what} is torn");
    for ((at, offset), expected) in found.iter().zip(*base..) {
        assert_eq!((at, *offset), (place, expected), "{what} is not in its place");
    }
    Some(*base)
}

fn brief(value: &str) -> &str {
    value.split_once('|').map_or(value, |(name, _)| name)
}
