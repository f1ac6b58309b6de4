//! A sink task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewater_plugin_api::abi::Opcode;
use tidewater_plugin_api::{AssignedPartition, PutReport, TopicPartition, TopicPartitionOffset};

use crate::error::PluginError;
use crate::instance::Instance;
use crate::source_task::{encode, started_before};

/// A sink task. Calls may be in flight at the same time; the plugin sees them one after the other, in the order their
/// futures were first polled. Dropping a call's future cancels it.
pub struct SinkTaskHandle {
    pub(crate) instance: Arc<Instance>,
    /// What it starts with, until it does.
    pub(crate) start: Mutex<Option<Vec<u8>>>,
    pub(crate) started: AtomicBool,
}

impl SinkTaskHandle {
    /// Starts the task, once.
    pub async fn start(&self) -> Result<(), PluginError> {
        let payload = self.start.lock().take();
        let payload = payload.ok_or_else(|| started_before(&self.instance))?;
        self.instance.tell(Opcode::SinkStart, payload).await?;
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Bounds every call from now on: one that is not answered in time fails with
    /// [`ErrorKind::Abandoned`](tidewater_plugin_api::ErrorKind::Abandoned), and so does every one after it.
    #[must_use]
    pub fn with_call_timeout(self, timeout: Duration) -> Self {
        self.instance.set_call_timeout(timeout);
        self
    }

    /// Gives the task partitions; answers where those go on whose offsets the target keeps.
    pub async fn open(
        &self,
        partitions: &[AssignedPartition],
    ) -> Result<Vec<TopicPartitionOffset>, PluginError> {
        self.instance
            .ask(Opcode::Open, encode(&self.instance, partitions)?)
            .await
    }

    /// Writes the frame.
    pub async fn put(&self, frame: Bytes) -> Result<PutReport, PluginError> {
        let answer = self.instance.call(Opcode::Put, frame).await?;
        self.instance.read(Opcode::Put, &answer)
    }

    /// Makes durable in the target what was put.
    pub async fn flush(&self) -> Result<(), PluginError> {
        self.instance.tell(Opcode::Flush, Vec::new()).await
    }

    /// Takes partitions from the task.
    pub async fn close(&self, partitions: &[TopicPartition]) -> Result<(), PluginError> {
        self.instance
            .tell(Opcode::Close, encode(&self.instance, partitions)?)
            .await
    }

    /// The task's own counters.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>, PluginError> {
        self.instance.ask(Opcode::Metrics, Vec::new()).await
    }

    /// Ends the task within about `deadline`; further calls fail. A plugin that does not let go in time is left behind:
    /// [`ErrorKind::Abandoned`](tidewater_plugin_api::ErrorKind::Abandoned).
    pub async fn stop(&self, deadline: Duration) -> Result<(), PluginError> {
        let owed = self
            .started
            .swap(false, Ordering::Relaxed)
            .then_some(Opcode::Stop);
        self.instance.stop(owed, deadline).await
    }
}

impl std::fmt::Debug for SinkTaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkTaskHandle").finish_non_exhaustive()
    }
}
