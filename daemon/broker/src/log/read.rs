//! Finding offsets in a log, and setting damaged segments apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::header::Defect;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::checkpoint::SealedSegment;
use crate::log::index::SegmentIndex;
use crate::log::segment::{Scanner, SegmentName, header_at, index_path, log_path, open};

/// Where a reader is: before the batch with base offset `expected`, at `position` of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    pub(crate) segment: SegmentName,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) position: u64,
    pub(crate) expected: u64,
}

/// The segment an offset is in.
struct Found<T> {
    name: SegmentName,
    /// The bytes that may be read.
    end: u64,
    path: PathBuf,
    /// Of the active segment, its open file and what was looked for in its index.
    active: Option<(Arc<dyn DiskFile>, T)>,
}

impl Log {
    /// Finds the batch that holds `offset`, which must be below the high watermark.
    pub(crate) fn locate(&self, offset: u64) -> Result<Cursor> {
        let look = |index: &SegmentIndex| index.covers(offset).then(|| index.lookup(offset));
        let (mut cursor, end, entry) = self.open_at(offset, look)?;
        if offset == cursor.segment.base {
            return Ok(cursor);
        }
        let load = || self.load_index(&cursor, end).lookup(offset);
        let entry = entry.flatten().unwrap_or_else(load);
        if !self.walk(&mut cursor, entry, offset)? {
            let rebuilt = self.rebuild_index(&cursor, end)?;
            if !self.walk(&mut cursor, rebuilt.lookup(offset), offset)? {
                let reason = format!("offset {offset} is not where it must be");
                return Err(self.corrupt(cursor.segment, &cursor.path, cursor.position, offset, &reason));
            }
        }
        Ok(cursor)
    }

    /// Opens the segment of `offset`: a cursor at its first batch, and the bytes that may be read. Of the active
    /// segment `look` takes what is wanted from the index, which is in memory.
    pub(crate) fn open_at<T>(
        &self,
        offset: u64,
        look: impl Fn(&SegmentIndex) -> T,
    ) -> Result<(Cursor, u64, Option<T>)> {
        let mut found = self.find_segment(offset, &look)?;
        let (file, looked) = loop {
            if let Some((file, looked)) = found.active {
                break (file, Some(looked));
            }
            match open(self.disk.as_ref(), &found.path) {
                Ok(file) => break (file, None),
                Err(e) => {
                    // It may have been replaced by a compacted one since it was found.
                    let again = self.find_segment(offset, &look)?;
                    if again.name == found.name {
                        return Err(self.or_deleted(e));
                    }
                    found = again;
                }
            }
        };
        let cursor = Cursor {
            segment: found.name,
            file,
            path: found.path,
            position: 0,
            expected: found.name.base,
        };
        Ok((cursor, found.end, looked))
    }

    fn find_segment<T>(&self, offset: u64, look: impl Fn(&SegmentIndex) -> T) -> Result<Found<T>> {
        let state = self.state.lock();
        if offset < state.log_start {
            return Err(Error::OffsetOutOfRange {
                topic: self.id.topic.to_string(),
                partition: self.id.partition,
                offset,
                log_start: state.log_start,
                end: self.now().high.offset,
            });
        }
        let sealed = state
            .sealed
            .get(state.sealed.partition_point(|s| s.next <= offset));
        let name = sealed.map_or(state.active.name(), SealedSegment::name);
        let path = log_path(&self.dir, name);
        if let Some(reason) = state.quarantined.get(&name) {
            return Err(self.damage(&path, 0, offset, Arc::clone(reason)));
        }
        Ok(match sealed {
            Some(sealed) if offset >= sealed.base => Found {
                name,
                end: sealed.size,
                path,
                active: None,
            },
            None if offset >= name.base => {
                let file = state
                    .active
                    .file
                    .open(self.disk.as_ref(), &path, &self.flusher.open_files)
                    .map_err(|e| self.or_deleted(Error::io("open", &path, e)))?;
                let active = Some((file, look(&state.active.index)));
                Found {
                    name,
                    end: state.active.position,
                    path,
                    active,
                }
            }
            _ => return Err(self.damage(&path, 0, offset, "the segment of the offset is missing".into())),
        })
    }

