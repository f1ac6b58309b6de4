//! One instance of a connector or task: what is submitted to it, and its end.

// The boundary: every `unsafe` block says why it is sound.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tidewater_plugin_api::ErrorKind;
use tidewater_plugin_api::abi::{Buf, Opcode, Slice, Status};
use tidewater_plugin_api::payload::Create;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::error::{Origin, PluginError};
use crate::library::Plugin;
use crate::operation::{Answer, expect_answer};

/// What an instance gets that nobody stops, but whose handle is dropped.
const DROP_DEADLINE: Duration = Duration::from_secs(5);
/// What the plugin gets at the least to drop its things, even where stopping has used up the deadline.
const LEAST_DESTROY: Duration = Duration::from_millis(100);
/// How long after the deadline the plugin's own answer is waited for: it bounds itself by the same deadline.
const GRACE: Duration = Duration::from_millis(500);

/// The plugin's pointer.
struct Raw(*mut c_void);

// SAFETY: the ABI lets an instance be used on any thread; it is only handed to the plugin, never followed.
unsafe impl Send for Raw {}

pub(crate) struct Instance {
    plugin: Arc<Plugin>,
    origin: Origin,
    /// What it is called in errors: `shop` or `task 0 of shop`.
    name: String,
    /// None once it is destroyed. The lock keeps the pointer from being used after that; nothing under it waits.
    raw: Mutex<Option<Raw>>,
    next_operation: AtomicU64,
    /// Whether the plugin has panicked in it: nothing more is asked of it.
    poisoned: AtomicBool,
    /// How long a call may take; as long as it likes where none is set.
    call_timeout: OnceLock<Duration>,
    /// Whether a call has not been answered in time: nothing more is asked of it.
    overdue: AtomicBool,
}

impl Instance {
    pub(crate) fn create(plugin: &Arc<Plugin>, create: &Create) -> Result<Arc<Self>, PluginError> {
        let origin = Origin {
            plugin: plugin.name.clone(),
            class: create.class.as_str().into(),
        };
        let name = match create.task {
            Some(task) => format!("task {task} of {}", create.connector),
            None => create.connector.clone(),
        };
        let args = serde_json::to_vec(create)
            .map_err(|error| origin.error(ErrorKind::Fatal, format!("cannot ask for {name}: {error}")))?;
        let (mut raw, mut error) = (std::ptr::null_mut(), Buf::EMPTY);
        // SAFETY: the arguments live through the call, and there is room for both answers.
        let status = unsafe { (plugin.functions.create)(Slice::new(&args), &raw mut raw, &raw mut error) };
        match Status::from_u32(status) {
            Some(Status::Ok) if !raw.is_null() => Ok(Arc::new(Self {
                plugin: plugin.clone(),
                origin,
                name,
                raw: Mutex::new(Some(Raw(raw))),
                next_operation: AtomicU64::new(1),
                poisoned: AtomicBool::new(false),
                call_timeout: OnceLock::new(),
                overdue: AtomicBool::new(false),
            })),
            Some(Status::Error | Status::Panic) => Err(origin.sent_error("create", &error.into_bytes())),
            _ => Err(origin.error(
                ErrorKind::Malformed,
                format!(
                    "creating {name} gave status {status} and no instance; report this to the plugin's author"
                ),
            )),
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Submits an operation. It goes on whether or not the answer is awaited, until the answer is dropped.
    pub(crate) fn submit(self: &Arc<Self>, opcode: Opcode, payload: Bytes) -> Pending {
        let id = self.next_operation.fetch_add(1, Ordering::Relaxed);
        let answer = {
            let raw = self.raw.lock();
            raw.as_ref().map(|raw| {
                let (completion, answer) = expect_answer();
                // SAFETY: not destroyed, since the lock is held; the completion is good for one call on any thread.
                unsafe {
                    (self.plugin.functions.submit)(raw.0, id, opcode as u32, Buf::from(payload), completion);
                };
                answer
            })
        };
        Pending {
            instance: self.clone(),
            opcode,
            id,
            answer,
        }
    }

    /// Submits an operation and reads its answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        self: &Arc<Self>,
        opcode: Opcode,
        payload: Vec<u8>,
    ) -> Result<T, PluginError> {
        let answer = self.call(opcode, payload.into()).await?;
        self.read(opcode, &answer)
    }

    /// Submits an operation that answers nothing.
    pub(crate) async fn tell(self: &Arc<Self>, opcode: Opcode, payload: Vec<u8>) -> Result<(), PluginError> {
        self.call(opcode, payload.into()).await.map(drop)
    }

    /// Bounds calls from now on; the first word counts.
    pub(crate) fn set_call_timeout(&self, timeout: Duration) {
        let _ = self.call_timeout.set(timeout);
    }

    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout.get().copied()
    }

