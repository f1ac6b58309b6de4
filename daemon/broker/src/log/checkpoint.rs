//! The checkpoint of a partition: up to where its log is known to be on disk, and the state at that point.
//!
//! It is replaced whole after a sync, when a segment was closed, every `checkpoint_bytes`, and on a clean stop. The
//! file is described in [`layout`](crate::layout#checkpoints).
//! Everything in it can be rebuilt by reading the whole log; what it gives is that recovery reads only what comes
//! after it, and that damage before it is told apart from a torn tail.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::batch::header::crc32c;
use crate::disk::Disk;
use crate::disk::durable_file::replace;
use crate::error::{Error, Result};
use crate::log::producers::ProducerLog;
use crate::log::segment::SegmentName;
use crate::log::transaction_state::{AbortedRange, Mark, OpenTransaction};

/// A closed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedSegment {
    pub(crate) base: u64,
    /// The offset after its last record.
    pub(crate) next: u64,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// How often it was compacted.
    pub(crate) generation: u32,
    /// The greatest timestamp in it, milliseconds since 1970.
    pub(crate) max_timestamp: i64,
    /// When its last batch was written, by the wall clock.
    pub(crate) written_ms: i64,
    /// The same by the monotonic clock, if it was since the log was opened.
    #[serde(skip)]
    pub(crate) written_at: Option<Instant>,
    /// From when on some of its tombstones may go, milliseconds since 1970; `None` before it was compacted, and if it
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tombstones: Option<i64>,
}

impl SealedSegment {
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName {
            base: self.base,
            generation: self.generation,
        }
    }
}

/// The times of the segment that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActiveTimes {
    /// The greatest timestamp in it, milliseconds since 1970.
    pub(crate) max_timestamp: i64,
    /// When its first batch was written, by the wall clock.
    pub(crate) begun_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) log_start: u64,
    /// Everything before is on disk.
    pub(crate) durable: Mark,
    /// What is known of the segment of `durable`, up to there.
    pub(crate) active: ActiveTimes,
    /// The closed segments before `durable`.
    pub(crate) sealed: Vec<SealedSegment>,
    pub(crate) open: Vec<(i64, OpenTransaction)>,
    /// The producers that number their batches.
    #[serde(default)]
    pub(crate) producers: Vec<(i64, ProducerLog)>,
    pub(crate) aborted: Vec<AbortedRange>,
    /// Compaction has read everything before.
    pub(crate) cleaned: u64,
    /// Compaction left no transactional batch before.
    pub(crate) plain: u64,
}

/// What there is of a checkpoint.
pub(crate) enum Stored {
    /// None was written yet.
    Missing,
    /// It is there and does not read, for this reason.
    Damaged(String),
    Good(Checkpoint),
}

fn path(dir: &Path) -> PathBuf {
    dir.join("checkpoint")
}

impl Checkpoint {
    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let path = path(dir);
        let json = serde_json::to_vec(self).map_err(|e| Error::io("encode", &path, e.into()))?;
        let mut bytes = format!("{:08x}\n", crc32c(&json)).into_bytes();
        bytes.extend_from_slice(&json);
        replace(disk, &path, &bytes)
    }

    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Stored> {
        let path = path(dir);
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Stored::Missing),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        let Some((crc, json)) = bytes.split_at_checked(9) else {
            return Ok(Stored::Damaged("it is cut short".to_owned()));
        };
        if crc != format!("{:08x}\n", crc32c(json)).as_bytes() {
            return Ok(Stored::Damaged("its checksum does not match".to_owned()));
        }
        Ok(serde_json::from_slice(json).map_or_else(|e| Stored::Damaged(e.to_string()), Stored::Good))
    }
}
