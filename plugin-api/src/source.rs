//! Sources: from the outside into topics.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::config::{Config, ConfigMap};
use crate::config_def::ConfigProblem;
use crate::error::Result;
use crate::frame::FrameBuilder;
use crate::plugin::ConnectorSpec;

/// A connector that reads from the outside.
///
/// The host calls [`start`](Self::start), then [`task_configs`](Self::task_configs), then
/// [`stop`](Self::stop); [`validate`](Self::validate) may be called at any time on an instance of its own.
#[async_trait]
pub trait SourceConnector: Send + 'static {
    /// What the class is and what can be configured.
    fn spec() -> ConnectorSpec
    where
        Self: Sized;

    /// A new connector, not yet started.
    fn create() -> Box<dyn SourceConnector>
    where
        Self: Sized;

    /// A new task of this class, not yet started.
    fn create_task() -> Box<dyn SourceTask>
    where
        Self: Sized;

    /// Every fault that only the outside can tell, such as a missing table; called with a configuration that has
    /// passed the [`ConfigDef`](crate::ConfigDef).
    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        let _ = config;
        Vec::new()
    }

    /// Begins the connector's life: what its tasks share is set up here.
    async fn start(&mut self, config: &Config) -> Result<()> {
        let _ = config;
        Ok(())
    }

    /// One configuration per task, at most `max_tasks`. Each is laid over the connector's own.
    async fn task_configs(&mut self, max_tasks: usize) -> Result<Vec<ConfigMap>> {
        let _ = max_tasks;
        Ok(vec![ConfigMap::new()])
    }

    /// Somebody changes the stored positions of the connector `name` while none of its tasks run: these, each to its offset or,
    /// where that is none, away. Called before they are stored, on an instance of its own that has not been started; an
    /// error keeps them as they are. Answers true where they make sense to the class, and are changed too wherever it
    /// keeps positions itself; false where it has no say in it.
    async fn alter_offsets(
        &mut self,
        name: &str,
        config: &Config,
        offsets: &[SourcePosition],
    ) -> Result<bool> {
        let _ = (name, config, offsets);
        Ok(false)
    }

    /// Ends the connector's life.
    async fn stop(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A place within the outside and how far it has been read: Kafka Connect's source partition and source offset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcePosition {
    /// Which part of the outside, such as `{"server": "shop"}`.
    pub partition: Map<String, Json>,
    /// How far, such as `{"lsn": 4711}`; none removes what was stored.
    pub offset: Option<Map<String, Json>>,
}

/// What a source task is given when it starts.
#[derive(Clone, Debug)]
pub struct SourceTaskContext {
    /// The connector's name.
    pub connector: String,
    /// The task's number, from 0.
    pub task: u32,
    /// Counts the lives of this task: a greater one fences all before it (invariant 9).
    pub generation: u64,
    /// The connector's configuration with the task's laid over it.
    pub config: Config,
    /// All positions stored for this connector; they are durable, and so are the records they cover (invariant 2).
    pub positions: Vec<SourcePosition>,
}

impl SourceTaskContext {
    /// The stored offset of `partition`.
    pub fn offset(&self, partition: &Map<String, Json>) -> Option<&Map<String, Json>> {
        self.positions
            .iter()
            .find(|position| &position.partition == partition)?
            .offset
            .as_ref()
    }
}

/// A task that reads from the outside.
///
/// All calls of one task come from one thread, one after the other: `start`, then `poll` and `commit` in turn, then
/// `stop`. The task runs on a single-threaded tokio runtime of its own, so blocking hurts only itself.
#[async_trait]
pub trait SourceTask: Send + 'static {
    /// Begins at the stored positions.
    async fn start(&mut self, context: SourceTaskContext) -> Result<()>;

    /// Waits until there is something to read, then pushes records into `batch`, and with
    /// [`FrameBuilder::position`] how far they reach. Returns when a sensible batch is full or the outside pauses; an
    /// empty batch is fine, and so is a batch with a position alone.
    ///
    /// **Must be safe to drop at every `await`**: the host drops a waiting poll to deliver a
    /// [`commit`](Self::commit) or a stop, and polls again later with the same `batch`, in which everything pushed
    /// so far still stands. Keep the task's own state in step with what was pushed.
    async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()>;

    /// These positions, and every record before them, are durable: now, and only now, may the outside forget them
    /// (invariant 3).
    async fn commit(&mut self, positions: &[SourcePosition]) -> Result<()> {
        let _ = positions;
        Ok(())
    }

    /// Ends the task. Nothing is polled or committed afterwards.
    async fn stop(&mut self) -> Result<()> {
        Ok(())
    }

    /// Counters to show beside the host's own, such as the lag of a slot in bytes.
    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
}
