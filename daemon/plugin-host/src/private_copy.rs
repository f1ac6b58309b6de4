//! The copy of a plugin that is opened. Overwriting a library that is open would end the daemon, and a new file under an
//! old name would give the old code again: so what is opened is a copy that nobody else writes, named by its content.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::load_error::LoadError;

/// Copies that nobody has opened for so long are removed.
const KEEP: Duration = Duration::from_hours(7 * 24);

/// The SHA-256 of a plugin's file, in hexadecimal.
pub(crate) fn content_hash(content: &[u8]) -> String {
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        // Writing to a string does not fail.
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

/// The copy of `content`, made where it is not there yet, or not whole.
pub(crate) fn private_copy(folder: &Path, hash: &str, content: &[u8]) -> Result<PathBuf, LoadError> {
    let path = folder.join(format!("{hash}.so"));
    make(folder, &path, content).map_err(|source| LoadError::Copy {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

fn make(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|found| found == content) {
        // Its time says when it was last wanted.
        return File::open(path)?.set_modified(SystemTime::now());
    }
    fs::create_dir_all(folder)?;
    // A name of its own: another daemon may be making the same copy.
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&partial, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&partial);
        })
}

/// Removes copies that have not been wanted for long. A daemon that still has one open keeps what it has.
pub(crate) fn prune(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            name.split_once('.').is_some_and(|(hash, rest)| {
                hash.len() == 64
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && (rest == "so" || rest.ends_with("partial"))
            })
        });
        let age = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        if ours && age.is_some_and(|age| age > KEEP) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
