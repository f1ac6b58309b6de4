//! Small files that are replaced whole: after a crash either the old or the new content is there.

use std::path::Path;

use crate::disk::{Disk, OpenMode};
use crate::error::{Error, Result};

/// Writes `bytes` to a temporary file beside `path`, syncs it, and renames it over `path`. The caller syncs the
/// directory where the rename itself must be durable.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = disk.open(&temporary, OpenMode::Empty).and_then(|file| {
        file.write_all_at(bytes, 0)?;
        file.sync_data()
    });
    if let Err(e) = written.and_then(|()| disk.rename(&temporary, path)) {
        // The file that failed is not left to take space; that it may not be there is fine.
        let _ = disk.remove_file(&temporary);
        return Err(Error::write(disk, "write", path, e));
    }
    Ok(())
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.sync_dir(dir)
        .map_err(|e| Error::io("sync the directory", dir, e))
}

/// Creates `dir` and what is missing above it.
pub(crate) fn create_dir(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.create_dir_all(dir)
        .map_err(|e| Error::write(disk, "create the directory", dir, e))
}
