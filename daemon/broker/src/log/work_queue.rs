//! A queue that threads take work from.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex};

pub(crate) struct WorkQueue<T> {
    inner: Mutex<Inner<T>>,
    work: Condvar,
}

struct Inner<T> {
    ready: VecDeque<T>,
    /// Threads that wait for work.
    idle: usize,
    stopped: bool,
}

impl<T> WorkQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                ready: VecDeque::new(),
                idle: 0,
                stopped: false,
            }),
            work: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, work: T) {
        let mut inner = self.inner.lock();
        inner.ready.push_back(work);
        let wake = inner.idle > 0;
        drop(inner);
        if wake {
            self.work.notify_one();
        }
    }

    /// Waits for work; `None` once the queue is stopped and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut inner = self.inner.lock();
        loop {
            if let Some(work) = inner.ready.pop_front() {
                return Some(work);
            }
            if inner.stopped {
                return None;
            }
            inner.idle += 1;
            self.work.wait(&mut inner);
            inner.idle -= 1;
        }
    }

    /// What is queued is still taken, then every thread is told to end.
    pub(crate) fn stop(&self) {
        self.inner.lock().stopped = true;
        self.work.notify_all();
    }
}
