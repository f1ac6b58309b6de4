//! The committed offsets of consumer groups: kept in memory, and as records of the topic `__consumer_offsets`, from
//! which they are read back when the broker opens.
//!
//! # Which commit holds
//! The topic has one partition; for each group and partition the record with the highest offset holds, be it part of
//! a transaction or not. Every record is appended under the lock of the table, and is *pending* in it from then until
//! it is durable and decided. So
//! - whoever deletes an offset because of what it is (expiry) decides and appends under that lock, and never where
//!   something is pending: it cannot delete a commit it did not see;
//! - whoever takes over a partition waits until nothing is pending for it ([`GroupOffsets::stable`]): it cannot begin
//!   before what the open transaction of the owner before it will commit (Kafka's `require_stable`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::batch::builder::BatchBuilder;
use crate::error::Result;
use crate::group::offset_record::{CommittedOffset, OffsetChange, decode};
use crate::log::Log;
use crate::reader::{Isolation, Reader, Start};

/// The committed offsets of one group by topic and partition.
pub(crate) type Offsets = BTreeMap<(String, u32), CommittedOffset>;

pub(crate) struct GroupOffsets {
    pub(crate) log: Arc<Log>,
    table: Arc<Table>,
}

/// The table, locked: nothing is committed meanwhile.
pub(crate) type Groups<'a> = MutexGuard<'a, HashMap<String, Group>>;

struct Table {
    groups: Mutex<HashMap<String, Group>>,
    /// Notified when something is pending no longer.
    settled: Notify,
}

/// By topic and partition.
pub(crate) type Group = BTreeMap<(String, u32), Held>;

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) value: Option<CommittedOffset>,
    /// The offset of the record that says so; `None` before the first.
    at: Option<u64>,
    /// Records appended that are not yet durable and decided.
    pub(crate) pending: u32,
}

/// Changes whose records are appended. They take effect by [`apply`](Self::apply), and are void if dropped.
#[must_use]
pub(crate) struct PendingOffsets {
    table: Arc<Table>,
    changes: Vec<OffsetChange>,
    /// The offset of the first record.
    at: u64,
}

impl GroupOffsets {
    /// Reads the offsets back from their topic.
    pub(crate) fn open(log: Arc<Log>) -> Result<Self> {
        let mut reader = Reader::new(Arc::clone(&log), Start::Earliest, Isolation::ReadCommitted)?;
        let mut groups = HashMap::new();
        while let Some(fetched) = reader.try_next(1 << 20)? {
            for record in fetched.records() {
                // Other versions of key are other kinds of record, which this broker does not write.
                if let Some(change) = decode(record.key.unwrap_or_default(), record.value) {
                    take_over(&mut groups, change, record.offset);
                }
            }
        }
        for group in groups.values_mut() {
            group.retain(|_, held: &mut Held| held.value.is_some());
        }
        groups.retain(|_, group| !group.is_empty());
        let table = Table {
            groups: Mutex::new(groups),
            settled: Notify::new(),
        };
        Ok(Self {
            log,
            table: Arc::new(table),
        })
    }

    /// Locks the table, for [`write`](Self::write).
    pub(crate) fn lock(&self) -> Groups<'_> {
        self.table.groups.lock()
    }

    /// Appends the batch of `changes` by `append`, which answers the offset of the first record and what it likes.
    pub(crate) fn write<T>(
        &self,
        groups: &mut Groups<'_>,
        changes: Vec<OffsetChange>,
        batch: BatchBuilder,
        append: impl FnOnce(&Arc<Log>, BatchBuilder) -> Result<(u64, T)>,
    ) -> Result<(PendingOffsets, T)> {
        let (at, other) = append(&self.log, batch)?;
        for change in &changes {
            let group = groups.entry(change.group.clone()).or_default();
            let place = (change.topic.clone(), change.partition);
            group.entry(place).or_default().pending += 1;
        }
        let table = Arc::clone(&self.table);
        Ok((PendingOffsets { table, changes, at }, other))
    }

    pub(crate) fn of(&self, group: &str) -> Offsets {
        let groups = self.lock();
        let held = groups.get(group).into_iter().flatten();
        held.filter_map(|(place, held)| Some((place.clone(), held.value.clone()?)))
            .collect()
    }

    /// The committed offset of a partition, `Err` while a change of it is under way: [`settled`](Self::settled) tells
    /// when to look again.
    pub(crate) fn stable(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> Result<Option<CommittedOffset>, Unstable> {
        let groups = self.lock();
        let place = (topic.to_owned(), partition);
        match groups.get(group).and_then(|group| group.get(&place)) {
            Some(held) if held.pending > 0 => Err(Unstable),
            held => Ok(held.and_then(|held| held.value.clone())),
        }
    }

    /// Waits until no change of these partitions is under way.
    pub(crate) async fn wait_stable(&self, group: &str, partitions: &[(&str, u32)]) {
        loop {
            let settled = self.settled();
            tokio::pin!(settled);
            // Registered before looking, so that the notification cannot come in between.
            settled.as_mut().enable();
            if partitions
                .iter()
                .all(|(topic, partition)| self.stable(group, topic, *partition).is_ok())
            {
                return;
            }
            settled.await;
        }
    }

    /// Completes when something is pending no longer; make it before looking.
    pub(crate) fn settled(&self) -> Notified<'_> {
        self.table.settled.notified()
    }

    pub(crate) fn groups(&self) -> Vec<String> {
        let groups = self.lock();
        let live = groups
            .iter()
            .filter(|(_, group)| group.values().any(|held| held.value.is_some()));
        let mut names: Vec<_> = live.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }
}

/// A change of the offset is under way.
#[derive(Debug)]
pub(crate) struct Unstable;

fn take_over(groups: &mut HashMap<String, Group>, change: OffsetChange, at: u64) {
    let group = groups.entry(change.group).or_default();
    let held = group.entry((change.topic, change.partition)).or_default();
    if held.at.is_none_or(|before| at >= before) {
        held.value = change.value;
        held.at = Some(at);
    }
}

impl PendingOffsets {
    /// The records are durable, and their transaction is committed.
    pub(crate) fn apply(mut self) {
        self.settle(true);
    }

    /// Whether they count is decided when the broker is opened again: until then they stay pending.
    pub(crate) fn leave_undecided(mut self) {
        self.changes.clear();
    }

    fn settle(&mut self, holds: bool) {
        let mut groups = self.table.groups.lock();
        for (change, at) in std::mem::take(&mut self.changes).into_iter().zip(self.at..) {
            let place = (change.topic.clone(), change.partition);
            let name = change.group.clone();
            if holds {
                take_over(&mut groups, change, at);
            }
            let Some(group) = groups.get_mut(&name) else {
                continue;
            };
            if let Some(held) = group.get_mut(&place) {
                held.pending = held.pending.saturating_sub(1);
                // Nothing older can come any more, so that there is nothing to remember of what is deleted.
                if held.pending == 0 && held.value.is_none() {
                    group.remove(&place);
                }
            }
            if group.is_empty() {
                groups.remove(&name);
            }
        }
        drop(groups);
        self.table.settled.notify_waiters();
    }
}

impl Drop for PendingOffsets {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            self.settle(false);
        }
    }
}
