//! Deleting committed offsets nobody has used for long: Kafka's `offsets.retention.minutes`.
//!
//! Only groups without members are touched. The time counts from the commit, from when the group lost its last member, or
//! from when the broker was opened, whichever is latest: nothing remembers which groups had members before that. A commit cannot be lost by it: see [`offsets`](crate::group::offsets).

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::group::offset_record::OffsetChange;
use crate::group::offsets::{GroupOffsets, Groups};
use crate::group::registry::Registry;
use crate::housekeeping::Keeper;
use crate::transaction::commit::Coordinator;

/// How often it is looked for: Kafka's `offsets.retention.check.interval.ms`.
const CHECK_INTERVAL: Duration = Duration::from_mins(10);

/// Most offsets deleted by one batch.
const AT_ONCE: usize = 1000;

/// Has the keeper delete offsets after `retention`.
pub(crate) fn schedule(
    keeper: &Arc<Keeper>,
    registry: &Arc<Registry>,
    coordinator: &Arc<Coordinator>,
    retention: Duration,
) -> Result<()> {
    let opened = coordinator.offsets.log.now_ms();
    let (registry, coordinator) = (Arc::downgrade(registry), Arc::downgrade(coordinator));
    keeper.every("offset expiry", CHECK_INTERVAL, move || {
        match (registry.upgrade(), coordinator.upgrade()) {
            (Some(registry), Some(coordinator)) => expire(&registry, &coordinator.offsets, retention, opened),
            _ => Ok(()),
        }
    })
}

fn expire(registry: &Registry, offsets: &GroupOffsets, retention: Duration, opened: i64) -> Result<()> {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let before = offsets.log.now_ms().saturating_sub(retention);
    loop {
        let mut members = registry.lock();
        let choose = |groups: &Groups<'_>| {
            let mut changes = Vec::new();
            let empty = groups.iter().filter(|(name, _)| !members.has_members(name));
            for (name, group) in empty {
                let emptied = members.emptied_at(name).unwrap_or(opened);
                for ((topic, partition), held) in group {
                    let used = held.value.as_ref().map(|value| value.commit_time.max(emptied));
                    if held.pending == 0 && used.is_some_and(|used| used <= before) {
                        changes.push(OffsetChange::delete(name, topic, *partition));
                    }
                    if changes.len() == AT_ONCE {
                        return Ok(changes);
                    }
                }
            }
            Ok(changes)
        };
        let Some((_, expired)) = offsets.change(choose)? else {
            members.forget_emptied(before);
            return Ok(());
        };
        // They are pending now, and not chosen again; that they are durably gone need not be waited for.
        tracing::info!(offsets = expired.len(), "committed offsets expired");
    }
}
