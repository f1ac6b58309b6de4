//! Sinks: from topics to the outside.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigMap};
use crate::config_def::ConfigProblem;
use crate::error::{RecordFailure, Result};
use crate::frame::Frame;
use crate::plugin::ConnectorSpec;

/// A connector that writes to the outside; its life is that of a [`SourceConnector`](crate::SourceConnector).
#[async_trait]
pub trait SinkConnector: Send + 'static {
    /// What the class is and what can be configured.
    fn spec() -> ConnectorSpec
    where
        Self: Sized;

    /// A new connector, not yet started.
    fn create() -> Box<dyn SinkConnector>
    where
        Self: Sized;

    /// A new task of this class, not yet started.
    fn create_task() -> Box<dyn SinkTask>
    where
        Self: Sized;

    /// Every fault that only the outside can tell; called with a configuration that has passed the
    /// [`ConfigDef`](crate::ConfigDef).
    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
    }

    /// Begins the connector's life.
    async fn start(&mut self, config: &Config) -> Result<()> {
        let _ = config;
        Ok(())
    }

    /// One configuration per task, at most `max_tasks`. Each is laid over the connector's own.
    async fn task_configs(&mut self, max_tasks: usize) -> Result<Vec<ConfigMap>> {
        Ok(vec![ConfigMap::new(); max_tasks])
    }

    /// Somebody changes the offsets of the connector `name` while none of its tasks run. Called before they are stored, on an
    /// instance of its own that has not been started; an error keeps them as they are. A target that keeps offsets
    /// ([`ConnectorSpec::exactly_once`]) changes its own here, or its next [`SinkTask::open`] would go on from the old ones,
    /// and answers true; false where the class has no say in it.
    async fn alter_offsets(
        &mut self,
        name: &str,
        config: &Config,
        offsets: &[AlteredOffset],
    ) -> Result<bool> {
        let _ = (name, config, offsets);
        Ok(false)
    }

    /// Ends the connector's life.
    async fn stop(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// The partition as a task is given it, of the topic that `topic_id` tells apart.
    pub fn assigned(self, topic_id: impl Into<String>) -> AssignedPartition {
        AssignedPartition {
            partition: self,
            topic_id: topic_id.into(),
        }
    }
}

/// A partition that a task is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedPartition {
    /// The partition.
    #[serde(flatten)]
    pub partition: TopicPartition,
    /// Tells the topic from any other of the same name: one that was deleted before it, or one of another log. A target
    /// that keeps offsets keeps this beside them, since an offset means nothing in another topic.
    pub topic_id: String,
}

/// The next offset to read from a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPartitionOffset {
    /// The partition.
    #[serde(flatten)]
    pub partition: TopicPartition,
    /// The offset of the next record wanted: one more than the last that is durable in the target.
    pub offset: u64,
}

/// An offset that is to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlteredOffset {
    /// The partition; its topic's id is empty where the topic is no more.
    #[serde(flatten)]
    pub partition: AssignedPartition,
    /// The offset of the next record wanted; none for a partition of which nothing is to be known.
    pub offset: Option<u64>,
}

/// What a sink task is given when it starts.
#[derive(Clone, Debug)]
pub struct SinkTaskContext {
    /// The connector's name.
    pub connector: String,
    /// The task's number, from 0.
    pub task: u32,
    /// Counts the lives of this task. A target that keeps offsets keeps this beside them, and refuses a writer with a
    /// smaller one (invariant 9).
    pub generation: u64,
    /// The connector's configuration with the task's laid over it.
    pub config: Config,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutReport {
    /// Whether everything put so far, this batch included, is durable in the target. Where not, the host asks for it
    /// with [`SinkTask::flush`] before it commits offsets (invariant 4).
    pub durable: bool,
    /// The records of the batch that the target does not take; all others were written. The host puts them aside in the
    /// dead-letter topic before it commits offsets, or fails the task. A target that keeps offsets itself must not pass
    /// these records before they are put aside: it writes nothing and answers [`Error::refused`](crate::Error::refused).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<RecordFailure>,
}

/// A task that writes to the outside.
///
/// All calls of one task come from one thread, one after the other: `start`, `open`, then `put` and `flush` in turn,
/// then `close` and `stop`.
#[async_trait]
pub trait SinkTask: Send + 'static {
    /// Begins the task: connects, checks, prepares.
    async fn start(&mut self, context: SinkTaskContext) -> Result<()>;

    /// The task now owns these partitions. A target that keeps offsets answers where each goes on, but for those whose
    /// offset is of a topic with another [`topic_id`](AssignedPartition::topic_id): that one counts for nothing. For
    /// those left out the host goes on from the committed group offset. May be called again with more partitions.
    async fn open(&mut self, partitions: &[AssignedPartition]) -> Result<Vec<TopicPartitionOffset>>;

    /// Writes a batch. Records of one partition stand in order, and batches come in order (invariant 5). After a
    /// retriable error the same batch comes again; it must then not be there twice in a target that keeps offsets. Single
    /// records that cannot be written are named by [`PutReport::failed`] or, where nothing of the batch was written, by
    /// [`Error::refused`](crate::Error::refused).
    async fn put(&mut self, batch: &Frame) -> Result<PutReport>;

    /// Makes everything put so far durable in the target.
    async fn flush(&mut self) -> Result<()>;

    /// The task no longer owns these partitions.
    async fn close(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let _ = partitions;
        Ok(())
    }

    /// Ends the task.
    async fn stop(&mut self) -> Result<()> {
        Ok(())
    }

    /// Counters to show beside the host's own.
    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
}
