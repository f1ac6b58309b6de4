//! The rounds of retention: the logs of which something is due, by the [`Agenda`](crate::log::agenda::Agenda).
//!
//! A task of the broker's keeper, every [`retention_check_interval`](crate::BrokerOptions::retention_check_interval) and
//! once settings were altered. What is done to a log is in [`log::retention`](crate::log::retention).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::Shared;
use crate::error::Result;

impl Shared {
    /// Has the keeper look at what is due from now on.
    pub(crate) fn keep_logs(self: &Arc<Self>) -> Result<()> {
        let round = self.retention_round();
        let interval = self.options.retention_check_interval;
        self.keeper.every("retention", interval, move || {
            round();
            Ok(())
        })
    }

    /// Has the keeper look at what is due as soon as possible.
    pub(crate) fn keep_logs_soon(&self) -> Result<()> {
        let round = self.retention_round();
        let now = self.flusher.clock.monotonic();
        self.keeper.at("retention", now, move || {
            round();
            Ok(())
        })
    }

    fn retention_round(&self) -> impl Fn() + Send + 'static {
        let (flusher, closed) = (Arc::clone(&self.flusher), Arc::clone(&self.closed));
        move || {
            for (log, due) in flusher.agenda.take_due(flusher.clock.monotonic()) {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                log.keep(due);
            }
        }
    }
}
