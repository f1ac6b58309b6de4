//! The cleaner: compacts the logs of topics with `cleanup.policy=compact`, that with the most dirty bytes first.
//!
//! One thread, `log-cleaner`, looks every [`compaction_interval`](crate::BrokerOptions::compaction_interval). What fails,
//! a full disk for one, is reported once and tried again at the next look; the log is good meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use uuid::Uuid;

use crate::broker::Shared;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::compaction::CleanerLimits;

struct Cleaner {
    /// Not held while a log is compacted: that does not keep the broker open.
    broker: Weak<Shared>,
    closed: Arc<AtomicBool>,
    key_bytes: usize,
    /// What was reported and still fails, by topic id and partition.
    failures: HashMap<(Uuid, u32), String>,
}

/// Has the cleaner's thread compact the logs of a broker from now on.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<()> {
    let mut cleaner = Cleaner {
        broker: Arc::downgrade(shared),
        closed: Arc::clone(&shared.closed),
        key_bytes: shared.options.compaction_key_bytes,
        failures: HashMap::new(),
    };
    let interval = shared.options.compaction_interval;
    shared.cleaner.every("compaction", interval, move || {
        cleaner.round();
        Ok(())
    })
}

impl Cleaner {
    /// Compacts what is worth it.
    fn round(&mut self) {
        for log in self.candidates() {
            if self.closed.load(Ordering::Relaxed) {
                return;
            }
            let limits = CleanerLimits {
                key_bytes: self.key_bytes,
                stop: &self.closed,
            };
            let result = log.compact(limits).map(|cleaned| {
                if cleaned.passes > 0 {
                    tracing::debug!(topic = %log.id.topic, partition = log.id.partition, ?cleaned, "compacted");
                }
            });
            self.note(&log, result);
        }
    }

    /// The logs to compact, those with most dirty bytes first.
    fn candidates(&mut self) -> Vec<Arc<Log>> {
        let logs = self
            .broker
            .upgrade()
            .map(|shared| shared.logs())
            .unwrap_or_default();
        let mut candidates = Vec::new();
        for log in logs {
            let settings = log.settings();
            if !settings.cleanup_policy.compact {
                continue;
            }
            // A log that takes no writes has said so.
            if let Ok(work) = log.workload()
                && work.is_worthwhile(settings.min_dirty_millionths)
            {
                candidates.push((work.dirty_bytes, log));
            }
        }
        candidates.sort_by_key(|(dirty, _)| std::cmp::Reverse(*dirty));
        candidates.into_iter().map(|(_, log)| log).collect()
    }

    fn note(&mut self, log: &Log, result: Result<()>) {
        let (place, partition) = ((log.id.topic_id, log.id.partition), log.id.partition);
        match result {
            Ok(()) => {
                if self.failures.remove(&place).is_some() {
                    tracing::info!(topic = %log.id.topic, partition, "compaction works again");
                }
            }
            Err(Error::Closed | Error::TopicDeleted { .. }) => {
                self.failures.remove(&place);
            }
            Err(error) => {
                let text = error.to_string();
                if self.failures.insert(place, text.clone()) != Some(text) {
                    tracing::warn!(topic = %log.id.topic, partition, %error, "not compacted; it is tried again");
                }
            }
        }
    }
}
