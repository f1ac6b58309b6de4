//! Which records are in the file: for each partition the next offset wanted.

use std::collections::BTreeMap;

use tidewater_plugin_api::{AssignedPartition, Record, TopicPartition, TopicPartitionOffset};

/// Progress by partition, with a batch's share apart until the whole batch is written.
#[derive(Debug, Default)]
pub struct Progress {
    entries: Vec<Entry>,
    /// The entry of the record before: records of one partition mostly come together.
    latest: usize,
    topic_ids: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    partition: TopicPartition,
    /// The next offset wanted, as far as batches are written; none before the first.
    written: Option<u64>,
    /// The same with the present batch.
    staged: Option<u64>,
}

impl Progress {
    /// Goes on from `offsets`, which are of the topics with these ids.
    pub fn new(offsets: &[TopicPartitionOffset], topic_ids: &BTreeMap<String, String>) -> Self {
        let entries = offsets.iter().map(|known| Entry {
            partition: known.partition.clone(),
            written: Some(known.offset),
            staged: Some(known.offset),
        });
        Self {
            entries: entries.collect(),
            latest: 0,
            topic_ids: topic_ids.clone(),
        }
    }

    /// Counts `record` in; false where it had been written before.
    pub fn stage(&mut self, record: &Record<'_>) -> bool {
        let (Some(partition), Some(offset)) = (record.partition(), record.offset()) else {
            return true;
        };
        let topic = record.original_topic();
        let is = |entry: &Entry| entry.partition.partition == partition && entry.partition.topic == topic;
        if !self.entries.get(self.latest).is_some_and(is) {
            self.latest = self.entries.iter().position(is).unwrap_or_else(|| {
                self.entries.push(Entry {
                    partition: TopicPartition {
                        topic: topic.to_owned(),
                        partition,
                    },
                    written: None,
                    staged: None,
                });
                self.entries.len() - 1
            });
        }
        let staged = &mut self.entries[self.latest].staged;
        if staged.is_some_and(|next| offset < next) {
            return false;
        }
        *staged = Some(offset + 1);
        true
    }

    /// The batch is written.
    pub fn accept(&mut self) {
        for entry in &mut self.entries {
            entry.written = entry.staged;
        }
    }

    /// The batch is not written, and will come again.
    pub fn forget(&mut self) {
        for entry in &mut self.entries {
            entry.staged = entry.written;
        }
    }

    /// The next offsets wanted, of `partitions`.
    pub fn of(&self, partitions: &[AssignedPartition]) -> Vec<TopicPartitionOffset> {
        let mut offsets = self.all();
        offsets.retain(|known| {
            partitions
                .iter()
                .any(|assigned| assigned.partition == known.partition)
        });
        offsets
    }

    /// The ids of the topics these offsets are of.
    pub fn topic_ids(&self) -> BTreeMap<String, String> {
        self.topic_ids.clone()
    }

    /// Takes note of the topics' ids, and forgets the offsets of a topic that has another one now. Whether anything
    /// changed.
    pub fn assign(&mut self, partitions: &[AssignedPartition]) -> bool {
        let mut changed = false;
        for AssignedPartition { partition, topic_id } in partitions {
            let known = self.topic_ids.insert(partition.topic.clone(), topic_id.clone());
            if known.as_ref() == Some(topic_id) {
                continue;
            }
            changed = true;
            if known.is_some() {
                let topic = &partition.topic;
                tracing::warn!(
                    topic,
                    "the topic is a new one of the same name: it is written from its start, after what the file holds"
                );
                self.entries.retain(|entry| entry.partition.topic != *topic);
                self.latest = 0;
            }
        }
        changed
    }

    /// The next offsets wanted, of all partitions.
    pub fn all(&self) -> Vec<TopicPartitionOffset> {
        let known = self.entries.iter().filter_map(|entry| {
            Some(TopicPartitionOffset {
                partition: entry.partition.clone(),
                offset: entry.written?,
            })
        });
        known.collect()
    }
}
