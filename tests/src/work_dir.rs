//! One temporary folder for a run: servers, daemons and files live in it, and it goes when the run ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A temporary folder other users may enter, since PostgreSQL refuses to run as root and so runs as another user.
#[derive(Debug)]
pub struct WorkDir {
    dir: tempfile::TempDir,
}

impl WorkDir {
    /// Makes a new folder in the system's place for temporary files. Kept for inspection when `TIDEWATER_KEEP_FILES` is set.
    pub fn new() -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder
            .prefix("tidewater-")
            .disable_cleanup(std::env::var_os("TIDEWATER_KEEP_FILES").is_some());
        let dir = builder
            .tempdir()
            .map_err(Error::io("making a temporary folder in", std::env::temp_dir()))?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))
            .map_err(Error::io("opening to other users", dir.path()))?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a file or folder in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in it, with the folders above it, and answers its path.
    pub fn write(&self, name: impl AsRef<Path>, text: &str) -> Result<PathBuf> {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("making", parent))?;
        }
        fs::write(&path, text).map_err(Error::io("writing", &path))?;
        Ok(path)
    }

    /// Makes a folder in it, with those above it, and answers its path.
    pub fn folder(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir_all(&path).map_err(Error::io("making", &path))?;
        Ok(path)
    }
}
