//! What the broker counts, as a snapshot: [`Broker::metrics`](crate::Broker::metrics).
//!
//! Names and units are Prometheus': counters only grow while the broker is open, sizes are in bytes, times in seconds.
//! Counting is a relaxed addition; a snapshot looks at each partition under its lock, for less than a microsecond.

use std::sync::Arc;

use serde::Serialize;

pub(crate) mod counters;
mod snapshot;
#[cfg(test)]
mod tests;

/// All metrics at about one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Those of the broker as a whole.
    pub broker: BrokerMetrics,
    /// Those of each partition, by topic and number; the broker's own topics among them.
    pub partitions: Vec<PartitionMetrics>,
    /// How far each group is behind, by group, topic and partition.
    pub groups: Vec<GroupMetrics>,
}

/// Metrics of the broker as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BrokerMetrics {
    /// `fdatasync`s of files that succeeded, and how long each took.
    pub fsync_seconds: Histogram,
    /// Those that failed. A log whose sync failed takes no more writes.
    pub fsync_errors: u64,
    /// Syncs of directories that succeeded.
    pub directory_syncs: u64,
    /// Those that failed.
    pub directory_sync_errors: u64,
    /// Checkpoints of partitions written.
    pub checkpoints: u64,
    /// Bytes written and not yet synced, or reserved to be.
    pub in_flight_bytes: usize,
    /// What these may be at most; appends wait beyond it.
    pub in_flight_limit_bytes: usize,
    /// Appends that wait for room among them.
    pub appends_waiting: usize,
    /// Partitions that take no more writes since the disk failed.
    pub failed_partitions: usize,
}

/// Metrics of a partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PartitionMetrics {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Batches appended since the broker was opened, without transaction markers.
    pub appends: u64,
    /// Records in them.
    pub records_in: u64,
    /// Their bytes as they are stored.
    pub bytes_in: u64,
    /// Times a reader was given records, since the broker was opened.
    pub fetches: u64,
    /// Records in the batches given.
    pub records_out: u64,
    /// Bytes of these batches as they are stored.
    pub bytes_out: u64,
    /// Its `fdatasync`s that succeeded, and how long each took: those that make what is appended durable.
    pub fsync_seconds: Histogram,
    /// Passes of compaction over it since the broker was opened.
    pub compaction_passes: u64,
    /// Bytes of the segments that these replaced.
    pub compacted_bytes_before: u64,
    /// Bytes of the segments in their place.
    pub compacted_bytes_after: u64,
    /// Records that went: those with a later one of the same key, aborted ones, and tombstones whose time was over.
    pub compacted_records: u64,
    /// Segments removed since the broker was opened, by retention or because their records were deleted.
    pub removed_segments: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Bytes of its segments.
    pub size_bytes: u64,
    /// Its segments, the one being written to among them.
    pub segments: usize,
    /// Segments set apart because they are damaged.
    pub damaged_segments: usize,
    /// The first offset kept.
    pub log_start: u64,
    /// Where readers of committed data end.
    pub last_stable: u64,
    /// Everything before is acknowledged.
    pub high_watermark: u64,
    /// The offset the next record gets.
    pub end: u64,
    /// Transactions with records here that are not decided yet.
    pub open_transactions: usize,
    /// How long ago the first of them wrote here.
    pub oldest_transaction_seconds: Option<f64>,
    /// It takes no more writes since the disk failed.
    pub failed: bool,
}

/// The sums over the partitions of a topic: [`Metrics::topics`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicMetrics {
    /// Its partitions.
    pub partitions: usize,
    /// Records appended since the broker was opened.
    pub records_in: u64,
    /// Their bytes as they are stored.
    pub bytes_in: u64,
    /// Records in the batches given to readers.
    pub records_out: u64,
    /// Bytes of these batches as they are stored.
    pub bytes_out: u64,
    /// `fdatasync`s that succeeded.
    pub fsyncs: u64,
    /// Bytes of all segments.
    pub size_bytes: u64,
    /// All segments.
    pub segments: usize,
    /// Transactions that are not decided yet, counted in each partition they have records in.
    pub open_transactions: usize,
}

/// How far a consumer group is behind in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupMetrics {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset it has committed: the next it will read.
    pub committed: u64,
    /// Offsets from there to the last stable offset, of those still kept; `None` if there is no such partition here.
    pub lag: Option<u64>,
}

/// How often something took how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Histogram {
    /// Upper bounds in seconds, rising, each with how often it took no longer; longer ones are in `count` alone.
    pub buckets: Vec<(f64, u64)>,
    /// How often it was done.
    pub count: u64,
    /// How long it took altogether, in seconds.
    pub sum: f64,
}
