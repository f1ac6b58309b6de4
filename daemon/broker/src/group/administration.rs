//! What the broker's handle offers for groups: describing them; committing, looking up, resetting and deleting offsets.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::group::description::{GroupDescription, GroupLag, GroupState};
use crate::group::group_metadata::ConsumerGroupMetadata;
use crate::group::offset_record::{self, CommittedOffset, OffsetChange, OffsetCommit};
use crate::group::offsets::{GroupOffsets, Groups, Held, PendingOffsets};

/// Where [`Broker::reset_group_offsets`] puts the offsets of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetReset {
    /// To the first record kept.
    Earliest,
    /// Behind the last durable record.
    Latest,
    /// To this offset, or the nearest there is.
    Offset(u64),
    /// To the first record with this timestamp or a later one, in milliseconds since 1970; behind the last durable record
    /// if there is none.
    Time(i64),
    /// By so many offsets from what is committed, negative ones back; to the nearest there is.
    Shift(i64),
}

impl Broker {
    /// Commits the next offsets to read of a consumer group outside any transaction; durable when it returns. For groups
    /// without members, whose readers share out partitions by themselves.
    ///
    /// # Errors
    /// [`Error::GroupNotEmpty`], [`Error::DiskFull`], [`Error::LogFailed`].
    pub async fn commit_group_offsets(&self, group: &str, offsets: &[(&str, u32, u64)]) -> Result<()> {
        let commits: Vec<_> = offsets
            .iter()
            .map(|&(t, p, o)| OffsetCommit::new(t, p, o))
            .collect();
        self.commit_offsets(group, &commits).await
    }

    /// Commits offsets with metadata; else as [`commit_group_offsets`](Self::commit_group_offsets).
    ///
    /// # Errors
    /// [`Error::OffsetMetadataTooLarge`], [`Error::GroupNotEmpty`], [`Error::DiskFull`], [`Error::LogFailed`].
    pub async fn commit_offsets(&self, group: &str, offsets: &[OffsetCommit<'_>]) -> Result<()> {
        let anybody = ConsumerGroupMetadata::without_member(group);
        self.commit_offsets_of(&anybody, offsets).await
    }

    /// Commits offsets as the member of a group that `metadata` names, and only as such.
    pub(crate) async fn commit_offsets_of(
        &self,
        metadata: &ConsumerGroupMetadata,
        offsets: &[OffsetCommit<'_>],
    ) -> Result<()> {
        self.check_open()?;
        if offsets.is_empty() {
            return Ok(());
        }
        let now = self.now_ms();
        let limit = self.shared.options.offset_metadata_max_bytes;
        let changes = offset_record::changes(&metadata.group, offsets, now, limit)?;
        let batch = offset_record::encode(&changes, now)?;
        let table = &self.coordinator().offsets;
        let reserved = self.reserve(&table.log, batch.bytes()).await;
        let (pending, next) = {
            let _fence = self.shared.groups.fence(metadata, offsets)?;
            let mut groups = table.lock();
            table.write(&mut groups, changes, batch, |log, batch| {
                let appended = log.append(&mut batch.seal(None)?, reserved.hand_over())?;
                Ok((appended.base, appended.next))
            })?
        };
        let durable = table.apply_when_durable(pending, next);
        durable.await.map_err(|_| Error::Closed)?
    }

    /// The committed offsets of a group: the next offset to read, by topic and partition.
    pub fn group_offsets(&self, group: &str) -> BTreeMap<(String, u32), u64> {
        let committed = self.committed_offsets(group).into_iter();
        committed
            .map(|(place, committed)| (place, committed.offset))
            .collect()
    }

    /// The committed offsets of a group with their metadata and times, by topic and partition.
    ///
    /// ```
    /// # use tidewater_broker::{Broker, BrokerOptions, OffsetCommit};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
    /// let commit = OffsetCommit { metadata: "line 7", ..OffsetCommit::new("orders", 0, 42) };
    /// broker.commit_offsets("billing", &[commit]).await?;
    /// let committed = broker.committed_offsets("billing");
    /// assert_eq!(committed[&("orders".to_owned(), 0)].metadata, "line 7");
    /// # broker.close().await
    /// # }
    /// ```
    pub fn committed_offsets(&self, group: &str) -> BTreeMap<(String, u32), CommittedOffset> {
        self.coordinator().offsets.of(group)
    }

    /// The groups that have members or offsets, by name.
    pub fn groups(&self) -> Vec<String> {
        self.list_groups().into_keys().collect()
    }

    /// The groups that have members or offsets, and their states.
    pub fn list_groups(&self) -> BTreeMap<String, GroupState> {
        let mut groups = self.shared.groups.states();
        for group in self.coordinator().offsets.groups() {
            groups.entry(group).or_insert(GroupState::Empty);
        }
        groups
    }

    /// A group and its members. A group nobody knows is described as [`Dead`](GroupState::Dead).
    pub fn describe_group(&self, group: &str) -> GroupDescription {
        self.shared.groups.describe(group).unwrap_or_else(|| {
            let has_offsets = !self.coordinator().offsets.of(group).is_empty();
            GroupDescription {
                group: group.to_owned(),
                state: if has_offsets {
                    GroupState::Empty
                } else {
                    GroupState::Dead
                },
                generation: 0,
                assignor: None,
                members: Vec::new(),
            }
        })
    }

    /// How far a group is behind, by topic and partition: in those it has committed for and that exist. What it did not
    /// read and is not kept any more does not count.
    pub fn group_lag(&self, group: &str) -> BTreeMap<(String, u32), GroupLag> {
        let lag = |((topic, partition), committed): ((String, u32), u64)| {
            let offsets = self.offsets(&topic, partition).ok()?;
            let end = offsets.last_stable;
            let lag = end.saturating_sub(committed.max(offsets.log_start));
            Some(((topic, partition), GroupLag { committed, end, lag }))
        };
        self.group_offsets(group).into_iter().filter_map(lag).collect()
    }

    /// Deletes all offsets of a group, durably.
    ///
    /// # Errors
    /// [`Error::GroupNotEmpty`], [`Error::DiskFull`], [`Error::LogFailed`].
    pub async fn delete_group_offsets(&self, group: &str) -> Result<()> {
        let choose = |groups: &Groups<'_>| {
            let places = groups.get(group).into_iter().flatten();
            let delete = |((topic, partition), _): (&(String, u32), &Held)| {
                OffsetChange::delete(group, topic, *partition)
            };
            Ok(places.map(delete).collect())
        };
        self.change_offsets(group, choose).await.map(drop)
    }

    /// Deletes the offsets of a group in some partitions, durably. Those it does not have are passed over.
    ///
    /// # Errors
    /// [`Error::GroupNotEmpty`], [`Error::DiskFull`], [`Error::LogFailed`].
    pub async fn delete_partition_offsets(&self, group: &str, partitions: &[(&str, u32)]) -> Result<()> {
        let choose = |groups: &Groups<'_>| {
            let held = groups.get(group);
            let has = |topic: &str, partition| {
                held.is_some_and(|group| group.contains_key(&(topic.to_owned(), partition)))
            };
            let chosen = partitions
                .iter()
                .filter(|(topic, partition)| has(topic, *partition));
            Ok(chosen
                .map(|(topic, partition)| OffsetChange::delete(group, topic, *partition))
                .collect())
        };
        self.change_offsets(group, choose).await.map(drop)
    }

