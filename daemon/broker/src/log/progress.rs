//! How far a log has come: what is written, what is on disk, what is acknowledged, and who waits for that.
//!
//! The core of group commit, as plain state: it lives under the lock of its log, calls nobody, and answers what its
//! caller is to do after releasing that lock. A log that has something to sync is queued for the flusher once; the
//! flusher [begins](Progress::begin), syncs everything written until then, and [ends](Progress::finish). What is
//! written meanwhile is the next group.
//!
//! Invariants:
//! - `durable <= high <= ` the end of the log, and neither ever goes back (invariant 1).
//! - Where writes are acknowledged once synced, `high` is what was durable or acknowledged before, else the end.
//! - A completion is given back exactly once: at once, when a sync covers its offset, or when the log stops.
//! - A log with waiters is queued or running. It is with the flusher at most once at a time.
//! - Bytes held of the in-flight budget are given back exactly once, by the sync that covers them or when the log
//!   stops.

use std::mem;

/// Something that lies at an offset.
pub(crate) trait Place: Copy + PartialEq {
    fn offset(&self) -> u64;
}

/// `P` is a place in the log, `C` what is called when something is durable.
pub(crate) struct Progress<P, C> {
    /// Everything before is on disk.
    durable: P,
    /// Everything before is acknowledged, and may be seen.
    high: P,
    /// Writes are acknowledged once written, and synced at checkpoints only.
    when_written: bool,
    /// Bytes written since the last sync began.
    unsynced: u64,
    /// Bytes of the in-flight budget these hold.
    held: usize,
    queued: bool,
    running: bool,
    stopped: bool,
    /// By the offset that must be on disk.
    waiters: Vec<(u64, C)>,
}

/// What [`Progress::wait`] answers.
pub(crate) enum Wait<C> {
    /// It is so already.
    Done(C),
    /// The log has stopped.
    Stopped(C),
    /// It is kept. `true`: give the log to the flusher.
    Kept(bool),
}

/// What is to be done when a sync has ended, with the lock of the log released.
pub(crate) struct Finished<C> {
    /// To be called.
    pub(crate) done: Vec<C>,
    /// Bytes of the budget to be given back, besides those of the sync.
    pub(crate) held: usize,
    /// Give the log to the flusher again.
    pub(crate) again: bool,
}

impl<P: Place, C> Progress<P, C> {
    /// A log of which everything up to `end` is on disk.
    pub(crate) fn new(end: P, when_written: bool) -> Self {
        Self {
            durable: end,
            high: end,
            when_written,
            unsynced: 0,
            held: 0,
            queued: false,
            running: false,
            stopped: false,
            waiters: Vec::new(),
        }
    }

    pub(crate) fn durable(&self) -> P {
        self.durable
    }

    /// The high watermark.
    pub(crate) fn high(&self) -> P {
        self.high
    }

    pub(crate) fn unsynced(&self) -> u64 {
        self.unsynced
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether writes are acknowledged once written.
    pub(crate) fn when_written(&self) -> bool {
        self.when_written
    }

    /// Changes when writes are acknowledged; `end` is the end of the log. What is acknowledged stays so.
    pub(crate) fn set_when_written(&mut self, when_written: bool, end: P) {
        self.when_written = when_written;
        if when_written {
            self.high = end;
        }
    }

    /// `bytes` were written up to `end`.
    pub(crate) fn wrote(&mut self, bytes: u64, end: P) {
        debug_assert!(
            self.high.offset() <= end.offset(),
            "nothing is seen before it is written"
        );
        self.unsynced += bytes;
        if self.when_written {
            self.high = end;
        }
    }

    /// What is written holds bytes of the budget until it is synced.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Queues the log; `true`: give it to the flusher.
    pub(crate) fn queue(&mut self) -> bool {
        !mem::replace(&mut self.queued, true) && !self.running
    }

    /// Whether everything before `offset` is acknowledged, as the setting in force says.
    pub(crate) fn is_acknowledged(&self, offset: u64) -> bool {
        let reached = if self.when_written {
            self.high
        } else {
            self.durable
        };
        reached.offset() >= offset
    }

    /// Waits until everything before `offset` is acknowledged.
    pub(crate) fn wait(&mut self, offset: u64, done: C) -> Wait<C> {
        if self.is_acknowledged(offset) {
            return Wait::Done(done);
        }
        self.wait_synced(offset, done)
    }

    /// Waits until everything before `offset` is on disk.
    pub(crate) fn wait_synced(&mut self, offset: u64, done: C) -> Wait<C> {
        if self.durable.offset() >= offset {
            return Wait::Done(done);
        }
        if self.stopped {
            return Wait::Stopped(done);
        }
        self.waiters.push((offset, done));
        Wait::Kept(self.queue())
    }

    /// The flusher has the log: a sync begins. Answers the bytes of the budget it covers; `None` if the log has
    /// stopped, and then [`stop`](Self::stop) is to be called.
    pub(crate) fn begin(&mut self) -> Option<usize> {
        debug_assert!(!self.running, "one sync at a time");
        self.queued = false;
        if self.stopped {
            return None;
        }
        self.running = true;
        self.unsynced = 0;
        Some(mem::take(&mut self.held))
    }

    /// The sync is done: everything before `target`, which was the end when it began, is on disk.
    pub(crate) fn finish(&mut self, target: P) -> Finished<C> {
        self.running = false;
        debug_assert!(
            self.durable.offset() <= target.offset(),
            "what is on disk stays there"
        );
        self.durable = target;
        if self.high.offset() < target.offset() {
            self.high = target;
        }
        let covered = self
            .waiters
            .extract_if(.., |(offset, _)| *offset <= target.offset());
        Finished {
            done: covered.map(|(_, done)| done).collect(),
            held: 0,
            again: self.queued,
        }
    }

    /// Nothing will be on disk any more. Who waits is told by [`stop`](Self::stop), after the next
    /// [`begin`](Self::begin) at the latest: whoever waits is queued.
    pub(crate) fn halt(&mut self) {
        self.stopped = true;
    }

    /// As [`halt`](Self::halt), because a sync failed or found that the log is gone.
    pub(crate) fn stop(&mut self) -> Finished<C> {
        self.halt();
        self.running = false;
        let waiters = mem::take(&mut self.waiters);
        Finished {
            done: waiters.into_iter().map(|(_, done)| done).collect(),
            held: mem::take(&mut self.held),
            again: self.queued,
        }
    }
}
