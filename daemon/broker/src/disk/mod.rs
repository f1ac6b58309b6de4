//! The file system as the broker uses it: behind a trait, so that tests can take the power away at any moment.
//!
//! [`RealDisk`](real::RealDisk) is the system's. What the broker relies on: bytes of a file are durable once
//! [`DiskFile::sync_data`] has returned, names in a directory once [`Disk::sync_dir`] has; until then each page and
//! each name may be there after a power failure or not, whatever the order they were written in.

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(crate) mod data_dir;
pub(crate) mod durable_file;
pub(crate) mod measured;
pub(crate) mod real;

/// Directories and names.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// All bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The size of a file in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// The names in a directory, in any order; names that are not UTF-8 are left out, the broker makes none.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a directory and what is missing above it.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or a directory, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes free to this process on the file system of a directory.
    fn free_bytes(&self, dir: &Path) -> u64;
    /// Takes the lock file for as long as what is returned lives; `Err` with the content of the file if another has
    /// it.
    fn lock(&self, path: &Path) -> io::Result<Result<Lock, String>>;
}

/// A lock held.
pub(crate) type Lock = Box<dyn Any + Send + Sync>;

/// What [`Disk::open`] does with a file that is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// It must be there.
    Existing,
    /// It is created if missing.
    OrCreate,
    /// It is created, or emptied.
    Empty,
}

/// An open file.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Reads once; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// As `read_at`, if it need not wait for the disk; else an error.
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Makes the bytes and the size durable.
    fn sync_data(&self) -> io::Result<()>;
}