    /// Moves the offsets of a group in some partitions, durably and all together; answers where to. Metadata is not
    /// kept.
    ///
    /// ```
    /// # use tidewater_broker::{Broker, BrokerOptions, OffsetReset, TopicConfig};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
    /// # broker.create_topic("orders", TopicConfig::new(1)).await?;
    /// broker.commit_group_offsets("billing", &[("orders", 0, 42)]).await?;
    /// broker.reset_group_offsets("billing", &[("orders", 0)], OffsetReset::Earliest).await?;
    /// assert_eq!(broker.group_offsets("billing")[&("orders".to_owned(), 0)], 0);
    /// # broker.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::GroupNotEmpty`], [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::NoCommittedOffset`] for a
    /// shift of what is not there, [`Error::DiskFull`], [`Error::LogFailed`]; nothing is changed then.
    pub async fn reset_group_offsets(
        &self,
        group: &str,
        partitions: &[(&str, u32)],
        to: OffsetReset,
    ) -> Result<BTreeMap<(String, u32), u64>> {
        if let OffsetReset::Shift(_) = to {
            // Counted from what open transactions commit, too.
            self.coordinator().offsets.wait_stable(group, partitions).await;
        }
        // Found before the lock is taken, as it reads files.
        let mut targets = Vec::new();
        for &(topic, partition) in partitions {
            let to = match to {
                OffsetReset::Time(timestamp) => {
                    // As it is before: what is written meanwhile may be of that time.
                    let end = self.offsets(topic, partition)?.high_watermark;
                    let found = self.offset_for_time(topic, partition, timestamp).await?;
                    OffsetReset::Offset(found.unwrap_or(end))
                }
                to => to,
            };
            targets.push((topic, partition, to));
        }
        let now = self.now_ms();
        let choose = |groups: &Groups<'_>| {
            let change = |&(topic, partition, to): &(&str, u32, OffsetReset)| {
                let offset = self.reset_target(groups, group, (topic, partition), to)?;
                Ok(OffsetChange {
                    value: Some(CommittedOffset {
                        offset,
                        metadata: String::new(),
                        commit_time: now,
                    }),
                    ..OffsetChange::delete(group, topic, partition)
                })
            };
            targets.iter().map(change).collect()
        };
        let changes = self.change_offsets(group, choose).await?;
        let moved = |change: OffsetChange| {
            let offset = change.value?.offset;
            Some(((change.topic, change.partition), offset))
        };
        Ok(changes.into_iter().filter_map(moved).collect())
    }

    fn reset_target(
        &self,
        groups: &Groups<'_>,
        group: &str,
        (topic, partition): (&str, u32),
        to: OffsetReset,
    ) -> Result<u64> {
        let bounds = self.offsets(topic, partition)?;
        let wanted = match to {
            OffsetReset::Earliest => bounds.log_start,
            // A time was looked up already.
            OffsetReset::Latest | OffsetReset::Time(_) => bounds.high_watermark,
            OffsetReset::Offset(offset) => offset,
            OffsetReset::Shift(by) => {
                let place = (topic.to_owned(), partition);
                let held = groups.get(group).and_then(|group| group.get(&place));
                let committed = held.and_then(|held| held.value.as_ref());
                let none = || Error::NoCommittedOffset {
                    group: group.to_owned(),
                    topic: topic.to_owned(),
                    partition,
                };
                committed.ok_or_else(none)?.offset.saturating_add_signed(by)
            }
        };
        Ok(wanted.clamp(bounds.log_start, bounds.high_watermark))
    }

    /// Decides changes of a group without members on the table as it is, and makes them durable before it answers them.
    async fn change_offsets(
        &self,
        group: &str,
        choose: impl FnOnce(&Groups<'_>) -> Result<Vec<OffsetChange>>,
    ) -> Result<Vec<OffsetChange>> {
        self.check_open()?;
        let written = {
            // Nobody joins before the change is appended; who joins then waits until it holds.
            let _fence = self.shared.groups.without_members(group)?;
            self.coordinator().offsets.change(choose)?
        };
        let Some((durable, changes)) = written else {
            return Ok(Vec::new());
        };
        durable.await.map_err(|_| Error::Closed)??;
        Ok(changes)
    }
}

