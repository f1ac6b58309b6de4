//! Appending to a log: a batch is checked, written to the page cache, and followed in the state, all under the lock, so
//! that batches lie in the file in the order of their offsets (invariant 5).

use std::sync::Arc;

use crate::batch::builder::SealedBatch;
use crate::batch::header::{NO_PRODUCER, Outcome};
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::log::transaction_state::{BatchInfo, BatchKind};
use crate::log::{Log, LogState};
use crate::topic_settings::TimestampType;

/// Unsynced bytes at which a log of open transactions is synced before they commit.
const LAZY_BYTES: u64 = 1 << 20;

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
}
