//! Following one file through everything that happens to its name: the order in which bytes become records.
//!
//! A file is left for the next one only when it has been read to its end *after* something was seen to be written to a
//! later one. Until then its writer may still be at it, whatever it is called by now.

use std::fs::File;
use std::io;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tidewater_plugin_api::{FrameBuilder, SourcePosition};

use super::line_reader::{LineReader, More, Next};
use super::offset::{partition, to_map};
use super::record_writer::{BatchIds, RecordWriter};
use super::settings::Settings;
use crate::error::FileError;
use crate::mark::Mark;
use crate::regular_file::{FileId, open_to_read};
use crate::rotation::{self, Found, Located};

/// A batch is full at this many bytes, however few lines they are.
const BATCH_BYTES: usize = 1 << 20;

/// Where the follower is.
#[derive(Debug)]
enum Place {
    /// Nowhere yet: there is no stored offset and no file.
    Nowhere,
    /// At a stored offset, whose file has not been found yet.
    Stored(Mark),
    /// In a file.
    Reading(Box<LineReader>),
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Lines that became records.
    pub lines: u64,
    /// Lines passed over because they could not.
    pub bad_lines: u64,
    /// Changes from one file to the next.
    pub rotations: u64,
    /// Files that were emptied in place.
    pub truncations: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    settings: Settings,
    writer: RecordWriter,
    place: Place,
    /// The file to go on in, once the present one has been read to its end again.
    leaving: Option<Found>,
    /// Whether a new file is read from its end: only before the first look.
    from_end: bool,
    /// The file and position that the host was told last.
    told: Option<(FileId, u64)>,
    counts: Counts,
}

/// Why reading stops for now.
enum Stop {
    /// The batch is full.
    Full,
    /// There is nothing more.
    Waiting,
}

