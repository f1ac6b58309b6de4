//! Small files that are replaced whole: after a crash either the old or the new content is there.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `bytes` to a temporary file beside `path`, syncs it, and renames it over `path`. The caller syncs the
/// directory where the rename itself must be durable.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(e) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The file that failed is not left to take space; that it may not be there is fine.
        let _ = fs::remove_file(&temporary);
        return Err(Error::write("write", path, e));
    }
    Ok(())
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io("sync the directory", dir, e))
}

/// Creates `dir` and what is missing above it.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::write("create the directory", dir, e))
}
