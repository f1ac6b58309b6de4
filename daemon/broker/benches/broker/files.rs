//! The files of a broker from outside: their sizes, and taking them out of the page cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use crate::Result;

/// All files of a directory and those below it.
pub fn all(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The segments of a directory and those below it.
pub fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = all(dir)?;
    found.retain(|path| path.extension().is_some_and(|e| e == "log"));
    Ok(found)
}

pub fn bytes(files: &[PathBuf]) -> Result<u64> {
    files.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

/// Takes files out of the page cache; what is dirty is written first.
pub fn evict(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let file = File::open(path)?;
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
