//! What is counted of a partition while it is used: relaxed additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::measured::Latencies;

/// What a log counts.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    pub(super) appends: AtomicU64,
    pub(super) records_in: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) fetches: AtomicU64,
    pub(super) records_out: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Syncs of its segments that succeeded.
    pub(super) syncs: Latencies,
    pub(super) compaction_passes: AtomicU64,
    pub(super) compacted_bytes_before: AtomicU64,
    pub(super) compacted_bytes_after: AtomicU64,
    pub(super) compacted_records: AtomicU64,
    pub(super) removed_segments: AtomicU64,
    pub(super) removed_bytes: AtomicU64,
}

impl LogCounters {
    pub(crate) fn appended(&self, records: u32, bytes: u64) {
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.records_in.fetch_add(u64::from(records), Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn fetched(&self, records: u64, bytes: u64) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.records_out.fetch_add(records, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn synced(&self, took: Duration) {
        self.syncs.record(took);
    }

    /// Segments were replaced by compaction: their bytes, those in their place, and the records that went.
    pub(crate) fn compacted(&self, before: u64, after: u64, records: u64) {
        self.compacted_bytes_before.fetch_add(before, Ordering::Relaxed);
        self.compacted_bytes_after.fetch_add(after, Ordering::Relaxed);
        self.compacted_records.fetch_add(records, Ordering::Relaxed);
    }

    /// Segments went from the log's beginning.
    pub(crate) fn removed(&self, segments: usize, bytes: u64) {
        self.removed_segments
            .fetch_add(segments as u64, Ordering::Relaxed);
        self.removed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn compaction_passed(&self) {
        self.compaction_passes.fetch_add(1, Ordering::Relaxed);
    }
}
