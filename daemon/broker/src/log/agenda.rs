//! Which logs are to be looked at, and when: because something of them grows too old, because they grew, or because
//! their active segment is to be closed although nothing more is written to it.
//!
//! A log has one entry that counts, its earliest: [`LogState::look_at`](crate::log::LogState::look_at) says which. So
//! a round of housekeeping costs what is due, however many logs there are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::log::{Log, LogState};

#[derive(Default)]
pub(crate) struct Agenda {
    entries: Mutex<BinaryHeap<Reverse<Entry>>>,
}

struct Entry {
    due: Instant,
    log: Weak<Log>,
}

impl Agenda {
    /// Has a log looked at by `due`; `state` is the log's.
    pub(crate) fn note(&self, log: &Arc<Log>, state: &mut LogState, due: Instant) {
        if state.look_at.is_some_and(|at| at <= due) {
            return;
        }
        state.look_at = Some(due);
        let log = Arc::downgrade(log);
        self.entries.lock().push(Reverse(Entry { due, log }));
    }

    /// Takes out the logs that are due by `now`, each with when it was noted for. Only if that is still its
    /// [`look_at`](LogState::look_at), the entry counts.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<(Arc<Log>, Instant)> {
        let mut due = Vec::new();
        let mut entries = self.entries.lock();
        while entries.peek().is_some_and(|entry| entry.0.due <= now) {
            let Some(Reverse(entry)) = entries.pop() else {
                break;
            };
            due.extend(entry.log.upgrade().map(|log| (log, entry.due)));
        }
        due
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
