//! The log of one partition: its segments, its end, and appending to it.
//!
//! One lock guards the state; a batch is written to the page cache under it, so batches lie in the file in the order
//! of their offsets (invariant 5). Syncing is in [`log_sync`](crate::log::sync), reading in
//! [`log_read`](crate::log::read), ending transactions in [`log_transactions`](crate::log::transactions), opening in
//! [`log_recovery`](crate::log::recovery).

pub(crate) mod active_file;
pub(crate) mod agenda;
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
pub(crate) mod segment;
mod sync;
mod time;
pub(crate) mod transaction_state;
pub(crate) mod transactions;
pub(crate) mod visibility;
mod work_queue;

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard, RwLock};
use uuid::Uuid;

use crate::batch::builder::SealedBatch;
use crate::batch::compression::Compression;
use crate::batch::header::{NO_PRODUCER, Outcome};
use crate::clock::Moment;
use crate::disk::durable_file::sync_dir;
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::log::active_file::ActiveFile;
use crate::log::checkpoint::SealedSegment;
use crate::log::flusher::{Completion, Flusher};
use crate::log::index::SegmentIndex;
use crate::log::producers::Producers;
use crate::log::progress::{Place, Progress};
use crate::log::recovery_budget::RecoveryShare;
use crate::log::segment::{SegmentName, index_path, log_path};
use crate::log::transaction_state::{AbortedRanges, BatchInfo, BatchKind, Mark, OpenTransactions};
use crate::log::visibility::{News, Visibility};
use crate::metrics::counters::LogCounters;
use crate::topic_settings::{Durability, TimestampType, TopicSettings};

/// Unsynced bytes at which a log of open transactions is synced before they commit.
const LAZY_BYTES: u64 = 1 << 20;

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

pub(crate) struct LogState {
    pub(crate) sealed: Vec<SealedSegment>,
    pub(crate) active: ActiveSegment,
    pub(crate) log_start: u64,
    /// Compaction has read everything before.
    pub(crate) cleaned: u64,
    /// The offset of the next record.
    pub(crate) end: u64,
    /// What is written, on disk, acknowledged and waited for.
    pub(crate) progress: Progress<Mark, Completion>,
    pub(crate) open: OpenTransactions,
    pub(crate) producers: Producers,
    /// Markers of decided transactions that found no space; written before anything else is.
    pub(crate) pending_markers: VecDeque<(i64, i16, Outcome)>,
    pub(crate) sync: SyncState,
    pub(crate) status: Status,
    /// The first failure of the disk, after which nothing more is written.
    pub(crate) failed: Option<Arc<str>>,
    /// Damaged segments, and what is wrong with each.
    pub(crate) quarantined: BTreeMap<SegmentName, Arc<str>>,
    /// When the log was opened.
    pub(crate) opened: Moment,
    /// When it is to be looked at next: its entry in the [`Agenda`](crate::log::agenda::Agenda).
    pub(crate) look_at: Option<Instant>,
}

pub(crate) struct ActiveSegment {
    pub(crate) base: u64,
    pub(crate) file: ActiveFile,
    pub(crate) path: PathBuf,
    /// Its size, where the next batch goes.
    pub(crate) position: u64,
    /// When its first batch was written, by the wall clock.
    pub(crate) begun_ms: i64,
    /// When its last batch was written, by the wall clock.
    pub(crate) written_ms: i64,
    /// The same by the monotonic clock, if it was since the log was opened.
    pub(crate) written_at: Option<Instant>,
    pub(crate) index: SegmentIndex,
}

impl ActiveSegment {
    /// One that is created with its first batch.
    pub(crate) fn missing(dir: &Path, base: u64, index_interval_bytes: u64) -> Self {
        Self {
            base,
            file: ActiveFile::missing(),
            path: log_path(dir, SegmentName::written(base)),
            position: 0,
            begun_ms: 0,
            written_ms: 0,
            written_at: None,
            index: SegmentIndex::new(base, index_interval_bytes),
        }
    }

    pub(crate) fn name(&self) -> SegmentName {
        SegmentName::written(self.base)
    }

    /// What it is once it is closed before the offset `next`.
    pub(crate) fn closed_at(&self, next: u64) -> SealedSegment {
        SealedSegment {
            base: self.base,
            next,
            size: self.position,
            generation: 0,
            max_timestamp: self.index.max_timestamp(),
            written_ms: self.written_ms,
            written_at: self.written_at,
            tombstones: None,
        }
    }
}

