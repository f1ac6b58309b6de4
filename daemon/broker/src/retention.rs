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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::clock::{Clock, ManualClock};
    use crate::{BatchBuilder, Broker, BrokerOptions, Compression, TopicConfig};

    const NOW: i64 = 1_700_000_000_000;

    #[tokio::test]
    async fn a_round_looks_at_what_is_due_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let broker = Broker::open_with_clock(BrokerOptions::new(dir.path()), clock.clone()).unwrap();
        let settings = [("retention.ms".to_owned(), "3600000".to_owned())].into();
        let config = TopicConfig {
            settings,
            ..TopicConfig::new(20)
        };
        broker.create_topic("t", config).await.unwrap();
        let agenda = &broker.shared.flusher.agenda;
        let due = || agenda.take_due(clock.monotonic());
        assert!(due().is_empty(), "all are empty");
        for partition in 0..7 {
            for _ in 0..3 {
                let mut batch = BatchBuilder::new(Compression::None);
                batch.push(NOW, None, Some(b"value"), &[]);
                broker.append("t", partition, batch).await.unwrap();
            }
        }
        broker.run_housekeeping_now();
        clock.advance(Duration::from_hours(1));
        assert!(due().is_empty(), "none is old enough");
        clock.advance(Duration::from_millis(1));
        let found = due();
        assert_eq!(found.len(), 7, "each once");
        for (log, at) in found {
            log.keep(at);
            assert_eq!(log.now().log_start, 3);
        }
        clock.advance(Duration::from_hours(1000));
        assert!(due().is_empty(), "all are empty again");
    }
}
