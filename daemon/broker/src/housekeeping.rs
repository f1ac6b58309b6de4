//! Housekeeping: a thread that does what is due, and sleeps until the next of it is.
//!
//! Work is registered as periodic ([`Keeper::every`]) or for one moment ([`Keeper::at`]); deadlines are on the monotonic
//! clock. Tasks run one after the other, with no lock held; one that fails or panics is reported, and all others and its
//! own next turn come as if it had not. Long work therefore gets a keeper of its own: the broker has one for all short
//! work, `log-keeper`, and one for compaction, `log-cleaner`.
//!
//! A keeper has no thread before something is registered. Tasks hold the broker weakly: they do not keep it open.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::clock::Clock;
use crate::error::{Error, Result};

/// A thread with work for later.
#[derive(Debug)]
pub(crate) struct Keeper {
    name: &'static str,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Something was registered, or the keeper stops.
    changed: Condvar,
    /// A task has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
#[allow(dead_code, reason = "work is registered by what needs it")]
struct State {
    tasks: BinaryHeap<Reverse<Task>>,
    registered: u64,
    /// The thread that runs a task right now.
    running: Option<ThreadId>,
    stopped: bool,
    thread: Option<JoinHandle<()>>,
}

/// What a task does: short of a failure of the machine it answers `Ok`.
type Work = Box<dyn FnMut() -> Result<()> + Send>;

struct Task {
    due: Instant,
    /// In the order of registration where they are due at once.
    number: u64,
    name: &'static str,
    period: Option<Duration>,
    work: Work,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:?}", self.name, self.due)
    }
}

impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Task {}

impl PartialOrd for Task {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Task {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[allow(dead_code, reason = "work is registered by what needs it")]
impl Keeper {
    /// A keeper whose thread will have this name.
    pub(crate) fn new(name: &'static str, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            name,
            clock,
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
        })
    }

    /// Runs `work` every `period`, for the first time after one.
    pub(crate) fn every(
        self: &Arc<Self>,
        name: &'static str,
        period: Duration,
        work: impl FnMut() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let due = self.clock.monotonic() + period;
        self.register(name, due, Some(period), Box::new(work))
    }

    /// Runs `work` once, at `due` or as soon as possible after it. It cannot be taken back: it looks for itself whether
    /// there is still something to do.
    pub(crate) fn at(
        self: &Arc<Self>,
        name: &'static str,
        due: Instant,
        work: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let mut work = Some(work);
        let once = move || work.take().map_or(Ok(()), |work| work());
        self.register(name, due, None, Box::new(once))
    }

    fn register(
        self: &Arc<Self>,
        name: &'static str,
        due: Instant,
        period: Option<Duration>,
        work: Work,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(Error::Closed);
        }
        state.registered += 1;
        let number = state.registered;
        state.tasks.push(Reverse(Task {
            due,
            number,
            name,
            period,
            work,
        }));
        if state.thread.is_none() {
            let keeper = Arc::clone(self);
            let thread = thread::Builder::new()
                .name(self.name.to_owned())
                .spawn(move || keeper.keep());
            let thread = thread.map_err(|e| Error::io("start the thread", Path::new(self.name), e))?;
            state.thread = Some(thread);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Does what is due, on this thread, and all periodic work whether due or not. Waits for a task that is running.
    pub(crate) fn run_now(&self) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let all = std::mem::take(&mut state.tasks).into_iter().map(|task| task.0);
        let hasten = |task: Task| {
            let due = if task.period.is_some() { now } else { task.due };
            Reverse(Task { due, ..task })
        };
        state.tasks = all.map(hasten).collect();
        drop(state);
        self.run_due(now);
    }

    /// Does what is due by `now`, in order.
    fn run_due(&self, now: Instant) {
        loop {
            let mut state = self.state.lock();
            while state
                .running
                .is_some_and(|thread| thread != thread::current().id())
            {
                self.ended.wait(&mut state);
            }
            // A task that asks for a round would wait for itself.
            if state.running.is_some() || state.stopped {
                return;
            }
            if state.tasks.peek().is_none_or(|task| task.0.due > now) {
                return;
            }
            let Some(Reverse(mut task)) = state.tasks.pop() else {
                return;
            };
            state.running = Some(thread::current().id());
            drop(state);
            run(&mut task);
            let mut state = self.state.lock();
            state.running = None;
            if let Some(period) = task.period.filter(|_| !state.stopped) {
                // Counted from the end, so that slow work does not pile up.
                task.due = self.clock.monotonic().max(now) + period;
                state.tasks.push(Reverse(task));
            }
            drop(state);
            self.ended.notify_all();
        }
    }

