//! The log of one partition: what it is made of, what readers may see of it, and its end.
//!
//! One lock guards the [`state`]. Writing is in [`append`] and [`roll`], syncing is in [`sync`], reading in [`read`],
//! ending transactions in [`transactions`], opening in [`recovery`].

pub(crate) mod active_file;
pub(crate) mod agenda;
mod append;
pub(crate) mod checkpoint;
pub(crate) mod compaction;
pub(crate) mod flusher;
pub(crate) mod in_flight;
pub(crate) mod index;
pub(crate) mod producers;
pub(crate) mod progress;
pub(crate) mod read;
pub(crate) mod ready_queue;
pub(crate) mod recovery;
pub(crate) mod recovery_budget;
pub(crate) mod retention;
mod roll;
pub(crate) mod segment;
pub(crate) mod state;
mod sync;
mod time;
pub(crate) mod transaction_state;
pub(crate) mod transactions;
pub(crate) mod visibility;
mod work_queue;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use uuid::Uuid;

use crate::batch::compression::Compression;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::log::active_file::ActiveFile;
use crate::log::flusher::Flusher;
use crate::log::progress::Place;
use crate::log::recovery_budget::RecoveryShare;
use crate::log::segment::index_path;
use crate::log::transaction_state::{AbortedRanges, Mark};
use crate::log::visibility::{News, Visibility};
use crate::metrics::counters::LogCounters;
use crate::topic_settings::{Durability, TopicSettings};

pub(crate) use append::Appended;
pub(crate) use state::{ActiveSegment, LogState, SyncState};

/// Which partition a log is.
#[derive(Debug, Clone)]
pub(crate) struct LogId {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Uuid,
    pub(crate) partition: u32,
}

pub(crate) struct Log {
    pub(crate) id: LogId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    settings: RwLock<Arc<TopicSettings>>,
    /// The topic is being deleted: its directory may have another name already.
    going: AtomicBool,
    /// It is deleted for good: no power failure brings it back.
    gone: AtomicBool,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) state: Mutex<LogState>,
    /// Held while the log is compacted.
    pub(crate) compacting: Mutex<()>,
    /// Changed only under the lock of `state`, and before readers may see the range.
    pub(crate) aborted: RwLock<AbortedRanges>,
    pub(crate) visible: Visibility<Visible>,
    pub(crate) counters: LogCounters,
    pub(crate) recovery_share: RecoveryShare,
}

/// What readers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visible {
    pub(crate) log_start: u64,
    /// The high watermark: everything before is on disk (invariant 1).
    pub(crate) high: Mark,
    /// The last stable offset: everything before is on disk and decided.
    pub(crate) stable: Mark,
    pub(crate) status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Live,
    Deleted,
    Closed,
}

impl Log {
    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<TopicSettings> {
        Arc::clone(&self.settings.read())
    }

    /// Other settings are in force from now on. What was written before writes had to be on disk is synced now; nothing
    /// is acknowledged under that rule before it is.
    pub(crate) fn set_settings(self: &Arc<Self>, settings: Arc<TopicSettings>) {
        let mut state = self.state.lock();
        let when_written = settings.durability == Durability::Os;
        let end = state.end_mark();
        state.progress.set_when_written(when_written, end);
        *self.settings.write() = settings;
        if !when_written && state.progress.unsynced() > 0 {
            self.schedule(&mut state);
        }
        self.note_now(&mut state);
        let news = self.publish(&state);
        drop(state);
        drop(news);
    }

