//! The sparse index of a segment: which offset begins at which byte, every few kilobytes, and how late the records before
//! it are.
//!
//! The file is described in [`layout`](crate::layout#indexes). It is written without syncing, since it can always be
//! rebuilt from the segment; whoever uses an entry first checks that the batch it points to is there. What an entry
//! says of timestamps cannot be checked so, which is why each has a checksum.
//!
//! Of a segment being written, the entries that are in the file need not be in memory: readers that follow the log have
//! no use for them, and ten thousand partitions would hold gigabytes (invariant 6).

use std::io;
use std::path::Path;

use crate::batch::header::crc32c;
use crate::disk::{Disk, OpenMode};

const ENTRY_BYTES: usize = 20;

/// The greatest timestamp where there is no record.
pub(crate) const NO_TIMESTAMP: i64 = i64::MIN;

#[derive(Debug, Clone)]
pub(crate) struct SegmentIndex {
    base: u64,
    interval: u64,
    /// Those after the forgotten ones.
    entries: Vec<Entry>,
    /// How many come before these, in the file alone.
    forgotten: usize,
    /// The greatest timestamp of all batches noted.
    max_timestamp: i64,
    /// How many are in the file, the forgotten ones included.
    stored: usize,
}

/// A batch of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Its base offset, less that of the segment.
    offset: u32,
    position: u32,
    /// The greatest timestamp of the batches before it.
    max_before: i64,
}

impl Entry {
    /// The start of the segment, which needs no entry in the file.
    const FIRST: Self = Self {
        offset: 0,
        position: 0,
        max_before: NO_TIMESTAMP,
    };