    /// Goes from the index entry at or before `offset` to its batch. `false` if the index is wrong or lacks entries.
    fn walk(&self, cursor: &mut Cursor, entry: (u64, u64), offset: u64) -> Result<bool> {
        let entry_position = entry.1;
        (cursor.expected, cursor.position) = entry;
        loop {
            let header = header_at(cursor.file.as_ref(), cursor.position)
                .map_err(|e| Error::io("read", &cursor.path, e))?;
            let header = match header {
                Ok(header) if header.base_offset == cursor.expected => header,
                _ if cursor.position == entry_position && entry_position > 0 => return Ok(false),
                Ok(header) => {
                    let defect = Defect::Offset {
                        expected: cursor.expected,
                        found: header.base_offset,
                    };
                    return Err(self.corrupt_batch(cursor, &defect));
                }
                Err(defect) => return Err(self.corrupt_batch(cursor, &defect)),
            };
            if header.last_offset() >= offset {
                return Ok(true);
            }
            cursor.position += header.length as u64;
            cursor.expected = header.next_offset();
            // A batch that begins this far after the entry has one of its own, at or before the offset.
            if cursor.position >= entry_position + self.settings().index_interval_bytes {
                return Ok(false);
            }
        }
    }

    /// The index of a segment up to byte `end`, from its file.
    pub(crate) fn load_index(&self, cursor: &Cursor, end: u64) -> SegmentIndex {
        let path = index_path(&self.dir, cursor.segment);
        let interval = self.settings().index_interval_bytes;
        let loaded = SegmentIndex::load(self.disk.as_ref(), &path, cursor.segment.base, interval, end);
        let state = self.state.lock();
        if state.active.name() == cursor.segment {
            state.active.index.whole(loaded, end)
        } else {
            loaded
        }
    }

    /// Makes the index of a segment again, and stores it.
    pub(crate) fn rebuild_index(&self, cursor: &Cursor, end: u64) -> Result<SegmentIndex> {
        tracing::info!(path = %cursor.path.display(), "rebuilding the offset index");
        let path = index_path(&self.dir, cursor.segment);
        let mut index = SegmentIndex::new(cursor.segment.base, self.settings().index_interval_bytes);
        let mut scanner = Scanner::new(cursor.file.as_ref(), 0, end, cursor.segment.base);
        while let Some(batch) = scanner.next().map_err(|e| Error::io("read", &cursor.path, e))? {
            match batch {
                Ok((position, header)) => index.note(header.base_offset, position, header.max_timestamp),
                // What lies behind the damage is found by walking, or reported when it is read.
                Err(_) => break,
            }
        }
        let mut state = self.state.lock();
        if state.active.name() == cursor.segment {
            // Batches appended meanwhile lie after `end`. What was stored of theirs and forgotten is missing, until
            // somebody looks for it.
            index.extend_from(&state.active.index, end);
            state.active.index = index.clone();
        }
        // A segment that is gone, of which a reader has the file open, needs none.
        let there =
            state.active.name() == cursor.segment || state.sealed.iter().any(|s| s.name() == cursor.segment);
        drop(state);
        if there && let Err(e) = index.store(self.disk.as_ref(), &path) {
            tracing::debug!(path = %path.display(), error = %e, "index not written");
        }
        Ok(index)
    }

    /// Sets a segment apart: what was durable is damaged, so nothing of it is served as if it were whole.
    pub(crate) fn corrupt(
        &self,
        segment: SegmentName,
        path: &Path,
        position: u64,
        offset: u64,
        reason: &str,
    ) -> Error {
        let reason: Arc<str> = reason.into();
        let error = self.damage(path, position, offset, Arc::clone(&reason));
        let mut state = self.state.lock();
        if state.quarantined.insert(segment, reason).is_none() {
            tracing::error!(%error, "segment set apart");
        }
        error
    }

    pub(crate) fn corrupt_batch(&self, cursor: &Cursor, defect: &Defect) -> Error {
        self.corrupt(
            cursor.segment,
            &cursor.path,
            cursor.position,
            cursor.expected,
            &defect.to_string(),
        )
    }

    /// An offset that is not where index and segment say, although both were read afresh.
    pub(crate) fn out_of_place(&self, offset: u64) -> Error {
        self.damage(&self.dir, 0, offset, "the offset is not where it must be".into())
    }

    fn damage(&self, path: &Path, position: u64, offset: u64, reason: Arc<str>) -> Error {
        let topic = Arc::clone(&self.id.topic);
        Error::Corrupt {
            topic,
            partition: self.id.partition,
            path: path.to_owned(),
            position,
            offset,
            reason,
        }
    }

    /// The size of a closed segment; `None` while it is the active one, and once it was replaced or removed.
    pub(crate) fn sealed_size(&self, name: SegmentName) -> Option<u64> {
        let state = self.state.lock();
        let at = state.sealed.binary_search_by_key(&name.base, |s| s.base).ok()?;
        let sealed = &state.sealed[at];
        (sealed.generation == name.generation).then_some(sealed.size)
    }
}
