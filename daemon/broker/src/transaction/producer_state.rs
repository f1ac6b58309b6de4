//! What the broker keeps of each transactional producer: its live instance, and the transaction it is in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::batch::builder::{PackedBatch, ProducerStamp};
use crate::batch::header::Outcome;
use crate::error::{Error, Result};
use crate::group::offsets::PendingOffsets;
use crate::log::in_flight::Reserved;
use crate::log::producers::sequence_after;
use crate::log::{Appended, Log};
use crate::transaction::log::ProducerId;
use crate::transaction::record::{ListedBatch, TransactionKey};

/// Listed batches of a partition above which those that became durable are forgotten.
const MANY_BATCHES: usize = 1024;

pub(crate) struct ProducerEntry {
    pub(crate) transactional_id: Arc<str>,
    /// Held while a new instance takes over, so that one comes after the other.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) state: Mutex<ProducerState>,
    /// Notified when a commit under way has ended.
    pub(crate) settled: Notify,
}

pub(crate) struct ProducerState {
    /// The live instance; `None` before the first.
    pub(crate) who: Option<ProducerId>,
    pub(crate) next_number: u64,
    pub(crate) phase: Phase,
    /// The number of the last transaction that was aborted because it took too long, and how long it had.
    timed_out: Option<(u64, Duration)>,
    /// When the producer last did something.
    used: Instant,
    /// The next sequence number of the instance by partition.
    sequences: HashMap<(Uuid, u32), i32>,
}

pub(crate) enum Phase {
    Idle,
    Open(OngoingTransaction),
    Committing(Underway),
    /// A commit failed in a way that only the next start can decide.
    Undecided(Arc<str>, Underway),
}

/// When a transaction began, and when it must have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Milliseconds since 1970.
    pub(crate) since_ms: i64,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Instant,
}

/// What is known of a transaction whose commit has begun.
#[derive(Clone)]
pub(crate) struct Underway {
    pub(crate) key: TransactionKey,
    pub(crate) times: Times,
    pub(crate) logs: Vec<Arc<Log>>,
}

/// A transaction that has begun.
pub(crate) struct OngoingTransaction {
    pub(crate) key: TransactionKey,
    pub(crate) times: Times,
    pub(crate) parts: Vec<Part>,
    /// Void if the transaction is dropped before they are applied.
    pub(crate) offsets: Vec<PendingOffsets>,
}

/// What a transaction wrote to a partition.
pub(crate) struct Part {
    pub(crate) log: Arc<Log>,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The batches, except those known to be durable.
    pub(crate) batches: Vec<ListedBatch>,
}

impl ProducerEntry {
    pub(crate) fn new(transactional_id: &str, who: Option<ProducerId>, now: Instant) -> Self {
        Self {
            transactional_id: transactional_id.into(),
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::new(ProducerState {
                who,
                next_number: 0,
                phase: Phase::Idle,
                timed_out: None,
                used: now,
                sequences: HashMap::new(),
            }),
            settled: Notify::new(),
        }
    }

    /// Waits until no commit is under way.
    pub(crate) async fn settle(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Registered before looking, so that the notification cannot come in between.
            settled.as_mut().enable();
            if !matches!(self.state.lock().phase, Phase::Committing(_)) {
                return;
            }
            settled.await;
        }
    }

    /// Aborts the transaction that is open, if its time is over; answers when it will be if it is not.
    pub(crate) fn abort_if_overdue(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let Phase::Open(open) = &state.phase else {
            return None;
        };
        let (times, number) = (open.times, open.key.number);
        if times.deadline > now {
            return Some(times.deadline);
        }
        if let Phase::Open(transaction) = std::mem::replace(&mut state.phase, Phase::Idle) {
            tracing::warn!(transactional_id = %self.transactional_id, timeout = ?times.timeout,
                "transaction aborted: it took too long");
            state.timed_out = Some((number, times.timeout));
            transaction.end(Outcome::Abort);
        }
        None
    }
}

impl OngoingTransaction {
    pub(crate) fn underway(&self) -> Underway {
        Underway {
            key: self.key,
            times: self.times,
            logs: self.parts.iter().map(|part| Arc::clone(&part.log)).collect(),
        }
    }
}

impl ProducerState {
    /// From now on `who` is the live instance, and every call of an older one fails (invariant 9).
    pub(crate) fn fence(&mut self, who: ProducerId, now: Instant) {
        self.who = Some(who);
        self.used = now;
        self.timed_out = None;
        self.next_number = 0;
        self.sequences.clear();
    }

