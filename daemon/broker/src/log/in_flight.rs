//! The budget of bytes that are written and not on disk yet, over all logs (invariant 6).

use tokio::sync::Semaphore;

use crate::sync::{AtomicUsize, Ordering};

/// The budget. Who waits for room is served in turn, and may stop waiting at any time.
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
    pub(crate) fn new(cap: usize) -> Self {
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

    /// No bytes.
    pub(crate) fn nothing(&self) -> Reserved<'_> {
        Reserved {
            budget: self,
            bytes: 0,
        }
    }

    /// Bytes taken.
    pub(crate) fn taken(&self) -> usize {
        self.cap - self.budget.available_permits()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Whether somebody waits for the budget.
    pub(crate) fn contended(&self) -> bool {
        self.waiting() > 0
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
