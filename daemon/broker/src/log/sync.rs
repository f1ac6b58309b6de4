//! Syncing a log: what is synced together, who is told, and when a checkpoint is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::MutexGuard;
use tokio::sync::oneshot;

use crate::disk::DiskFile;
use crate::disk::durable_file::sync_dir;
use crate::error::{Error, Result};
use crate::log::checkpoint::{ActiveTimes, Checkpoint};
use crate::log::flusher::Completion;
use crate::log::progress::Wait;
use crate::log::segment::{self, SegmentName, index_path};
use crate::log::transaction_state::Mark;
use crate::log::{Log, LogState, Status};
use crate::topic_settings::Durability;

/// One sync: everything written to the log until it began.
struct Job {
    files: Vec<(Arc<dyn DiskFile>, PathBuf)>,
    sync_dir: bool,
    /// The end of the log when the sync began.
    target: Mark,
    held: usize,
    checkpoint: Option<CheckpointJob>,
}

struct CheckpointJob {
    checkpoint: Checkpoint,
    obsolete: Vec<SegmentName>,
    waiters: Vec<Completion>,
}

impl Log {
    /// Queues the log for the flusher, once.
    pub(crate) fn schedule(self: &Arc<Self>, state: &mut LogState) {
        if state.progress.queue() {
            self.flusher.push(Arc::clone(self));
        }
    }

    /// Queues the log if it holds bytes of the in-flight budget.
    pub(crate) fn schedule_if_holding(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.progress.held() > 0 {
            self.schedule(&mut state);
        }
    }

    /// Queues the log if it has unsynced bytes.
    pub(crate) fn schedule_if_dirty(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.progress.unsynced() > 0 {
            self.schedule(&mut state);
        }
    }

    /// Calls `done` once everything before `offset` is as durable as the log's setting says; at once if it is. Call it
    /// with no lock held.
    pub(crate) fn when_durable(self: &Arc<Self>, offset: u64, done: Completion) {
        let mut state = self.state.lock();
        let wait = state.progress.wait(offset, done);
        self.answer(state, wait);
    }

    /// As [`when_durable`](Self::when_durable), and on disk whatever the setting.
    pub(crate) fn when_synced(self: &Arc<Self>, offset: u64, done: Completion) {
        let mut state = self.state.lock();
        let wait = state.progress.wait_synced(offset, done);
        self.answer(state, wait);
    }

    /// Whether writes are acknowledged once they are on disk, and not before.
    pub(crate) fn syncs(&self) -> bool {
        self.settings().durability == Durability::Fsync
    }

    /// Everything before is on disk.
    pub(crate) fn synced_to(&self) -> u64 {
        self.state.lock().progress.durable().offset
    }

    fn answer(self: &Arc<Self>, state: MutexGuard<'_, LogState>, wait: Wait<Completion>) {
        match wait {
            Wait::Kept(false) => {}
            Wait::Kept(true) => {
                drop(state);
                self.flusher.push(Arc::clone(self));
            }
            Wait::Done(done) => {
                drop(state);
                done(Ok(()));
            }
            Wait::Stopped(done) => {
                let result = self.writable(&state);
                drop(state);
                done(result);
            }
        }
    }

    /// Waits until everything before `offset` is as durable as the log's setting says.
    pub(crate) async fn durable(self: &Arc<Self>, offset: u64) -> Result<()> {
        if self.state.lock().progress.is_acknowledged(offset) {
            return Ok(());
        }
        self.told(|done| self.when_durable(offset, done)).await
    }

    /// As [`durable`](Self::durable), and on disk whatever the setting.
    pub(crate) async fn synced(self: &Arc<Self>, offset: u64) -> Result<()> {
        self.told(|done| self.when_synced(offset, done)).await
    }

    async fn told(&self, when: impl FnOnce(Completion)) -> Result<()> {
        let (done, result) = oneshot::channel();
        let told = move |result| {
            // Nobody listens only if the future was dropped.
            let _ = done.send(result);
        };
        when(Box::new(told));
        result.await.map_err(|_| Error::Closed)?
    }

    /// Syncs what was written so far and acknowledges it. Called by a flusher thread, or before those run.
    pub(crate) fn sync_once(self: &Arc<Self>) {
        let Some(job) = self.begin_sync() else { return };
        let result = self.run_sync(&job).map_err(|e| self.or_deleted(e));
        let mut state = self.state.lock();
        let finished = match &result {
            Ok(()) => {
                if state.end_mark() == job.target {
                    state.active.file.synced();
                }
                state.progress.finish(job.target)
            }
            Err(Error::TopicDeleted { .. }) => {
                state.status = Status::Deleted;
                state.progress.stop()
            }
            // After a failed sync nobody knows what is on disk, and a second try may answer "done" for data that was
            // dropped: the log stops here.
            Err(e) => {
                self.fail(&mut state, e.to_string());
                state.progress.stop()
            }
        };
        let news = self.publish(&state);
        drop(state);
        if finished.again {
            self.flusher.push(Arc::clone(self));
        }
        self.flusher.in_flight.release(job.held + finished.held);
        let outcome = result.map_err(|e| match e {
            Error::TopicDeleted { .. } => e,
            _ => Error::LogFailed {
                path: self.dir.clone(),
                reason: e.to_string().into(),
            },
        });
        for completion in finished.done {
            completion(outcome.clone());
        }
        drop(news);
        if let Some(checkpoint) = job.checkpoint {
            self.finish_checkpoint(checkpoint, &outcome);
        }
    }

