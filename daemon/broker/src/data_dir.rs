//! The data directory as a whole: one process at a time, and a format this version knows.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::durable_file::{create_dir, replace, sync_dir};
use crate::error::{Error, Result};

/// The format this version writes.
const FORMAT: u32 = 1;
const FORMAT_PREFIX: &str = "tidewater-log ";

/// The data directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    /// The lock is the kernel's and ends with the process, however it ends; the file stays.
    _lock: File,
}

impl DataDir {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        create_dir(path)?;
        let lock_path = path.join("lock");
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(|e| Error::write("open", &lock_path, e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut text = String::new();
            let pid = lock
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(Error::Locked {
                dir: path.to_owned(),
                pid,
            });
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| Error::write("write", &lock_path, e))?;
        check_format(path)?;
        create_dir(&path.join("topics"))?;
        create_dir(&path.join("transactions"))?;
        sync_dir(path)?;
        // The directory itself may be new; a relative path of one part is in the current directory.
        sync_dir(
            path.parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        )?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn topics(&self) -> PathBuf {
        self.path.join("topics")
    }
}

fn check_format(dir: &Path) -> Result<()> {
    let path = dir.join("format");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let number = text
                .trim()
                .strip_prefix(FORMAT_PREFIX)
                .and_then(|n| n.parse::<u32>().ok());
            if number.is_some_and(|n| (1..=FORMAT).contains(&n)) {
                Ok(())
            } else {
                Err(Error::Format {
                    dir: dir.to_owned(),
                    found: text.trim().to_owned(),
                    supported: FORMAT,
                })
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            replace(&path, format!("{FORMAT_PREFIX}{FORMAT}\n").as_bytes())
        }
        Err(e) => Err(Error::io("read", &path, e)),
    }
}
