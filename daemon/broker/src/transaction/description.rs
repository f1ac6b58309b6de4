//! What an operator sees of the transactions under way.

use std::time::Duration;

use crate::broker::Broker;
use crate::transaction::producer_state::{Phase, ProducerEntry, Underway};

/// A transaction that has begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionInfo {
    /// The producer's transactional id.
    pub transactional_id: String,
    /// Its producer id, which its batches carry.
    pub producer_id: i64,
    /// The epoch of the instance.
    pub epoch: i16,
    /// What it is doing.
    pub state: TransactionState,
    /// When it began, in milliseconds since 1970.
    pub since: i64,
    /// How long it may stay open before it is aborted.
    pub timeout: Duration,
    /// The partitions it wrote to, by topic and partition, in the order of its first batches; those of the broker's own
    /// topics too.
    pub partitions: Vec<(String, u32)>,
}

/// What a transaction is doing. The names are Kafka's, but for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionState {
    /// It takes batches.
    Ongoing,
    /// Its commit has begun.
    PrepareCommit,
    /// Its commit failed in a way that only the next start of the broker can decide
    /// ([`Error::CommitUnknown`](crate::Error::CommitUnknown)).
    Undecided,
}

impl Broker {
    /// The transactions under way, by transactional id. While one is, readers of committed data wait at its first
    /// record in each partition.
    pub fn transactions(&self) -> Vec<TransactionInfo> {
        let entries: Vec<_> = self.shared.producers.lock().values().cloned().collect();
        let mut all: Vec<_> = entries.iter().filter_map(|entry| entry.describe()).collect();
        all.sort_unstable_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
        all
    }
}

impl ProducerEntry {
    fn describe(&self) -> Option<TransactionInfo> {
        let state = self.state.lock();
        let (phase, underway) = match &state.phase {
            Phase::Idle => return None,
            Phase::Open(transaction) => (TransactionState::Ongoing, transaction.underway()),
            Phase::Committing(underway) => (TransactionState::PrepareCommit, underway.clone()),
            Phase::Undecided(_, underway) => (TransactionState::Undecided, underway.clone()),
        };
        drop(state);
        let Underway { key, times, logs } = underway;
        let partition = |log: &std::sync::Arc<crate::log::Log>| (log.id.topic.to_string(), log.id.partition);
        Some(TransactionInfo {
            transactional_id: self.transactional_id.to_string(),
            producer_id: key.producer_id,
            epoch: key.epoch,
            state: phase,
            since: times.since_ms,
            timeout: times.timeout,
            partitions: logs.iter().map(partition).collect(),
        })
    }
}
