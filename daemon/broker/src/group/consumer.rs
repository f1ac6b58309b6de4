//! Consumers: reading topics as a member of a group, or partitions of one's own choice, with positions that are
//! committed.
//!
//! A consumer is driven by polling alone: within [`poll_event`](Consumer::poll_event) it learns of rebalances, gives up
//! and takes partitions, looks up where to begin, and reads. What may happen beside a poll is that the group expels it,
//! which fences its commits.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::batch::fetched::Fetched;
use crate::batch::record::RecordView;
use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::group::consumer_options::ConsumerOptions;
use crate::group::group_metadata::ConsumerGroupMetadata;
use crate::group::membership::{Membership, Polling};
use crate::group::offset_record::{CommittedOffset, OffsetCommit};
use crate::reader::Start;
use crate::reader_set::{PartitionError, ReaderSet};
use crate::topic_partition::TopicPartition;

/// Reads for a group. [`Broker::consumer`] makes one.
///
/// With [`subscribe`](Self::subscribe) it is a member of its group, which gives it some of the partitions of the
/// topics; with [`assign`](Self::assign) it reads the partitions named. Dropped, it leaves the group at once, without
/// committing.
///
/// ```
/// # use tidewater_broker::{AutoOffsetReset, BatchBuilder, Broker, BrokerOptions, Compression, ConsumerOptions, TopicConfig};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
/// broker.create_topic("orders", TopicConfig::new(3)).await?;
/// let mut batch = BatchBuilder::new(Compression::None);
/// batch.push(1_700_000_000_000, None, Some(b"apples"), &[]);
/// broker.append("orders", 2, batch).await?;
///
/// let mut consumer = broker.consumer(ConsumerOptions {
///     auto_offset_reset: AutoOffsetReset::Earliest,
///     ..ConsumerOptions::new("billing")
/// })?;
/// consumer.subscribe(&["orders"])?;
/// let polled = consumer.poll(1 << 20).await?;
/// assert_eq!(polled.partition.to_string(), "orders-2");
/// assert_eq!(polled.records().next().unwrap().value, Some(&b"apples"[..]));
/// consumer.commit().await?;
/// consumer.close().await?;
/// assert_eq!(broker.group_offsets("billing")[&("orders".to_owned(), 2)], 1);
/// # broker.close().await
/// # }
/// ```
pub struct Consumer {
    broker: Broker,
    options: ConsumerOptions,
    readers: ReaderSet,
    /// The partitions that are its own. Those not among `readers` have no position yet.
    assigned: BTreeSet<TopicPartition>,
    paused: BTreeSet<TopicPartition>,
    membership: Option<Membership>,
    /// Told to the caller, who has until the next poll to commit.
    revoking: BTreeSet<TopicPartition>,
    /// To be told to the caller.
    untold: Vec<ConsumerEvent>,
    /// The positions committed or begun at, for auto commit.
    committed: BTreeMap<TopicPartition, u64>,
    next_auto_commit: Option<Instant>,
}

/// What a poll gives.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// Records of one partition.
    Records(ConsumerRecords),
    /// These partitions are the consumer's from now on. It begins where the group has committed, unless it is sought.
    Assigned(BTreeSet<TopicPartition>),
    /// These partitions are to be given up, which the next poll does; until then they can be committed.
    Revoked(BTreeSet<TopicPartition>),
    /// These partitions were taken away, since the consumer was expelled: it can commit nothing of them any more, and
    /// others read again what it has not committed. It joins anew by itself.
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

impl Broker {
    /// Makes a consumer, which reads nothing yet.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn consumer(&self, options: ConsumerOptions) -> Result<Consumer> {
        self.check_open()?;
        options.validate()?;
        Ok(Consumer {
            broker: self.clone(),
            readers: self.reader_set(options.isolation),
            options,
            assigned: BTreeSet::new(),
            paused: BTreeSet::new(),
            membership: None,
            revoking: BTreeSet::new(),
            untold: Vec::new(),
            committed: BTreeMap::new(),
            next_auto_commit: None,
        })
    }
}

