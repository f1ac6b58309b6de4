//! The log as the runtime knows it: topics, transactions, committed reads, group offsets. The embedded log is behind it
//! ([`crate::embedded`]), and any log of Kafka's batches can be.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tidewater_broker::{BatchBuilder, Fetched};
use tidewater_plugin_api::{TopicPartition, TopicPartitionOffset};
use tokio::sync::watch;

use crate::administration::Administration;
use crate::error::Result;

/// A topic as the runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name.
    pub name: String,
    /// Distinguishes a topic from one of the same name before or after it.
    pub id: String,
    /// The number of partitions.
    pub partitions: u32,
}

/// Records for one partition.
#[derive(Debug)]
pub struct PartitionBatch {
    /// Where they go.
    pub partition: TopicPartition,
    /// The records.
    pub records: BatchBuilder,
}

/// A log.
#[async_trait]
pub trait Broker: Administration + Send + Sync + 'static {
    /// Creates the topic `name`, or gives the one that is there.
    async fn ensure_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: &BTreeMap<String, String>,
    ) -> Result<TopicInfo>;

    /// The topic called `name`.
    fn topic(&self, name: &str) -> Option<TopicInfo>;

    /// All topics, by name.
    fn topics(&self) -> Vec<TopicInfo>;

    /// Changes whenever a topic is created or deleted, or gets partitions.
    fn topic_changes(&self) -> watch::Receiver<u64>;

    /// Appends outside of any transaction; done once the records are durable (invariant 1).
    async fn append(&self, batch: PartitionBatch) -> Result<()>;

    /// A producer that fences every earlier one of the same id (invariant 9).
    async fn producer(&self, transactional_id: &str) -> Result<Box<dyn Producer>>;

    /// Reads committed records from `offset` on, which must lie within [`bounds`](Self::bounds).
    fn reader(&self, partition: &TopicPartition, offset: u64) -> Result<Box<dyn Reader>>;

    /// The first offset that is there, and the one after the last that committed readers can see.
    fn bounds(&self, partition: &TopicPartition) -> Result<(u64, u64)>;

    /// The committed offsets of a consumer group.
    fn group_offsets(&self, group: &str) -> BTreeMap<TopicPartition, u64>;

    /// Commits offsets of a consumer group; done once they are durable.
    async fn commit_group_offsets(&self, group: &str, offsets: &[TopicPartitionOffset]) -> Result<()>;

    /// Forgets offsets of a consumer group; done once that is durable. Those it does not have are passed over.
    async fn delete_group_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<()>;

    /// Ends the log cleanly.
    async fn close(&self);
}

/// Writes transactions.
#[async_trait]
pub trait Producer: Send {
    /// Makes all batches durable and visible together, or none of them (invariants 1 and 2).
    async fn commit(&mut self, batches: Vec<PartitionBatch>) -> Result<()>;
}

/// Reads one partition.
#[async_trait]
pub trait Reader: Send {
    /// Waits for records; about `max_bytes` of them. Safe to drop at any time.
    async fn next(&mut self, max_bytes: usize) -> Result<Fetched>;

    /// What is there already; none where that is nothing, which may take a step past records that are no one's to see.
    async fn try_next(&mut self, max_bytes: usize) -> Result<Option<Fetched>>;

    /// The offset of the next record.
    fn position(&self) -> u64;
}

/// Whether a topic keeps the worker's own state: no connector reads or writes it.
pub fn is_internal(topic: &str) -> bool {
    topic.starts_with("__")
        || [
            crate::offsets::TOPIC,
            crate::status::TOPIC,
            crate::schema_store::TOPIC,
            crate::config_store::TOPIC,
        ]
        .contains(&topic)
}
