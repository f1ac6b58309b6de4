//! One open file, read line by line from a position on.
//!
//! The reader knows at any time whether the file under its handle is still the one it has read: with every read it
//! compares the file's beginning and the bytes before the place of reading with what it remembers. So it notices
//! a file that was emptied in place, even when that has since grown beyond the place of reading.

use std::fs::File;
use std::io;
use std::ops::Range;

use memchr::memmem::Finder;

use crate::fingerprint::{Fingerprint, HEAD, TAIL, read_around, read_exactly};
use crate::mark::Mark;
use crate::regular_file::{FileId, modified};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// What stands next in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// No whole line: read more.
    Starved,
    /// A line, without its delimiter; see [`LineReader::bytes`].
    Line(Range<usize>),
    /// A line longer than allowed, whether its end has been seen or not.
    TooLong,
}

/// What reading on met.
#[derive(Debug, PartialEq, Eq)]
pub enum More {
    /// More bytes.
    Bytes,
    /// The end of the file, for now.
    End,
    /// The file no longer holds what was read from it: it was emptied or written anew in place.
    Changed,
}

/// See the module.
#[derive(Debug)]
pub struct LineReader {
    file: File,
    id: FileId,
    delimiter: Finder<'static>,
    max_line: usize,
    /// Up to [`TAIL`] bytes before the position, then what is read and not consumed.
    buffer: Vec<u8>,
    /// Where the unconsumed begins in the buffer.
    start: usize,
    /// Up to where the buffer holds no delimiter, from `start` on.
    searched: usize,
    /// The file offset of the buffer's first byte.
    base: u64,
    /// The first [`HEAD`] bytes of the file, as far as read.
    head: Vec<u8>,
    /// When the file was last written, at a time when it surely was still the same.
    modified: u64,
    /// Whether the rest of a line too long is being passed over.
    passing_over: bool,
}

