//! Where a consumer stands: positions, lag, seeking, pausing; where it begins, and goes on after what it was to read is
//! no longer there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Consumer;
use crate::error::{Error, Result};
use crate::reader::{Isolation, Start};
use crate::reader_set::PartitionError;
use crate::topic_partition::TopicPartition;

impl Consumer {
    /// The offset a partition goes on at; `None` if it is not assigned, or a poll is still to look up where to begin.
    pub fn position(&self, partition: &TopicPartition) -> Option<u64> {
        self.readers.position(partition)
    }

    /// How many offsets a partition is behind what can be read of it; `None` as with [`position`](Self::position).
    pub fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        self.readers.lag(partition)
    }

    /// Goes on at `to` in a partition: an offset, [`Start::Earliest`] or [`Start::Latest`].
    ///
    /// # Errors
    /// [`Error::NotAssigned`], [`Error::OffsetOutOfRange`]; it stays where it was.
    pub fn seek(&mut self, partition: &TopicPartition, to: impl Into<Start>) -> Result<()> {
        if !self.assigned.contains(partition) {
            let partition = partition.clone();
            return Err(Error::NotAssigned { partition });
        }
        if self.readers.position(partition).is_some() {
            self.readers.seek(partition, to)
        } else {
            self.begin(partition, to.into())
        }
    }

    /// Goes on at the first record of a partition with this timestamp or a later one, in milliseconds since 1970; behind
    /// the last if there is none.
    ///
    /// # Errors
    /// [`Error::NotAssigned`], [`Error::Corrupt`]; it stays where it was.
    pub async fn seek_to_time(&mut self, partition: &TopicPartition, timestamp: i64) -> Result<()> {
        let (topic, number) = (&partition.topic, partition.partition);
        // As it is before: what is written meanwhile may be of that time.
        let bounds = self.broker.offsets(topic, number)?;
        let end = match self.options.isolation {
            Isolation::ReadCommitted => bounds.last_stable,
            Isolation::ReadUncommitted => bounds.high_watermark,
        };
        let found = self.broker.offset_for_time(topic, number, timestamp).await?;
        self.seek(partition, found.unwrap_or(end))
    }

    /// Goes on at the first record kept of each partition.
    ///
    /// # Errors
    /// [`Error::NotAssigned`].
    pub fn seek_to_beginning(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        partitions
            .iter()
            .try_for_each(|partition| self.seek(partition, Start::Earliest))
    }

    /// Goes on behind the last record that can be read of each partition.
    ///
    /// # Errors
    /// [`Error::NotAssigned`].
    pub fn seek_to_end(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        partitions
            .iter()
            .try_for_each(|partition| self.seek(partition, Start::Latest))
    }

    /// Gives nothing of a partition until [`resume`](Self::resume), or until it is assigned again.
    ///
    /// # Errors
    /// [`Error::NotAssigned`].
    pub fn pause(&mut self, partition: &TopicPartition) -> Result<()> {
        if !self.assigned.contains(partition) {
            let partition = partition.clone();
            return Err(Error::NotAssigned { partition });
        }
        self.paused.insert(partition.clone());
        self.readers.pause(partition);
        Ok(())
    }

    /// Goes on with a paused partition.
    ///
    /// # Errors
    /// [`Error::NotAssigned`].
    pub fn resume(&mut self, partition: &TopicPartition) -> Result<()> {
        if !self.assigned.contains(partition) {
            let partition = partition.clone();
            return Err(Error::NotAssigned { partition });
        }
        self.paused.remove(partition);
        self.readers.resume(partition);
        Ok(())
    }

    /// The paused partitions.
    pub fn paused(&self) -> &BTreeSet<TopicPartition> {
        &self.paused
    }

    /// Finds where to begin in partitions that have no position. Answers whether some wait for a commit under way.
    pub(super) fn look_up_positions(&mut self) -> Result<bool> {
        if self.readers.len() == self.assigned.len() {
            return Ok(false);
        }
        let without = |partition: &&TopicPartition| self.readers.position(partition).is_none();
        let todo: Vec<_> = self.assigned.iter().filter(without).cloned().collect();
        let coordinator = Arc::clone(self.broker.coordinator());
        let mut unsettled = false;
        for partition in todo {
            let group = &self.options.group;
            let Ok(committed) = coordinator
                .offsets
                .stable(group, &partition.topic, partition.partition)
            else {
                unsettled = true;
                continue;
            };
            let begun = match committed {
                Some(committed) => {
                    self.committed.insert(partition.clone(), committed.offset);
                    self.begin(&partition, Start::Offset(committed.offset))
                }
                None => Err(Error::NoCommittedOffset {
                    group: group.clone(),
                    topic: partition.topic.to_string(),
                    partition: partition.partition,
                }),
            };
            match begun {
                // The rebalance that takes it away is under way.
                Err(
                    Error::UnknownTopic { .. } | Error::UnknownPartition { .. } | Error::TopicDeleted { .. },
                ) if self.membership.is_some() => {}
                Err(error) => {
                    let start = self.reset(&partition, error)?;
                    self.begin(&partition, start)?;
                }
                Ok(()) => {}
            }
        }
        Ok(unsettled)
    }

    pub(super) fn begin(&mut self, partition: &TopicPartition, start: Start) -> Result<()> {
        self.readers.add(&partition.topic, partition.partition, start)?;
        if self.paused.contains(partition) {
            self.readers.pause(partition);
        }
        Ok(())
    }

    /// Where to go on after an error that `auto.offset.reset` is for, or the error.
    pub(super) fn reset(&self, partition: &TopicPartition, error: Error) -> Result<Start> {
        let (Error::OffsetOutOfRange { .. } | Error::NoCommittedOffset { .. }) = &error else {
            return Err(error);
        };
        let start = self.options.auto_offset_reset.start().ok_or(error.clone())?;
        if let Error::OffsetOutOfRange { .. } = &error {
            tracing::warn!(group = %self.options.group, %error, ?start, "the position of {partition} is reset");
        }
        Ok(start)
    }

    /// Goes on after an error of one partition, if it can be.
    pub(super) fn recover(&mut self, PartitionError { partition, source }: PartitionError) -> Result<()> {
        if let Error::TopicDeleted { .. } | Error::UnknownTopic { .. } = &source
            && self.membership.is_some()
        {
            // The group tells what becomes of the partition.
            self.readers.remove(&partition);
            self.committed.remove(&partition);
            return Ok(());
        }
        let start = self.reset(&partition, source)?;
        self.readers.seek(&partition, start)
    }
}
