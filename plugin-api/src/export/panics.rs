//! Catches panics wherever the author's code runs, and remembers where they came from. A panic that left the plugin would
//! end the daemon; one that is caught touches its own instance only (invariant 7).
//!
//! What cannot be caught is a panic in a `Drop` that runs because of another panic: Rust aborts the process.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use tracing::Level;

use super::host;
use crate::error::{Error, ErrorKind};

const TARGET: &str = "tidewater_plugin_api::panic";

thread_local! {
    /// How many calls of `catch` the thread is in.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    /// What the last panic within them said, and where.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Clone, Debug)]
pub(crate) struct Panic {
    /// What it said, and the file, line and column it came from.
    pub(crate) message: String,
}

impl Panic {
    /// The panic as the answer of the operation it happened in.
    pub(crate) fn error(&self, doing: &str) -> Error {
        Error::new(
            ErrorKind::Panic,
            format!("the plugin panicked in {doing}: {}", self.message),
        )
    }
}

/// Installs the hook that remembers a panic's place. Threads of the plugin that are not an instance's keep the hook they
/// had.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.try_with(Cell::get).unwrap_or(0) > 0 {
                remember(info);
            } else if host::identity().is_some() {
                // Nothing of ours waits for it: tokio catches it, and tells only who awaits the task.
                let message = format!(
                    "a task or thread that the plugin spawned panicked: {}",
                    describe(info)
                );
                host::log(Level::ERROR, TARGET, &message, b"");
                log_backtrace();
            } else {
                previous(info);
            }
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("a value that is no text");
    match info.location() {
        Some(place) => format!("{text} ({place})"),
        None => text.to_owned(),
    }
}

fn remember(info: &PanicHookInfo<'_>) {
    let text = describe(info);
    log_backtrace();
    let _ = CAUGHT.try_with(|caught| caught.replace(Some(text)));
}

/// The way to the panic, where RUST_BACKTRACE asks for it.
fn log_backtrace() {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        host::log(
            Level::ERROR,
            TARGET,
            &format!("the panic's backtrace:\n{backtrace}"),
            b"",
        );
    }
}

/// Runs `f`; a panic becomes an error.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    let depth = CATCHING.get();
    CATCHING.set(depth + 1);
    let result = catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(depth);
    result.map_err(|payload| {
        let message = CAUGHT.take().unwrap_or_else(|| payload_text(&*payload));
        // The payload is the author's too, and its Drop may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        CAUGHT.take();
        Panic { message }
    })
}

/// What a panic carries that no hook has seen, as one that is resumed.
fn payload_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}

/// A future of the author's: a panic in its poll or its drop is an answer.
pub(crate) struct Guarded<'a, T> {
    future: Option<Pin<Box<dyn Future<Output = T> + 'a>>>,
}

impl<'a, T> Guarded<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self {
            future: Some(Box::pin(future)),
        }
    }

    /// Drops the future.
    pub(crate) fn discard(mut self) -> Result<(), Panic> {
        self.discard_inner()
    }

    fn discard_inner(&mut self) -> Result<(), Panic> {
        let future = self.future.take();
        catch(|| drop(future))
    }
}

impl<T> Future for Guarded<'_, T> {
    type Output = Result<T, Panic>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = self.future.as_mut() else {
            return Poll::Pending;
        };
        let result = match catch(|| future.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        let dropped = self.discard_inner();
        Poll::Ready(result.and_then(|output| dropped.map(|()| output)))
    }
}

impl<T> Drop for Guarded<'_, T> {
    fn drop(&mut self) {
        // Only where nobody looks at the answer any more.
        let _ = self.discard_inner();
    }
}
