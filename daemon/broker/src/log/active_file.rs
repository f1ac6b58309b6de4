//! The file of an active segment: created with the first batch, open while it is used, closed when too many others
//! are. So ten thousand partitions of which few are busy take few descriptors.
//!
//! A file is closed only when everything in it is synced: an error of a later sync would be lost with the descriptor.
//! So what is dirty is always open, and the limit is one that may be passed.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};

/// How many files are looked at to find one to close.
const LOOKS: usize = 8;
/// How many are closed at once where the system has no more descriptors for us.
const CLOSED_AT_LEAST: usize = 64;

/// The files of active segments that are open.
pub(crate) struct OpenFiles {
    most: usize,
    /// In about the order in which they were used; some may be gone.
    open: Mutex<VecDeque<Weak<Handle>>>,
}

pub(crate) struct ActiveFile {
    handle: Arc<Handle>,
    exists: bool,
}

#[derive(Default)]
struct Handle {
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Since it was last looked at.
    used: AtomicBool,
    dirty: AtomicBool,
}

impl OpenFiles {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            open: Mutex::default(),
        }
    }

    fn add(&self, handle: &Arc<Handle>) {
        let mut open = self.open.lock();
        open.push_back(Arc::downgrade(handle));
        for _ in 0..LOOKS {
            if open.len() <= self.most {
                break;
            }
            Self::look_at_next(&mut open);
        }
    }

    /// Closes the next if it is clean and was not used since it was looked at before.
    fn look_at_next(open: &mut VecDeque<Weak<Handle>>) -> bool {
        let Some(next) = open.pop_front() else {
            return false;
        };
        let Some(handle) = next.upgrade() else {
            return true;
        };
        let used = handle.used.swap(false, Ordering::Relaxed);
        let closed = !used && handle.close();
        if !closed {
            open.push_back(next);
        }
        closed
    }

    /// Closes what can be closed, some at least; `false` if there is none.
    fn make_room(&self) -> bool {
        let mut open = self.open.lock();
        let mut closed = 0;
        // Twice round: the first only forgets that they were used.
        for _ in 0..2 * open.len() {
            closed += usize::from(Self::look_at_next(&mut open));
            if closed >= CLOSED_AT_LEAST {
                break;
            }
        }
        closed > 0
    }
}

impl Handle {
    /// Closes the file if it is clean. Who holds its lock may be waiting for the list: it is not waited for.
    fn close(&self) -> bool {
        match self.file.try_lock() {
            Some(mut file) if !self.dirty.load(Ordering::SeqCst) => {
                *file = None;
                true
            }
            _ => false,
        }
    }
}

impl ActiveFile {
    /// One that is to be created.
    pub(crate) fn missing() -> Self {
        Self {
            handle: Arc::default(),
            exists: false,
        }
    }

    /// One that is there.
    pub(crate) fn existing() -> Self {
        Self {
            handle: Arc::default(),
            exists: true,
        }
    }

    /// Whether it was created.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// The file, to read from.
    pub(crate) fn open(
        &self,
        disk: &dyn Disk,
        path: &Path,
        files: &OpenFiles,
    ) -> io::Result<Arc<dyn DiskFile>> {
        self.get(disk, path, files, OpenMode::Existing, false)
    }

    /// The file, to write to; created if it is not there. It counts as dirty from now on.
    pub(crate) fn open_to_write(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        files: &OpenFiles,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let mode = if self.exists {
            OpenMode::Existing
        } else {
            OpenMode::Empty
        };
        let file = self.get(disk, path, files, mode, true)?;
        self.exists = true;
        Ok(file)
    }

    fn get(
        &self,
        disk: &dyn Disk,
        path: &Path,
        files: &OpenFiles,
        mode: OpenMode,
        to_write: bool,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let handle = &self.handle;
        let mut open = handle.file.lock();
        handle.used.store(true, Ordering::Relaxed);
        if let Some(file) = &*open {
            let file = Arc::clone(file);
            handle.dirty.fetch_or(to_write, Ordering::SeqCst);
            return Ok(file);
        }
        let opened = disk.open(path, mode);
        let file = match opened {
            Err(e) if out_of_descriptors(&e) && files.make_room() => disk.open(path, mode)?,
            opened => opened?,
        };
        *open = Some(Arc::clone(&file));
        handle.dirty.fetch_or(to_write, Ordering::SeqCst);
        drop(open);
        files.add(handle);
        Ok(file)
    }

    /// The file, if it was written to since it was last synced.
    pub(crate) fn dirty(&self) -> Option<Arc<dyn DiskFile>> {
        if self.handle.dirty.load(Ordering::SeqCst) {
            self.handle.file.lock().clone()
        } else {
            None
        }
    }

    /// All that was written is synced. Called under the lock that writing takes.
    pub(crate) fn synced(&self) {
        self.handle.dirty.store(false, Ordering::SeqCst);
    }
}

fn out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let out = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| out.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::real::RealDisk;

    #[test]
    fn at_most_so_many_are_open_and_none_that_is_dirty_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let files = OpenFiles::new(4);
        let path = |i: usize| dir.path().join(i.to_string());
        let mut all: Vec<ActiveFile> = (0..20).map(|_| ActiveFile::missing()).collect();
        let is_open = |file: &ActiveFile| file.handle.file.lock().is_some();
        for (i, file) in all.iter_mut().enumerate() {
            assert!(!file.exists() && !path(i).exists());
            let opened = file.open_to_write(&RealDisk, &path(i), &files).unwrap();
            opened.write_all_at(&[i as u8], 0).unwrap();
            assert!(file.exists());
        }
        assert!(all.iter().all(is_open), "nothing is synced, nothing is closed");
        for file in &all {
            file.dirty().unwrap().sync_data().unwrap();
            file.synced();
            assert!(file.dirty().is_none());
        }
        // The next that is opened finds some to close, and so on until the limit is kept.
        for i in 20..28 {
            let mut file = ActiveFile::missing();
            file.open_to_write(&RealDisk, &path(i), &files).unwrap();
            file.synced();
            all.push(file);
        }
        let open = all.iter().filter(|file| is_open(file)).count();
        assert_eq!(open, 4);
        for (i, file) in all.iter().enumerate().take(20) {
            let mut byte = [0];
            let opened = file.open(&RealDisk, &path(i), &files).unwrap();
            opened.read_at(&mut byte, 0).unwrap();
            assert_eq!(byte[0], i as u8, "what is opened again is what it was");
        }
        files.make_room();
        assert_eq!(all.iter().filter(|file| is_open(file)).count(), 0);
    }
}
