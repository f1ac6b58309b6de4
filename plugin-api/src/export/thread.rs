//! The thread of an instance: a tokio runtime for the author's code alone, so that what blocks, blocks only itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;
use tracing::Level;

use super::host::{self, Identity};
use super::instance::Instance;
use super::perform::Blueprint;
use super::worker::{Ended, Worker};
use crate::error::{Error, ErrorKind, Result};

const TARGET: &str = "tidewater_plugin_api::thread";
/// What blocking calls are given to end even where the deadline has passed.
const LEAST_SHUTDOWN: Duration = Duration::from_millis(10);

/// Starts the thread of a new instance.
pub(crate) fn spawn(blueprint: Blueprint, identity: Identity) -> Result<Instance> {
    let identity = Arc::new(identity);
    let name = match identity.task {
        Some(task) => format!("{}-{task}", identity.connector),
        None => identity.connector.clone(),
    };
    let doing =
        |what: &str| format!("cannot {what} for {name}; are its limits on threads or open files reached?");

    let of_pool = identity.clone();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_name(format!("{name}+"))
        .on_thread_start(move || host::adopt_thread(of_pool.clone()))
        .build()
        .map_err(|error| Error::from_source(ErrorKind::Retriable, doing("make a runtime"), &error))?;
    let (sender, inbox) = unbounded_channel();
    std::thread::Builder::new()
        // The kernel shows 15 bytes; a name cannot hold a zero.
        .name(name.replace('\0', "?"))
        .spawn(move || {
            host::adopt_thread(identity);
            let worker = Worker::new(blueprint, inbox);
            // The author's code is caught where it runs; this keeps a fault of the SDK from ending the daemon. What
            // was owed is answered as the inbox is dropped.
            if catch_unwind(AssertUnwindSafe(|| live(runtime, worker))).is_err() {
                host::log(Level::ERROR, TARGET, "the instance's thread has died", b"");
            }
        })
        .map_err(|error| Error::from_source(ErrorKind::Retriable, doing("start a thread"), &error))?;
    Ok(Instance::new(sender))
}

fn live(runtime: Runtime, worker: Worker) {
    let Ended {
        deadline,
        reply,
        result,
    } = runtime.block_on(worker.serve());

    // Tasks the author has spawned are dropped here, and blocking calls waited for.
    let left = deadline.saturating_duration_since(Instant::now());
    let begun = std::time::Instant::now();
    runtime.shutdown_timeout(left.max(LEAST_SHUTDOWN));
    let blocked = begun.elapsed() >= left.max(LEAST_SHUTDOWN);

    let Some(reply) = reply else { return };
    match result {
        Err(error) => reply.error(&error),
        Ok(()) if blocked => reply.error(&Error::fatal(
            "blocking calls that the plugin spawned still run past the deadline; their threads are left behind",
        )),
        Ok(()) => reply.ok(crate::abi::Buf::EMPTY),
    }
}
