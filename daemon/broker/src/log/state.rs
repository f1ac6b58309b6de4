//! What a log keeps in memory, under its one lock.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::batch::header::Outcome;
use crate::clock::Moment;
use crate::disk::DiskFile;
use crate::log::Status;
use crate::log::active_file::ActiveFile;
use crate::log::checkpoint::SealedSegment;
use crate::log::flusher::Completion;
use crate::log::index::SegmentIndex;
use crate::log::producers::Producers;
use crate::log::progress::Progress;
use crate::log::segment::{SegmentName, log_path};
use crate::log::transaction_state::{Mark, OpenTransactions};

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
