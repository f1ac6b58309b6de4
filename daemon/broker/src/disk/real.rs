//! The file system of the machine.

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, ReadWriteFlags};

use crate::disk::{Disk, DiskFile, Lock, OpenMode};

#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::options()
            .create(mode != OpenMode::Existing)
            .truncate(mode == OpenMode::Empty)
            .read(true)
            .write(true)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> u64 {
        rustix::fs::statvfs(dir).map_or(0, |fs| fs.f_bavail * fs.f_frsize)
    }

    /// The lock is the kernel's, flock(2): it ends with the process, however that ends. The file stays, with the pid.
    fn lock(&self, path: &Path) -> io::Result<Result<Lock, String>> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                return Ok(Err(holder));
            }
            Err(e) => return Err(e.into()),
        }
        // In place, so that it takes no space where there was one: a broker opens on a full disk. Without it an error
        // names no process, which is all there is to it.
        let pid = format!("{:<10}\n", std::process::id());
        let _ = FileExt::write_all_at(&file, pid.as_bytes(), 0);
        Ok(Ok(Box::new(file)))
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, position)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut slices = [IoSliceMut::new(buffer)];
        Ok(rustix::io::preadv2(
            self,
            &mut slices,
            position,
            ReadWriteFlags::NOWAIT,
        )?)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, position)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        File::set_len(self, size)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}
