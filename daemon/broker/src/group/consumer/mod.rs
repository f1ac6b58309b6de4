//! Consumers: reading topics as a member of a group, or partitions of one's own choice, with positions that are
//! committed.
//!
//! A consumer is driven by polling alone: within [`poll_event`](Consumer::poll_event) it learns of rebalances, gives up
//! and takes partitions, looks up where to begin, and reads. What may happen beside a poll is that the group expels it,
//! which fences its commits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::group::membership::{Membership, Polling};
use crate::group::subscription::Subscription;
use crate::reader_set::ReaderSet;
use crate::topic_partition::TopicPartition;

mod commit;
pub(crate) mod event;
pub(crate) mod options;
mod position;
#[cfg(test)]
mod tests;

use event::{ConsumerEvent, ConsumerRecords};
use options::ConsumerOptions;

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
    untold: VecDeque<ConsumerEvent>,
    /// The positions committed or begun at, for auto commit.
    committed: BTreeMap<TopicPartition, u64>,
    /// By the broker's clock.
    next_auto_commit: Option<Instant>,
    /// Notified when that time has come, if it was the time of the `alarm`.
    auto_commit_due: Arc<Notify>,
    alarm: Option<Instant>,
    /// What is to be revoked was committed, or could not be.
    committed_last: bool,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let member = self.membership.as_ref().map(|membership| &membership.member_id);
        f.debug_struct("Consumer")
            .field("group", &self.options.group)
            .field("member_id", &member)
            .field("assignment", &self.assigned)
            .finish_non_exhaustive()
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
            untold: VecDeque::new(),
            committed: BTreeMap::new(),
            next_auto_commit: None,
            auto_commit_due: Arc::default(),
            alarm: None,
            committed_last: false,
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
        let topics = topics.iter().map(|topic| Arc::from(*topic)).collect();
        self.subscribe_to(Subscription::Topics(topics))
    }

    /// As [`subscribe`](Self::subscribe), to all topics whose whole names match a regular expression (in the syntax of
    /// the crate `regex`), also those created later. The broker's own topics are left out.
    ///
    /// ```
    /// # use tidewater_broker::{Broker, BrokerOptions, ConsumerEvent, ConsumerOptions, TopicConfig};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
    /// let mut consumer = broker.consumer(ConsumerOptions::new("billing"))?;
    /// consumer.subscribe_pattern("shop[.].*")?;
    /// broker.create_topic("shop.orders", TopicConfig::new(2)).await?;
    /// let ConsumerEvent::Assigned(partitions) = consumer.poll_event(1 << 20).await? else { unreachable!() };
    /// assert_eq!(partitions.len(), 2);
    /// # broker.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if it is no regular expression, and as [`subscribe`](Self::subscribe).
    pub fn subscribe_pattern(&mut self, pattern: &str) -> Result<()> {
        self.subscribe_to(Subscription::pattern(pattern)?)
    }

    fn subscribe_to(&mut self, subscription: Subscription) -> Result<()> {
        self.broker.check_open()?;
        let registry = &self.broker.shared.groups;
        if let Some(membership) = &mut self.membership {
            match registry.subscribe(&membership.group, &membership.member_id, subscription.clone()) {
                // Expelled: it joins with the new subscription when it polls, which tells what it lost.
                Ok(()) | Err(Error::UnknownMember { .. }) => {
                    membership.subscription = subscription;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let membership = Membership::join(registry, &self.options, subscription)?;
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

    /// Reads nothing any more, and leaves the group at once; a static member stays in it until its session is over.
    pub fn unsubscribe(&mut self) {
        self.membership = None;
        self.forget_all();
    }

    /// The partitions it reads now.
    pub fn assignment(&self) -> &BTreeSet<TopicPartition> {
        &self.assigned
    }

    /// The topics it is subscribed to: those it named, or those there are now that match its pattern.
    pub fn subscription(&self) -> BTreeSet<Arc<str>> {
        let registry = &self.broker.shared.groups;
        let subscribed = self.membership.as_ref().map(|member| &member.subscription);
        subscribed.map_or_else(BTreeSet::new, |subscription| registry.topics_of(subscription))
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
    /// [`Error::NotSubscribed`]; those of [`commit`](Self::commit) where an auto commit failed, after which polling goes on
    /// and what was not committed is tried again; [`Error::NoCommittedOffset`] and [`Error::OffsetOutOfRange`] where
    /// [`auto_offset_reset`](ConsumerOptions::auto_offset_reset) is `None`; [`Error::FencedInstance`];
    /// [`Error::Corrupt`], after which the partition is passed over until it is sought; with
    /// [`assign`](Self::assign) [`Error::TopicDeleted`].
    pub async fn poll_event(&mut self, max_bytes: usize) -> Result<ConsumerEvent> {
        let registry = Arc::clone(&self.broker.shared.groups);
        let coordinator = Arc::clone(self.broker.coordinator());
        if self.membership.is_none() && self.assigned.is_empty() {
            let group = self.options.group.clone();
            return Err(Error::NotSubscribed { group });
        }
        // Also where there is only something to be told: the time between polls begins anew.
        let mut polling = Polling::new(&registry, &self.options.group);
        polling.member_id = self
            .membership
            .as_ref()
            .map(|member| Arc::clone(&member.member_id));
        self.auto_commit().await?;
        let auto_commit_due = Arc::clone(&self.auto_commit_due);
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
            if let Some(ConsumerEvent::Revoked(partitions)) = self.untold.front() {
                // Before the caller is told, who may commit once more.
                let partitions = partitions.clone();
                self.commit_before_giving_up(&partitions).await?;
                self.committed_last = false;
                self.revoking = partitions;
            }
            if let Some(event) = self.untold.pop_front() {
                return Ok(event);
            }
            let unsettled = self.look_up_positions()?;
            self.await_auto_commit()?;
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
                () = auto_commit_due.notified() => self.auto_commit().await?,
            }
        }
    }

    /// Commits if auto commit is on, and leaves the group at once (a static member may come back instead).
    ///
    /// # Errors
    /// As [`commit`](Self::commit); the group is left even so.
    pub async fn close(mut self) -> Result<()> {
        if self.options.auto_commit_interval.is_none() {
            return Ok(());
        }
        let assigned = std::mem::take(&mut self.assigned);
        self.commit_moved(&assigned).await
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
                    for partition in revoking.iter().chain(&directive.lost) {
                        self.forget(partition);
                    }
                    if !directive.lost.is_empty() {
                        self.untold.push_back(ConsumerEvent::Lost(directive.lost));
                    }
                    if !directive.revoke.is_empty() {
                        self.untold.push_back(ConsumerEvent::Revoked(directive.revoke));
                    }
                    if !directive.assign.is_empty() {
                        self.assigned.extend(directive.assign.iter().cloned());
                        self.untold.push_back(ConsumerEvent::Assigned(directive.assign));
                    }
                    return Ok(joined);
                }
                Err(error) => {
                    let lost = std::mem::take(&mut self.assigned);
                    self.forget_all();
                    if !lost.is_empty() {
                        self.untold.push_back(ConsumerEvent::Lost(lost));
                    }
                    let Error::UnknownMember { .. } = &error else {
                        self.membership = None;
                        return Err(error);
                    };
                    if let Some(before) = self.membership.take() {
                        tracing::info!(%error, "joining the group anew");
                        let subscription = before.subscription.clone();
                        drop(before);
                        self.membership = Some(Membership::join(&registry, &self.options, subscription)?);
                        joined = true;
                    }
                }
            }
        }
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
        self.committed_last = false;
    }
}
