//! The data directory as a whole: one process at a time, and a format this version knows.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::durable_file::{create_dir, replace, sync_dir};
use crate::disk::{Disk, Lock};
use crate::error::{Error, Result};

/// The format this version writes.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_PREFIX: &str = "tidewater-log ";

/// The data directory, locked for as long as this lives.
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    _lock: Lock,
}

impl DataDir {
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let disk = disk.as_ref();
        create_dir(disk, path)?;
        let lock_path = path.join("lock");
        let lock = disk
            .lock(&lock_path)
            .map_err(|e| Error::write(disk, "lock", &lock_path, e))?
            .map_err(|holder| Error::Locked {
                dir: path.to_owned(),
                pid: holder.trim().parse().ok(),
            })?;
        let dirs = ["topics", "transactions"].map(|name| path.join(name));
        if has_format(disk, path)? {
            for dir in dirs {
                check_there(disk, &dir)?;
            }
        } else {
            // The format comes last: where it is, the directories are known to have been.
            for dir in dirs {
                create_dir(disk, &dir)?;
            }
            sync_dir(disk, path)?;
            sync_names_to(disk, path)?;
            let format = format!("{FORMAT_PREFIX}{FORMAT}\n");
            replace(disk, &path.join(FORMAT_FILE), format.as_bytes())?;
        }
        sync_dir(disk, path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn topics(&self) -> PathBuf {
        self.path.join("topics")
    }
}

/// The directory a path is in; a relative path of one part is in the current directory.
fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the directory's own name durable, and those above it.
fn sync_names_to(disk: &dyn Disk, path: &Path) -> Result<()> {
    sync_dir(disk, parent(path))?;
    for dir in path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
        match disk.sync_dir(parent(dir)) {
            // One this process may not read it did not make either.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
            done => done.map_err(|e| Error::io("sync the directory", parent(dir), e))?,
        }
    }
    Ok(())
}

/// One of the directories that are made before anything else is.
fn check_there(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk.list(dir) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::Damaged {
            path: dir.to_owned(),
            reason: "it is missing".to_owned(),
            advice: "restore the whole data directory from one copy",
        }),
        Err(e) => Err(Error::io("list", dir, e)),
    }
}

/// Whether there is a format, which is checked; a directory that is new has none.
fn has_format(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let path = dir.join(FORMAT_FILE);
    match disk.read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let number = text
                .trim()
                .strip_prefix(FORMAT_PREFIX)
                .and_then(|n| n.parse::<u32>().ok());
            if number.is_some_and(|n| (1..=FORMAT).contains(&n)) {
                Ok(true)
            } else {
                Err(Error::Format {
                    dir: dir.to_owned(),
                    found: text.trim().to_owned(),
                    supported: FORMAT,
                })
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("read", &path, e)),
    }
}
