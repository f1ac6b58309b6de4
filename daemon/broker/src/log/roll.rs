//! When the segment being written is closed, and the next one begun.

use std::sync::Arc;

use crate::disk::DiskFile;
use crate::disk::durable_file::sync_dir;
use crate::error::{Error, Result};
use crate::log::{ActiveSegment, Log, LogState};

impl Log {
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

    pub(super) fn file_to_write(&self, active: &mut ActiveSegment) -> Result<Arc<dyn DiskFile>> {
        let action = if active.file.exists() { "open" } else { "create" };
        active
            .file
            .open_to_write(self.disk.as_ref(), &active.path, &self.flusher.open_files)
            .map_err(|e| self.or_deleted(Error::write(self.disk.as_ref(), action, &active.path, e)))
    }
}
