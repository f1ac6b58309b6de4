//! The log as those see it who look after it: topics, consumer groups, records, figures. Connectors need none of it;
//! REST and the command line do.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tidewater_broker::Metrics;
use tidewater_plugin_api::TopicPartition;

use crate::broker::TopicInfo;
use crate::error::Result;

/// A topic, its settings and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The topic.
    pub topic: TopicInfo,
    /// The settings in force under Kafka's names, each with whether it was set for this topic.
    pub settings: BTreeMap<String, TopicSetting>,
    /// What is in each partition, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// A setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSetting {
    /// The value in force.
    pub value: String,
    /// It was set for this topic, and is not a default.
    pub of_topic: bool,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: u32,
    /// The first offset kept.
    pub log_start: u64,
    /// Where readers of committed data end.
    pub last_stable: u64,
    /// Everything before is acknowledged.
    pub high_watermark: u64,
    /// Its size on disk in bytes.
    pub size_bytes: u64,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Its state by Kafka's names: `Empty`, `Stable`, `PreparingRebalance`.
    pub state: String,
    /// The ids of its members.
    pub members: Vec<String>,
    /// How far it is, by topic and partition.
    pub offsets: Vec<GroupOffset>,
}

/// How far a group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset it will read.
    pub committed: u64,
    /// Where readers of committed data end; none if the partition is gone.
    pub end: Option<u64>,
    /// Offsets between the two.
    pub lag: Option<u64>,
}

/// Looking after a log.
#[async_trait]
pub trait Administration: Send + Sync {
    /// Creates a topic, durably.
    async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: &BTreeMap<String, String>,
    ) -> Result<TopicInfo>;

    /// A topic with its settings and partitions.
    async fn describe_topic(&self, name: &str) -> Result<TopicDescription>;

    /// Changes settings; `None` takes a setting back to its default.
    async fn alter_topic(&self, name: &str, changes: &BTreeMap<String, Option<String>>) -> Result<()>;

    /// Adds partitions, so that there are `total`.
    async fn add_partitions(&self, name: &str, total: u32) -> Result<()>;

    /// Deletes a topic and what groups committed in it.
    async fn delete_topic(&self, name: &str) -> Result<()>;

    /// The first offset at or after a time, in milliseconds since 1970; none if all records are earlier.
    async fn offset_for_time(&self, partition: &TopicPartition, timestamp: i64) -> Result<Option<u64>>;

    /// All groups by name, with their states.
    fn groups(&self) -> BTreeMap<String, String>;

    /// A group; none if there is no such group.
    fn describe_group(&self, group: &str) -> Option<GroupDescription>;

    /// Forgets what a group without members has committed.
    async fn delete_group(&self, group: &str) -> Result<()>;

    /// What the log counts.
    fn metrics(&self) -> Metrics;
}
