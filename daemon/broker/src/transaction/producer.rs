//! Transactional producers: what a task writes becomes visible whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::builder::BatchBuilder;
use crate::batch::header::Outcome;
use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::group::group_metadata::ConsumerGroupMetadata;
use crate::group::offset_record::{self, OffsetCommit};
use crate::transaction::commit::{self, Committed};
use crate::transaction::log::ProducerId;
use crate::transaction::producer_state::{Phase, ProducerEntry, Times};

/// The live instance of a transactional id. [`Broker::producer`] makes the next one, which fences this.
pub struct Producer {
    broker: Broker,
    entry: Arc<ProducerEntry>,
    who: ProducerId,
    options: ProducerOptions,
}

/// What can be set for a [`Producer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerOptions {
    /// How long a transaction may stay open (default 60 seconds, at most
    /// [`BrokerOptions::transaction_max_timeout`](crate::BrokerOptions::transaction_max_timeout)): then it is aborted,
    /// and calls on it get [`Error::TransactionTimedOut`]. Kafka's `transaction.timeout.ms`. Counts from
    /// [`begin`](Producer::begin) until its commit begins.
    pub transaction_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            transaction_timeout: Duration::from_mins(1),
        }
    }
}

impl ProducerOptions {
    pub(crate) fn validate(&self, longest: Duration) -> Result<()> {
        if self.transaction_timeout.is_zero() || self.transaction_timeout > longest {
            return Err(Error::InvalidOption {
                name: "transaction_timeout",
                value: format!("{:?}", self.transaction_timeout),
                allowed: "a time above zero, and at most the broker's transaction_max_timeout",
            });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("transactional_id", &self.entry.transactional_id)
            .field("id", &self.who.id)
            .field("epoch", &self.who.epoch)
            .finish_non_exhaustive()
    }
}

/// A transaction under way. Dropped without [`commit`](Self::commit), or open for longer than
/// [`ProducerOptions::transaction_timeout`], it is aborted.
#[must_use = "dropped without commit, it is aborted"]
pub struct Transaction {
    broker: Broker,
    entry: Arc<ProducerEntry>,
    who: ProducerId,
    number: u64,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("transactional_id", &self.entry.transactional_id)
            .field("producer_id", &self.who.id)
            .field("epoch", &self.who.epoch)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// Takes over from the instance before (invariant 9): fences it, ends its transaction, and makes the new epoch
    /// durable.
    pub(crate) async fn take_over(
        broker: Broker,
        entry: Arc<ProducerEntry>,
        options: ProducerOptions,
    ) -> Result<Self> {
        let turn = entry.turn.lock().await;
        let transactions = &broker.coordinator().transactions;
        let who = {
            let mut state = entry.state.lock();
            let who = transactions.next_instance(state.who);
            state.fence(who, broker.shared.flusher.clock.monotonic());
            who
        };
        // A commit that was under way when it was fenced comes to its end.
        entry.settle().await;
        entry.abort_open();
        if let Phase::Undecided(reason, _) = &entry.state.lock().phase {
            let transactional_id = Arc::clone(&entry.transactional_id);
            return Err(Error::CommitUnknown {
                transactional_id,
                reason: Arc::clone(reason),
            });
        }
        let next = transactions.append_producer(&entry.transactional_id, who)?;
        transactions.log.synced(next).await?;
        drop(turn);
        Ok(Self {
            broker,
            entry,
            who,
            options,
        })
    }

    /// The transactional id.
    pub fn transactional_id(&self) -> &str {
        &self.entry.transactional_id
    }

    /// The producer id, which its batches carry.
    pub fn id(&self) -> i64 {
        self.who.id
    }

    /// The epoch of this instance.
    pub fn epoch(&self) -> i16 {
        self.who.epoch
    }

    /// Begins a transaction; a producer has one at a time.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::TransactionOpen`], [`Error::CommitUnknown`].
    pub fn begin(&self) -> Result<Transaction> {
        self.broker.check_open()?;
        let timeout = self.options.transaction_timeout;
        let clock = &self.broker.shared.flusher.clock;
        let times = Times {
            since_ms: clock.now_ms(),
            timeout,
            deadline: clock.monotonic() + timeout,
        };
        let id = &self.entry.transactional_id;
        let number = self.entry.state.lock().begin(id, self.who, times)?;
        let (broker, entry) = (self.broker.clone(), Arc::clone(&self.entry));
        let transaction = Transaction {
            broker,
            entry,
            who: self.who,
            number,
        };
        // If that fails the transaction is dropped, and so aborted.
        self.broker.shared.watch_timeout(times.deadline)?;
        Ok(transaction)
    }
}

impl Transaction {
    /// Writes a batch. Waits only for room among the bytes in flight, not for the disk. After an error the
    /// transaction is as before the call; it can go on or be aborted.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::TransactionTimedOut`], [`Error::UnknownTopic`], [`Error::DiskFull`] and others.
    pub async fn append(&mut self, topic: &str, partition: u32, batch: BatchBuilder) -> Result<()> {
        let log = self.broker.writable_log(topic, partition)?;
        let batch = batch.pack(log.compression())?;
        let reserved = self.broker.reserve(&log, batch.bytes()).await;
        let mut state = self.entry.state.lock();
        let id = &self.entry.transactional_id;
        state.append(id, (self.who, self.number), &log, batch, reserved)?;
        Ok(())
    }

