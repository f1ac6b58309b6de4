//! Taking a snapshot of what is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::broker::Broker;
use crate::disk::measured::{BOUNDS_MICROS, Latencies};
use crate::log::Log;
use crate::metrics::{BrokerMetrics, GroupMetrics, Histogram, Metrics, PartitionMetrics, TopicMetrics};

impl Metrics {
    /// The sums over the partitions of each topic.
    pub fn topics(&self) -> BTreeMap<Arc<str>, TopicMetrics> {
        let mut topics = BTreeMap::<Arc<str>, TopicMetrics>::new();
        for partition in &self.partitions {
            let topic = topics.entry(Arc::clone(&partition.topic)).or_default();
            topic.partitions += 1;
            topic.records_in += partition.records_in;
            topic.bytes_in += partition.bytes_in;
            topic.records_out += partition.records_out;
            topic.bytes_out += partition.bytes_out;
            topic.fsyncs += partition.fsync_seconds.count;
            topic.size_bytes += partition.size_bytes;
            topic.segments += partition.segments;
            topic.open_transactions += partition.open_transactions;
        }
        topics
    }
}

impl Histogram {
    pub(super) fn of(latencies: &Latencies) -> Self {
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
            fsync_seconds: Histogram::of(&self.counters.syncs),
            compaction_passes: counted(&self.counters.compaction_passes),
            compacted_bytes_before: counted(&self.counters.compacted_bytes_before),
            compacted_bytes_after: counted(&self.counters.compacted_bytes_after),
            compacted_records: counted(&self.counters.compacted_records),
            removed_segments: counted(&self.counters.removed_segments),
            removed_bytes: counted(&self.counters.removed_bytes),
            size_bytes: state.size(),
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