    fn keep(&self) {
        loop {
            self.run_due(self.clock.monotonic());
            let mut state = self.state.lock();
            if state.stopped {
                return;
            }
            let now = self.clock.monotonic();
            match state.tasks.peek().map(|task| task.0.due) {
                Some(due) if due <= now => {}
                Some(due) => {
                    self.changed.wait_for(&mut state, due - now);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Ends the thread, after the task that is running; what is registered is dropped. May be called by a task.
    pub(crate) fn stop(&self) {
        let (tasks, thread) = {
            let mut state = self.state.lock();
            state.stopped = true;
            (std::mem::take(&mut state.tasks), state.thread.take())
        };
        self.changed.notify_all();
        // What the tasks own may be the last of the broker.
        drop(tasks);
        let me = thread::current().id();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != me)
            && thread.join().is_err()
        {
            tracing::error!(thread = self.name, "a housekeeping thread panicked");
        }
        let mut state = self.state.lock();
        while state.running.is_some_and(|thread| thread != me) {
            self.ended.wait(&mut state);
        }
    }
}

/// Runs a task; its failure is its own.
fn run(task: &mut Task) {
    match catch_unwind(AssertUnwindSafe(|| (task.work)())) {
        // Closed: it found the broker closed meanwhile.
        Ok(Ok(()) | Err(Error::Closed)) => {}
        Ok(Err(error)) => {
            tracing::warn!(task = task.name, %error, "housekeeping failed");
        }
        Err(_) => tracing::error!(task = task.name, "housekeeping panicked"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    const HOUR: Duration = Duration::from_hours(1);

    fn counter() -> (Arc<AtomicU32>, impl FnMut() -> Result<()> + Send + 'static) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let work = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        (count, work)
    }

    #[test]
    fn what_is_due_runs_when_the_clock_says_so() {
        let clock = Arc::new(ManualClock::new(0));
        let keeper = Keeper::new("test-keeper", Arc::<ManualClock>::clone(&clock));
        let (count, work) = counter();
        keeper.at("once", clock.monotonic() + HOUR, work).unwrap();
        keeper.run_now();
        assert_eq!(count.load(Ordering::SeqCst), 0);
        clock.advance(HOUR);
        keeper.run_now();
        keeper.run_now();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        keeper.stop();
    }

    #[test]
    fn periodic_work_survives_failures_and_panics_and_runs_at_once_when_asked() {
        let keeper = Keeper::new("test-keeper", Arc::new(ManualClock::new(0)));
        let (count, mut work) = counter();
        let failing = move || {
            work()?;
            Err(Error::EmptyBatch)
        };
        keeper.every("failing", HOUR, failing).unwrap();
        let (panics, mut work) = counter();
        let panicking = move || {
            work()?;
            panic!("on purpose")
        };
        keeper.every("panicking", HOUR, panicking).unwrap();
        keeper.run_now();
        keeper.run_now();
        assert_eq!(
            (count.load(Ordering::SeqCst), panics.load(Ordering::SeqCst)),
            (2, 2)
        );
        keeper.stop();
        assert!(matches!(
            keeper.every("late", HOUR, || Ok(())),
            Err(Error::Closed)
        ));
    }

    #[test]
    fn the_thread_wakes_for_what_is_registered_while_it_sleeps() {
        let keeper = Keeper::new("test-keeper", Arc::new(SystemClock));
        keeper.every("far", HOUR, || Ok(())).unwrap();
        let (done, ran) = mpsc::channel();
        let first = done.clone();
        keeper
            .at("later", Instant::now() + Duration::from_millis(20), move || {
                done.send(2).map_err(|_| Error::Closed)
            })
            .unwrap();
        keeper
            .at("now", Instant::now(), move || {
                first.send(1).map_err(|_| Error::Closed)
            })
            .unwrap();
        assert_eq!((ran.recv().unwrap(), ran.recv().unwrap()), (1, 2));
        keeper.stop();
    }

    #[test]
    fn a_task_may_stop_the_keeper_and_ask_for_a_round() {
        let keeper = Keeper::new("test-keeper", Arc::new(SystemClock));
        let (done, ran) = mpsc::channel();
        let (asking, mine) = (Arc::clone(&keeper), Arc::clone(&keeper));
        keeper
            .at("asks", Instant::now(), move || {
                asking.run_now();
                Ok(())
            })
            .unwrap();
        keeper
            .at("stops", Instant::now(), move || {
                mine.stop();
                done.send(()).map_err(|_| Error::Closed)
            })
            .unwrap();
        ran.recv().unwrap();
        keeper.stop();
    }
}
