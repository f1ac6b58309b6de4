//! Opening the data file after a stop or a crash, so that it holds exactly what the side file's offsets cover.
//!
//! Lines after the durable length are cut off: their records come again, since their offsets were not recorded. If the
//! file was rotated away meanwhile, such lines are cut off there, and a new file is begun.

use std::fs::OpenOptions;
use std::path::Path;

use super::data_file::DataFile;
use super::side_file::{SideFile, State, sync_folder};
use crate::error::FileError;
use crate::mark::Mark;
use crate::regular_file::FileId;
use crate::rotation;

/// Opens the data file at `path` as `state` has left it.
pub fn open(path: &Path, state: Option<&State>) -> Result<DataFile, FileError> {
    let there_was = path.exists();
    let mut data = DataFile::open(path)?;
    let Some(state) = state else {
        end_line(&mut data, path)?;
        return Ok(data);
    };
    let own = state.file == data.id() || (state.length > 0 && state.file.inode == data.id().inode);
    if data.length() == 0 && (!own || state.length > 0) {
        if there_was {
            tracing::info!(file = %path.display(), "the file is a new one, or was emptied; goes on in it");
        }
        cut_rotated(path, state)?;
        return Ok(data);
    }
    if own && data.length() < state.length {
        return Err(FileError::Shorter {
            path: path.to_owned(),
            recorded: state.length,
            actual: data.length(),
        });
    }
    // A file moved here from another disk has another inode, and is the same by what it holds.
    let same = mark(state).is_some_and(|mark| {
        (own || !mark.fingerprint.is_empty()) && data.matches(mark.fingerprint, state.length).unwrap_or(false)
    });
    if !same {
        return Err(FileError::OtherFile {
            path: path.to_owned(),
            side_file: SideFile::path_of(path),
        });
    }
    if data.length() > state.length {
        tracing::info!(
            file = %path.display(), bytes = data.length() - state.length,
            "cuts off what was written and not committed before the last stop; it comes again"
        );
        data.cut(state.length)
            .and_then(|()| data.sync())
            .map_err(|error| FileError::io("cut back", path, error))?;
    }
    Ok(data)
}

/// Ends the last line of a file that others have written, so that ours is not glued to it.
pub fn end_line(data: &mut DataFile, path: &Path) -> Result<(), FileError> {
    if data.ends_within_a_line() {
        let length = data.length();
        if let Err(error) = data.append(b"\n") {
            // Nothing of it may stay; where even that fails, the next attempt finds the line ended or not.
            let _ = data.cut(length);
            return Err(FileError::io("append to", path, error));
        }
    }
    Ok(())
}

/// Cuts the file that `state` means, which was rotated away, back to what is durable of it.
fn cut_rotated(path: &Path, state: &State) -> Result<(), FileError> {
    let Some(mark) = mark(state) else {
        return Ok(());
    };
    let Some(found) = rotation::find_elsewhere(path, &mark)? else {
        tracing::warn!(
            file = %path.display(), length = state.length,
            "the file written before is not in its folder any more; lines it held after this length were not committed, come again \
             and then stand twice"
        );
        return Ok(());
    };
    let fault = |error| FileError::io("cut back", &found.path, error);
    let rotated = OpenOptions::new().write(true).open(&found.path).map_err(fault)?;
    let metadata = rotated.metadata().map_err(fault)?;
    let meant = found.file.metadata().map_err(fault)?;
    if FileId::of(&metadata) == FileId::of(&meant) && metadata.len() > state.length {
        tracing::info!(
            file = %found.path.display(), bytes = metadata.len() - state.length,
            "cuts off what was written to the rotated file and not committed before the last stop; it comes again"
        );
        rotated.set_len(state.length).map_err(fault)?;
        rotated.sync_all().map_err(fault)?;
        sync_folder(&found.path)?;
    }
    Ok(())
}

fn mark(state: &State) -> Option<Mark> {
    Some(Mark {
        position: state.length,
        id: Some(state.file),
        modified: 0,
        fingerprint: state.fingerprint.parse().ok()?,
    })
}