    /// The wall clock: milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.flusher.clock.now_ms()
    }

    /// The codec the topic has for all batches; `None` leaves each as its producer made it.
    pub(crate) fn compression(&self) -> Option<Compression> {
        self.settings.read().compression.codec()
    }

    /// Whether the log takes writes.
    pub(crate) fn writable(&self, state: &LogState) -> Result<()> {
        if let Some(reason) = &state.failed {
            return Err(Error::LogFailed {
                path: self.dir.clone(),
                reason: Arc::clone(reason),
            });
        }
        self.readable(state.status)
    }

    pub(crate) fn readable(&self, status: Status) -> Result<()> {
        match status {
            Status::Live => Ok(()),
            Status::Deleted => Err(Error::TopicDeleted {
                topic: self.id.topic.to_string(),
            }),
            Status::Closed => Err(Error::Closed),
        }
    }

    /// Stops the log: it takes no more writes until it is opened again.
    pub(crate) fn fail(&self, state: &mut LogState, reason: String) -> Error {
        tracing::error!(topic = %self.id.topic, partition = self.id.partition, %reason, "log failed");
        let reason: Arc<str> = reason.into();
        state.failed.get_or_insert_with(|| Arc::clone(&reason));
        state.progress.halt();
        Error::LogFailed {
            path: self.dir.clone(),
            reason,
        }
    }

    fn close_active(&self, state: &mut LogState, next: ActiveSegment) {
        let mut closed = std::mem::replace(&mut state.active, next);
        // The index can be rebuilt: failing to write it is no reason to refuse the batch.
        if let Err(e) = closed
            .index
            .store(self.disk.as_ref(), &index_path(&self.dir, closed.name()))
        {
            tracing::debug!(path = %closed.path.display(), error = %e, "index not written");
        }
        state.sealed.push(closed.closed_at(state.end));
        if let Some(file) = closed.file.dirty() {
            state.sync.closed_files.push((file, closed.path));
        }
        state.sync.checkpoint_due = true;
    }

    /// Tells readers what they may see now. They are woken when what is returned is dropped, which is best done
    /// with the lock released.
    pub(crate) fn publish(&self, state: &LogState) -> News<'_, Visible> {
        let high = state.progress.high();
        // Of a transaction that began before the log's start, what is left is open.
        let undecided = |mark: Mark| Mark {
            offset: mark.offset.max(state.log_start),
            ..mark
        };
        let stable = state
            .open
            .oldest()
            .map(undecided)
            .filter(|mark| mark.offset < high.offset)
            .unwrap_or(high);
        let now = Visible {
            log_start: state.log_start,
            high,
            stable,
            status: state.status,
        };
        debug_assert!(
            self.now().high.offset <= high.offset,
            "the high watermark never goes back"
        );
        self.visible.publish(now)
    }

    pub(crate) fn now(&self) -> Visible {
        self.visible.now()
    }

    pub(crate) fn end(&self) -> u64 {
        self.state.lock().end
    }

    /// The topic is about to be deleted, or, with `false`, could not be. From now on files that are not found are no
    /// failure of the disk.
    pub(crate) fn set_going(&self, going: bool) {
        self.going.store(going, Ordering::SeqCst);
    }

    /// What an error is to the user: that of a file that went with its topic says so.
    pub(crate) fn or_deleted(&self, error: Error) -> Error {
        match &error {
            Error::Io { source, .. }
                if source.kind() == ErrorKind::NotFound && self.going.load(Ordering::SeqCst) =>
            {
                Error::TopicDeleted {
                    topic: self.id.topic.to_string(),
                }
            }
            _ => error,
        }
    }

    /// The topic was deleted: wakes everybody with an error. Transactions count what they wrote to it as done with only
    /// if that is durable.
    pub(crate) fn delete(self: &Arc<Self>, durably: bool) {
        self.gone.store(durably, Ordering::SeqCst);
        let mut state = self.retire(Status::Deleted);
        // As long as it is open the file takes its space.
        state.active.file = ActiveFile::existing();
        state.sync.closed_files.clear();
    }

    pub(crate) fn retire(self: &Arc<Self>, status: Status) -> MutexGuard<'_, LogState> {
        let mut state = self.state.lock();
        if state.status == Status::Live {
            state.status = status;
            if status == Status::Deleted {
                state.progress.halt();
            }
        }
        self.flusher.agenda.forget(self, &mut state);
        drop(self.publish(&state));
        self.schedule(&mut state);
        state
    }
}

impl Place for Mark {
    fn offset(&self) -> u64 {
        self.offset
    }
}
