//! The flusher: a few threads that sync logs.
//!
//! Group commit without timers: a log that has something to sync is queued once; a thread takes it, syncs what was
//! written until then, and acknowledges all of it together. What is written meanwhile is the next group.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::disk::measured::{DiskCounters, MeasuredDisk};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::active_file::OpenFiles;
use crate::log::agenda::Agenda;
use crate::log::in_flight::InFlight;
use crate::log::recovery_budget::RecoveryBudget;
use crate::log::work_queue::WorkQueue;
use crate::options::BrokerOptions;

/// Called once with the result of what was waited for, on a flusher thread, with no lock held.
pub(crate) type Completion = Box<dyn FnOnce(Result<()>) + Send>;

pub(crate) struct Flusher {
    queue: WorkQueue<Arc<Log>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Counts in `disk_counters`.
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) disk_counters: Arc<DiskCounters>,
    /// Checkpoints written.
    pub(crate) checkpoints: AtomicU64,
    pub(crate) clock: Arc<dyn Clock>,
    /// Bytes a log takes between two checkpoints.
    pub(crate) checkpoint_bytes: u64,
    pub(crate) in_flight: InFlight,
    pub(crate) recovery_budget: Arc<RecoveryBudget>,
    pub(crate) agenda: Agenda,
    pub(crate) open_files: OpenFiles,
}

impl Flusher {
    pub(crate) fn new(environment: Environment, options: &BrokerOptions) -> Arc<Self> {
        let disk_counters = Arc::<DiskCounters>::default();
        Arc::new(Self {
            queue: WorkQueue::new(),
            threads: Mutex::default(),
            disk: Arc::new(MeasuredDisk::new(environment.disk, Arc::clone(&disk_counters))),
            disk_counters,
            checkpoints: AtomicU64::new(0),
            clock: environment.clock,
            checkpoint_bytes: options.checkpoint_bytes,
            in_flight: InFlight::new(options.in_flight_bytes),
            recovery_budget: RecoveryBudget::new(options.recovery_bytes),
            agenda: Agenda::default(),
            open_files: OpenFiles::new(options.open_files),
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
        self.queue.push(log);
    }

    fn run(&self) {
        while let Some(log) = self.queue.pop() {
            log.sync_once();
        }
    }

    /// Syncs what is queued, then ends the threads.
    pub(crate) fn stop(&self) {
        self.queue.stop();
        let mut own = false;
        for thread in self.threads.lock().drain(..) {
            // The last handle may be dropped by a completion, on a flusher thread: that one ends by itself.
            if thread.thread().id() == thread::current().id() {
                own = true;
            } else if thread.join().is_err() {
                tracing::error!("a flusher thread panicked");
            }
        }
        if !own {
            // A log queued after the threads had ended would keep the flusher and itself, and its file open, for ever.
            self.run();
        }
    }
}
