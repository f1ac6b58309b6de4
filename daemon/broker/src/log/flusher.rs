//! The flusher: a few threads that sync logs, and the budget of bytes that wait for it.
//!
//! Group commit without timers: a log that has something to sync is queued once; a thread takes it, syncs what was
//! written until then, and acknowledges all of it together. What is written meanwhile is the next group.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::options::BrokerOptions;

/// Called once with the result of what was waited for, on a flusher thread, with no lock held.
pub(crate) type Completion = Box<dyn FnOnce(Result<()>) + Send>;

pub(crate) struct Flusher {
    queue: Mutex<Queue>,
    work: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether files are synced at all.
    pub(crate) fsync: bool,
    /// Bytes a log takes between two checkpoints.
    pub(crate) checkpoint_bytes: u64,
    pub(crate) in_flight: InFlight,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<Log>>,
    stop: bool,
}

impl Flusher {
    pub(crate) fn new(environment: Environment, options: &BrokerOptions) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            work: Condvar::new(),
            threads: Mutex::default(),
            disk: environment.disk,
            clock: environment.clock,
            fsync: options.fsync,
            checkpoint_bytes: options.checkpoint_bytes,
            in_flight: InFlight::new(options.in_flight_bytes),
        })
    }

    pub(crate) fn start(self: &Arc<Self>, threads: usize) -> Result<()> {
        for i in 0..threads {
            let flusher = Arc::clone(self);
            let thread = thread::Builder::new()
                .name(format!("log-flush-{i}"))
                .spawn(move || flusher.run());
            let thread = thread.map_err(|e| Error::io("start the thread", Path::new("log-flush"), e))?;
            self.threads.lock().push(thread);
        }
        Ok(())
    }

    /// Queues a log; its state says that it is queued, so it is here at most once.
    pub(crate) fn push(&self, log: Arc<Log>) {
        self.queue.lock().ready.push_back(log);
        self.work.notify_one();
    }

    fn run(&self) {
        loop {
            let log = {
                let mut queue = self.queue.lock();
                loop {
                    if let Some(log) = queue.ready.pop_front() {
                        break log;
                    }
                    if queue.stop {
                        return;
                    }
                    self.work.wait(&mut queue);
                }
            };
            log.sync_once();
        }
    }

    /// Syncs what is queued, then ends the threads.
    pub(crate) fn stop(&self) {
        self.queue.lock().stop = true;
        self.work.notify_all();
        for thread in self.threads.lock().drain(..) {
            // The last handle may be dropped by a completion, on a flusher thread: that one ends by itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a flusher thread panicked");
            }
        }
    }
}

/// The budget of bytes written and not yet synced, over all logs (invariant 6).
pub(crate) struct InFlight {
    budget: Semaphore,
    cap: usize,
    waiting: AtomicUsize,
}

/// Bytes taken from the budget; given back when dropped, unless [`Reserved::hand_over`] passed them to a log.
pub(crate) struct Reserved<'a> {
    budget: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    fn new(cap: usize) -> Self {
        Self {
            budget: Semaphore::new(cap),
            cap,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes `bytes` (or all there is, for a larger batch), waiting in turn. `flush` is called before waiting; it
    /// must queue every log with unsynced bytes.
    pub(crate) async fn reserve(&self, bytes: usize, flush: impl FnOnce()) -> Reserved<'_> {
        let bytes = bytes.min(self.cap);
        let permits = bytes as u32;
        if let Ok(permit) = self.budget.try_acquire_many(permits) {
            permit.forget();
            return Reserved { budget: self, bytes };
        }
        // From here on, whoever writes queues its log at once, so that every byte held is on its way to the disk.
        let _waiting = Waiting::new(&self.waiting);
        flush();
        if let Ok(permit) = self.budget.acquire_many(permits).await {
            permit.forget();
        } else {
            unreachable!("the semaphore is never closed");
        }
        Reserved { budget: self, bytes }
    }

    /// Whether somebody waits for the budget.
    pub(crate) fn contended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.budget.add_permits(bytes);
        }
    }
}

impl Reserved<'_> {
    /// The log now holds the bytes and releases them once synced.
    pub(crate) fn hand_over(mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