    /// Submits an operation and waits for its answer, no longer than a call may take. Out of time, the operation is
    /// cancelled and nothing more is asked of the instance: its thread may be blocked in the plugin's code, and each further call
    /// would wait as long (invariant 7).
    pub(crate) async fn call(self: &Arc<Self>, opcode: Opcode, payload: Bytes) -> Result<Bytes, PluginError> {
        let Some(limit) = self.call_timeout() else {
            return self.submit(opcode, payload).await;
        };
        if self.overdue.load(Ordering::Relaxed) {
            return Err(self.origin.error(
                ErrorKind::Abandoned,
                format!(
                    "{}: not asked to {}, as it owes an answer",
                    self.name,
                    opcode.noun()
                ),
            ));
        }
        if let Ok(answer) = timeout(limit, self.submit(opcode, payload)).await {
            return answer;
        }
        self.overdue.store(true, Ordering::Relaxed);
        Err(self.origin.error(
            ErrorKind::Abandoned,
            format!(
                "{}: {} has not been answered within {} ms (task.call.timeout.ms); the instance is given up and another \
                 one takes its place",
                self.name,
                opcode.noun(),
                limit.as_millis()
            ),
        ))
    }

    /// Reads an answer.
    pub(crate) fn read<T: DeserializeOwned>(&self, opcode: Opcode, answer: &[u8]) -> Result<T, PluginError> {
        serde_json::from_slice(answer).map_err(|error| {
            self.malformed(format!(
                "the answer of {} is not understood: {error}",
                opcode.noun()
            ))
        })
    }

    /// A wrong answer of the plugin, named as such.
    pub(crate) fn malformed(&self, detail: impl std::fmt::Display) -> PluginError {
        self.origin.error(
            ErrorKind::Malformed,
            format!("{}: {detail}; report this to the plugin's author", self.name),
        )
    }

    fn cancel(&self, id: u64) {
        if let Some(raw) = &*self.raw.lock() {
            // SAFETY: not destroyed, since the lock is held; an operation that is not there is ignored.
            unsafe { (self.plugin.functions.cancel)(raw.0, id) };
        }
    }

    /// Ends the instance: `opcode` where its `stop` is owed, then destruction, all within about `deadline`.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        opcode: Option<Opcode>,
        deadline: Duration,
    ) -> Result<(), PluginError> {
        let until = Instant::now() + deadline;
        let mut result = Ok(());
        if let Some(opcode) = opcode
            && !self.poisoned.load(Ordering::Relaxed)
            && !self.overdue.load(Ordering::Relaxed)
        {
            // Out of time, the operation is cancelled, and the destruction says what there is to say.
            if let Ok(stopped) = timeout(deadline, self.tell(opcode, Vec::new())).await {
                result = stopped;
            }
        }
        let left = until.saturating_duration_since(Instant::now()).max(LEAST_DESTROY);
        let destroyed = match self.begin_destroy(left) {
            Some(answer) => self.finish_destroy(answer, left).await,
            None => Ok(()),
        };
        match destroyed {
            Err(error) if error.kind == ErrorKind::Abandoned => Err(error),
            destroyed => result.and(destroyed),
        }
    }

    /// Gives the instance back to the plugin; none where that has been done.
    fn begin_destroy(&self, deadline: Duration) -> Option<oneshot::Receiver<Answer>> {
        let raw = self.raw.lock().take()?;
        let (completion, answer) = expect_answer();
        let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: taken, so destroyed once and not used afterwards; the completion is good for one call on any thread.
        unsafe { (self.plugin.functions.destroy)(raw.0, millis, completion) };
        Some(answer)
    }

    async fn finish_destroy(
        &self,
        answer: oneshot::Receiver<Answer>,
        deadline: Duration,
    ) -> Result<(), PluginError> {
        let in_time = timeout(deadline.saturating_add(GRACE), answer).await;
        outcome_of_destroy(in_time.ok(), &self.plugin, &self.origin, &self.name)
    }

    fn answer(&self, opcode: Opcode, answer: Answer) -> Result<Bytes, PluginError> {
        let doing = opcode.noun();
        match Status::from_u32(answer.status) {
            Some(Status::Ok) => Ok(answer.payload),
            Some(Status::Error) => Err(self.origin.sent_error(doing, &answer.payload)),
            Some(Status::Panic) => {
                self.poisoned.store(true, Ordering::Relaxed);
                let mut error = self.origin.sent_error(doing, &answer.payload);
                error.kind = ErrorKind::Panic;
                Err(error)
            }
            Some(Status::Cancelled) => Err(self.cancelled(opcode)),
            Some(Status::Unsupported) => Err(self.origin.error(
                ErrorKind::Malformed,
                format!(
                    "{}: the plugin does not know how to {doing}; rebuild it with this daemon's SDK",
                    self.name
                ),
            )),
            None => Err(self.malformed(format_args!(
                "{doing} ended with the unknown status {}",
                answer.status
            ))),
        }
    }

    fn cancelled(&self, opcode: Opcode) -> PluginError {
        self.origin.error(
            ErrorKind::Cancelled,
            format!("{}: {} was cancelled", self.name, opcode.noun()),
        )
    }
}

