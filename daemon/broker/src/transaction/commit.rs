//! Committing a transaction: one round of syncs, in parallel.
//!
//! # How
//! The batches of a transaction are in the page cache of their partitions when it commits. A *commit record* is
//! appended to the [transaction log](crate::transaction::log); it lists each batch not yet known to be durable with its
//! place and CRC. Then the partitions and the transaction log are synced, all at once. When all syncs are done the
//! transaction is committed: it is acknowledged, its records and group offsets become visible, and a marker is
//! appended to each partition, to be synced whenever that partition is next.
//!
//! # Why that is enough
//! *The rule:* a transaction is committed if and only if its commit record is durable, no abort record follows it,
//! and every batch it lists is in its place with its CRC.
//!
//! - *Acknowledged implies committed* (invariant 1). The acknowledgement comes after all syncs: the record and all
//!   batches are durable, and nothing takes durable bytes away. Batches the record does not list were durable before.
//! - *Committed in all partitions or in none.* The rule looks at one record and at all batches. Readers see none of
//!   the records before the round is done, since the last stable offset stays at the first of them.
//! - *After a crash the rule gives the same answer for ever.* If the record is durable and a batch was torn off, the
//!   offsets of that batch are free, and other batches will take its place. So recovery first makes an abort record
//!   durable, before anything can be appended. Could a later batch have the same place and CRC by itself? It does not
//!   matter, the abort record stands. If all batches are there, recovery found them in synced files (it syncs what it
//!   reads), so they stay.
//! - *Markers may be lost in a crash*, as they are synced late: recovery writes them again from the commit record,
//!   which is kept until the markers are durable. A marker that was not durable was not below the high watermark, so
//!   no reader was past its offset.
//! - *A marker is never in doubt.* It is written after the decision, and in the file before any later batch of its
//!   producer, so a batch belongs to the transaction whose marker is the next of its producer.
//! - *Group offsets* (invariant 2) are batches of the transaction like all others.
//!
//! Partitions whose `durability` is `os` are neither listed nor waited for: they have their part of a committed
//! transaction unless the machine fails, and then whatever reached the disk of it. A crash of the process alone takes
//! nothing from them, so there the rule holds for them as well.
//!
//! If a sync fails, the logs it concerns stop, and the rule might still come out as committed at the next start. An
//! abort record settles that, if the transaction log still works; else the transaction stays undecided, invisible,
//! until the broker is opened again ([`Error::CommitUnknown`]).
//!
//! The round is driven by completions, not by the future of the caller: a dropped future changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::batch::header::Outcome;
use crate::error::{Error, Result};
use crate::group::offsets::GroupOffsets;
use crate::log::Log;
use crate::log::flusher::Completion;
use crate::transaction::log::{ProducerId, TransactionLog, WrittenMarker};
use crate::transaction::producer_state::{OngoingTransaction, Phase, ProducerEntry};
use crate::transaction::record::ListedPartition;

/// What committing needs of the broker. It does not keep the broker open.
pub(crate) struct Coordinator {
    pub(crate) transactions: TransactionLog,
    pub(crate) offsets: GroupOffsets,
}

/// Where the records of a committed transaction are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// One entry a partition, in the order they were first written to.
    pub partitions: Vec<CommittedPartition>,
}

/// The records of a committed transaction in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the first record.
    pub base_offset: u64,
    /// The offset of the last record. Records of others may lie between.
    pub last_offset: u64,
}

type Answer = oneshot::Sender<Result<Committed>>;

/// Begins the commit of the open transaction of `who`; the receiver tells how it ended.
pub(crate) fn start(
    coordinator: &Arc<Coordinator>,
    entry: &Arc<ProducerEntry>,
    who: ProducerId,
    number: u64,
) -> Result<oneshot::Receiver<Result<Committed>>> {
    let (answer, receiver) = oneshot::channel();
    let (transaction, synced, record_end) = {
        let mut state = entry.state.lock();
        let transaction = state.take_open(&entry.transactional_id, who, number)?;
        if transaction.parts.is_empty() {
            // Nobody listens only if the future was dropped.
            let _ = answer.send(Ok(Committed::default()));
            return Ok(receiver);
        }
        // Asked once: a partition that is listed is waited for, also if its setting changes now.
        let synced: Vec<bool> = transaction.parts.iter().map(|part| part.log.syncs()).collect();
        match coordinator
            .transactions
            .append_commit(transaction.key, list(&transaction, &synced))
        {
            Ok(record_end) => {
                state.phase = Phase::Committing(transaction.underway());
                (transaction, synced, record_end)
            }
            Err(e) => {
                transaction.end(Outcome::Abort);
                return Err(e);
            }
        }
    };
    let parts = transaction
        .parts
        .iter()
        .zip(&synced)
        .filter(|(_, synced)| **synced);
    let mut waits: Vec<(Arc<Log>, u64)> = parts
        .map(|(part, _)| (Arc::clone(&part.log), part.last + 1))
        .collect();
    let record = &coordinator.transactions.log;
    // Where nothing of the transaction is synced, its record is as durable as the broker's own setting says.
    if !waits.is_empty() || record.syncs() {
        waits.push((Arc::clone(record), record_end));
    }

    let round = Arc::new(Round {
        left: AtomicUsize::new(waits.len().max(1)),
        failure: Mutex::new(None),
        finish: Mutex::new(Some(finish(coordinator, entry, transaction, answer))),
    });
    if waits.is_empty() {
        round.arrive(Ok(()));
    }
    for (log, offset) in waits {
        let round = Arc::clone(&round);
        log.when_synced(offset, Box::new(move |result| round.arrive(result)));
    }
    Ok(receiver)
}

