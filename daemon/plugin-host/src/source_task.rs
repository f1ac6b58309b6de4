//! A source task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewater_plugin_api::abi::Opcode;
use tidewater_plugin_api::frame::SchemaCache;
use tidewater_plugin_api::{ErrorKind, Frame, SourcePosition};
use tokio::time::timeout;

use crate::error::PluginError;
use crate::instance::{Instance, Pending};

/// A source task. [`poll`](Self::poll) and the other calls may be in flight at the same time; the plugin sees them one
/// after the other. Dropping a call's future cancels it.
pub struct SourceTaskHandle {
    pub(crate) instance: Arc<Instance>,
    /// What it starts with, until it does.
    pub(crate) start: Mutex<Option<Vec<u8>>>,
    pub(crate) started: AtomicBool,
    /// A poll whose future was dropped: its frame may be on the way, and must not be lost (invariant 2).
    pub(crate) kept_poll: Mutex<Option<Pending>>,
    pub(crate) schemas: Mutex<SchemaCache>,
}

impl SourceTaskHandle {
    /// Starts the task, once.
    pub async fn start(&self) -> Result<(), PluginError> {
        let payload = self.start.lock().take();
        let payload = payload.ok_or_else(|| started_before(&self.instance))?;
        self.instance.tell(Opcode::SourceStart, payload).await?;
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Bounds every call from now on: one that is not answered in time fails with [`ErrorKind::Abandoned`], and so does every
    /// one after it. A poll may wait for the outside for as long as it likes, but not block its thread for longer than that.
    #[must_use]
    pub fn with_call_timeout(self, timeout: Duration) -> Self {
        self.instance.set_call_timeout(timeout);
        self
    }

    /// The next batch; waits until there is one. Dropping the future loses nothing: what was read comes with the next
    /// call. One poll at a time.
    pub async fn poll(&self) -> Result<Frame, PluginError> {
        let kept = self.kept_poll.lock().take();
        if let Some(kept) = kept {
            match self.finish(kept).await {
                Err(error) if error.kind == ErrorKind::Cancelled => {}
                answered => return self.parse(answered?),
            }
        }
        let answer = self
            .finish(self.instance.submit(Opcode::Poll, Bytes::new()))
            .await;
        self.parse(answer?)
    }

    async fn finish(&self, pending: Pending) -> Result<Bytes, PluginError> {
        /// Keeps the operation where its future is dropped.
        struct Keep<'a> {
            task: &'a SourceTaskHandle,
            pending: Option<Pending>,
        }
        impl Drop for Keep<'_> {
            fn drop(&mut self) {
                if let Some(pending) = self.pending.take() {
                    pending.cancel();
                    *self.task.kept_poll.lock() = Some(pending);
                }
            }
        }
        let mut keep = Keep {
            task: self,
            pending: Some(pending),
        };
        let answer = loop {
            let Some(pending) = &mut keep.pending else {
                return std::future::pending().await;
            };
            let Some(limit) = self.instance.call_timeout() else {
                break pending.await;
            };
            if let Ok(answer) = timeout(limit, pending).await {
                break answer;
            }
            // Nothing to read for so long, or a thread that is blocked: one that can still be asked is alive. The poll goes on
            // afterwards, since the plugin lets it make way for other calls.
            match self.metrics().await {
                Err(error) if error.kind == ErrorKind::Abandoned => return Err(error),
                _ => {}
            }
        };
        keep.pending = None;
        answer
    }

    fn parse(&self, frame: Bytes) -> Result<Frame, PluginError> {
        Frame::parse(frame, &mut self.schemas.lock())
            .map_err(|error| self.instance.malformed(format_args!("poll gave a {error}")))
    }

    /// These positions, and what they cover, are durable: the outside may forget them (invariant 3).
    pub async fn commit(&self, positions: &[SourcePosition]) -> Result<(), PluginError> {
        self.instance
            .tell(Opcode::Commit, encode(&self.instance, positions)?)
            .await
    }

    /// The task's own counters.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>, PluginError> {
        self.instance.ask(Opcode::Metrics, Vec::new()).await
    }

    /// Ends the task within about `deadline`; further calls fail. A plugin that does not let go in time is left behind:
    /// [`ErrorKind::Abandoned`].
    pub async fn stop(&self, deadline: Duration) -> Result<(), PluginError> {
        let owed = self
            .started
            .swap(false, Ordering::Relaxed)
            .then_some(Opcode::Stop);
        let stopped = self.instance.stop(owed, deadline).await;
        // It holds the instance, and nobody polls again.
        let kept = self.kept_poll.lock().take();
        drop(kept);
        stopped
    }
}

impl std::fmt::Debug for SourceTaskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceTaskHandle").finish_non_exhaustive()
    }
}

pub(crate) fn started_before(instance: &Instance) -> PluginError {
    instance.origin().error(
        ErrorKind::Fatal,
        "a task is started once; make another one to start again",
    )
}

pub(crate) fn encode<T: serde::Serialize + ?Sized>(
    instance: &Instance,
    payload: &T,
) -> Result<Vec<u8>, PluginError> {
    serde_json::to_vec(payload).map_err(|error| {
        instance
            .origin()
            .error(ErrorKind::Fatal, format!("cannot send to the plugin: {error}"))
    })
}