/// What is to be synced besides the active segment, and the checkpoint to be written after that.
#[derive(Default)]
pub(crate) struct SyncState {
    /// Closed segments that are not synced yet.
    pub(crate) closed_files: Vec<(Arc<dyn DiskFile>, PathBuf)>,
    /// A segment was created since the directory was synced.
    pub(crate) dir_changed: bool,
    pub(crate) since_checkpoint: u64,
    pub(crate) checkpoint_due: bool,
    /// One is being written; the next waits for it, so that they are stored in order.
    pub(crate) checkpointing: bool,
    /// Where the log begins by the checkpoint that is stored.
    pub(crate) stored_start: u64,
    pub(crate) after_checkpoint: Vec<Completion>,
    /// Segments before the log's start, or replaced by compacted ones; removed once a checkpoint does without them.
    pub(crate) obsolete: Vec<SegmentName>,
}

/// Where a batch went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) base: u64,
    /// The offset after its last record.
    pub(crate) next: u64,
    /// It was written before, there, and not again.
    pub(crate) duplicate: bool,
}

impl Log {
    /// Writes a batch at the end; [`when_durable`](Self::when_durable) tells when it is on disk. `held` are the bytes
    /// of the in-flight budget it takes; on an error they are released.
    ///
    /// A batch with a sequence is checked first; one that was written before is answered with where it is.
    ///
    /// It is not queued for syncing yet, so that a transaction of many batches costs few syncs, unless much has
    /// gathered or somebody waits for the budget.
    pub(crate) fn append(self: &Arc<Self>, batch: &mut SealedBatch, held: usize) -> Result<Appended> {
        if let Err(e) = self.admit(batch) {
            self.flusher.in_flight.release(held);
            return Err(e);
        }
        let mut state = self.state.lock();
        let written = self.write_once(&mut state, batch);
        if written.as_ref().map_or(true, |appended| appended.duplicate) {
            drop(state);
            self.flusher.in_flight.release(held);
            return written;
        }
        state.progress.hold(held);
        let when_written = state.progress.when_written();
        // Where nobody waits for a sync, checkpoints alone ask for one, and what was taken from the budget before the
        // setting was changed.
        let wanted = if when_written {
            let due =
                state.sync.checkpoint_due || state.sync.since_checkpoint >= self.flusher.checkpoint_bytes;
            due && !state.sync.checkpointing || held > 0 && self.flusher.in_flight.contended()
        } else {
            state.progress.unsynced() >= LAZY_BYTES || self.flusher.in_flight.contended()
        };
        if wanted {
            self.schedule(&mut state);
        }
        self.recovery_share.has(state.sync.since_checkpoint, self);
        let news = when_written.then(|| self.publish(&state));
        drop(state);
        drop(news);
        if let Some(log) = self.flusher.recovery_budget.overdue() {
            log.checkpoint_soon();
        }
        written
    }

    /// Makes a batch what the settings of the topic say, or refuses it.
    fn admit(&self, batch: &mut SealedBatch) -> Result<()> {
        let settings = self.settings();
        let bytes = batch.bytes().len();
        if bytes > settings.max_message_bytes {
            return Err(Error::BatchTooLarge {
                bytes,
                limit: settings.max_message_bytes,
            });
        }
        if batch.keyless && settings.cleanup_policy.compact {
            return Err(Error::KeyRequired {
                topic: self.id.topic.to_string(),
            });
        }
        if settings.timestamp_type == TimestampType::LogAppendTime {
            batch.set_append_time(self.now_ms());
        }
        Ok(())
    }

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

