//! What ends by itself: transactions that take too long, and what is known of producers that are gone.
//!
//! A transaction that stays open keeps readers of committed data from what was written behind it, so each has a time-out
//! (Kafka's `transaction.timeout.ms`) at which it is aborted. Its producer lives on and may begin another.
//!
//! Of the many time-outs one is registered with the keeper: the earliest. When it is due all open transactions are looked
//! at, and the earliest of those left is registered.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::broker::Shared;
use crate::error::Result;
use crate::transaction::producer_state::ProducerEntry;

/// How often the state of silent producers is looked for (Kafka's `producer.id.expiration.check.interval.ms`), or as
/// often as the time after which it goes, if that is shorter.
const PRODUCER_CHECK: Duration = Duration::from_mins(10);
/// The same for transactional ids (Kafka's `transaction.remove.expired.transaction.cleanup.interval.ms`).
const TRANSACTIONAL_ID_CHECK: Duration = Duration::from_hours(1);

/// The moment for which the keeper has a look at the time-outs registered.
#[derive(Debug, Default)]
pub(crate) struct NextTimeout(Mutex<Option<Instant>>);

impl Shared {
    /// Registers what is done every so often.
    pub(crate) fn keep_producers(self: &Arc<Self>) -> Result<()> {
        let expiration = self.options.producer_id_expiration;
        let weak = Arc::downgrade(self);
        let forget = move || {
            if let Some(shared) = weak.upgrade() {
                shared.forget_silent_producers();
            }
            Ok(())
        };
        self.keeper
            .every("producer ids", expiration.min(PRODUCER_CHECK), forget)?;
        if let Some(expiration) = self.options.transactional_id_expiration {
            let weak = Arc::downgrade(self);
            let forget = move || {
                weak.upgrade()
                    .map_or(Ok(()), |shared| shared.forget_transactional_ids(expiration))
            };
            let every = expiration.min(TRANSACTIONAL_ID_CHECK);
            self.keeper.every("transactional ids", every, forget)?;
        }
        Ok(())
    }

    /// Sees to it that time-outs are looked at by `deadline`.
    pub(crate) fn watch_timeout(self: &Arc<Self>, deadline: Instant) -> Result<()> {
        let mut next = self.next_timeout.0.lock();
        if next.is_some_and(|next| next <= deadline) {
            return Ok(());
        }
        let weak = Arc::downgrade(self);
        let look = move || abort_overdue(&weak);
        self.keeper.at("transaction time-outs", deadline, look)?;
        *next = Some(deadline);
        Ok(())
    }

    /// Forgets what partitions know of producers that were silent for long and have no transaction open.
    fn forget_silent_producers(&self) {
        let expiration = i64::try_from(self.options.producer_id_expiration.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.flusher.clock.now_ms().saturating_sub(expiration);
        for log in self.logs() {
            let mut state = log.state.lock();
            let state = &mut *state;
            state
                .producers
                .expire(before_ms, |id| state.open.0.contains_key(&id));
        }
    }

    /// Forgets, durably in time, the transactional ids nobody has a handle of and nobody used for long. A producer of
    /// that name made later gets another producer id.
    fn forget_transactional_ids(&self, expiration: Duration) -> Result<()> {
        let now = self.flusher.clock.monotonic();
        let mut producers = self.producers.lock();
        let old = |entry: &Arc<ProducerEntry>| {
            // With one handle, this one, nobody can come by another while the map is locked.
            Arc::strong_count(entry) == 1 && entry.state.lock().unused_since(now, expiration)
        };
        let old: Vec<String> = producers
            .iter()
            .filter(|(_, entry)| old(entry))
            .map(|(id, _)| id.clone())
            .collect();
        for transactional_id in old {
            self.coordinator.transactions.append_forget(&transactional_id)?;
            producers.remove(&transactional_id);
            tracing::info!(%transactional_id, "transactional id expired");
        }
        Ok(())
    }
}

/// Aborts the transactions whose time is over, and registers the next.
fn abort_overdue(shared: &Weak<Shared>) -> Result<()> {
    let Some(shared) = shared.upgrade() else {
        return Ok(());
    };
    // Before looking: a transaction that begins meanwhile registers itself.
    *shared.next_timeout.0.lock() = None;
    let now = shared.flusher.clock.monotonic();
    let entries: Vec<_> = shared.producers.lock().values().cloned().collect();
    let next = entries
        .iter()
        .filter_map(|entry| entry.abort_if_overdue(now))
        .min();
    next.map_or(Ok(()), |deadline| shared.watch_timeout(deadline))
}
