//! How much a crash would have to be read back: the bytes behind the checkpoints, over all logs.
//!
//! They are kept under a limit, so that opening takes about as long for a thousand partitions as for one: when there
//! are more, one of the logs that hold most of them writes a checkpoint. Which one: logs queue in the order in which
//! they got the first such byte; the first in line with at least its share, the mean of all, goes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::log::Log;

pub(crate) struct RecoveryBudget {
    limit: u64,
    total: AtomicU64,
    queue: Mutex<VecDeque<Weak<Log>>>,
}

/// What one log has of it.
pub(crate) struct RecoveryShare {
    budget: Arc<RecoveryBudget>,
    bytes: AtomicU64,
    queued: AtomicBool,
    /// A checkpoint is on its way: what the log has does not count any more.
    promised: AtomicBool,
}

impl RecoveryBudget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            total: AtomicU64::new(0),
            queue: Mutex::default(),
        })
    }

    pub(crate) fn share(self: &Arc<Self>) -> RecoveryShare {
        RecoveryShare {
            budget: Arc::clone(self),
            bytes: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            promised: AtomicBool::new(false),
        }
    }

    /// The log that is to write a checkpoint now, if there is too much to read back.
    pub(crate) fn overdue(&self) -> Option<Arc<Log>> {
        let total = self.total.load(Ordering::Relaxed);
        if total <= self.limit {
            return None;
        }
        let mut queue = self.queue.lock();
        let mean = total / queue.len().max(1) as u64;
        for _ in 0..queue.len() {
            let next = queue.pop_front()?;
            let Some(log) = next.upgrade() else { continue };
            let share = &log.recovery_share;
            share.queued.store(false, Ordering::Relaxed);
            let bytes = share.bytes.load(Ordering::Relaxed);
            if bytes >= mean.max(1) {
                share.promised.store(true, Ordering::Relaxed);
                share.set(0);
                return Some(log);
            }
            if bytes > 0 {
                share.queued.store(true, Ordering::Relaxed);
                queue.push_back(next);
            }
        }
        None
    }
}

impl RecoveryShare {
    /// The log has so many bytes behind its checkpoint. Called under its lock.
    pub(crate) fn has(&self, bytes: u64, log: &Arc<Log>) {
        if self.promised.load(Ordering::Relaxed) {
            return;
        }
        self.set(bytes);
        if bytes > 0 && !self.queued.swap(true, Ordering::Relaxed) {
            self.budget.queue.lock().push_back(Arc::downgrade(log));
        }
    }

    /// A checkpoint covers all of it. Called under the lock of the log.
    pub(crate) fn covered(&self) {
        self.promised.store(false, Ordering::Relaxed);
        self.set(0);
    }

    fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        // Wraps where it shrinks, which takes away.
        self.budget
            .total
            .fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Drop for RecoveryShare {
    fn drop(&mut self) {
        self.set(0);
    }
}
