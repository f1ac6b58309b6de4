//! What the disk gives without a log: `write` at the end of a file, then `fdatasync`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::cpu_seconds;
use crate::{Failure, Result};

/// Bytes that do not compress: what lies below may try.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..bytes).map(|_| random.u8(..)).collect()
}

/// A file that only grows.
pub struct Appended {
    file: File,
    path: PathBuf,
    position: u64,
}

impl Appended {
    pub fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        Ok(Self {
            file,
            path,
            position: 0,
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    pub fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }
}

impl Drop for Appended {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn create(dir: &Path, count: usize) -> Result<Vec<Appended>> {
    let create = |i| Appended::create(dir.join(format!("raw-{i}")));
    (0..count).map(create).collect()
}

/// How much was done in how long, and at what price.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub bytes: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

impl Done {
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9)
    }
}

/// Files that are written to in turn, and go on growing from round to round as those of the log do.
pub struct Files(Vec<Appended>);

impl Files {
    pub fn create(dir: &Path, count: usize) -> Result<Self> {
        create(dir, count).map(Self)
    }

    /// `threads` threads share the files; each goes round its own: `write` of `group` bytes, `fdatasync`.
    pub fn grouped(&mut self, threads: usize, group: usize, time: Duration) -> Result<Done> {
        let data = noise(group);
        let mut shares: Vec<Vec<&mut Appended>> = Vec::new();
        shares.resize_with(threads, Vec::new);
        for (i, file) in self.0.iter_mut().enumerate() {
            shares[i % threads].push(file);
        }
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let work = |mut share: Vec<&mut Appended>| -> Result<u64> {
            let mut bytes = 0;
            loop {
                for file in &mut share {
                    if begun.elapsed() >= time {
                        return Ok(bytes);
                    }
                    file.write(&data)?;
                    file.sync()?;
                    bytes += data.len() as u64;
                }
            }
        };
        let done: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = shares
                .into_iter()
                .map(|share| scope.spawn(move || work(share)))
                .collect();
            running.into_iter().map(join).collect::<Result<_>>()
        })?;
        Ok(Done {
            bytes: done.iter().sum(),
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: cpu_seconds() - cpu,
        })
    }
}

fn join<T>(running: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    running
        .join()
        .map_err(|_| Failure::from("a raw writer panicked"))?
}

/// `count` times: write to all `files` and sync them all at once, by at most `threads` threads; how long each took.
pub fn rounds_of_syncs(
    dir: &Path,
    files: usize,
    threads: usize,
    bytes: usize,
    count: usize,
) -> Result<Vec<Duration>> {
    let data = noise(bytes);
    let threads = threads.min(files);
    let mut shares: Vec<Vec<Appended>> = Vec::new();
    shares.resize_with(threads, Vec::new);
    for (i, file) in create(dir, files)?.into_iter().enumerate() {
        shares[i % threads].push(file);
    }
    let gate = Barrier::new(threads + 1);
    let stop = AtomicBool::new(false);
    let work = |mut share: Vec<Appended>| -> Result<()> {
        let mut result = Ok(());
        loop {
            gate.wait();
            if stop.load(Ordering::SeqCst) {
                return result;
            }
            // All writes before the first sync, as a transaction has them. A failure is told at the end: the gate
            // needs everybody.
            for file in &mut share {
                result = result.and_then(|()| file.write(&data));
            }
            for file in &share {
                result = result.and_then(|()| file.sync());
            }
            gate.wait();
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(|| work(share)))
            .collect();
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            gate.wait();
            gate.wait();
            times.push(begun.elapsed());
        }
        stop.store(true, Ordering::SeqCst);
        gate.wait();
        for thread in running {
            join(thread)?;
        }
        Ok(times)
    })
}
