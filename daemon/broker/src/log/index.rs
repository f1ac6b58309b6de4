//! The sparse index of a segment: which offset begins at which byte, every few kilobytes.
//!
//! The file is described in [`layout`](crate::layout#indexes). It is written without syncing, since it can always be
//! rebuilt from the segment; whoever uses an entry first checks that the batch it points to is there.

use std::io;
use std::path::Path;

use crate::disk::{Disk, OpenMode};

const ENTRY_BYTES: usize = 8;

#[derive(Debug, Clone, Default)]
pub(crate) struct OffsetIndex {
    base: u64,
    interval: u64,
    entries: Vec<(u32, u32)>,
    /// How many of the entries are in the file.
    stored: usize,
}

impl OffsetIndex {
    pub(crate) fn new(base: u64, interval: u64) -> Self {
        Self {
            base,
            interval,
            entries: Vec::new(),
            stored: 0,
        }
    }

    /// Notes that the batch of `offset` begins at `position`; kept if far enough from the entry before.
    pub(crate) fn note(&mut self, offset: u64, position: u64) {
        let last = self.entries.last().map_or(0, |e| u64::from(e.1));
        if position >= last + self.interval
            && let (Ok(offset), Ok(position)) = (u32::try_from(offset - self.base), u32::try_from(position))
        {
            self.entries.push((offset, position));
        }
    }

    /// The nearest known batch at or before `offset`: its base offset and position.
    pub(crate) fn lookup(&self, offset: u64) -> (u64, u64) {
        let after = self
            .entries
            .partition_point(|e| self.base + u64::from(e.0) <= offset);
        let entry = after.checked_sub(1).map_or((0, 0), |i| self.entries[i]);
        (self.base + u64::from(entry.0), u64::from(entry.1))
    }

    /// Takes over the entries of `other` at or after byte `end`.
    pub(crate) fn extend_from(&mut self, other: &Self, end: u64) {
        self.entries
            .extend(other.entries.iter().filter(|e| u64::from(e.1) >= end));
    }

    /// Writes the entries the file lacks.
    pub(crate) fn store(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        if self.stored == self.entries.len() && self.stored > 0 {
            return Ok(());
        }
        let file = disk.open(path, OpenMode::OrCreate)?;
        let at = (self.stored * ENTRY_BYTES) as u64;
        file.set_len(at)?;
        let mut bytes = Vec::with_capacity((self.entries.len() - self.stored) * ENTRY_BYTES);
        for (offset, position) in &self.entries[self.stored..] {
            bytes.extend_from_slice(&offset.to_be_bytes());
            bytes.extend_from_slice(&position.to_be_bytes());
        }
        file.write_all_at(&bytes, at)?;
        self.stored = self.entries.len();
        Ok(())
    }

    /// Reads what the file has up to byte `end` of the segment; a missing or damaged file gives fewer entries.
    pub(crate) fn load(disk: &dyn Disk, path: &Path, base: u64, interval: u64, end: u64) -> Self {
        let mut index = Self::new(base, interval);
        let bytes = disk.read(path).unwrap_or_default();
        let (entries, _torn) = bytes.as_chunks::<ENTRY_BYTES>();
        let mut last = (0, 0);
        for entry in entries {
            let [o0, o1, o2, o3, p0, p1, p2, p3] = *entry;
            let entry = (
                u32::from_be_bytes([o0, o1, o2, o3]),
                u32::from_be_bytes([p0, p1, p2, p3]),
            );
            if entry.0 <= last.0 || entry.1 <= last.1 || u64::from(entry.1) >= end {
                break;
            }
            index.entries.push(entry);
            last = entry;
        }
        index.stored = index.entries.len();
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::real::RealDisk;

    fn filled() -> OffsetIndex {
        let mut index = OffsetIndex::new(1_000, 100);
        for i in 0..50 {
            index.note(1_000 + i * 10, i * 40);
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
    fn survives_the_file_and_ignores_what_is_wrong_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.index");
        let mut index = filled();
        index.store(&RealDisk, &path).unwrap();
        index.note(1_500, 2_040);
        index.store(&RealDisk, &path).unwrap();
        assert_eq!(
            OffsetIndex::load(&RealDisk, &path, 1_000, 100, 5_000).entries,
            index.entries
        );
        // Entries past the end of the segment are dropped.
        assert_eq!(
            OffsetIndex::load(&RealDisk, &path, 1_000, 100, 2_040).lookup(9_999),
            (1_480, 1_920)
        );
        // A torn last entry too.
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(
            OffsetIndex::load(&RealDisk, &path, 1_000, 100, 5_000).lookup(9_999),
            (1_480, 1_920)
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            OffsetIndex::load(&RealDisk, &path, 1_000, 100, 5_000).lookup(1_400),
            (1_000, 0)
        );
    }
}
