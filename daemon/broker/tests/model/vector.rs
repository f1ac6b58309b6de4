//! The model: each partition is a vector, an offset an index.

use std::collections::BTreeMap;

use tidewater_broker::Isolation;

/// A record of a partition, or a marker.
#[derive(Debug, Clone)]
pub enum Entry {
    Record {
        value: String,
        timestamp: i64,
        transaction: Option<usize>,
    },
    Marker,
}

/// A batch of the producer that numbers them.
#[derive(Debug, Clone)]
pub struct Sent {
    pub sequence: i32,
    pub base: u64,
    pub records: Vec<(String, i64)>,
}

#[derive(Default)]
pub struct Model {
    pub partitions: Vec<Vec<Entry>>,
    /// Where each partition begins.
    pub starts: Vec<u64>,
    /// Of each transaction, whether it is committed; `None` while it is open.
    pub outcomes: Vec<Option<bool>>,
    /// Group offsets by topic and partition.
    pub offsets: BTreeMap<(String, u32), u64>,
    /// Numbered batches by partition.
    pub numbered: Vec<Vec<Sent>>,
}

impl Model {
    pub fn new(partitions: usize) -> Self {
        Self {
            partitions: vec![Vec::new(); partitions],
            starts: vec![0; partitions],
            numbered: vec![Vec::new(); partitions],
            ..Self::default()
        }
    }

    pub fn push(&mut self, partition: u32, records: Vec<(String, i64)>, transaction: Option<usize>) {
        let entries = records.into_iter().map(|(value, timestamp)| Entry::Record {
            value,
            timestamp,
            transaction,
        });
        self.partitions[partition as usize].extend(entries);
    }

    pub fn end(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].len() as u64
    }

    /// The sequence the next numbered batch has.
    pub fn next_sequence(&self, partition: u32) -> i32 {
        let last = self.numbered[partition as usize].last();
        last.map_or(0, |sent| sent.sequence + sent.records.len() as i32)
    }

    /// Offset, value and timestamp of what readers get.
    pub fn visible(&self, partition: u32, isolation: Isolation) -> Vec<(u64, String, i64)> {
        let mut visible = Vec::new();
        let start = self.starts[partition as usize];
        for (offset, entry) in self.partitions[partition as usize].iter().enumerate() {
            let Entry::Record {
                value,
                timestamp,
                transaction,
            } = entry
            else {
                continue;
            };
            match transaction.map(|number| self.outcomes[number]) {
                Some(None) if isolation == Isolation::ReadCommitted => break,
                Some(Some(false)) if isolation == Isolation::ReadCommitted => continue,
                // Committed, outside transactions, or read without regard to them.
                _ => {}
            }
            if offset as u64 >= start {
                visible.push((offset as u64, value.clone(), *timestamp));
            }
        }
        visible
    }
}