/// What the commit record says: per partition where the transaction begins, and the batches that may not be on disk, of
/// partitions that are synced.
fn list(transaction: &OngoingTransaction, synced: &[bool]) -> Vec<ListedPartition> {
    let list_part = |(part, synced): (&crate::transaction::producer_state::Part, &bool)| {
        let durable = if *synced { part.log.synced_to() } else { u64::MAX };
        ListedPartition {
            topic_id: part.log.id.topic_id,
            partition: part.log.id.partition,
            first_offset: part.first,
            batches: part
                .batches
                .iter()
                .filter(|batch| batch.last >= durable)
                .copied()
                .collect(),
        }
    };
    transaction.parts.iter().zip(synced).map(list_part).collect()
}

/// The syncs a commit waits for.
struct Round {
    left: AtomicUsize,
    failure: Mutex<Option<Error>>,
    finish: Mutex<Option<Completion>>,
}

impl Round {
    fn arrive(&self, result: Result<()>) {
        if let Err(e) = result {
            self.failure.lock().get_or_insert(e);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let failure = self.failure.lock().take();
            let finish = self.finish.lock().take();
            if let Some(finish) = finish {
                finish(failure.map_or(Ok(()), Err));
            }
        }
    }
}

/// What is done when all syncs are: on a flusher thread, or on that of the caller if there was nothing to sync.
fn finish(
    coordinator: &Arc<Coordinator>,
    entry: &Arc<ProducerEntry>,
    transaction: OngoingTransaction,
    answer: Answer,
) -> Completion {
    let (coordinator, entry) = (Arc::clone(coordinator), Arc::clone(entry));
    Box::new(move |synced| match synced {
        Ok(()) => {
            let committed = complete(&coordinator, &entry, transaction);
            let _ = answer.send(Ok(committed));
        }
        Err(e) => retract(&coordinator, &entry, transaction, e, answer),
    })
}

/// All is durable: the transaction becomes visible.
fn complete(
    coordinator: &Coordinator,
    entry: &ProducerEntry,
    mut transaction: OngoingTransaction,
) -> Committed {
    let mut state = entry.state.lock();
    let markers = transaction.end(Outcome::Commit);
    for pending in std::mem::take(&mut transaction.offsets) {
        pending.apply();
    }
    coordinator.transactions.finished(transaction.key, markers);
    state.phase = Phase::Idle;
    drop(state);
    entry.settled.notify_waiters();
    let data = transaction
        .parts
        .iter()
        .filter(|part| !Arc::ptr_eq(&part.log, &coordinator.offsets.log));
    let partitions = data.map(|part| CommittedPartition {
        topic: part.log.id.topic.to_string(),
        partition: part.log.id.partition,
        base_offset: part.first,
        last_offset: part.last,
    });
    Committed {
        partitions: partitions.collect(),
    }
}

/// A sync failed after the commit record was written: an abort record settles that it does not count.
fn retract(
    coordinator: &Arc<Coordinator>,
    entry: &Arc<ProducerEntry>,
    mut transaction: OngoingTransaction,
    failure: Error,
    answer: Answer,
) {
    let entry = Arc::clone(entry);
    let key = transaction.key;
    let settle = move |aborted: Result<()>| {
        let mut state = entry.state.lock();
        let error = if aborted.is_ok() {
            transaction.end(Outcome::Abort);
            state.phase = Phase::Idle;
            failure
        } else {
            let reason: Arc<str> = failure.to_string().into();
            state.phase = Phase::Undecided(Arc::clone(&reason), transaction.underway());
            for pending in std::mem::take(&mut transaction.offsets) {
                pending.leave_undecided();
            }
            Error::CommitUnknown {
                transactional_id: Arc::clone(&entry.transactional_id),
                reason,
            }
        };
        drop(state);
        entry.settled.notify_waiters();
        let _ = answer.send(Err(error));
    };
    coordinator.transactions.append_abort(key, Box::new(settle));
}

impl OngoingTransaction {
    /// Ends the transaction in all its partitions; answers the markers.
    pub(crate) fn end(&self, outcome: Outcome) -> Vec<WrittenMarker> {
        let end_part = |part: &crate::transaction::producer_state::Part| WrittenMarker {
            log: Arc::clone(&part.log),
            first: part.first,
            next: part.log.end_transaction(self.key.producer_id, outcome),
        };
        self.parts.iter().map(end_part).collect()
    }
}
