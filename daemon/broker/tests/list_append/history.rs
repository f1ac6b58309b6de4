//! The history of what was done and read, and what it must not show.

use std::collections::{BTreeMap, HashMap, HashSet};

use tidewater_broker::{Broker, Isolation, Start};

use crate::MOST_PARTITIONS;

/// The partition of a list, which may not be there yet.
pub fn partition_of(key: u64) -> u32 {
    (key % MOST_PARTITIONS) as u32
}

/// An element where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    offset: u64,
    key: u64,
    name: String,
}

impl Element {
    pub fn of(offset: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        Self {
            offset,
            key: text(key).parse().unwrap(),
            name: text(value).split(' ').next().unwrap().to_owned(),
        }
    }

    pub fn told(&self) -> String {
        format!("{}:{}:{}", self.offset, self.key, self.name)
    }

    fn parse(told: &str) -> Self {
        let fields: Vec<_> = told.split(':').collect();
        Self {
            offset: fields[0].parse().unwrap(),
            key: fields[1].parse().unwrap(),
            name: fields[2].to_owned(),
        }
    }
}

/// The transaction an element is of.
fn transaction_of(element: &str) -> &str {
    element.rsplit_once('.').unwrap().0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody said: killed while committing, or before.
    Unknown,
    Committed,
    Aborted,
}

#[derive(Debug)]
pub struct Transaction {
    /// Element and key.
    appends: Vec<(String, u64)>,
    pub outcome: Outcome,
    commit_begun: bool,
    /// Which line of the history; `acknowledged` likewise.
    begun: usize,
    acknowledged: Option<usize>,
}

pub struct Read {
    partition: usize,
    from: u64,
    to: u64,
    elements: Vec<Element>,
}

#[derive(Default)]
pub struct History {
    pub transactions: HashMap<String, Transaction>,
    pub reads: Vec<Read>,
    lines: usize,
    /// How far each reader has come, by reader and partition.
    positions: HashMap<(String, usize), u64>,
}

impl History {
    /// Takes in a line; answers whether it acknowledges a transaction.
    pub fn note(&mut self, line: &str) -> bool {
        self.lines += 1;
        let fields: Vec<_> = line.split(' ').collect();
        let at = self.lines;
        match fields[..] {
            ["begin", name] => {
                let new = Transaction {
                    appends: Vec::new(),
                    outcome: Outcome::Unknown,
                    commit_begun: false,
                    begun: at,
                    acknowledged: None,
                };
                assert!(self.transactions.insert(name.to_owned(), new).is_none());
            }
            ["append", name, key, element] => {
                let append = (element.to_owned(), key.parse().unwrap());
                self.transactions.get_mut(name).unwrap().appends.push(append);
            }
            ["commit", name] => self.transactions.get_mut(name).unwrap().commit_begun = true,
            ["abort", name] => self.transactions.get_mut(name).unwrap().outcome = Outcome::Aborted,
            ["ack", name] => {
                let transaction = self.transactions.get_mut(name).unwrap();
                transaction.outcome = Outcome::Committed;
                transaction.acknowledged = Some(at);
                return true;
            }
            ["read", reader, partition, from, to, elements] => {
                let partition = partition.parse().unwrap();
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                let elements = elements.split(',').filter(|told| !told.is_empty());
                let elements = elements.map(Element::parse).collect();
                let before = self.positions.insert((reader.to_owned(), partition), to);
                assert!(
                    before.is_none_or(|before| before == from),
                    "{reader} left {before:?} and came to {from}"
                );
                self.reads.push(Read {
                    partition,
                    from,
                    to,
                    elements,
                });
            }
            // What the test harness prints.
            _ => {}
        }
        false
    }

    pub fn positions(&self, reader: u64) -> Vec<u64> {
        let of = |partition| self.positions.get(&(reader.to_string(), partition)).copied();
        (0..MOST_PARTITIONS as usize)
            .map(|partition| of(partition).unwrap_or(0))
            .collect()
    }

