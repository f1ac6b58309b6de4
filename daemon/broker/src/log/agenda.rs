//! Which logs are to be looked at, and when: because something of them grows too old, because they grew, or because
//! their active segment is to be closed although nothing more is written to it.
//!
//! A log has one entry at most, for its earliest: [`LogState::look_at`](crate::log::LogState::look_at) says which. So
//! a round of housekeeping costs what is due, however many logs there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::log::{Log, LogState};

#[derive(Default)]
pub(crate) struct Agenda {
    /// By when it is due, and by the address of the log, which is its own as long as the entry is there.
    entries: Mutex<BTreeMap<(Instant, usize), Weak<Log>>>,
}

impl Agenda {
    /// Has a log looked at by `due`; `state` is the log's.
    pub(crate) fn note(&self, log: &Arc<Log>, state: &mut LogState, due: Instant) {
        if state.look_at.is_some_and(|at| at <= due) {
            return;
        }
        let address = Arc::as_ptr(log).addr();
        let mut entries = self.entries.lock();
        if let Some(later) = state.look_at.replace(due) {
            entries.remove(&(later, address));
        }
        entries.insert((due, address), Arc::downgrade(log));
    }

    /// The log is not looked at any more.
    pub(crate) fn forget(&self, log: &Arc<Log>, state: &mut LogState) {
        if let Some(at) = state.look_at.take() {
            self.entries.lock().remove(&(at, Arc::as_ptr(log).addr()));
        }
    }

    /// Takes out the logs that are due by `now`, each with when it was noted for. Only if that is still its
    /// [`look_at`](LogState::look_at), it is to be looked at.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<(Arc<Log>, Instant)> {
        let mut due = Vec::new();
        let mut entries = self.entries.lock();
        while let Some(entry) = entries.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), log) = entry.remove_entry();
            due.extend(log.upgrade().map(|log| (log, at)));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use crate::{BatchBuilder, Broker, BrokerOptions, Compression, TopicConfig};

    #[tokio::test]
    async fn a_log_that_is_noted_again_and_again_has_one_entry_and_a_deleted_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let options = BrokerOptions {
            segment_bytes: 1,
            ..BrokerOptions::new(dir.path())
        };
        let broker = Broker::open(options).unwrap();
        let settings = [("message.timestamp.type".to_owned(), "LogAppendTime".to_owned())].into();
        let config = TopicConfig {
            settings,
            ..TopicConfig::new(1)
        };
        broker.create_topic("t", config).await.unwrap();
        let entries = || broker.shared.flusher.agenda.entries.lock().len();
        assert_eq!(entries(), 0);
        for _ in 0..5 {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(1, None, Some(b"value"), &[]);
            broker.append("t", 0, batch).await.unwrap();
            assert_eq!(entries(), 1);
            broker.run_housekeeping_now();
            assert_eq!(entries(), 1, "for when it is old enough");
        }
        broker.delete_topic("t").await.unwrap();
        assert_eq!(entries(), 0);
    }
}
