//! What can go wrong with a file, what the runtime should do about it, and what a person should.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tidewater_plugin_api::{Error, ErrorKind};

/// A fault of a file or of what it holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}{}", path.display(), hint(source, path))]
    Io {
        /// What was being done, as in "cannot …".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The path leads to something that is no file.
    #[error("{} is {what}, not a file; set \"file\" to the path of a file", path.display())]
    NotAFile {
        /// The path as configured.
        path: PathBuf,
        /// What is there instead.
        what: &'static str,
    },
    /// The folder that holds the file is not there.
    #[error(
        "the folder {} of {} does not exist; create it, mount it, or correct \"file\"",
        folder.display(), path.display()
    )]
    NoFolder {
        /// The missing folder.
        folder: PathBuf,
        /// The file in it.
        path: PathBuf,
    },
    /// A line that cannot become a record.
    #[error(
        "{}, line at byte {position}: {reason}; mend the line, or set on.bad.line=skip to pass over such lines",
        path.display()
    )]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Where the line begins.
        position: u64,
        /// Why it cannot become a record, and which setting would take it.
        reason: String,
    },
    /// Another process or task writes the file.
    #[error(
        "{} is being written by another file-sink, which holds a lock on {}; stop that connector, or give this one another file",
        path.display(), side_file.display()
    )]
    Locked {
        /// The data file.
        path: PathBuf,
        /// The locked side file.
        side_file: PathBuf,
    },
    /// A later life of this task has taken over.
    #[error(
        "{} was taken over by generation {theirs} of this task; this is generation {ours} and stops",
        path.display()
    )]
    Fenced {
        /// The data file.
        path: PathBuf,
        /// The generation found in the side file.
        theirs: u64,
        /// This task's generation.
        ours: u64,
    },
    /// The side file cannot be trusted.
    #[error(
        "{} does not hold what file-sink writes ({reason}); restore it, or remove it to append to {} from the committed offsets on (lines after them may then stand twice)",
        side_file.display(), path.display()
    )]
    SideFile {
        /// The data file.
        path: PathBuf,
        /// The side file.
        side_file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Durable lines are missing.
    #[error(
        "{} has {actual} bytes, but {recorded} bytes of it were durable: {} bytes are missing; restore the file, or, to go on without them, move it away or empty it",
        path.display(), recorded - actual
    )]
    Shorter {
        /// The data file.
        path: PathBuf,
        /// Its length as it should be at least, in bytes.
        recorded: u64,
        /// Its length as it is.
        actual: u64,
    },
    /// Something else stands where the data file was.
    #[error(
        "{} is not the file that file-sink wrote, and it is not empty; move it away, or remove {} to append to it from the committed offsets on",
        path.display(), side_file.display()
    )]
    OtherFile {
        /// The data file.
        path: PathBuf,
        /// The side file that describes another.
        side_file: PathBuf,
    },
    /// What was written may or may not be on the disk.
    #[error(
        "cannot make {} durable: {source}{}; the task must restart, which cuts the file back to what is durable and writes the rest again",
        path.display(), hint(source, path)
    )]
    Sync {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record that cannot be written as JSON.
    #[error("cannot write the record at offset {offset} of {topic}-{partition} to {}: {reason}", path.display())]
    Record {
        /// The data file.
        path: PathBuf,
        /// The record's topic.
        topic: String,
        /// Its partition; -1 where it has none.
        partition: i64,
        /// Its offset; -1 where it has none.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
}

impl FileError {
    /// An error of the operating system while doing `doing` with `path`.
    pub fn io(doing: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        FileError::Io {
            doing,
            path: path.into(),
            source: source.into(),
        }
    }

    /// What the runtime should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Disks are emptied, rights are given, folders are mounted: trying again helps.
            FileError::Io { .. } | FileError::NoFolder { .. } | FileError::Locked { .. } => {
                ErrorKind::Retriable
            }
            FileError::NotAFile { .. } => ErrorKind::Config,
            FileError::Fenced { .. } => ErrorKind::Fenced,
            FileError::BadLine { .. }
            | FileError::SideFile { .. }
            | FileError::Shorter { .. }
            | FileError::OtherFile { .. }
            | FileError::Sync { .. }
            | FileError::Record { .. } => ErrorKind::Fatal,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Error::new(error.kind(), error.to_string())
    }
}

/// What to do about `error`, where that is known.
fn hint(error: &io::Error, path: &Path) -> String {
    let folder = path.parent().unwrap_or(Path::new("."));
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "; give user {} the right to do so (each folder on the way needs it too)",
            rustix::process::geteuid().as_raw()
        ),
        Some(Errno::NOSPC | Errno::DQUOT) => match rustix::fs::statvfs(folder) {
            Ok(space) => format!(
                "; {} KiB are free in {}: make room, the write is tried again",
                space.f_bavail * space.f_frsize / 1024,
                folder.display()
            ),
            Err(_) => format!("; make room in {}, the write is tried again", folder.display()),
        },
        Some(Errno::FBIG) => "; the file has reached the largest size allowed: rotate it".into(),
        Some(Errno::ROFS) => format!(
            "; {} is mounted read-only: remount it, or choose another folder",
            folder.display()
        ),
        Some(Errno::LOOP) => "; its symbolic links lead in a circle: correct them".into(),
        Some(Errno::IO) => "; the disk reports an error: see the kernel's log (dmesg)".into(),
        Some(Errno::NOENT | Errno::NOTDIR) => {
            format!(
                "; create or mount the folder {}, or correct \"file\"",
                folder.display()
            )
        }
        Some(Errno::MFILE | Errno::NFILE) => "; raise the limit of open files (ulimit -n)".into(),
        _ => String::new(),
    }
}
