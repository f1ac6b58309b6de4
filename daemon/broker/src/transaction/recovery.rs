//! Deciding transactions when the broker opens: after a crash each is either whole or gone. The argument is in
//! [`commit`](crate::transaction::commit).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::batch::header::Outcome;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::recovery::Recovered;
use crate::recovery_report::RecoveryAction;
use crate::transaction::log::{TransactionLog, WrittenMarker};
use crate::transaction::record::{ListedPartition, TransactionKey};

/// The logs of all partitions, just opened.
pub(crate) type OpenedLogs = HashMap<(Uuid, u32), (Arc<Log>, Recovered)>;

/// Decides the transactions of `commits` and those without a commit record, writes the markers they lack, and makes
/// all of it durable. No flusher thread runs yet.
pub(crate) fn decide(
    transactions: &TransactionLog,
    commits: &BTreeMap<TransactionKey, Vec<ListedPartition>>,
    logs: &mut OpenedLogs,
) -> Result<()> {
    let mut torn: HashSet<TransactionKey> = HashSet::new();
    for (key, partitions) in commits {
        if partitions.iter().any(|listed| !is_whole(listed, logs)) {
            torn.insert(*key);
            let noted = |result: Result<()>| {
                if let Err(error) = result {
                    // Whatever takes the place of its batches is of a later epoch: it does not count at the next start
                    // either.
                    tracing::warn!(%error, "the record that a torn transaction is aborted is not written");
                }
            };
            transactions.append_abort(*key, Box::new(noted));
        }
    }
    // The decision is durable before anything follows from it: the offsets of the torn batches will be given out
    // again, and then the commit record must not find other batches in their place.
    sync(&transactions.log)?;

    let mut outcome_of = HashMap::new();
    for (key, partitions) in commits {
        for listed in partitions {
            let place = (
                listed.topic_id,
                listed.partition,
                key.producer_id,
                listed.first_offset,
            );
            outcome_of.insert(place, (*key, !torn.contains(key)));
        }
    }
    let mut markers: BTreeMap<TransactionKey, Vec<WrittenMarker>> = BTreeMap::new();
    for ((topic_id, partition), (log, recovered)) in logs.iter_mut() {
        let open: Vec<_> = log
            .state
            .lock()
            .open
            .0
            .iter()
            .map(|(id, o)| (*id, o.clone()))
            .collect();
        for (producer_id, transaction) in open {
            let first_offset = transaction.first.offset;
            let decision = outcome_of
                .get(&(*topic_id, *partition, producer_id, first_offset))
                .filter(|(key, _)| key.epoch == transaction.epoch);
            let (outcome, action) = match decision {
                Some((_, true)) => (
                    Outcome::Commit,
                    RecoveryAction::TransactionCommitted {
                        producer_id,
                        first_offset,
                    },
                ),
                other => {
                    let reason = match other {
                        Some(_) => "its commit had begun, but not all its records were on disk",
                        None => "it had not been committed",
                    };
                    let reason = reason.to_owned();
                    (
                        Outcome::Abort,
                        RecoveryAction::TransactionAborted {
                            producer_id,
                            first_offset,
                            reason,
                        },
                    )
                }
            };
            // Without space for the marker it is written before the next batch; the outcome holds at once.
            let next = log.end_transaction(producer_id, outcome);
            if let Some((key, true)) = decision {
                let marker = WrittenMarker {
                    log: Arc::clone(log),
                    first: first_offset,
                    next,
                };
                markers.entry(*key).or_default().push(marker);
            }
            log.state.lock().sync.checkpoint_due = true;
            recovered.actions.push(action);
        }
        let dirty = {
            let state = log.state.lock();
            state.end != state.progress.durable().offset || state.sync.checkpoint_due
        };
        if dirty {
            sync(log)?;
        }
    }
    for (key, written) in markers {
        transactions.hold(key, commits[&key].clone(), written);
    }
    Ok(())
}

/// Whether all listed batches are there as they were written.
fn is_whole(listed: &ListedPartition, logs: &OpenedLogs) -> bool {
    // A deleted topic takes its part of the transaction with it.
    let Some((_, recovered)) = logs.get(&(listed.topic_id, listed.partition)) else {
        return true;
    };
    listed.batches.iter().all(|batch| {
        batch.base < recovered.trusted || recovered.batches.get(&batch.base) == Some(&(batch.last, batch.crc))
    })
}

/// Syncs a log on this thread.
fn sync(log: &Arc<Log>) -> Result<()> {
    log.sync_once();
    match &log.state.lock().failed {
        Some(reason) => Err(Error::LogFailed {
            path: log.dir.clone(),
            reason: Arc::clone(reason),
        }),
        None => Ok(()),
    }
}
