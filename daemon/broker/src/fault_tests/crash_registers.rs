//! What is set over and over, one after the other: keys of a compacted topic, partition counts, settings, a topic that
//! comes again under its name, offsets of a group. After a power failure each has the value that was acknowledged last,
//! or one that was begun after it.

use std::collections::{BTreeMap, HashSet};

use super::crash_ledger::Claim;
use super::memory_disk::Moment;
use crate::{Broker, Isolation, Start};

/// A topic that is compacted.
pub(super) const KEYED: &str = "keyed";
/// A topic that grows and is altered.
pub(super) const GROWN: &str = "grown";
/// A topic that is deleted and created again, over and over, each time with another number as its setting [`TAG`].
pub(super) const AGAIN: &str = "again";
/// The setting that tells one life of [`AGAIN`] from the others, and is altered in [`GROWN`].
pub(super) const TAG: &str = "index.interval.bytes";
/// A group with offsets in topics that come and go.
pub(super) const VISITORS: &str = "visitors";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Register {
    /// The last value of a key of [`KEYED`].
    Key(String),
    /// How many partitions [`GROWN`] has.
    Partitions,
    /// Its setting.
    Setting,
    /// Which life [`AGAIN`] is in; none while there is no such topic.
    Life,
    /// How many records it has in this life.
    Records(String),
    /// The offset of [`VISITORS`] in a topic.
    Offset(String),
}

/// The values of each, in the order they were given.
#[derive(Debug, Clone, Default)]
pub(super) struct Registers(BTreeMap<Register, Vec<(Option<String>, Claim)>>);

impl Registers {
    pub(super) fn begin(&mut self, register: Register, value: Option<String>, now: Moment) {
        let values = self.0.entry(register).or_default();
        values.push((value, Claim::begun(now)));
    }

    /// Acknowledges the value that was begun last.
    pub(super) fn acknowledge(&mut self, register: &Register, now: Moment) {
        let last = self.0.get_mut(register).and_then(|values| values.last_mut());
        last.unwrap().1.acknowledged = Some(now);
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = Claim> {
        self.0.values().flatten().map(|(_, claim)| *claim)
    }

    /// As they stood at a moment.
    pub(super) fn at(&self, moment: Moment) -> Self {
        let begun = |(value, claim): &(Option<String>, Claim)| Some((value.clone(), claim.at(moment)?));
        let registers = self.0.iter();
        let stood = registers.map(|(register, values)| {
            let values = values.iter().filter_map(begun).collect();
            (register.clone(), values)
        });
        Self(stood.collect())
    }

    pub(super) fn restart(&mut self) {
        for (_, claim) in self.0.values_mut().flatten() {
            claim.restart();
        }
    }

    /// Holds the broker against what was set; what is found is decided from now on.
    pub(super) fn check(&mut self, broker: &Broker, now: Moment) {
        let there: HashSet<String> = broker.topics().into_iter().map(|topic| topic.name).collect();
        let life = life(broker);
        let mut found = BTreeMap::new();
        for (key, value) in keys(broker, &there) {
            found.insert(Register::Key(key), value);
        }
        if let Some(grown) = broker.topic(GROWN) {
            found.insert(Register::Partitions, grown.partitions.to_string());
            let setting = grown.settings.get(TAG).cloned();
            found.extend(setting.map(|value| (Register::Setting, value)));
        }
        if let Some(life) = &life {
            found.insert(Register::Life, life.clone());
            let records = records(broker, life);
            if records > 0 {
                found.insert(Register::Records(life.clone()), records.to_string());
            }
        }
        for ((topic, _), offset) in broker.group_offsets(VISITORS) {
            assert!(there.contains(&topic), "an offset of {topic}, which is gone");
            found.insert(Register::Offset(topic), offset.to_string());
        }
        // With the topic goes what was in it.
        self.0.retain(|register, _| match register {
            Register::Records(of) => life.as_ref() == Some(of),
            Register::Offset(topic) => there.contains(topic),
            _ => true,
        });
        for register in found.keys() {
            assert!(self.0.contains_key(register), "{register:?} is invented");
        }
        for (register, values) in &mut self.0 {
            let found = found.remove(register);
            let holds = values.iter().rposition(|(_, claim)| claim.holds());
            let possible = &values[holds.unwrap_or(0)..];
            let never = holds.is_none() && found.is_none();
            assert!(
                never || possible.iter().any(|(value, _)| *value == found),
                "{register:?} is {found:?}, not of {possible:?}"
            );
            let claim = Claim {
                begun: 0,
                acknowledged: Some(now),
            };
            *values = vec![(found, claim)];
        }
    }
}

fn life(broker: &Broker) -> Option<String> {
    broker.topic(AGAIN)?.settings.get(TAG).cloned()
}

/// How many records [`AGAIN`] has; all are of its life, in their order.
fn records(broker: &Broker, life: &str) -> usize {
    let mut reader = broker
        .reader(AGAIN, 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut count = 0;
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        for record in fetched.records() {
            assert_eq!(record.value, Some(format!("{life} {count}").as_bytes()));
            count += 1;
        }
    }
    count
}

/// The last value of each key that was not deleted; readers come to the end.
fn keys(broker: &Broker, there: &HashSet<String>) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    if !there.contains(KEYED) {
        return last;
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut reader = broker
        .reader(KEYED, 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut next = 0;
    while let Some(fetched) = reader.try_next(2_000).unwrap() {
        for record in fetched.records() {
            assert!(record.offset >= next, "offsets rise");
            next = record.offset + 1;
            let key = text(record.key.unwrap());
            match record.value {
                Some(value) => drop(last.insert(key, text(value))),
                None => drop(last.remove(&key)),
            }
        }
    }
    assert_eq!(reader.lag(), 0, "stranded at {}", reader.position());
    last
}