impl GroupOffsets {
    /// Deletes the offsets all groups have in a topic that was deleted, so that one created under its name begins
    /// anew. Blocks until that is durable.
    pub(crate) fn forget_topic(&self, topic: &str) -> Result<()> {
        match self.change(|groups| Ok(deletions(groups, topic)))? {
            Some((durable, _)) => durable.blocking_recv().map_err(|_| Error::Closed)?,
            // An offset whose sync failed is not in the table, and may be in the log for all that. Then what tells the next
            // start to forget it must stay.
            None => self.log.writable(&self.log.state.lock()),
        }
    }

    /// As [`forget_topic`](Self::forget_topic), syncing on this thread: for when no flusher runs yet.
    pub(crate) fn forget_topic_here(&self, topic: &str) -> Result<()> {
        match self.change(|groups| Ok(deletions(groups, topic)))? {
            Some((mut durable, _)) => {
                self.log.sync_once();
                durable.try_recv().map_err(|_| Error::Closed)?
            }
            None => Ok(()),
        }
    }

    /// Decides changes on the table as it is, and appends them. The receiver tells once they hold.
    pub(crate) fn change(
        &self,
        choose: impl FnOnce(&Groups<'_>) -> Result<Vec<OffsetChange>>,
    ) -> Result<Option<(Durable, Vec<OffsetChange>)>> {
        let (pending, next, changes) = {
            let mut groups = self.lock();
            let changes = choose(&groups)?;
            if changes.is_empty() {
                return Ok(None);
            }
            let batch = offset_record::encode(&changes, self.log.now_ms())?;
            let (pending, next) = self.write(&mut groups, changes.clone(), batch, |log, batch| {
                // Few and small: they take no part of the budget, so that no lock is held while waiting for it.
                let appended = log.append(&mut batch.seal(None)?, 0)?;
                Ok((appended.base, appended.next))
            })?;
            (pending, next, changes)
        };
        Ok(Some((self.apply_when_durable(pending, next), changes)))
    }

    /// The changes, whose records end before `next`, take effect once they are durable, whoever waits for it.
    fn apply_when_durable(&self, pending: PendingOffsets, next: u64) -> Durable {
        let (done, durable) = oneshot::channel();
        let told = move |result: Result<()>| {
            match result {
                Ok(()) => pending.apply(),
                Err(_) => drop(pending),
            }
            // Nobody listens only if the future was dropped.
            let _ = done.send(result);
        };
        self.log.when_durable(next, Box::new(told));
        durable
    }
}

/// Tells once changes hold.
pub(crate) type Durable = oneshot::Receiver<Result<()>>;

/// What deletes the offsets of all groups in a topic, those under way in open transactions too.
fn deletions(groups: &Groups<'_>, topic: &str) -> Vec<OffsetChange> {
    let mut changes = Vec::new();
    for (group, held) in groups.iter() {
        let of_topic = held.keys().filter(|(name, _)| name == topic);
        changes.extend(of_topic.map(|(_, partition)| OffsetChange::delete(group, topic, *partition)));
    }
    changes
}