    fn begin_sync(self: &Arc<Self>) -> Option<Job> {
        let mut state = self.state.lock();
        let Some(held) = state.progress.begin() else {
            // Nobody can wait for these bytes to become durable any more.
            let result = self.writable(&state);
            let stopped = state.progress.stop();
            let closing = std::mem::take(&mut state.sync.after_checkpoint);
            drop(state);
            self.flusher.in_flight.release(stopped.held);
            for completion in stopped.done.into_iter().chain(closing) {
                completion(result.clone());
            }
            return None;
        };
        let target = state.end_mark();
        let mut files = std::mem::take(&mut state.sync.closed_files);
        if let Some(file) = state.active.file.dirty() {
            files.push((file, state.active.path.clone()));
        }
        let due = state.sync.checkpoint_due || state.sync.since_checkpoint >= self.flusher.checkpoint_bytes;
        let checkpoint =
            (due && !state.sync.checkpointing).then(|| self.capture_checkpoint(&mut state, target));
        Some(Job {
            files,
            sync_dir: std::mem::take(&mut state.sync.dir_changed),
            target,
            held,
            checkpoint,
        })
    }

    /// Everything up to `target`, the end of the log, is about to be durable: the state is that of the checkpoint.
    fn capture_checkpoint(&self, state: &mut LogState, target: Mark) -> CheckpointJob {
        state.sync.checkpointing = true;
        state.sync.checkpoint_due = false;
        state.sync.since_checkpoint = 0;
        self.recovery_share.covered();
        let path = index_path(&self.dir, state.active.name());
        match state.active.index.store(self.disk.as_ref(), &path) {
            Ok(()) => state.active.index.forget_stored(),
            Err(e) => tracing::debug!(path = %path.display(), error = %e, "index not written"),
        }
        let aborted = self.aborted.read().clone();
        let checkpoint = Checkpoint {
            log_start: state.log_start,
            durable: target,
            active: ActiveTimes {
                max_timestamp: state.active.index.max_timestamp(),
                begun_ms: state.active.begun_ms,
            },
            sealed: state.sealed.clone(),
            open: state
                .open
                .0
                .iter()
                .map(|(id, open)| (*id, open.clone()))
                .collect(),
            producers: state.producers.entries(),
            aborted: aborted.ranges,
            cleaned: state.cleaned,
            plain: aborted.plain,
        };
        let obsolete = std::mem::take(&mut state.sync.obsolete);
        CheckpointJob {
            checkpoint,
            obsolete,
            waiters: std::mem::take(&mut state.sync.after_checkpoint),
        }
    }

    /// Closed segments first: a segment is durable only if those before it are.
    fn run_sync(&self, job: &Job) -> Result<()> {
        for (file, path) in &job.files {
            let begun = Instant::now();
            file.sync_data().map_err(|e| Error::io("sync", path, e))?;
            self.counters.synced(begun.elapsed());
        }
        if job.sync_dir {
            sync_dir(self.disk.as_ref(), &self.dir)
        } else {
            Ok(())
        }
    }

    fn finish_checkpoint(self: &Arc<Self>, job: CheckpointJob, synced: &Result<()>) {
        for name in &job.obsolete {
            // An index can be rebuilt, so it may go first: on a full disk that is the room for the checkpoint. It may
            // never have been written.
            let _ = self.disk.remove_file(&index_path(&self.dir, *name));
        }
        let mut stored = synced
            .clone()
            .and_then(|()| job.checkpoint.store(self.disk.as_ref(), &self.dir));
        if !(job.obsolete.is_empty() && job.waiters.is_empty()) {
            // It is durable before somebody is told so, and before the segments go that it does without.
            stored = stored.and_then(|()| sync_dir(self.disk.as_ref(), &self.dir));
        }
        let mut obsolete = Vec::new();
        match &stored {
            Ok(()) => {
                self.flusher.checkpoints.fetch_add(1, Ordering::Relaxed);
                for name in &job.obsolete {
                    if let Err(e) = segment::remove(self.disk.as_ref(), &self.dir, *name) {
                        tracing::warn!(error = %e, "an obsolete segment stays until the next start");
                    }
                }
            }
            // An older checkpoint is as right, recovery only reads more; the next sync tries again.
            Err(e) => {
                obsolete = job.obsolete;
                if self.now().status == Status::Live {
                    tracing::warn!(topic = %self.id.topic, partition = self.id.partition, error = %e,
                        "checkpoint not written");
                }
            }
        }
        {
            let mut state = self.state.lock();
            state.sync.checkpointing = false;
            if stored.is_ok() {
                state.sync.stored_start = job.checkpoint.log_start;
            } else {
                state.sync.obsolete.extend(obsolete);
                state.sync.since_checkpoint = self.flusher.checkpoint_bytes;
            }
            if state.sync.checkpoint_due {
                self.schedule(&mut state);
            }
        }
        for completion in job.waiters {
            completion(stored.clone());
        }
    }

    /// Writes a checkpoint as soon as the flusher gets to it, if there is anything new to say.
    pub(crate) fn checkpoint_soon(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.sync.since_checkpoint > 0 {
            state.sync.checkpoint_due = true;
            self.schedule(&mut state);
        }
    }

    /// Takes no more appends, syncs, writes a checkpoint, then calls `done`.
    pub(crate) fn close(self: &Arc<Self>, done: Completion) {
        let mut state = self.retire(Status::Closed);
        if state.checkpoint_holds() {
            drop(state);
            done(Ok(()));
            return;
        }
        state.sync.checkpoint_due = true;
        state.sync.after_checkpoint.push(done);
        self.schedule(&mut state);
    }
}
