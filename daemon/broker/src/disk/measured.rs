//! A disk that counts and times the syncs of another: whoever syncs, it is in the metrics.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::{Disk, DiskFile, Lock, OpenMode};

/// The upper bounds of the buckets of [`Latencies`], in microseconds; a last bucket has what took longer.
pub(crate) const BOUNDS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct DiskCounters {
    /// Of files, the successful ones.
    pub(crate) syncs: Latencies,
    pub(crate) sync_errors: AtomicU64,
    pub(crate) dir_syncs: AtomicU64,
    pub(crate) dir_sync_errors: AtomicU64,
}

/// How long something took, in fixed buckets.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    pub(crate) nanos: AtomicU64,
}

impl Latencies {
    pub(crate) fn record(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct MeasuredDisk {
    inner: Arc<dyn Disk>,
    counters: Arc<DiskCounters>,
}

#[derive(Debug)]
struct MeasuredFile {
    inner: Arc<dyn DiskFile>,
    counters: Arc<DiskCounters>,
}

impl MeasuredDisk {
    pub(crate) fn new(inner: Arc<dyn Disk>, counters: Arc<DiskCounters>) -> Self {
        Self { inner, counters }
    }
}

impl Disk for MeasuredDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, mode)?;
        let counters = Arc::clone(&self.counters);
        Ok(Arc::new(MeasuredFile { inner, counters }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.inner.read(path)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.inner.size(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let synced = self.inner.sync_dir(dir);
        let count = if synced.is_ok() {
            &self.counters.dir_syncs
        } else {
            &self.counters.dir_sync_errors
        };
        count.fetch_add(1, Ordering::Relaxed);
        synced
    }

    fn free_bytes(&self, dir: &Path) -> u64 {
        self.inner.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Result<Lock, String>> {
        self.inner.lock(path)
    }
}

impl DiskFile for MeasuredFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_cached_at(buffer, position)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, position)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.inner.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        let begun = Instant::now();
        let synced = self.inner.sync_data();
        if synced.is_ok() {
            self.counters.syncs.record(begun.elapsed());
        } else {
            self.counters.sync_errors.fetch_add(1, Ordering::Relaxed);
        }
        synced
    }
}
