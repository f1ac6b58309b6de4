//! A segment: one file of batches, one after the other, named by the offset of its first record and, once it was
//! compacted, by how often.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::header::{BatchHeader, Defect, HEADER_BYTES};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};

/// The file of a compacted segment while it is written.
const UNFINISHED: &str = "cleaned";

/// Which segment a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    /// The first offset it covers.
    pub(crate) base: u64,
    /// 0 as it was written; each compaction gives a file of a higher generation, which replaces those it covers.
    pub(crate) generation: u32,
}

impl SegmentName {
    /// The segment from `base` on as it was written.
    pub(crate) fn written(base: u64) -> Self {
        Self { base, generation: 0 }
    }

    /// The name of its file with another extension.
    fn file(self, extension: &str) -> String {
        let Self { base, generation } = self;
        if generation == 0 {
            format!("{base:020}.{extension}")
        } else {
            format!("{base:020}-{generation}.{extension}")
        }
    }

    fn parse(file: &str) -> Option<Self> {
        let stem = file.strip_suffix(".log")?;
        let (digits, generation) = match stem.split_once('-') {
            None => (stem, 0),
            Some((digits, generation)) => (digits, generation.parse().ok()?),
        };
        let base = (digits.len() == 20).then(|| digits.parse().ok())??;
        let name = Self { base, generation };
        (name.file("log") == file).then_some(name)
    }
}

/// The file of the batches.
pub(crate) fn log_path(dir: &Path, name: SegmentName) -> PathBuf {
    dir.join(name.file("log"))
}

/// Its index.
pub(crate) fn index_path(dir: &Path, name: SegmentName) -> PathBuf {
    dir.join(name.file("index"))
}

/// What it is called until it is whole.
pub(crate) fn unfinished_path(dir: &Path, name: SegmentName) -> PathBuf {
    dir.join(name.file(UNFINISHED))
}

/// The segments in a directory, by rising base offset and generation. What an interrupted compaction left unfinished
/// is removed.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentName>> {
    let files = disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
    for file in files
        .iter()
        .filter(|file| Path::new(file).extension().is_some_and(|e| e == UNFINISHED))
    {
        let path = dir.join(file);
        disk.remove_file(&path)
            .map_err(|e| Error::io("remove", &path, e))?;
    }
    let mut names: Vec<_> = files.iter().filter_map(|file| SegmentName::parse(file)).collect();
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn DiskFile>> {
    disk.open(path, OpenMode::Existing)
        .map_err(|e| Error::io("open", path, e))
}

/// Removes a segment and its index.
pub(crate) fn remove(disk: &dyn Disk, dir: &Path, name: SegmentName) -> Result<()> {
    // The index may never have been written.
    let _ = disk.remove_file(&index_path(dir, name));
    let path = log_path(dir, name);
    disk.remove_file(&path).map_err(|e| Error::io("remove", &path, e))
}

/// Reads as much as the file has at `position`, up to the length of `buffer`.
pub(crate) fn read_at(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], position + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The header of the batch at `position`.
pub(crate) fn header_at(file: &dyn DiskFile, position: u64) -> io::Result<Result<BatchHeader, Defect>> {
    let mut bytes = [0; HEADER_BYTES];
    let have = read_at(file, &mut bytes, position)?;
    Ok(BatchHeader::parse(&bytes[..have], None))
}

/// Reads a segment from some batch on, in large steps, checking every batch.
pub(crate) struct Scanner<'f> {
    file: &'f dyn DiskFile,
    /// Position of the next batch.
    position: u64,
    end: u64,
    /// The offset the next batch must have.
    expected: u64,
    buffer: Vec<u8>,
    /// The unread part of the buffer; `position` is where it begins in the file.
    start: usize,
    filled: usize,
    /// The range of the batch last returned.
    current: std::ops::Range<usize>,
}

impl<'f> Scanner<'f> {
    const STEP: usize = 1 << 20;

    pub(crate) fn new(file: &'f dyn DiskFile, position: u64, end: u64, expected: u64) -> Self {
        Self {
            file,
            position,
            end,
            expected,
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            current: 0..0,
        }
    }

    /// Where the next batch would begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// The bytes of the batch last returned.
    pub(crate) fn batch(&self) -> &[u8] {
        &self.buffer[self.current.clone()]
    }

    /// The next batch and its position; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<(u64, BatchHeader), Defect>>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let mut need = HEADER_BYTES;
        loop {
            self.fill(need)?;
            match BatchHeader::check(&self.buffer[self.start..self.filled], Some(self.expected)) {
                Err(Defect::Short { need: more, .. })
                    if more > need && self.position + more as u64 <= self.end =>
                {
                    need = more;
                }
                Err(defect) => return Ok(Some(Err(defect))),
                Ok(header) => {
                    let position = self.position;
                    self.current = self.start..self.start + header.length;
                    self.start += header.length;
                    self.position += header.length as u64;
                    self.expected = header.next_offset();
                    return Ok(Some(Ok((position, header))));
                }
            }
        }
    }

    /// Sees to it that `need` bytes are in the buffer, if the file has them.
    fn fill(&mut self, need: usize) -> io::Result<()> {
        if self.filled - self.start >= need {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        let at = self.position + self.filled as u64;
        let want = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        // A small file takes a small buffer: thousands are read when a broker opens.
        let size = need.max(Self::STEP.min(self.filled.saturating_add(want)));
        if self.buffer.len() < size {
            let mut larger = vec![0; size];
            larger[..self.filled].copy_from_slice(&self.buffer[..self.filled]);
            self.buffer = larger;
        }
        let end = self.buffer.len().min(self.filled.saturating_add(want));
        self.filled += read_at(self.file, &mut self.buffer[self.filled..end], at)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        let written = SegmentName::written(1 << 40);
        let compacted = SegmentName {
            generation: 12,
            ..written
        };
        assert_eq!(written.file("log"), "00000001099511627776.log");
        assert_eq!(compacted.file("index"), "00000001099511627776-12.index");
        for name in [written, compacted] {
            assert_eq!(SegmentName::parse(&name.file("log")), Some(name));
        }
        let others = [
            "00000001099511627776-12.cleaned",
            "00000001099511627776-0.log",
            "00000001099511627776-012.log",
            "00000001099511627776-+1.log",
            "00000001099511627776-.log",
            "1099511627776.log",
            "+0000001099511627776.log",
        ];
        for other in others {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