    pub(crate) fn check(&self, transactional_id: &Arc<str>, who: ProducerId) -> Result<()> {
        match self.who {
            Some(live) if live != who => Err(Error::Fenced {
                transactional_id: Arc::clone(transactional_id),
                epoch: who.epoch,
                current: live.epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the producer did nothing for so long, and has nothing under way.
    pub(crate) fn unused_since(&self, now: Instant, expiration: Duration) -> bool {
        matches!(self.phase, Phase::Idle) && now.saturating_duration_since(self.used) >= expiration
    }

    /// The error of a call on a transaction that is not the open one.
    fn ended(&self, transactional_id: &Arc<str>, number: u64) -> Error {
        let transactional_id = Arc::clone(transactional_id);
        match self.timed_out {
            Some((timed_out, timeout)) if timed_out == number => Error::TransactionTimedOut {
                transactional_id,
                timeout,
            },
            _ => Error::TransactionEnded { transactional_id },
        }
    }

    /// Begins a transaction; answers its number.
    pub(crate) fn begin(
        &mut self,
        transactional_id: &Arc<str>,
        who: ProducerId,
        times: Times,
    ) -> Result<u64> {
        self.check(transactional_id, who)?;
        let transactional_id = Arc::clone(transactional_id);
        match &self.phase {
            Phase::Idle => {}
            Phase::Open(_) | Phase::Committing(_) => return Err(Error::TransactionOpen { transactional_id }),
            Phase::Undecided(reason, _) => {
                return Err(Error::CommitUnknown {
                    transactional_id,
                    reason: Arc::clone(reason),
                });
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        let key = TransactionKey {
            producer_id: who.id,
            epoch: who.epoch,
            number,
        };
        self.used = times
            .deadline
            .checked_sub(times.timeout)
            .unwrap_or(times.deadline);
        self.phase = Phase::Open(OngoingTransaction {
            key,
            times,
            parts: Vec::new(),
            offsets: Vec::new(),
        });
        Ok(number)
    }

    /// Takes the transaction `number` of `who` out; there is none open then.
    pub(crate) fn take_open(
        &mut self,
        transactional_id: &Arc<str>,
        who: ProducerId,
        number: u64,
    ) -> Result<OngoingTransaction> {
        self.check(transactional_id, who)?;
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Open(transaction) if transaction.key.number == number => Ok(transaction),
            other => {
                self.phase = other;
                Err(self.ended(transactional_id, number))
            }
        }
    }

    /// Writes a batch of the open transaction `number` of `who`.
    pub(crate) fn append(
        &mut self,
        transactional_id: &Arc<str>,
        (who, number): (ProducerId, u64),
        log: &Arc<Log>,
        batch: PackedBatch,
        reserved: Reserved<'_>,
    ) -> Result<(Appended, &mut OngoingTransaction)> {
        self.check(transactional_id, who)?;
        // Made before the phase is borrowed for as long as the answer lives.
        let ended = self.ended(transactional_id, number);
        let transaction = match &mut self.phase {
            Phase::Open(transaction) if transaction.key.number == number => transaction,
            _ => return Err(ended),
        };
        let sequence = self
            .sequences
            .entry((log.id.topic_id, log.id.partition))
            .or_insert(0);
        let stamp = ProducerStamp {
            id: who.id,
            epoch: who.epoch,
            sequence: *sequence,
            transactional: true,
        };
        let mut sealed = batch.stamp(Some(stamp));
        let appended = log.append(&mut sealed, reserved.hand_over())?;
        *sequence = sequence_after(*sequence, sealed.count);

        let listed = ListedBatch {
            base: appended.base,
            last: appended.next - 1,
            crc: sealed.crc,
        };
        match transaction
            .parts
            .iter_mut()
            .find(|part| Arc::ptr_eq(&part.log, log))
        {
            Some(part) => {
                if part.batches.len() >= MANY_BATCHES {
                    let durable = log.synced_to();
                    part.batches.retain(|batch| batch.last >= durable);
                }
                part.batches.push(listed);
                part.last = listed.last;
            }
            None => transaction.parts.push(Part {
                log: Arc::clone(log),
                first: listed.base,
                last: listed.last,
                batches: vec![listed],
            }),
        }
        Ok((appended, transaction))
    }
}
