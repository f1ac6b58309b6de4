//! Finding records by time.
//!
//! What Kafka's `ListOffsets` answers: the first offset whose record has a timestamp at or after the one asked for.
//! Timestamps are the producers' and need not rise, so "first" is by offset: records before it are all earlier, records
//! after it may be. The greatest timestamps of segments and of index entries say where the first batch is that may hold
//! it; its records decide.

use bytes::Bytes;

use crate::batch::buffer_pool::ReadBuffer;
use crate::batch::fetched::Gather;
use crate::batch::header::{BatchHeader, Defect};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::index::SegmentIndex;
use crate::log::read::Cursor;
use crate::log::segment::{header_at, read_at};

/// What is looked for: the first record at or after `from` and before `limit` that is not earlier than `timestamp`.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    timestamp: i64,
    from: u64,
    limit: u64,
}

/// How the search of a segment ended.
enum Searched {
    Found(u64),
    /// The record is not before this offset.
    Past(u64),
    /// The index is wrong, or lacks entries.
    BadIndex,
}

impl Log {
    /// The first offset below `limit`, and not below the start of the log, whose record has a timestamp of at least
    /// `timestamp`, milliseconds since 1970. Reads files.
    pub(crate) fn offset_for_time(&self, timestamp: i64, limit: u64) -> Result<Option<u64>> {
        let mut from = self.now().log_start;
        while let Some(start) = self
            .first_with_time(timestamp, from)
            .filter(|start| *start < limit)
        {
            let wanted = Wanted {
                timestamp,
                from: start,
                limit,
            };
            match self.search_segment(wanted) {
                Ok(Searched::Found(offset)) => return Ok(Some(offset)),
                Ok(Searched::Past(next)) => from = next,
                Ok(Searched::BadIndex) => return Err(self.out_of_place(start)),
                // What was searched may be gone meanwhile.
                Err(error) => match self.now().log_start {
                    log_start if log_start > start => from = log_start,
                    _ => return Err(error),
                },
            }
        }
        Ok(None)
    }

    /// Where the first segment after `from` that reaches `timestamp` begins.
    fn first_with_time(&self, timestamp: i64, from: u64) -> Option<u64> {
        let state = self.state.lock();
        let sealed = &state.sealed[state.sealed.partition_point(|s| s.next <= from)..];
        let base = match sealed.iter().find(|s| s.max_timestamp >= timestamp) {
            Some(sealed) => sealed.base,
            None if from < state.end && state.active.index.max_timestamp() >= timestamp => state.active.base,
            None => return None,
        };
        Some(base.max(from))
    }

    fn search_segment(&self, wanted: Wanted) -> Result<Searched> {
        // Neither batches that are all earlier nor those before where the search begins.
        let pick = |index: &SegmentIndex| {
            let (by_time, by_offset) = (index.lookup_time(wanted.timestamp), index.lookup(wanted.from));
            (by_time.max(by_offset), index.reach())
        };
        // The later of the two counts: it is enough that one of them is in memory.
        let look = |index: &SegmentIndex| {
            let covered = index.covers(wanted.from) || index.covers_time(wanted.timestamp);
            covered.then(|| pick(index))
        };
        let (mut cursor, end, active) = self.open_at(wanted.from, look)?;
        let load = || pick(&self.load_index(&cursor, end));
        let (entry, reach) = active.flatten().unwrap_or_else(load);
        match self.search_from(&mut cursor, entry, end.min(reach), wanted)? {
            Searched::Past(next) if end > reach && next < wanted.limit => {}
            Searched::BadIndex => {}
            searched => return Ok(searched),
        }
        let (entry, _) = pick(&self.rebuild_index(&cursor, end)?);
        self.search_from(&mut cursor, entry, end, wanted)
    }

    /// Searches from an index entry to the first batch that begins at or after byte `end`.
    fn search_from(
        &self,
        cursor: &mut Cursor,
        entry: (u64, u64),
        end: u64,
        wanted: Wanted,
    ) -> Result<Searched> {
        (cursor.expected, cursor.position) = entry;
        while cursor.position < end && cursor.expected < wanted.limit {
            let header = header_at(cursor.file.as_ref(), cursor.position)
                .map_err(|e| Error::io("read", &cursor.path, e))?;
            let header = match header {
                Ok(header) if header.base_offset == cursor.expected => header,
                _ if cursor.position == entry.1 && entry.1 > 0 => return Ok(Searched::BadIndex),
                Ok(header) => {
                    let (expected, found) = (cursor.expected, header.base_offset);
                    return Err(self.corrupt_batch(cursor, &Defect::Offset { expected, found }));
                }
                Err(defect) => return Err(self.corrupt_batch(cursor, &defect)),
            };
            if header.max_timestamp >= wanted.timestamp
                && header.last_offset() >= wanted.from
                && !header.is_control()
                && let Some(offset) = self.search_batch(cursor, &header, wanted)?
            {
                return Ok(Searched::Found(offset));
            }
            cursor.position += header.length as u64;
            cursor.expected = header.next_offset();
        }
        Ok(Searched::Past(cursor.expected))
    }

    fn search_batch(&self, cursor: &Cursor, header: &BatchHeader, wanted: Wanted) -> Result<Option<u64>> {
        let mut buffer = ReadBuffer::take(header.length);
        let read = read_at(cursor.file.as_ref(), buffer.as_mut(), cursor.position)
            .map_err(|e| Error::io("read", &cursor.path, e))?;
        buffer.truncate(read);
        let mut gather = Gather::new(usize::MAX, wanted.from);
        let checked = BatchHeader::check(buffer.as_ref(), Some(cursor.expected))
            .and_then(|header| gather.take(header, buffer.as_ref(), 0));
        checked.map_err(|defect| self.corrupt_batch(cursor, &defect))?;
        let fetched = gather.finish(Bytes::from_owner(buffer), header.next_offset());
        let found = fetched
            .records()
            .find(|record| record.timestamp >= wanted.timestamp)
            .map(|record| record.offset);
        Ok(found)
    }
}