impl Consumer {
    /// Reads these topics as a member of the group, from the next poll on, in place of what was subscribed to or assigned
    /// before. They need not exist yet. Call it within a tokio runtime, whose timers send the heartbeats.
    ///
    /// # Errors
    /// [`Error::InconsistentAssignor`], [`Error::NoRuntime`].
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<()> {
        self.broker.check_open()?;
        let topics: BTreeSet<Arc<str>> = topics.iter().map(|topic| Arc::from(*topic)).collect();
        let registry = &self.broker.shared.groups;
        if let Some(membership) = &mut self.membership {
            match registry.subscribe(&membership.group, &membership.member_id, topics.clone()) {
                // Expelled: it joins with the new topics when it polls, which tells what it lost.
                Ok(()) | Err(Error::UnknownMember { .. }) => {
                    membership.topics = topics;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let membership = Membership::join(registry, &self.options, topics)?;
        self.forget_all();
        self.membership = Some(membership);
        Ok(())
    }

    /// Reads these partitions, of one's own choice, in place of what was subscribed to or assigned before. A partition
    /// that was assigned before goes on where it stands.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`]; nothing is changed then.
    pub fn assign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for partition in partitions {
            self.broker.log(&partition.topic, partition.partition)?;
        }
        if self.membership.is_some() {
            self.unsubscribe();
        }
        let wanted: BTreeSet<_> = partitions.iter().cloned().collect();
        for gone in self.assigned.difference(&wanted).cloned().collect::<Vec<_>>() {
            self.forget(&gone);
        }
        self.assigned = wanted;
        Ok(())
    }

    /// Reads nothing any more; leaves the group at once.
    pub fn unsubscribe(&mut self) {
        self.membership = None;
        self.forget_all();
    }

    /// The partitions it reads now.
    pub fn assignment(&self) -> &BTreeSet<TopicPartition> {
        &self.assigned
    }

    /// The topics it is subscribed to.
    pub fn subscription(&self) -> impl Iterator<Item = &str> {
        self.membership
            .iter()
            .flat_map(|membership| membership.topics.iter().map(|topic| &**topic))
    }

    /// Waits until there are records, and gives those of one partition, as [`poll_event`](Self::poll_event), whose other
    /// events it passes over: for consumers that keep nothing by partition. Records that were given and not committed
    /// when their partition goes are given again, to its next owner.
    ///
    /// # Errors
    /// As [`poll_event`](Self::poll_event).
    pub async fn poll(&mut self, max_bytes: usize) -> Result<ConsumerRecords> {
        loop {
            if let ConsumerEvent::Records(records) = self.poll_event(max_bytes).await? {
                return Ok(records);
            }
        }
    }

    /// Waits until something happens: records, at most `max_bytes` of them as in [`Reader::next`](crate::Reader::next),
    /// or a change of what is assigned.
    ///
    /// A rebalance waits for every member to poll: poll at least every
    /// [`max_poll_interval`](ConsumerOptions::max_poll_interval). Waits without polling, and may be dropped at any await
    /// without losing a record or an event.
    ///
    /// # Errors
    /// [`Error::NotSubscribed`]; [`Error::NoCommittedOffset`] and [`Error::OffsetOutOfRange`] where
    /// [`auto_offset_reset`](ConsumerOptions::auto_offset_reset) is `None`; [`Error::FencedInstance`];
    /// [`Error::Corrupt`], after which the partition is passed over until it is sought; with
    /// [`assign`](Self::assign) [`Error::TopicDeleted`].
    pub async fn poll_event(&mut self, max_bytes: usize) -> Result<ConsumerEvent> {
        let registry = Arc::clone(&self.broker.shared.groups);
        let coordinator = Arc::clone(self.broker.coordinator());
        let mut polling = Polling::new(&registry, &self.options.group);
        if self.membership.is_none() && self.assigned.is_empty() {
            let group = self.options.group.clone();
            return Err(Error::NotSubscribed { group });
        }
        self.auto_commit(false).await?;
        loop {
            let never = Notify::new();
            let changed = self
                .membership
                .as_ref()
                .map(|membership| Arc::clone(&membership.changed));
            let mut changed = pin!(changed.as_deref().unwrap_or(&never).notified());
            let mut settled = pin!(coordinator.offsets.settled());
            let mut closing = pin!(registry.closing());
            // Registered before looking, so that no notification comes in between.
            changed.as_mut().enable();
            settled.as_mut().enable();
            closing.as_mut().enable();
            self.broker.check_open()?;

            if self.untold.is_empty() {
                let joined = self.reconcile(&mut polling)?;
                if joined && self.untold.is_empty() {
                    // To wait for the changes that concern the new member.
                    continue;
                }
            }
            if let Some(ConsumerEvent::Revoked(partitions)) = self.untold.first() {
                // Before the caller is told, who may commit once more.
                let partitions = partitions.clone();
                self.commit_changed(&partitions).await?;
                self.revoking = partitions;
            }
            if !self.untold.is_empty() {
                return Ok(self.untold.remove(0));
            }
            let unsettled = self.look_up_positions()?;
            let auto_commit = self
                .next_auto_commit
                .filter(|_| !self.uncommitted(&self.assigned).is_empty());
            let due = auto_commit.map(tokio::time::Instant::from_std);
            let commit_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = closing => {}
                () = settled, if unsettled => {}
                next = self.readers.next(max_bytes) => match next {
                    Ok((partition, fetched)) => {
                        return Ok(ConsumerEvent::Records(ConsumerRecords { partition, fetched }));
                    }
                    Err(error) => self.recover(error)?,
                },
                () = commit_due => self.auto_commit(false).await?,
            }
        }
    }

    /// Commits the positions of all partitions: everything given by polls counts as processed. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::UnknownMember`] and [`Error::IllegalGeneration`] if the group has taken partitions away: nothing is
    /// committed, and the next poll tells what is left. Those of the disk.
    pub async fn commit(&mut self) -> Result<()> {
        let positions = self.positions(&self.assigned);
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
        let found = self
            .broker
            .offset_for_time(&partition.topic, partition.partition, timestamp)
            .await?;
        self.seek(partition, found.map_or(Start::Latest, Start::Offset))
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

    /// Commits if auto commit is on, and leaves the group at once (a static member may come back instead).
    ///
    /// # Errors
    /// As [`commit`](Self::commit); the group is left even so.
    pub async fn close(mut self) -> Result<()> {
        self.auto_commit(true).await
    }

    /// Moves towards what the group wants it to have; what the caller is to know goes to `untold`. Answers whether it had
    /// to join anew.
    fn reconcile(&mut self, polling: &mut Polling) -> Result<bool> {
        let registry = Arc::clone(&self.broker.shared.groups);
        let mut joined = false;
        loop {
            let Some(membership) = &mut self.membership else {
                return Ok(joined);
            };
            polling.member_id = Some(Arc::clone(&membership.member_id));
            let revoking = std::mem::take(&mut self.revoking);
            let told = if revoking.is_empty() {
                Ok(())
            } else {
                registry.revoked(&membership.group, &membership.member_id, &revoking)
            };
            let directive = told.and_then(|()| registry.poll(&membership.group, &membership.member_id));
            match directive {
                Ok(directive) => {
                    membership.generation = directive.generation;
                    for partition in &revoking {
                        self.forget(partition);
                    }
                    if !directive.revoke.is_empty() {
                        self.untold.push(ConsumerEvent::Revoked(directive.revoke));
                    }
                    if !directive.assign.is_empty() {
                        self.assigned.extend(directive.assign.iter().cloned());
                        self.untold.push(ConsumerEvent::Assigned(directive.assign));
                    }
                    return Ok(joined);
                }
                Err(error) => {
                    let lost = std::mem::take(&mut self.assigned);
                    self.forget_all();
                    if !lost.is_empty() {
                        self.untold.push(ConsumerEvent::Lost(lost));
                    }
                    let Error::UnknownMember { .. } = &error else {
                        self.membership = None;
                        return Err(error);
                    };
                    if let Some(before) = self.membership.take() {
                        tracing::info!(%error, "joining the group anew");
                        let topics = before.topics.clone();
                        drop(before);
                        self.membership = Some(Membership::join(&registry, &self.options, topics)?);
                        joined = true;
                    }
                }
            }
        }
    }

    /// Finds where to begin in partitions that have no position. Answers whether some wait for a commit under way.
    fn look_up_positions(&mut self) -> Result<bool> {
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
                Err(Error::UnknownTopic { .. } | Error::TopicDeleted { .. }) if self.membership.is_some() => {
                }
                Err(error) => {
                    let start = self.reset(&partition, error)?;
                    self.begin(&partition, start)?;
                }
                Ok(()) => {}
            }
        }
        Ok(unsettled)
    }