    /// Holds the history against the final read of each partition.
    pub fn check(&self, finals: &[Vec<Element>]) {
        let mut places: HashMap<&str, (usize, &Element)> = HashMap::new();
        for (partition, elements) in finals.iter().enumerate() {
            assert!(elements.is_sorted_by(|a, b| a.offset < b.offset));
            for element in elements {
                assert_eq!(partition_of(element.key) as usize, partition);
                let twice = places.insert(&element.name, (partition, element));
                assert!(twice.is_none(), "{} is there twice", element.name);
            }
        }
        for name in places.keys() {
            assert!(
                self.transactions.contains_key(transaction_of(name)),
                "{name} is invented"
            );
        }
        let mut committed = HashSet::new();
        for (name, transaction) in &self.transactions {
            let there = transaction.appends.iter().filter(|(element, key)| {
                let found = places.get(element.as_str());
                assert!(
                    found.is_none_or(|(_, found)| found.key == *key),
                    "{element} is in another list"
                );
                found.is_some()
            });
            let there = there.count();
            let all = transaction.appends.len();
            match transaction.outcome {
                Outcome::Committed => assert_eq!(there, all, "{name} is acknowledged and has lost elements"),
                Outcome::Aborted => assert_eq!(there, 0, "{name} was aborted and shows (G1a)"),
                Outcome::Unknown => {
                    assert!(there == 0 || there == all, "{name} is torn: {there} of {all}");
                    assert!(
                        there == 0 || transaction.commit_begun,
                        "{name} was not to be committed"
                    );
                }
            }
            if there > 0 {
                committed.insert(name.as_str());
            }
        }
        for name in places.keys() {
            let transaction = &self.transactions[transaction_of(name)];
            // The last append of a killed process may not have been said.
            let said = transaction.appends.iter().any(|(element, _)| element == name);
            assert!(said, "{name} was never appended");
        }
        for read in &self.reads {
            let elements = &finals[read.partition];
            let range = elements.partition_point(|e| e.offset < read.from)
                ..elements.partition_point(|e| e.offset < read.to);
            assert_eq!(
                read.elements, elements[range],
                "a read of partition {} from {} to {} is not what was committed there (G1a, G1b)",
                read.partition, read.from, read.to
            );
        }
        self.check_order(finals, &committed);
    }

    /// What began after another was acknowledged comes after it.
    fn check_order(&self, finals: &[Vec<Element>], committed: &HashSet<&str>) {
        for elements in finals {
            let mut spans: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            for element in elements {
                let span = spans
                    .entry(transaction_of(&element.name))
                    .or_insert((element.offset, element.offset));
                span.1 = element.offset;
            }
            // In order of acknowledgement: the furthest offset of those acknowledged by some line.
            let mut by_ack: Vec<(usize, u64)> = Vec::new();
            for (name, (_, last)) in &spans {
                by_ack.extend(self.transactions[*name].acknowledged.map(|at| (at, *last)));
            }
            by_ack.sort_unstable();
            let mut furthest = 0;
            for entry in &mut by_ack {
                furthest = furthest.max(entry.1);
                entry.1 = furthest;
            }
            for (name, (first, _)) in &spans {
                assert!(committed.contains(name));
                let begun = self.transactions[*name].begun;
                let before = by_ack.partition_point(|(at, _)| *at < begun);
                if let Some((_, last)) = before.checked_sub(1).map(|i| by_ack[i]) {
                    assert!(
                        *first > last,
                        "{name} comes before one that ended before it began (G0)"
                    );
                }
            }
        }
    }
}

/// The final read, when nothing is open any more.
pub fn final_read(broker: &Broker) -> Vec<Vec<Element>> {
    let read = |partition| {
        let mut reader = broker
            .reader("lists", partition, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        let mut elements = Vec::new();
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            elements.extend(fetched.records().map(|r| Element::of(r.offset, r.key, r.value)));
        }
        let offsets = broker.offsets("lists", partition).unwrap();
        assert_eq!(offsets.last_stable, offsets.high_watermark, "all is decided");
        elements
    };
    let partitions = broker.topic("lists").unwrap().partitions;
    (0..partitions).map(read).collect()
}