impl LineReader {
    /// Reads `file` from `position`; none where it is shorter.
    pub fn open(file: File, position: u64, delimiter: &[u8], max_line: usize) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        let id = FileId::of(&metadata);
        let Some((head, tail)) = read_around(&file, position)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            file,
            id,
            delimiter: Finder::new(delimiter).into_owned(),
            max_line,
            base: position - tail.len() as u64,
            start: tail.len(),
            searched: tail.len(),
            buffer: tail,
            head,
            modified: modified(&metadata),
            passing_over: false,
        }))
    }

    /// Which file this is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Another handle of the file.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The byte after the last line consumed.
    pub fn position(&self) -> u64 {
        self.base + self.start as u64
    }

    /// The length of the file now, in bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The position with all that is needed to find it again.
    pub fn mark(&self) -> Mark {
        let position = self.position();
        let head = &self.head[..self.head.len().min(position as usize)];
        Mark {
            position,
            id: Some(self.id),
            modified: self.modified,
            fingerprint: Fingerprint::of(head, &self.buffer[..self.start]),
        }
    }

    /// Whether a line is being passed over: then the position is within it, and nothing to begin at again.
    pub fn is_passing_over(&self) -> bool {
        self.passing_over
    }

    /// Whether the file begins with a zero byte, and nothing of it has been consumed.
    pub fn begins_with_zero(&self) -> bool {
        self.position() == 0 && self.buffer.first() == Some(&0)
    }

    /// What stands next. Asking again gives the same until it is consumed.
    pub fn peek(&mut self) -> Next {
        if self.passing_over {
            let Some(end) = self.line_end() else {
                // A delimiter may be cut in two: its beginning stays.
                self.start = self.searched;
                return Next::Starved;
            };
            self.advance_to(end + self.delimiter.needle().len());
            self.passing_over = false;
        }
        let end = self.line_end();
        if end.unwrap_or(self.buffer.len()) - self.start > self.max_line {
            return Next::TooLong;
        }
        end.map_or(Next::Starved, |end| Next::Line(self.start..end))
    }

    /// The bytes of a line, without the `\r` before a `\n`.
    pub fn bytes(&self, line: Range<usize>) -> &[u8] {
        let bytes = &self.buffer[line];
        if self.delimiter.needle() == b"\n" {
            bytes.strip_suffix(b"\r").unwrap_or(bytes)
        } else {
            bytes
        }
    }

    /// Consumes the line that [`peek`](Self::peek) gave.
    pub fn consume(&mut self, line: &Range<usize>) {
        self.advance_to(line.end + self.delimiter.needle().len());
    }

    /// Passes over the line that stands next, however long it is.
    pub fn pass_over(&mut self) {
        self.passing_over = true;
    }

    /// The last line, which nothing ends; none where there is none.
    pub fn unterminated(&self) -> Option<Range<usize>> {
        (self.start < self.buffer.len() && !self.passing_over).then_some(self.start..self.buffer.len())
    }

    /// Consumes what [`unterminated`](Self::unterminated) gave.
    pub fn consume_unterminated(&mut self) {
        self.advance_to(self.buffer.len());
    }

    fn advance_to(&mut self, start: usize) {
        self.start = start;
        self.searched = start;
    }

    fn line_end(&mut self) -> Option<usize> {
        if let Some(at) = self.delimiter.find(&self.buffer[self.searched..]) {
            self.searched += at;
            return Some(self.searched);
        }
        let undecided = self.delimiter.needle().len() - 1;
        self.searched = self.buffer.len().saturating_sub(undecided).max(self.searched);
        None
    }

    /// Reads on.
    pub fn read_more(&mut self) -> io::Result<More> {
        let dropped = self.start.saturating_sub(TAIL);
        self.buffer.drain(..dropped);
        self.base += dropped as u64;
        self.start -= dropped;
        self.searched -= dropped;

        let known = self.buffer.len();
        let end = self.base + known as u64;
        let modified = modified(&self.file.metadata()?);
        self.buffer.reserve(CHUNK);
        let count = loop {
            let room = rustix::buffer::spare_capacity(&mut self.buffer);
            match rustix::io::pread(&self.file, room, end) {
                Ok(count) => break count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        // Only after reading: what was read is the continuation of what is known, or it is worth nothing.
        if !self.still_the_same(known)? {
            self.buffer.truncate(known);
            return Ok(More::Changed);
        }
        self.modified = modified;
        if count == 0 {
            return Ok(More::End);
        }
        let room = HEAD - self.head.len();
        self.head
            .extend_from_slice(&self.buffer[known..known + room.min(count)]);
        Ok(More::Bytes)
    }

    /// Whether the file still holds the head and the bytes before `known`, a length of the buffer.
    fn still_the_same(&self, known: usize) -> io::Result<bool> {
        let same = |expected: &[u8], offset: u64| {
            let mut actual = [0; HEAD];
            let actual = &mut actual[..expected.len()];
            Ok::<_, io::Error>(read_exactly(&self.file, actual, offset)? && actual == expected)
        };
        let tail = known.saturating_sub(TAIL);
        Ok(same(&self.head, 0)? && same(&self.buffer[tail..known], self.base + tail as u64)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn reader(content: &[u8], position: u64, delimiter: &[u8], max_line: usize) -> (LineReader, File) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let reader = LineReader::open(file.try_clone().unwrap(), position, delimiter, max_line);
        (reader.unwrap().unwrap(), file)
    }

    fn lines(reader: &mut LineReader) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match reader.peek() {
                Next::Line(line) => {
                    lines.push(String::from_utf8_lossy(reader.bytes(line.clone())).into_owned());
                    reader.consume(&line);
                }
                Next::TooLong => {
                    lines.push("(too long)".into());
                    reader.pass_over();
                }
                Next::Starved if reader.read_more().unwrap() == More::Bytes => {}
                Next::Starved => return lines,
            }
        }
    }

    #[test]
    fn lines_carriage_returns_and_what_is_not_ended() {
        let (mut reader, mut file) = reader(b"one\r\n\ntwo\nthr", 0, b"\n", 100);
        assert_eq!(lines(&mut reader), ["one", "", "two"]);
        assert_eq!(reader.position(), 10);
        assert_eq!(
            reader.unterminated().map(|line| reader.bytes(line)),
            Some(&b"thr"[..])
        );
        file.write_all(b"ee\n").unwrap();
        assert_eq!(lines(&mut reader), ["three"]);
    }

    #[test]
    fn a_delimiter_split_between_reads() {
        let (mut reader, mut file) = reader(b"a||b|", 0, b"||", 100);
        assert_eq!(lines(&mut reader), ["a"]);
        file.write_all(b"|c\n|").unwrap();
        assert_eq!(lines(&mut reader), ["b"]);
        file.write_all(b"|").unwrap();
        assert_eq!(lines(&mut reader), ["c\n"]);
    }

    #[test]
    fn long_lines_are_passed_over_in_bounded_memory() {
        let mut content = b"ok\n".to_vec();
        content.resize(4 * CHUNK, b'x');
        content.extend_from_slice(b"\nfine\n12345678901\n");
        let (mut reader, _file) = reader(&content, 0, b"\n", 10);
        assert_eq!(lines(&mut reader), ["ok", "(too long)", "fine", "(too long)"]);
        assert_eq!(reader.position(), content.len() as u64);
        assert!(
            reader.buffer.capacity() <= 3 * CHUNK,
            "{}",
            reader.buffer.capacity()
        );
    }

    #[test]
    fn notices_what_happens_in_place() {
        // Grown back to the same length or beyond, the file looks as if it had only grown.
        for anew in ["ONE\ntwo\n", "ONE\ntwo\nthree\nfour\n", "one\nTWO\n", "", "o"] {
            let (mut reader, file) = reader(b"one\ntwo\n", 0, b"\n", 100);
            assert_eq!(lines(&mut reader), ["one", "two"]);
            file.set_len(0).unwrap();
            rustix::io::pwrite(&file, anew.as_bytes(), 0).unwrap();
            assert_eq!(reader.read_more().unwrap(), More::Changed, "{anew:?}");
        }
        // A first line that was never whole is remembered too.
        let (mut reader, file) = reader(b"par", 0, b"\n", 100);
        assert_eq!(lines(&mut reader), [""; 0]);
        rustix::io::pwrite(&file, b"other\n", 0).unwrap();
        assert_eq!(reader.read_more().unwrap(), More::Changed);
    }

    #[test]
    fn a_mark_finds_its_place_again() {
        let content: Vec<u8> = (0..1000)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        let (mut reader, file) = reader(&content, 0, b"\n", 100);
        reader.read_more().unwrap();
        for n in 0..1000 {
            let mark = reader.mark();
            assert!(
                mark.fingerprint.matches(&file, mark.position).unwrap(),
                "before line {n}"
            );
            let again = LineReader::open(file.try_clone().unwrap(), mark.position, b"\n", 100);
            let again = again.unwrap().unwrap();
            assert_eq!(again.mark(), mark, "before line {n}");
            let Next::Line(line) = reader.peek() else {
                panic!("line {n}")
            };
            reader.consume(&line);
        }
    }
}