/// What became of an instance that was given back; `None` is no answer in time.
fn outcome_of_destroy(
    answer: Option<Result<Answer, oneshot::error::RecvError>>,
    plugin: &Plugin,
    origin: &Origin,
    name: &str,
) -> Result<(), PluginError> {
    let error = if let Some(Ok(answer)) = answer {
        match Status::from_u32(answer.status) {
            Some(Status::Error) => origin.sent_error("destroy", &answer.payload),
            Some(Status::Panic) => {
                let mut error = origin.sent_error("destroy", &answer.payload);
                error.kind = ErrorKind::Panic;
                error
            }
            // Also where its thread had died before.
            _ => return Ok(()),
        }
    } else {
        plugin.count_abandoned();
        origin.error(
            ErrorKind::Abandoned,
            format!(
                "{name} did not end within its deadline and is left behind: its thread is blocked in the plugin's \
                 code; restart the daemon to be rid of it"
            ),
        )
    };
    tracing::error!(%error, "an instance did not end as it should");
    Err(error)
}

impl Drop for Instance {
    fn drop(&mut self) {
        let Some(answer) = self.begin_destroy(DROP_DEADLINE) else {
            return;
        };
        // Where there is a runtime, it is told when the plugin does not let go.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (plugin, origin, name) = (self.plugin.clone(), self.origin.clone(), self.name.clone());
            runtime.spawn(async move {
                let in_time = timeout(DROP_DEADLINE + GRACE, answer).await;
                // The error is logged; there is nobody to tell.
                let _ = outcome_of_destroy(in_time.ok(), &plugin, &origin, &name);
            });
        }
    }
}

/// An operation in flight. It keeps its instance alive; dropped before its answer, it is cancelled.
pub(crate) struct Pending {
    instance: Arc<Instance>,
    opcode: Opcode,
    id: u64,
    /// None where the instance is gone, or the answer has been taken.
    answer: Option<oneshot::Receiver<Answer>>,
}

impl Pending {
    /// Asks the plugin to drop the operation. The answer still comes.
    pub(crate) fn cancel(&self) {
        if self.answer.is_some() {
            self.instance.cancel(self.id);
        }
    }
}

impl Future for Pending {
    type Output = Result<Bytes, PluginError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(answer) = &mut self.answer else {
            let error = self.instance.origin.error(
                ErrorKind::Cancelled,
                format!(
                    "{}: cannot {}, it has been stopped",
                    self.instance.name,
                    self.opcode.noun()
                ),
            );
            return Poll::Ready(Err(error));
        };
        let answer = ready!(Pin::new(answer).poll(context));
        self.answer = None;
        Poll::Ready(match answer {
            Ok(answer) => self.instance.answer(self.opcode, answer),
            // The table of what is in flight never drops a sender unanswered.
            Err(_) => Err(self.instance.cancelled(self.opcode)),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.cancel();
    }
}
