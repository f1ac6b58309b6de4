//! A compacted segment while it is written: under another name until it is whole and on disk.

use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::header::{CRC_START, crc32c, field};
use crate::disk::durable_file::sync_dir;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::compaction::rewrite::{empty_batch, put};
use crate::log::index::SegmentIndex;
use crate::log::segment::{SegmentName, index_path, log_path, unfinished_path};

/// Most offsets a segment covers: a batch counts those it covers in 31 bits.
pub(crate) const MOST_OFFSETS: u64 = i32::MAX as u64;
/// Bytes gathered before they are written.
const STEP: usize = 1 << 20;

pub(crate) struct Output<'a> {
    log: &'a Log,
    name: SegmentName,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    index: SegmentIndex,
    /// The batch last pushed: where the next begins says what it covers. Empty before the first.
    pending: Vec<u8>,
    pending_base: u64,
    /// Batches to be written.
    buffer: Vec<u8>,
    /// Bytes written.
    position: u64,
    finished: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn create(log: &'a Log, name: SegmentName) -> Result<Self> {
        let path = unfinished_path(&log.dir, name);
        let file = log
            .disk
            .open(&path, OpenMode::Empty)
            .map_err(|e| Error::write(log.disk.as_ref(), "create", &path, e))?;
        Ok(Self {
            log,
            name,
            path,
            file,
            index: SegmentIndex::new(name.base, log.settings().index_interval_bytes),
            pending: Vec::new(),
            pending_base: name.base,
            buffer: Vec::new(),
            position: 0,
            finished: false,
        })
    }

    /// The size so far.
    pub(crate) fn size(&self) -> u64 {
        self.position + (self.buffer.len() + self.pending.len()) as u64
    }

    /// Adds a batch, which is whole but for its last offset delta and its CRC; what is given back in its place is to
    /// be used again. The offsets before it belong to the batch before.
    pub(crate) fn push(&mut self, base: u64, batch: &mut Vec<u8>) -> Result<()> {
        self.cover_up_to(base)?;
        std::mem::swap(&mut self.pending, batch);
        self.pending_base = base;
        Ok(())
    }

    /// Ends the pending batch before the offset `end`; if there is none, empty ones cover what is before it.
    fn cover_up_to(&mut self, end: u64) -> Result<()> {
        while self.pending_base < end {
            if self.pending.is_empty() {
                empty_batch(self.pending_base, &mut self.pending);
            }
            let last = (end - 1).min(self.pending_base + MOST_OFFSETS);
            let delta = (last - self.pending_base) as u32;
            put(&mut self.pending, 23, delta.to_be_bytes());
            let crc = crc32c(&self.pending[CRC_START..]);
            put(&mut self.pending, 17, crc.to_be_bytes());
            let position = self.position + self.buffer.len() as u64;
            let max_timestamp = i64::from_be_bytes(field(&self.pending, 35));
            self.index.note(self.pending_base, position, max_timestamp);
            self.buffer.append(&mut self.pending);
            self.pending_base = last + 1;
            if self.buffer.len() >= STEP {
                self.write()?;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.file
            .write_all_at(&self.buffer, self.position)
            .map_err(|e| Error::write(self.log.disk.as_ref(), "write", &self.path, e))?;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes it a segment that covers the offsets before `next`: its bytes are on disk before it has its name, and its
    /// name before this returns. Answers its size.
    pub(crate) fn finish(mut self, next: u64) -> Result<u64> {
        self.cover_up_to(next)?;
        self.write()?;
        let disk = self.log.disk.as_ref();
        self.file
            .sync_data()
            .map_err(|e| Error::io("sync", &self.path, e))?;
        let path = log_path(&self.log.dir, self.name);
        disk.rename(&self.path, &path)
            .map_err(|e| Error::write(disk, "rename", &self.path, e))?;
        self.finished = true;
        sync_dir(disk, &self.log.dir).inspect_err(|_| {
            // It is not listed anywhere: if even this fails, it goes when the log is opened next.
            let _ = disk.remove_file(&path);
        })?;
        let index = index_path(&self.log.dir, self.name);
        if let Err(e) = self.index.store(disk, &index) {
            tracing::debug!(path = %index.display(), error = %e, "index not written");
        }
        Ok(self.position)
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // If even that fails, it goes when the log is opened next.
            let _ = self.log.disk.remove_file(&self.path);
        }
    }
}
