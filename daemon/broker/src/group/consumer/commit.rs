//! What a consumer commits, by itself and when told to.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Consumer;
use crate::error::{Error, Result};
use crate::group::group_metadata::ConsumerGroupMetadata;
use crate::group::offset_record::{CommittedOffset, OffsetCommit};
use crate::topic_partition::TopicPartition;

impl Consumer {
    /// Commits the positions of all partitions: everything given by polls counts as processed. Durable when it returns;
    /// dropped before, the commit may take place or not, but never in part.
    ///
    /// # Errors
    /// [`Error::UnknownMember`] and [`Error::IllegalGeneration`] if the group has taken partitions away: nothing is
    /// committed, and the next poll tells what is left. With [`assign`](Self::assign) [`Error::TopicDeleted`], and
    /// [`Error::GroupNotEmpty`] if the group has members. Those of the disk.
    pub async fn commit(&mut self) -> Result<()> {
        let positions = self.positions(&self.assigned);
        if self.membership.is_none() {
            // Members are fenced by their group.
            positions
                .iter()
                .try_for_each(|(partition, _)| self.readers.check(partition))?;
        }
        self.commit_positions(positions).await
    }

    /// Commits offsets: the next to read of each partition.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and [`Error::OffsetMetadataTooLarge`].
    pub async fn commit_offsets(&self, offsets: &[OffsetCommit<'_>]) -> Result<()> {
        self.broker
            .commit_offsets_of(&self.group_metadata(), offsets)
            .await
    }

    /// Who it is now, for [`Transaction::commit_offsets_of`](crate::Transaction::commit_offsets_of).
    pub fn group_metadata(&self) -> ConsumerGroupMetadata {
        let membership = self.membership.as_ref();
        ConsumerGroupMetadata {
            group: self.options.group.as_str().into(),
            member_id: membership.map(|membership| Arc::clone(&membership.member_id)),
            generation: membership.map_or(-1, |membership| membership.generation),
        }
    }

    /// What the group has committed for a partition, of its own or not. Waits for transactions under way that commit for
    /// it.
    pub async fn committed(&self, partition: &TopicPartition) -> Option<CommittedOffset> {
        let offsets = &self.broker.coordinator().offsets;
        let place = [(&*partition.topic, partition.partition)];
        loop {
            offsets.wait_stable(&self.options.group, &place).await;
            if let Ok(committed) = offsets.stable(&self.options.group, place[0].0, place[0].1) {
                return committed;
            }
        }
    }

    /// Commits the positions that moved, if auto commit is on and it is time.
    pub(super) async fn auto_commit(&mut self) -> Result<()> {
        let Some(interval) = self.options.auto_commit_interval else {
            return Ok(());
        };
        let now = self.broker.shared.flusher.clock.monotonic();
        let due = self.next_auto_commit.get_or_insert(now + interval);
        if *due > now {
            return Ok(());
        }
        let assigned = self.assigned.clone();
        let committed = self.commit_moved(&assigned).await;
        // Also after a failure, which the caller learns; by polling on it reads meanwhile.
        self.next_auto_commit = Some(now + interval);
        match committed {
            // Expelled meanwhile, which the poll tells.
            Err(Error::UnknownMember { .. }) => Ok(()),
            committed => committed,
        }
    }

    /// Has `auto_commit_due` notified when an auto commit is due that has something to commit.
    pub(super) fn await_auto_commit(&mut self) -> Result<()> {
        let Some(due) = self.next_auto_commit else {
            return Ok(());
        };
        if self.alarm == Some(due) || self.moved(&self.assigned).is_empty() {
            return Ok(());
        }
        let wake = Arc::downgrade(&self.auto_commit_due);
        self.broker.shared.keeper.at("auto commit", due, move || {
            if let Some(wake) = wake.upgrade() {
                wake.notify_one();
            }
            Ok(())
        })?;
        self.alarm = Some(due);
        Ok(())
    }

    /// The last commit of partitions to be given up, if auto commit is on: once, since the group waits for them, and what
    /// cannot be committed is read again by their next owner.
    pub(super) async fn commit_before_giving_up(
        &mut self,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<()> {
        if self.options.auto_commit_interval.is_none() || self.committed_last {
            return Ok(());
        }
        let committed = self.commit_moved(partitions).await;
        self.committed_last = true;
        match committed {
            Err(Error::UnknownMember { .. }) => Ok(()),
            committed => committed,
        }
    }

    /// Commits the positions of these partitions that moved, passing over those that are its own no longer.
    pub(super) async fn commit_moved(&mut self, partitions: &BTreeSet<TopicPartition>) -> Result<()> {
        let mut positions = self.moved(partitions);
        loop {
            match self.commit_positions(positions.clone()).await {
                Err(Error::IllegalGeneration {
                    partition: Some(taken),
                    ..
                }) => positions.retain(|(partition, _)| *partition != taken),
                result => return result,
            }
        }
    }

    fn positions(&self, partitions: &BTreeSet<TopicPartition>) -> Vec<(TopicPartition, u64)> {
        let position =
            |partition: &TopicPartition| Some((partition.clone(), self.readers.position(partition)?));
        partitions.iter().filter_map(position).collect()
    }

    /// The positions that moved since they were committed.
    fn moved(&self, partitions: &BTreeSet<TopicPartition>) -> Vec<(TopicPartition, u64)> {
        let mut positions = self.positions(partitions);
        positions.retain(|(partition, position)| self.committed.get(partition) != Some(position));
        positions
    }

    async fn commit_positions(&mut self, positions: Vec<(TopicPartition, u64)>) -> Result<()> {
        let commits: Vec<_> = positions
            .iter()
            .map(|(partition, position)| OffsetCommit::new(&partition.topic, partition.partition, *position))
            .collect();
        self.commit_offsets(&commits).await?;
        self.committed.extend(positions);
        Ok(())
    }
}
