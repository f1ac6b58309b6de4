//! A log without files: the steps of the real one in appending, syncing and telling, around the same core.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::thread::{self, JoinHandle};
use tokio::sync::oneshot;

use crate::log::in_flight::{InFlight, Reserved};
use crate::log::progress::{Place, Progress, Wait};
use crate::log::visibility::Visibility;
use crate::log::work_queue::WorkQueue;
use crate::sync::Mutex;

type Completion = oneshot::Sender<Result<(), ()>>;

/// What is shared by all logs: the flusher and the budget.
pub(crate) struct Disk {
    queue: WorkQueue<Arc<Log>>,
    in_flight: InFlight,
    held: AtomicUsize,
    logs: Mutex<Vec<Arc<Log>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Which sync from now fails.
    failing: Mutex<Option<usize>>,
}

pub(crate) struct Log {
    disk: Arc<Disk>,
    state: Mutex<State>,
    pub(crate) visible: Visibility<Visible>,
}

struct State {
    end: At,
    stopped: bool,
    progress: Progress<At, Completion>,
}

#[derive(Clone, Copy, PartialEq)]
struct At(u64);

#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Visible {
    pub(crate) high: u64,
    pub(crate) stopped: bool,
}

impl Place for At {
    fn offset(&self) -> u64 {
        self.0
    }
}

impl Disk {
    pub(crate) fn new(threads: usize, cap: usize) -> Arc<Self> {
        let disk = Arc::new(Self {
            queue: WorkQueue::new(),
            in_flight: InFlight::new(cap),
            held: AtomicUsize::new(0),
            logs: Mutex::new(Vec::new()),
            threads: Mutex::new(Vec::new()),
            failing: Mutex::new(None),
        });
        for _ in 0..threads {
            let flusher = Arc::clone(&disk);
            let thread = thread::spawn(move || {
                while let Some(log) = flusher.queue.pop() {
                    log.sync_once();
                }
            });
            disk.threads.lock().push(thread);
        }
        disk
    }

    pub(crate) fn fail_sync(&self, nth: usize) {
        *self.failing.lock() = Some(nth);
    }

    fn sync(&self) -> Result<(), ()> {
        let mut failing = self.failing.lock();
        match failing.as_mut() {
            None => Ok(()),
            Some(0) => Err(()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    pub(crate) async fn reserve(&self, bytes: usize) -> Reserved<'_> {
        let flush = || {
            let logs = self.logs.lock().clone();
            for log in logs {
                let mut state = log.state.lock();
                if state.progress.held() > 0 && state.progress.queue() {
                    self.queue.push(Arc::clone(&log));
                }
            }
        };
        self.in_flight.reserve(bytes, flush).await
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        self.in_flight.release(bytes);
    }

    /// Bytes logs hold of the budget.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Ends the flusher; the logs are let go.
    pub(crate) fn stop(&self) {
        self.queue.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.join().unwrap();
        }
        self.logs.lock().clear();
    }

    /// All of the budget was given back, none of it twice.
    pub(crate) fn check_budget(&self) {
        assert_eq!(self.held(), 0);
        assert_eq!(self.in_flight.taken(), 0);
    }
}

impl Log {
    pub(crate) fn new(disk: &Arc<Disk>, when_written: bool) -> Arc<Self> {
        let log = Arc::new(Self {
            disk: Arc::clone(disk),
            state: Mutex::new(State {
                end: At(0),
                stopped: false,
                progress: Progress::new(At(0), when_written),
            }),
            visible: Visibility::new(Visible {
                high: 0,
                stopped: false,
            }),
        });
        disk.logs.lock().push(Arc::clone(&log));
        log
    }

    /// Appends a batch that holds `bytes` of the budget; answers the end, `None` if the log has stopped.
    pub(crate) async fn append(self: &Arc<Self>, bytes: usize) -> Option<u64> {
        let reserved = self.disk.reserve(bytes).await;
        let mut state = self.state.lock();
        if state.stopped {
            return None;
        }
        let bytes = reserved.hand_over();
        self.disk.held.fetch_add(bytes, Ordering::SeqCst);
        state.end.0 += 1;
        let end = state.end;
        state.progress.wrote(1, end);
        state.progress.hold(bytes);
        if self.disk.in_flight.contended() && state.progress.queue() {
            self.disk.queue.push(Arc::clone(self));
        }
        let news = state.progress.when_written().then(|| self.publish(&state));
        drop(state);
        drop(news);
        Some(end.0)
    }

    pub(crate) async fn acknowledged(self: &Arc<Self>, offset: u64) -> Result<(), ()> {
        let (done, result) = oneshot::channel();
        self.when(offset, done, Progress::wait);
        result
            .await
            .expect("a completion was dropped without being called")
    }

    fn when(
        self: &Arc<Self>,
        offset: u64,
        done: Completion,
        wait: impl FnOnce(&mut Progress<At, Completion>, u64, Completion) -> Wait<Completion>,
    ) {
        let mut state = self.state.lock();
        let answer = wait(&mut state.progress, offset, done);
        drop(state);
        match answer {
            Wait::Kept(false) => {}
            Wait::Kept(true) => self.disk.queue.push(Arc::clone(self)),
            Wait::Done(done) => drop(done.send(Ok(()))),
            Wait::Stopped(done) => drop(done.send(Err(()))),
        }
    }

    fn sync_once(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let target = state.end;
        let Some(held) = state.progress.begin() else {
            let stopped = state.progress.stop();
            drop(state);
            self.disk.release(stopped.held);
            for done in stopped.done {
                let _ = done.send(Err(()));
            }
            return;
        };
        drop(state);
        let result = self.disk.sync();
        let mut state = self.state.lock();
        let finished = if result.is_ok() {
            state.progress.finish(target)
        } else {
            state.stopped = true;
            state.progress.stop()
        };
        let news = self.publish(&state);
        drop(state);
        if finished.again {
            self.disk.queue.push(Arc::clone(self));
        }
        self.disk.release(held + finished.held);
        for done in finished.done {
            // Nobody listens to a waiter that was dropped.
            let _ = done.send(result);
        }
        drop(news);
    }

    fn publish(&self, state: &State) -> crate::log::visibility::News<'_, Visible> {
        let high = state.progress.high().offset();
        assert!(
            self.visible.now().high <= high,
            "the high watermark never goes back"
        );
        self.visible.publish(Visible {
            high,
            stopped: state.stopped,
        })
    }

    pub(crate) fn delete(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.progress.halt();
        let push = state.progress.queue();
        let news = self.publish(&state);
        drop(state);
        drop(news);
        if push {
            self.disk.queue.push(Arc::clone(self));
        }
    }

    pub(crate) fn is_strict(&self) -> bool {
        !self.state.lock().progress.when_written()
    }

    /// From now on writes are acknowledged once on disk; returns when those before are.
    pub(crate) async fn make_strict(self: &Arc<Self>) {
        let end = {
            let mut state = self.state.lock();
            let end = state.end;
            state.progress.set_when_written(false, end);
            end
        };
        let (done, result) = oneshot::channel();
        self.when(end.0, done, Progress::wait_synced);
        result.await.unwrap().unwrap();
    }

    pub(crate) fn durable(&self) -> u64 {
        self.state.lock().progress.durable().offset()
    }

    pub(crate) fn end(&self) -> u64 {
        self.state.lock().end.0
    }
}