    fn encode(self, base: u64) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.offset.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.max_before.to_be_bytes());
        let crc = Self::checksum(&bytes[..16], base);
        bytes[16..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None` if it is damaged, or belongs to another segment.
    fn decode(bytes: &[u8; ENTRY_BYTES], base: u64) -> Option<Self> {
        let (fields, crc) = bytes.split_first_chunk::<16>()?;
        if crc != Self::checksum(fields, base).to_be_bytes() {
            return None;
        }
        let (offset, rest) = fields.split_first_chunk::<4>()?;
        let (position, rest) = rest.split_first_chunk::<4>()?;
        Some(Self {
            offset: u32::from_be_bytes(*offset),
            position: u32::from_be_bytes(*position),
            max_before: i64::from_be_bytes(*rest.first_chunk::<8>()?),
        })
    }

    fn checksum(fields: &[u8], base: u64) -> u32 {
        let mut covered = [0; 24];
        covered[..8].copy_from_slice(&base.to_be_bytes());
        covered[8..].copy_from_slice(fields);
        crc32c(&covered)
    }
}

impl SegmentIndex {
    /// The index of an empty segment.
    pub(crate) fn new(base: u64, interval: u64) -> Self {
        Self {
            base,
            interval,
            entries: Vec::new(),
            forgotten: 0,
            max_timestamp: NO_TIMESTAMP,
            stored: 0,
        }
    }

    /// Notes that the batch of `offset`, whose greatest timestamp is `max_timestamp`, begins at `position`; kept if far
    /// enough from the entry before.
    pub(crate) fn note(&mut self, offset: u64, position: u64, max_timestamp: i64) {
        if position >= self.last().position_after(self.interval)
            && let (Ok(offset), Ok(position)) = (u32::try_from(offset - self.base), u32::try_from(position))
        {
            self.entries.push(Entry {
                offset,
                position,
                max_before: self.max_timestamp,
            });
        }
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    /// The greatest timestamp of the segment; [`NO_TIMESTAMP`] if it is empty.
    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// What a checkpoint says of the batches before those that are noted from now on.
    pub(crate) fn set_max_timestamp(&mut self, max_timestamp: i64) {
        self.max_timestamp = max_timestamp;
    }

    /// Whether what is in memory tells where to look for `offset`; else it takes the [whole](Self::whole) index.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        let first = self.entries.first();
        self.forgotten == 0 || first.is_some_and(|e| self.base + u64::from(e.offset) <= offset)
    }

    /// As [`covers`](Self::covers), for `timestamp`.
    pub(crate) fn covers_time(&self, timestamp: i64) -> bool {
        let first = self.entries.first();
        self.forgotten == 0 || first.is_some_and(|e| e.max_before < timestamp)
    }

    /// The nearest known batch at or before `offset`: its base offset and position.
    pub(crate) fn lookup(&self, offset: u64) -> (u64, u64) {
        self.before(
            self.entries
                .partition_point(|e| self.base + u64::from(e.offset) <= offset),
        )
    }

    /// The last known batch before which all records are earlier than `timestamp`: its base offset and position.
    pub(crate) fn lookup_time(&self, timestamp: i64) -> (u64, u64) {
        self.before(self.entries.partition_point(|e| e.max_before < timestamp))
    }

    fn before(&self, after: usize) -> (u64, u64) {
        let entry = after.checked_sub(1).map_or(Entry::FIRST, |i| self.entries[i]);
        (self.base + u64::from(entry.offset), u64::from(entry.position))
    }

    fn last(&self) -> Entry {
        self.entries.last().copied().unwrap_or(Entry::FIRST)
    }

    /// The position before which each batch that must have an entry has one: a batch that begins there or later shows
    /// that the index is short.
    pub(crate) fn reach(&self) -> u64 {
        self.last().position_after(self.interval)
    }

    /// Takes over the entries of `other` at or after byte `end`, and its greatest timestamp.
    pub(crate) fn extend_from(&mut self, other: &Self, end: u64) {
        self.entries
            .extend(other.entries.iter().filter(|e| u64::from(e.position) >= end));
        self.max_timestamp = self.max_timestamp.max(other.max_timestamp);
    }

    /// Keeps of the entries that are in the file the last alone.
    pub(crate) fn forget_stored(&mut self) {
        let known = self.stored.saturating_sub(self.forgotten);
        let gone = known.saturating_sub(1);
        self.entries.drain(..gone);
        self.entries.shrink_to(self.entries.len() + gone.min(64));
        self.forgotten += gone;
    }

    /// The index up to byte `end` with the forgotten entries, which `file`, just loaded, should have.
    pub(crate) fn whole(&self, mut file: Self, end: u64) -> Self {
        // What else is in the file may be of batches that a crash took away.
        file.entries.truncate(self.forgotten);
        file.extend_before(self, end);
        file
    }

    fn extend_before(&mut self, other: &Self, end: u64) {
        let before = |e: &&Entry| u64::from(e.position) < end;
        self.entries.extend(other.entries.iter().take_while(before));
        self.max_timestamp = self.max_timestamp.max(other.max_timestamp);
    }

    /// Writes the entries the file lacks.
    pub(crate) fn store(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let count = self.forgotten + self.entries.len();
        if self.stored == count && self.stored > 0 {
            return Ok(());
        }
        let file = disk.open(path, OpenMode::OrCreate)?;
        let at = (self.stored * ENTRY_BYTES) as u64;
        file.set_len(at)?;
        let mut bytes = Vec::with_capacity((count - self.stored) * ENTRY_BYTES);
        for entry in &self.entries[self.stored - self.forgotten..] {
            bytes.extend_from_slice(&entry.encode(self.base));
        }
        file.write_all_at(&bytes, at)?;
        self.stored = count;
        Ok(())
    }

    /// Reads what the file has up to byte `end` of the segment; a missing or damaged file gives fewer entries. The
    /// greatest timestamp is not known then.
    pub(crate) fn load(disk: &dyn Disk, path: &Path, base: u64, interval: u64, end: u64) -> Self {
        let mut index = Self::new(base, interval);
        let bytes = disk.read(path).unwrap_or_default();
        let (entries, _torn) = bytes.as_chunks::<ENTRY_BYTES>();
        let mut last = Entry::FIRST;
        for entry in entries {
            let Some(entry) = Entry::decode(entry, base) else {
                break;
            };
            let rises = entry.offset > last.offset
                && entry.position > last.position
                && entry.max_before >= last.max_before;
            if !rises || u64::from(entry.position) >= end {
                break;
            }
            index.entries.push(entry);
            last = entry;
        }
        index.stored = index.entries.len();
        index
    }
}

impl Entry {
    fn position_after(self, interval: u64) -> u64 {
        u64::from(self.position) + interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::real::RealDisk;

    /// Batches of 10 offsets and 40 bytes; each third one is earlier than those before it.
    fn filled() -> SegmentIndex {
        let mut index = SegmentIndex::new(1_000, 100);
        for i in 0..50 {
            let timestamp = if i % 3 == 2 { 0 } else { i as i64 * 10 };
            index.note(1_000 + i * 10, i * 40, timestamp);
        }
        index
    }

    #[test]
    fn finds_the_batch_at_or_before() {
        let index = filled();
        assert_eq!(index.lookup(1_000), (1_000, 0));
        assert_eq!(index.lookup(1_029), (1_000, 0));
        assert_eq!(index.lookup(1_030), (1_030, 120));
        assert_eq!(index.lookup(9_999), (1_480, 1_920));
    }

    #[test]
    fn finds_where_all_before_is_earlier() {
        let index = filled();
        assert_eq!(index.max_timestamp(), 490);
        // Entries are at batches 3, 6, 9 and so on; before batch 6 the greatest timestamp is 40.
        assert_eq!(index.lookup_time(40), (1_030, 120));
        assert_eq!(index.lookup_time(41), (1_060, 240));
        assert_eq!(index.lookup_time(-5), (1_000, 0));
        assert_eq!(index.lookup_time(i64::MAX), (1_480, 1_920));
        assert_eq!(index.reach(), 2_020);
    }

    #[test]
    fn what_is_in_the_file_need_not_be_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        let load = |end| SegmentIndex::load(&RealDisk, &path, 1_000, 100, end);
        let mut index = SegmentIndex::new(1_000, 100);
        let mut all = index.clone();
        for i in 0..500 {
            let (offset, position, timestamp) = (1_000 + i * 10, i * 40, i as i64);
            index.note(offset, position, timestamp);
            all.note(offset, position, timestamp);
            if i % 50 == 49 {
                index.store(&RealDisk, &path).unwrap();
                index.forget_stored();
                assert_eq!(index.entries.len(), 1);
            }
        }
        index.note(6_000, 20_000, 500);
        all.note(6_000, 20_000, 500);
        assert_eq!((index.reach(), index.max_timestamp()), (all.reach(), 500));
        for i in 0..505 {
            let (offset, timestamp) = (1_000 + i * 10, i as i64 - 2);
            if index.covers(offset) {
                assert_eq!(index.lookup(offset), all.lookup(offset));
            }
            if index.covers_time(timestamp) {
                assert_eq!(index.lookup_time(timestamp), all.lookup_time(timestamp));
            }
        }
        assert!(index.covers(6_000) && !index.covers(1_000));
        assert!(index.covers_time(499) && !index.covers_time(10));
        assert_eq!(index.whole(load(30_000), 30_000).entries, all.entries);
        // An older end has the entries before it.
        let before: Vec<Entry> = all
            .entries
            .iter()
            .copied()
            .filter(|e| e.position < 19_900)
            .collect();
        assert_eq!(index.whole(load(19_900), 19_900).entries, before);
        // Entries of another time that the file has besides are none of this index.
        let mut longer = all.clone();
        longer.stored = 0;
        longer.note(6_100, 21_000, 900);
        longer.store(&RealDisk, &path).unwrap();
        assert_eq!(index.whole(load(30_000), 30_000).entries, all.entries);
    }

    #[test]
    fn survives_the_file_and_ignores_what_is_wrong_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        let load = |end| SegmentIndex::load(&RealDisk, &path, 1_000, 100, end);
        let mut index = filled();
        index.store(&RealDisk, &path).unwrap();
        index.note(1_500, 2_040, 600);
        index.store(&RealDisk, &path).unwrap();
        assert_eq!(load(5_000).entries, index.entries);
        // Entries past the end of the segment are dropped.
        assert_eq!(load(2_040).lookup(9_999), (1_480, 1_920));
        // A torn last entry too.
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(load(5_000).lookup(9_999), (1_480, 1_920));
        // And all from a flipped bit on, wherever it is.
        for bit in ENTRY_BYTES * 8..ENTRY_BYTES * 16 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(load(5_000).entries, index.entries[..1], "bit {bit}");
        }
        // The index of another segment is none of this one.
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            SegmentIndex::load(&RealDisk, &path, 2_000, 100, 5_000)
                .entries
                .is_empty()
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(5_000).lookup(1_400), (1_000, 0));
    }
}
