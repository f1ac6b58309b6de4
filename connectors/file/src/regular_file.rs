//! Opening files, and only files: a folder, a pipe or a device is refused, and none of them is waited for.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::FileError;

/// Which file, whatever its name: the device it is on, its inode there, and when it was made, since inodes are given to
/// other files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// The device's number.
    pub device: u64,
    /// The inode's number.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 where the file system does not tell.
    #[serde(default)]
    pub born: u64,
}

impl FileId {
    /// The identity of the file that `metadata` describes.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: nanoseconds(metadata.created()),
        }
    }
}

/// When the file was last written, in nanoseconds since 1970.
pub fn modified(metadata: &Metadata) -> u64 {
    nanoseconds(metadata.modified())
}

fn nanoseconds(time: io::Result<SystemTime>) -> u64 {
    time.ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |age| age.as_nanos() as u64)
}

/// The folder of `path`; the current one where it names none.
pub fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether `error` says that nothing is there.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOENT | Errno::NOTDIR)
    )
}

/// Opens `path` to read; none where nothing is there.
pub fn open_to_read(path: &Path) -> Result<Option<(File, Metadata)>, FileError> {
    // Not blocking: opening a pipe would otherwise wait for its writer.
    let options = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .clone();
    match options.open(path) {
        Ok(file) => checked(file, path).map(Some),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(FileError::io("open", path, error)),
    }
}

/// `file` and what is known about it, where it is a regular file.
pub fn checked(file: File, path: &Path) -> Result<(File, Metadata), FileError> {
    let metadata = file
        .metadata()
        .map_err(|error| FileError::io("examine", path, error))?;
    must_be_file(&metadata, path)?;
    Ok((file, metadata))
}

/// Refuses what is no regular file.
pub fn must_be_file(metadata: &Metadata, path: &Path) -> Result<(), FileError> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(FileError::NotAFile {
        path: path.to_owned(),
        what,
    })
}

/// Refuses a path whose folder is not there or is no folder.
pub fn must_have_folder(path: &Path) -> Result<(), FileError> {
    let folder = folder(path);
    match std::fs::metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(FileError::io("use", path, Errno::NOTDIR)),
        Err(error) if is_missing(&error) => Err(FileError::NoFolder {
            folder,
            path: path.to_owned(),
        }),
        Err(error) => Err(FileError::io("enter the folder of", path, error)),
    }
}