    /// Commits the next offsets to read of a consumer group with the transaction (invariant 2).
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn commit_group_offsets(&mut self, group: &str, offsets: &[(&str, u32, u64)]) -> Result<()> {
        let commits: Vec<_> = offsets
            .iter()
            .map(|&(topic, partition, offset)| OffsetCommit::new(topic, partition, offset))
            .collect();
        self.commit_offsets(group, &commits).await
    }

    /// Commits offsets with metadata; else as [`commit_group_offsets`](Self::commit_group_offsets).
    ///
    /// # Errors
    /// [`Error::OffsetMetadataTooLarge`], [`Error::GroupNotEmpty`], and as [`append`](Self::append).
    pub async fn commit_offsets(&mut self, group: &str, offsets: &[OffsetCommit<'_>]) -> Result<()> {
        let anybody = ConsumerGroupMetadata::without_member(group);
        self.commit_offsets_of(&anybody, offsets).await
    }

    /// Commits the offsets of a consumer, as of its
    /// [`group_metadata`](crate::Consumer::group_metadata), with the transaction: what was read of these partitions
    /// counts as processed if and only if it commits. The next owner of a partition waits for that decision.
    ///
    /// # Errors
    /// [`Error::UnknownMember`] and [`Error::IllegalGeneration`] if the consumer lost a partition since: abort then, as
    /// others process its records. Else as [`commit_offsets`](Self::commit_offsets).
    pub async fn commit_offsets_of(
        &mut self,
        consumer: &ConsumerGroupMetadata,
        offsets: &[OffsetCommit<'_>],
    ) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let now = self.broker.now_ms();
        let limit = self.broker.shared.options.offset_metadata_max_bytes;
        let changes = offset_record::changes(&consumer.group, offsets, now, limit)?;
        let batch = offset_record::encode(&changes, now)?;
        let offsets_log = &self.broker.coordinator().offsets.log;
        let reserved = self.broker.reserve(offsets_log, batch.bytes()).await;
        let mut state = self.entry.state.lock();
        let (id, who) = (&self.entry.transactional_id, (self.who, self.number));
        let _fence = self.broker.shared.groups.fence(consumer, offsets)?;
        let table = &self.broker.coordinator().offsets;
        let mut groups = table.lock();
        let (pending, transaction) = table.write(&mut groups, changes, batch, |log, batch| {
            let (appended, transaction) = state.append(id, who, log, batch.pack(None)?, reserved)?;
            Ok((appended.base, transaction))
        })?;
        transaction.offsets.push(pending);
        Ok(())
    }

    /// Commits: when this returns, all of the transaction is durable and visible, in every partition. If it fails,
    /// nothing of it is, except for [`Error::CommitUnknown`]. Once polled it goes on to its end even if dropped.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::TransactionTimedOut`], [`Error::DiskFull`], [`Error::LogFailed`],
    /// [`Error::CommitUnknown`] and others.
    pub async fn commit(self) -> Result<Committed> {
        let receiver = commit::start(self.broker.coordinator(), &self.entry, self.who, self.number)?;
        receiver.await.map_err(|_| Error::Closed)?
    }

    /// Aborts: nothing of the transaction will ever be visible to readers of committed data.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a newer instance aborted it already, [`Error::TransactionTimedOut`].
    #[expect(
        clippy::unused_async,
        reason = "the signature is that of the other ways to end a transaction"
    )]
    pub async fn abort(self) -> Result<()> {
        let mut state = self.entry.state.lock();
        let transaction = state.take_open(&self.entry.transactional_id, self.who, self.number)?;
        // Needs no sync: after a crash a transaction without a commit record is aborted.
        transaction.end(Outcome::Abort);
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let mut state = self.entry.state.lock();
        if let Ok(transaction) = state.take_open(&self.entry.transactional_id, self.who, self.number) {
            transaction.end(Outcome::Abort);
        }
    }
}

impl ProducerEntry {
    /// Aborts the transaction that is open, if any.
    pub(crate) fn abort_open(&self) {
        let mut state = self.state.lock();
        if let Phase::Open(_) = state.phase
            && let Phase::Open(transaction) = std::mem::replace(&mut state.phase, Phase::Idle)
        {
            transaction.end(Outcome::Abort);
        }
    }
}
