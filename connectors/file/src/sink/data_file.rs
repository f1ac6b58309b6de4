//! The data file as the sink holds it: appended to, cut back, made durable.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::io::Errno;

use super::side_file::sync_folder;
use crate::error::FileError;
use crate::fingerprint::{Fingerprint, HEAD, TAIL, read_around};
use crate::regular_file::{FileId, checked, is_missing};

/// What has become of the file under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is as it was left.
    Same,
    /// The name leads to another file, or to none: it was rotated away.
    Rotated,
    /// It is shorter: it was emptied, or cut.
    Cut,
    /// It is longer: somebody else appends to it.
    Grown,
}

/// See the module.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    id: FileId,
    length: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl DataFile {
    /// Opens `path` to append after what it holds. It is made where nothing is there, and its name is durable then.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut options = OpenOptions::new();
        // Not blocking: opening a pipe would otherwise wait for its reader.
        options
            .read(true)
            .append(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let file = match options.open(path) {
            Err(error) if is_missing(&error) => {
                let file = options.create(true).open(path);
                let file = file.map_err(|error| FileError::io("create", path, error))?;
                sync_folder(path)?;
                file
            }
            Err(error) if error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {
                return Err(FileError::NotAFile {
                    path: path.to_owned(),
                    what: "a folder",
                });
            }
            opened => opened.map_err(|error| FileError::io("open", path, error))?,
        };
        let (file, metadata) = checked(file, path)?;
        let mut opened = Self {
            id: FileId::of(&metadata),
            file,
            length: 0,
            head: Vec::new(),
            tail: Vec::new(),
        };
        opened
            .goto(metadata.len())
            .map_err(|error| FileError::io("read", path, error))?;
        Ok(opened)
    }

    /// Which file this is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// How long the file is as the sink has left it, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The fingerprint of the file up to its length.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.head, &self.tail)
    }

    /// Whether the file ends within a line.
    pub fn ends_within_a_line(&self) -> bool {
        self.tail.last().is_some_and(|&byte| byte != b'\n')
    }

    /// Whether the file holds up to `length` what `fingerprint` says.
    pub fn matches(&self, fingerprint: Fingerprint, length: u64) -> io::Result<bool> {
        fingerprint.matches(&self.file, length)
    }

    /// What has become of the file, which bore the name `path`.
    pub fn standing(&self, path: &Path) -> io::Result<Standing> {
        let there = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_missing(&error) => return Ok(Standing::Rotated),
            Err(error) => return Err(error),
        };
        Ok(match there.len() {
            _ if FileId::of(&there) != self.id => Standing::Rotated,
            length if length < self.length => Standing::Cut,
            length if length > self.length => Standing::Grown,
            _ => Standing::Same,
        })
    }

    /// Takes the length that the file has now for its own.
    pub fn accept_length(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        self.goto(length)
    }

    /// Appends `bytes`, whole or in part: after an error [`cut`](Self::cut) takes away what was written of them.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.length += bytes.len() as u64;
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.tail
            .extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let dropped = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..dropped);
        Ok(())
    }

    /// Cuts the file back to `length`, where it is longer.
    pub fn cut(&mut self, length: u64) -> io::Result<()> {
        let actual = self.file.metadata()?.len();
        if actual > length {
            self.file.set_len(length)?;
        }
        self.goto(actual.min(length))
    }

    /// Makes the file durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes durable what the whole file system holds: a copy that `copytruncate` has just made among it.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.file)?)
    }

    fn goto(&mut self, length: u64) -> io::Result<()> {
        let around = read_around(&self.file, length)?;
        (self.head, self.tail) = around.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.length = length;
        Ok(())
    }
}
