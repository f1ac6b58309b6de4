//! What the broker counts, as a snapshot: [`Broker::metrics`].
//!
//! Names and units are Prometheus': counters only grow while the broker is open, sizes are in bytes, times in seconds.
//! Counting is a relaxed addition; a snapshot looks at each partition under its lock, for less than a microsecond.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::broker::Broker;
use crate::disk::measured::{BOUNDS_MICROS, Latencies};
use crate::log::Log;

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

/// What a log counts.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    appends: AtomicU64,
    records_in: AtomicU64,
    bytes_in: AtomicU64,
    fetches: AtomicU64,
    records_out: AtomicU64,
    bytes_out: AtomicU64,
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
}

impl Histogram {
    fn of(latencies: &Latencies) -> Self {
        let mut count = 0;
        let mut all = latencies.buckets.iter().map(|bucket| {
            count += bucket.load(Ordering::Relaxed);
            count
        });
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6);
        let buckets = bounds.zip(all.by_ref()).collect();
        let count = all.next().unwrap_or_default();
        Self {
            buckets,
            count,
            sum: latencies.nanos.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

impl Broker {
    /// What the broker counts: see [`Metrics`]. Costs about a microsecond a partition, and no input or output.
    ///
    /// ```
    /// # use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, TopicConfig};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = Broker::open(BrokerOptions::new(dir.path()))?;
    /// broker.create_topic("orders", TopicConfig::new(1)).await?;
    /// let mut batch = BatchBuilder::new(Compression::None);
    /// batch.push(1_700_000_000_000, None, Some(b"apples"), &[]);
    /// broker.append("orders", 0, batch).await?;
    ///
    /// let metrics = broker.metrics();
    /// let orders = metrics.partitions.iter().find(|p| &*p.topic == "orders").unwrap();
    /// assert_eq!((orders.records_in, orders.high_watermark), (1, 1));
    /// assert!(metrics.broker.fsync_seconds.count > 0);
    /// # broker.close().await?; Ok(()) }
    /// ```
    pub fn metrics(&self) -> Metrics {
        let logs: Vec<Arc<Log>> = {
            let topics = self.shared.topics.read();
            topics
                .values()
                .flat_map(|topic| topic.logs.iter().cloned())
                .collect()
        };
        let partitions: Vec<PartitionMetrics> = logs.iter().map(|log| log.metrics()).collect();
        let groups = self.group_metrics(&partitions);
        let flusher = &self.shared.flusher;
        let (disk, in_flight) = (&flusher.disk_counters, &flusher.in_flight);
        let failed = partitions.iter().filter(|partition| partition.failed).count();
        Metrics {
            broker: BrokerMetrics {
                fsync_seconds: Histogram::of(&disk.syncs),
                fsync_errors: disk.sync_errors.load(Ordering::Relaxed),
                directory_syncs: disk.dir_syncs.load(Ordering::Relaxed),
                directory_sync_errors: disk.dir_sync_errors.load(Ordering::Relaxed),
                checkpoints: flusher.checkpoints.load(Ordering::Relaxed),
                in_flight_bytes: in_flight.taken(),
                in_flight_limit_bytes: self.shared.options.in_flight_bytes,
                appends_waiting: in_flight.waiting(),
                failed_partitions: failed,
            },
            partitions,
            groups,
        }
    }

    fn group_metrics(&self, partitions: &[PartitionMetrics]) -> Vec<GroupMetrics> {
        let bounds: BTreeMap<(&str, u32), (u64, u64)> = partitions
            .iter()
            .map(|p| ((&*p.topic, p.partition), (p.log_start, p.last_stable)))
            .collect();
        let mut all = Vec::new();
        for group in self.groups() {
            for ((topic, partition), committed) in self.group_offsets(&group) {
                let lag = bounds
                    .get(&(topic.as_str(), partition))
                    .map(|(start, stable)| stable.saturating_sub(committed.max(*start)));
                all.push(GroupMetrics {
                    group: group.clone(),
                    topic,
                    partition,
                    committed,
                    lag,
                });
            }
        }
        all
    }
}

impl Log {
    fn metrics(&self) -> PartitionMetrics {
        let now = self.flusher.clock.monotonic();
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.state.lock();
        let visible = self.now();
        let undecided = || state.open.0.values().filter(|open| !open.decided);
        let oldest = undecided().filter_map(|open| open.begun).min();
        PartitionMetrics {
            topic: Arc::clone(&self.id.topic),
            partition: self.id.partition,
            appends: counted(&self.counters.appends),
            records_in: counted(&self.counters.records_in),
            bytes_in: counted(&self.counters.bytes_in),
            fetches: counted(&self.counters.fetches),
            records_out: counted(&self.counters.records_out),
            bytes_out: counted(&self.counters.bytes_out),
            size_bytes: state.sealed.iter().map(|sealed| sealed.size).sum::<u64>() + state.active.position,
            segments: state.sealed.len() + 1,
            damaged_segments: state.quarantined.len(),
            log_start: visible.log_start,
            last_stable: visible.stable.offset,
            high_watermark: visible.high.offset,
            end: state.end,
            open_transactions: undecided().count(),
            oldest_transaction_seconds: oldest
                .map(|begun| now.saturating_duration_since(begun).as_secs_f64()),
            failed: state.failed.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, BrokerOptions, Compression, Isolation, Start, TopicConfig};

    fn batch(records: usize) -> BatchBuilder {
        let mut batch = BatchBuilder::new(Compression::None);
        for _ in 0..records {
            batch.push(1, None, Some(b"value"), &[]);
        }
        batch
    }

    fn partition(metrics: &Metrics, topic: &str, partition: u32) -> PartitionMetrics {
        let mut found = metrics.partitions.iter();
        found
            .find(|p| &*p.topic == topic && p.partition == partition)
            .unwrap()
            .clone()
    }

    #[tokio::test]
    async fn what_goes_in_and_out_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let options = BrokerOptions {
            segment_bytes: 400,
            ..BrokerOptions::new(dir.path())
        };
        let broker = Broker::open(options).unwrap();
        broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
        let before = broker.metrics();
        let (mut bytes, mut largest) = (0, 0);
        for records in [1, 2, 30] {
            largest = batch(records).bytes() as u64;
            bytes += largest;
            broker.append("t", 1, batch(records)).await.unwrap();
        }
        let producer = broker.producer("p").await.unwrap();
        let mut transaction = producer.begin().unwrap();
        transaction.append("t", 1, batch(4)).await.unwrap();
        broker
            .commit_group_offsets("g", &[("t", 1, 3), ("gone", 0, 7)])
            .await
            .unwrap();
        let mut reader = broker
            .reader("t", 1, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        let (mut read, mut fetches) = (0, 0);
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            read += fetched.records().count() as u64;
            fetches += 1;
        }

        let metrics = broker.metrics();
        let p1 = partition(&metrics, "t", 1);
        assert_eq!((p1.appends, p1.records_in), (4, 37));
        assert_eq!(p1.bytes_in, bytes + batch(4).bytes() as u64);
        assert_eq!((p1.fetches, p1.records_out, p1.bytes_out), (fetches, read, bytes));
        assert_eq!((p1.log_start, p1.last_stable, p1.end), (0, 33, 37));
        assert_eq!(p1.size_bytes, p1.bytes_in);
        assert!(p1.segments > 1 && largest > 400, "{}", p1.segments);
        assert_eq!(p1.open_transactions, 1);
        assert!(p1.oldest_transaction_seconds.is_some_and(|age| age >= 0.0));
        let p0 = partition(&metrics, "t", 0);
        assert_eq!((p0.appends, p0.end, p0.open_transactions), (0, 0, 0));

        let syncs = &metrics.broker.fsync_seconds;
        assert!(syncs.count >= before.broker.fsync_seconds.count + 3);
        assert!(syncs.buckets.iter().map(|bucket| bucket.1).is_sorted() && syncs.sum > 0.0);
        assert!(metrics.broker.directory_syncs > before.broker.directory_syncs);
        assert_eq!(
            (metrics.broker.fsync_errors, metrics.broker.appends_waiting),
            (0, 0)
        );
        assert_eq!(metrics.groups.len(), 2);
        assert_eq!(
            (metrics.groups[0].topic.as_str(), metrics.groups[0].lag),
            ("gone", None)
        );
        assert_eq!(
            (metrics.groups[1].committed, metrics.groups[1].lag),
            (3, Some(30))
        );
        // The batch of the open transaction may not be synced yet, and holds its bytes until it is.
        assert!(metrics.broker.in_flight_bytes <= batch(4).bytes());

        transaction.commit().await.unwrap();
        let metrics = broker.metrics();
        let p1 = partition(&metrics, "t", 1);
        assert_eq!((p1.open_transactions, p1.oldest_transaction_seconds), (0, None));
        assert_eq!(
            (p1.records_in, p1.end),
            (37, 38),
            "a marker is an offset, and no record"
        );
        let json = serde_json::to_value(&metrics).unwrap();
        assert_eq!(
            json["partitions"].as_array().unwrap().len(),
            metrics.partitions.len()
        );
        broker.close().await.unwrap();
        assert!(broker.metrics().broker.checkpoints > 0);
    }

    #[test]
    fn a_histogram_adds_up() {
        let latencies = Latencies::default();
        for micros in [1, 100, 101, 20_000_000] {
            latencies.record(std::time::Duration::from_micros(micros));
        }
        let histogram = Histogram::of(&latencies);
        assert_eq!(histogram.buckets[..2], [(0.0001, 2), (0.00025, 3)]);
        assert_eq!(histogram.buckets.last(), Some(&(10.0, 3)));
        assert_eq!(histogram.count, 4);
        assert!((histogram.sum - 20.000_202).abs() < 1e-9);
    }
}
