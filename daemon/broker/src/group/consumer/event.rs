//! What a consumer gets by polling.

use std::collections::BTreeSet;

use crate::batch::fetched::Fetched;
use crate::batch::record::RecordView;
use crate::topic_partition::TopicPartition;

/// What a poll gives.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// Records of one partition.
    Records(ConsumerRecords),
    /// These partitions are the consumer's from now on. It begins where the group has committed, unless it is sought.
    Assigned(BTreeSet<TopicPartition>),
    /// These partitions are to be given up, which the next poll does; until then they can be committed.
    Revoked(BTreeSet<TopicPartition>),
    /// These partitions were taken away, since the consumer was expelled or their topic deleted: it can commit nothing of
    /// them any more, and others read again what it has not committed. It joins anew by itself. Those of a topic that was
    /// created again are assigned again.
    Lost(BTreeSet<TopicPartition>),
}

/// Records of one partition.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConsumerRecords {
    /// Where they are from.
    pub partition: TopicPartition,
    /// The records.
    pub fetched: Fetched,
}

impl ConsumerRecords {
    /// The records in order of their offsets.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.fetched.records()
    }

    /// The offset to commit once they are processed.
    pub fn next_offset(&self) -> u64 {
        self.fetched.next_offset()
    }
}