    fn begin(&mut self, partition: &TopicPartition, start: Start) -> Result<()> {
        self.readers.add(&partition.topic, partition.partition, start)?;
        if self.paused.contains(partition) {
            self.readers.pause(partition);
        }
        Ok(())
    }

    /// Where to go on after an error that `auto.offset.reset` is for, or the error.
    fn reset(&self, partition: &TopicPartition, error: Error) -> Result<Start> {
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
    fn recover(&mut self, PartitionError { partition, source }: PartitionError) -> Result<()> {
        if let Error::TopicDeleted { .. } | Error::UnknownTopic { .. } = &source
            && self.membership.is_some()
        {
            // If another topic of that name is there by now, it begins anew.
            self.readers.remove(&partition);
            self.committed.remove(&partition);
            return Ok(());
        }
        let start = self.reset(&partition, source)?;
        self.readers.seek(&partition, start)
    }

    fn forget(&mut self, partition: &TopicPartition) {
        self.assigned.remove(partition);
        self.readers.remove(partition);
        self.paused.remove(partition);
        self.committed.remove(partition);
    }

    fn forget_all(&mut self) {
        self.readers.clear();
        self.assigned.clear();
        self.paused.clear();
        self.committed.clear();
        self.revoking.clear();
        self.untold.clear();
    }

    fn positions(&self, partitions: &BTreeSet<TopicPartition>) -> Vec<(TopicPartition, u64)> {
        let position =
            |partition: &TopicPartition| Some((partition.clone(), self.readers.position(partition)?));
        partitions.iter().filter_map(position).collect()
    }

    /// The positions that moved since they were committed.
    fn uncommitted(&self, partitions: &BTreeSet<TopicPartition>) -> Vec<(TopicPartition, u64)> {
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

    /// Commits what moved in these partitions, if auto commit is on.
    async fn commit_changed(&mut self, partitions: &BTreeSet<TopicPartition>) -> Result<()> {
        if self.options.auto_commit_interval.is_none() {
            return Ok(());
        }
        let positions = self.uncommitted(partitions);
        match self.commit_positions(positions).await {
            // Expelled meanwhile, which the poll tells.
            Err(Error::UnknownMember { .. } | Error::IllegalGeneration { .. }) => Ok(()),
            result => result,
        }
    }

    /// Commits what moved, if auto commit is on and it is time.
    async fn auto_commit(&mut self, now: bool) -> Result<()> {
        let Some(interval) = self.options.auto_commit_interval else {
            return Ok(());
        };
        let due = self.next_auto_commit.is_some_and(|due| due <= Instant::now());
        if now || due {
            let assigned = self.assigned.clone();
            self.commit_changed(&assigned).await?;
        }
        if due || self.next_auto_commit.is_none() {
            self.next_auto_commit = Some(Instant::now() + interval);
        }
        Ok(())
    }
}