    /// Writes a batch unless its sequence says that it is there.
    fn write_once(self: &Arc<Self>, state: &mut LogState, batch: &mut SealedBatch) -> Result<Appended> {
        self.readable(state.status)?;
        if let Some(kept) = state.producers.check(&batch.producer, batch.count)? {
            return Ok(Appended {
                base: kept.base,
                next: kept.next,
                duplicate: true,
            });
        }
        self.write_pending_markers(state)?;
        self.write(state, batch)
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

    /// Writes a batch to the page cache and follows it in the state.
    pub(crate) fn write(self: &Arc<Self>, state: &mut LogState, batch: &mut SealedBatch) -> Result<Appended> {
        self.writable(state)?;
        let bytes = batch.bytes().len() as u64;
        let now = self.now_ms();
        if state.active.position > 0 && self.roll_due(state, bytes, now) {
            self.roll(state)?;
        }
        let mark = state.end_mark();
        batch.set_base_offset(mark.offset);
        state.sync.dir_changed |= !state.active.file.exists();
        let file = self.file_to_write(&mut state.active)?;
        if let Err(e) = file.write_all_at(batch.bytes(), mark.position) {
            return Err(self.undo_write(state, file.as_ref(), e));
        }
        state
            .active
            .index
            .note(mark.offset, mark.position, batch.max_timestamp());
        if mark.position == 0 {
            state.active.begun_ms = now;
        }
        let written_at = self.flusher.clock.monotonic();
        state.active.written_ms = now;
        state.active.written_at = Some(written_at);
        state.active.position += bytes;
        state.end += u64::from(batch.count);
        let end = state.end_mark();
        state.progress.wrote(bytes, end);
        state.sync.since_checkpoint += bytes;

        let kind = match (batch.is_control(), batch.is_transactional()) {
            (true, _) => Outcome::of_marker(batch.bytes()).map_or(BatchKind::Plain, BatchKind::Marker),
            (false, true) => BatchKind::Data,
            (false, false) => BatchKind::Plain,
        };
        let info = BatchInfo {
            producer_id: batch.producer.id,
            producer_epoch: batch.producer.epoch,
            base_sequence: batch.producer.sequence,
            last_offset_delta: batch.count - 1,
            kind,
        };
        if let Some(range) = state.open.follow(&info, mark) {
            self.aborted.write().ranges.push(range);
        }
        if let BatchKind::Data = kind
            && let Some(open) = state.open.0.get_mut(&info.producer_id)
        {
            open.begun.get_or_insert(written_at);
        }
        if mark.position == 0 {
            self.note_segment(state, written_at);
        }
        if !batch.is_control() {
            self.counters.appended(batch.count, bytes);
        }
        if info.producer_id != NO_PRODUCER {
            let end = state.end;
            state.producers.follow(&info, mark.offset, end, self.now_ms());
        }
        Ok(Appended {
            base: mark.offset,
            next: state.end,
            duplicate: false,
        })
    }

    /// Takes back a write that failed part-way. If even that fails, what is in the file is unknown and the log stops.
    fn undo_write(&self, state: &mut LogState, file: &dyn DiskFile, error: std::io::Error) -> Error {
        if let Err(e) = file.set_len(state.active.position) {
            let reason = format!("a write failed ({error}) and could not be undone ({e})");
            return self.fail(state, reason);
        }
        Error::write(self.disk.as_ref(), "write", &state.active.path, error)
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

    /// Whether the active segment is closed before `bytes` more are written, because it would grow too large or was
    /// begun too long ago.
    pub(crate) fn roll_due(&self, state: &mut LogState, bytes: u64, now_ms: i64) -> bool {
        let settings = self.settings();
        // A clock that was set back begins the count anew.
        state.active.begun_ms = state.active.begun_ms.min(now_ms);
        state.active.position + bytes > settings.segment_bytes
            || now_ms - state.active.begun_ms >= settings.roll_ms()
    }

    /// Closes the active segment and begins the next.
    pub(crate) fn roll(&self, state: &mut LogState) -> Result<()> {
        self.name_stays(state)?;
        let base = state.end;
        let next = self.create_segment(base)?;
        self.close_active(state, next);
        state.sync.dir_changed = true;
        Ok(())
    }

    /// Closes the active segment; the next gets its file with its first batch.
    pub(crate) fn roll_quiet(&self, state: &mut LogState) -> Result<()> {
        self.name_stays(state)?;
        let interval = self.settings().index_interval_bytes;
        let next = ActiveSegment::missing(&self.dir, state.end, interval);
        self.close_active(state, next);
        Ok(())
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

    /// Sees to it that the name of the active segment is durable before there is a later one: a power failure that
    /// took it and left the later one would leave a log that begins there. The first sync of a segment covers its
    /// name, so there is something to do only where a segment is filled before that has ended.
    fn name_stays(&self, state: &mut LogState) -> Result<()> {
        let durable = state.progress.durable();
        if durable.segment == state.active.base && durable.position > 0 {
            return Ok(());
        }
        match sync_dir(self.disk.as_ref(), &self.dir) {
            Ok(()) => Ok(()),
            Err(e) => match self.or_deleted(e) {
                deleted @ Error::TopicDeleted { .. } => Err(deleted),
                e => Err(self.fail(state, e.to_string())),
            },
        }
    }

    pub(crate) fn create_segment(&self, base: u64) -> Result<ActiveSegment> {
        let interval = self.settings().index_interval_bytes;
        let mut segment = ActiveSegment::missing(&self.dir, base, interval);
        self.file_to_write(&mut segment)?;
        Ok(segment)
    }

    fn file_to_write(&self, active: &mut ActiveSegment) -> Result<Arc<dyn DiskFile>> {
        let action = if active.file.exists() { "open" } else { "create" };
        active
            .file
            .open_to_write(self.disk.as_ref(), &active.path, &self.flusher.open_files)
            .map_err(|e| self.or_deleted(Error::write(self.disk.as_ref(), action, &active.path, e)))
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

impl LogState {
    /// Whether all is on disk, and the last checkpoint says all there is to say.
    pub(crate) fn checkpoint_holds(&self) -> bool {
        let sync = &self.sync;
        self.failed.is_none()
            && self.end_mark() == self.progress.durable()
            && sync.since_checkpoint == 0
            && !(sync.checkpoint_due || sync.checkpointing || sync.dir_changed)
            && sync.obsolete.is_empty()
            && sync.closed_files.is_empty()
    }

    /// Where the next batch goes.
    pub(crate) fn end_mark(&self) -> Mark {
        Mark {
            offset: self.end,
            segment: self.active.base,
            position: self.active.position,
        }
    }
}