impl Follower {
    /// Follows the file that `settings` name, from `stored` on.
    pub fn new(settings: Settings, stored: Option<Mark>) -> Self {
        Self {
            writer: RecordWriter::new(&settings),
            from_end: settings.start_at_end && stored.is_none(),
            place: stored.map_or(Place::Nowhere, Place::Stored),
            leaving: None,
            told: None,
            counts: Counts::default(),
            settings,
        }
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of the present file that have not become records yet.
    pub fn lag(&self) -> u64 {
        match &self.place {
            Place::Reading(reader) => reader.length().unwrap_or(0).saturating_sub(reader.position()),
            _ => 0,
        }
    }

    /// Which file is being read.
    pub fn reading(&self) -> Option<FileId> {
        match &self.place {
            Place::Reading(reader) => Some(reader.id()),
            _ => None,
        }
    }

    /// Pushes what there is to read into `batch`, until it is full, and how far that reaches. It does not wait.
    pub fn fill(&mut self, batch: &mut FrameBuilder) -> tidewater_plugin_api::Result<()> {
        let outcome = self.read(batch);
        self.tell_position(batch);
        match outcome {
            // The lines before the fault go first. It is met again at once.
            Err(_) if !batch.is_empty() => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }

    fn read(&mut self, batch: &mut FrameBuilder) -> tidewater_plugin_api::Result<Stop> {
        let ids = self.writer.ids(batch)?;
        let full = batch.len() + self.settings.batch_size;
        loop {
            let Place::Reading(reader) = &mut self.place else {
                if self.open()? {
                    continue;
                }
                return Ok(Stop::Waiting);
            };
            if batch.len() >= full || batch.bytes() >= BATCH_BYTES {
                return Ok(Stop::Full);
            }
            if reader.begins_with_zero() && self.settings.zeros_are_holes() {
                self.pass_hole()?;
                continue;
            }
            match reader.peek() {
                Next::Line(line) => {
                    let bytes = reader.bytes(line.clone());
                    match self.writer.push(batch, ids, bytes)? {
                        Ok(()) => self.counts.lines += 1,
                        Err(reason) => bad_line(&self.settings, &mut self.counts, reader, reason)?,
                    }
                    reader.consume(&line);
                    continue;
                }
                Next::TooLong => {
                    let reason = format!("it is longer than max.line.bytes={}", self.settings.max_line);
                    bad_line(&self.settings, &mut self.counts, reader, reason)?;
                    reader.pass_over();
                    continue;
                }
                Next::Starved => {}
            }
            match reader.read_more() {
                Ok(More::Bytes) => {}
                Ok(More::Changed) => self.emptied()?,
                Ok(More::End) => {
                    if !self.at_end(batch, ids)? {
                        return Ok(Stop::Waiting);
                    }
                }
                // A network file system has lost the file under the handle: find it again by its offset.
                Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => {
                    let mark = reader.mark();
                    self.leaving = None;
                    self.place = Place::Stored(mark);
                }
                Err(error) => return Err(self.io("read", error).into()),
            }
        }
    }

    /// Opens the file to begin or go on in; false where there is none yet.
    fn open(&mut self) -> Result<bool, FileError> {
        let path = &self.settings.file;
        let found = match &self.place {
            Place::Reading(_) => return Ok(true),
            Place::Nowhere => match open_to_read(path)? {
                Some((file, _)) => {
                    let position = if self.from_end {
                        self.end_of_last_line(&file)?
                    } else {
                        0
                    };
                    tracing::info!(file = %path.display(), position, "begins to read");
                    Some(Found {
                        file,
                        path: path.clone(),
                        position,
                    })
                }
                None => None,
            },
            Place::Stored(mark) => match rotation::locate(path, mark)? {
                Located::Here(found) => {
                    tracing::info!(file = %found.path.display(), position = found.position, "goes on reading");
                    Some(found)
                }
                Located::Gone(found) => {
                    tracing::warn!(
                        file = %path.display(),
                        position = mark.position,
                        inode = mark.id.map(|id| id.inode),
                        goes_on_in = %found.path.display(),
                        "the file read before is gone or was emptied: what was written to it after this position is missing, \
                         if anything was; goes on with the next file, from its beginning"
                    );
                    Some(found)
                }
                Located::Nothing => None,
            },
        };
        // Only the first look counts as what was there before.
        self.from_end = false;
        match found {
            Some(found) => self.go_on_in(found).map(|()| true),
            None => Ok(false),
        }
    }

    fn go_on_in(&mut self, found: Found) -> Result<(), FileError> {
        let Found { file, path, position } = found;
        let again = file
            .try_clone()
            .map_err(|error| FileError::io("open", &path, error))?;
        let settings = &self.settings;
        let open = |file, position| {
            LineReader::open(file, position, &settings.delimiter, settings.max_line)
                .map_err(|error| FileError::io("read", &path, error))
        };
        let reader = match open(file, position)? {
            Some(reader) => reader,
            // Emptied between being found and being opened.
            None => match open(again, 0)? {
                Some(reader) => reader,
                None => return Ok(()),
            },
        };
        self.place = Place::Reading(Box::new(reader));
        Ok(())
    }

    /// At the end of the present file. True where there is something to go on with.
    fn at_end(&mut self, batch: &mut FrameBuilder, ids: BatchIds) -> tidewater_plugin_api::Result<bool> {
        let path = &self.settings.file;
        let Place::Reading(reader) = &mut self.place else {
            return Ok(true);
        };
        if self.leaving.is_none() {
            if rotation::is_at(path, reader.id())? {
                return Ok(false);
            }
            let mark = reader.mark();
            self.leaving = rotation::next_after(path, &mark)?;
            // What was written before the next file was begun may not have been read yet: once more to the end.
            return Ok(self.leaving.is_some());
        }
        // Nothing will end the last line any more.
        if let Some(line) = reader.unterminated() {
            let bytes = reader.bytes(line);
            match self.writer.push(batch, ids, bytes)? {
                Ok(()) => self.counts.lines += 1,
                Err(reason) => bad_line(&self.settings, &mut self.counts, reader, reason)?,
            }
            reader.consume_unterminated();
        }
        if let Some(next) = self.leaving.take() {
            tracing::info!(file = %next.path.display(), position = next.position, "the file was rotated; goes on in the next");
            self.counts.rotations += 1;
            self.go_on_in(next)?;
        }
        Ok(true)
    }

    /// The present file was emptied in place. What was not read yet may be in a copy.
    fn emptied(&mut self) -> Result<(), FileError> {
        let path = &self.settings.file;
        let Place::Reading(reader) = &self.place else {
            return Ok(());
        };
        self.counts.truncations += 1;
        self.leaving = None;
        let examine = |error| FileError::io("examine", path, error);
        let mark = reader.mark();
        let passing_over = reader.is_passing_over();
        if let Some(copy) = rotation::find_copy(path, &mark)? {
            tracing::info!(
                file = %path.display(), copy = %copy.path.display(), position = copy.position,
                "the file was copied and emptied; reads the rest of the copy first"
            );
            self.go_on_in(copy)?;
            if let Place::Reading(reader) = &mut self.place
                && passing_over
            {
                reader.pass_over();
            }
            return Ok(());
        }
        tracing::warn!(
            file = %path.display(), position = reader.position(),
            "the file was emptied and no copy of it was found: what was written to it after this position is missing, if anything was; \
             goes on at its beginning"
        );
        let file = reader.file().map_err(examine)?;
        let path = path.clone();
        self.go_on_in(Found {
            file,
            path,
            position: 0,
        })
    }

    /// Passes the zeros at the file's beginning: a writer that does not append leaves them before what it writes next
    /// when its file is emptied.
    fn pass_hole(&mut self) -> Result<(), FileError> {
        let path = self.settings.file.clone();
        let Place::Reading(reader) = &self.place else {
            return Ok(());
        };
        let fault = |error: io::Error| FileError::io("read", &path, error);
        let file = reader.file().map_err(fault)?;
        let mut buffer = vec![0; 64 * 1024];
        // A hole is passed at once, however long it is.
        let mut position = rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap_or(0);
        loop {
            let count = read_at(&file, &mut buffer, position).map_err(fault)?;
            let zeros = buffer[..count].iter().take_while(|&&byte| byte == 0).count();
            position += zeros as u64;
            if zeros < count || count == 0 {
                break;
            }
        }
        tracing::warn!(
            file = %path.display(), zeros = position,
            "the file begins with zeros, which are passed over: its writer does not open it to append, so copytruncate leaves a hole"
        );
        self.go_on_in(Found { file, path, position })
    }

    /// Where the last line that was begun begins.
    fn end_of_last_line(&self, file: &File) -> Result<u64, FileError> {
        let fault = |error: io::Error| self.io("read", error);
        let length = file.metadata().map_err(fault)?.len();
        let delimiter = &self.settings.delimiter;
        let mut buffer = vec![0; 64 * 1024 + delimiter.len()];
        let mut end = length;
        while end > 0 {
            let start = end.saturating_sub(64 * 1024);
            // Overlapping by a delimiter less one byte, lest one be cut in two.
            let wanted = (end + delimiter.len() as u64 - 1).min(length) - start;
            let count = read_at(file, &mut buffer[..wanted as usize], start).map_err(fault)?;
            if let Some(at) = memchr::memmem::rfind(&buffer[..count], delimiter) {
                return Ok(start + (at + delimiter.len()) as u64);
            }
            end = start;
        }
        Ok(0)
    }

    /// Tells how far the pushed records reach, with them in one batch (invariant 2).
    fn tell_position(&mut self, batch: &mut FrameBuilder) {
        let Place::Reading(reader) = &self.place else {
            return;
        };
        let here = Some((reader.id(), reader.position()));
        if here == self.told || reader.is_passing_over() {
            return;
        }
        let mark = reader.mark();
        self.told = here;
        batch.position(SourcePosition {
            partition: partition(&self.settings.file),
            offset: Some(to_map(&mark)),
        });
    }

    fn io(&self, doing: &'static str, error: io::Error) -> FileError {
        FileError::io(doing, &self.settings.file, error)
    }
}

/// Passes over the line that stands next, or makes it the task's error.
fn bad_line(
    settings: &Settings,
    counts: &mut Counts,
    reader: &LineReader,
    reason: String,
) -> Result<(), FileError> {
    let position = reader.position();
    if !settings.skip_bad_lines {
        return Err(FileError::BadLine {
            path: settings.file.clone(),
            position,
            reason,
        });
    }
    tracing::warn!(file = %settings.file.display(), position, reason, "a bad line is passed over");
    counts.bad_lines += 1;
    Ok(())
}

/// Reads what there is at `offset`, at most a buffer.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}
