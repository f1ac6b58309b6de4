//! Where a file has gone, and which files come after it.
//!
//! A file that was renamed keeps its inode; one that was copied and emptied (`copytruncate`) keeps its content, in
//! the copy. Either is found in the folder by what is known of it, and what was rotated away since stands between
//! it and the file that has the name now. Files are opened as they are found and then compared with what was
//! meant, since the next rotation may rename them at any moment.

use std::cmp::Ordering;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

use crate::error::FileError;
use crate::mark::Mark;
use crate::regular_file::{FileId, folder, is_missing, modified, open_to_read};
use crate::rotated_name::{RotatedName, Style};

/// How often a folder is read again because it changed meanwhile. After that it is left to the next look.
const ATTEMPTS: usize = 20;

/// A file to go on in.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub file: File,
    /// The name it was found by.
    pub path: PathBuf,
    /// Where to go on in it.
    pub position: u64,
}

/// What became of the file that a stored mark means.
#[derive(Debug)]
pub enum Located {
    /// It is here.
    Here(Found),
    /// It is gone; this file comes next, from its beginning.
    Gone(Found),
    /// Nothing is there at all.
    Nothing,
}

/// A file of the folder that bears the name or a rotated form of it, or the inode asked for.
#[derive(Debug)]
struct Member {
    path: PathBuf,
    rotated: Option<RotatedName>,
    /// Whether the name begins with that of the followed file.
    kin: bool,
    id: FileId,
    length: u64,
    modified: u64,
}

/// The folders in which rotated files of `path` may be, each with the name they derive from. A symbolic link has two.
pub fn homes(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let home = |path: &Path| {
        let name = path.file_name().map(|name| name.as_bytes().to_owned());
        (folder(path), name.unwrap_or_default())
    };
    let mut homes = vec![home(path)];
    if path.is_symlink()
        && let Ok(target) = path.canonicalize()
    {
        homes.push(home(&target));
    }
    homes
}

/// The file that bears the name now.
fn at_path(path: &Path) -> Result<Option<(FileId, Metadata)>, FileError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some((FileId::of(&metadata), metadata))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(FileError::io("look for", path, error)),
    }
}

/// Whether `id` bears the name now.
pub fn is_at(path: &Path, id: FileId) -> Result<bool, FileError> {
    Ok(at_path(path)?.is_some_and(|(there, _)| there == id))
}

/// Finds the file that `mark` means, after the connector was away.
pub fn locate(path: &Path, mark: &Mark) -> Result<Located, FileError> {
    for _ in 0..ATTEMPTS {
        if let Some((file, metadata)) = open_to_read(path)? {
            let id = FileId::of(&metadata);
            let here = match mark.id {
                // A position without identity, of another implementation: the length is all there is to go by.
                None => metadata.len() >= mark.position,
                Some(known) => is_same(known, id, mark) && matches(mark, &file, path)?,
            };
            if here {
                return Ok(Located::Here(Found {
                    file,
                    path: path.to_owned(),
                    position: mark.position,
                }));
            }
            if mark.id.is_none() {
                return Ok(Located::Gone(beginning(file, path)));
            }
        }
        let Some(members) = members(path, mark.id)? else {
            continue;
        };
        if let Some(found) = find_among(&members, mark)? {
            return Ok(Located::Here(found));
        }
        let Some(first) = since(&members, path, mark)?.into_iter().next() else {
            return Ok(Located::Nothing);
        };
        if let Some(file) = open_member(first)? {
            return Ok(Located::Gone(beginning(file, &first.path)));
        }
    }
    Ok(Located::Nothing)
}

/// Finds the file that `mark` means where it is not at `path`: renamed, or copied by `copytruncate`.
pub fn find_elsewhere(path: &Path, mark: &Mark) -> Result<Option<Found>, FileError> {
    for _ in 0..ATTEMPTS {
        if let Some(mut members) = members(path, mark.id)? {
            members.retain(|member| member.path != path);
            return find_among(&members, mark);
        }
    }
    Ok(None)
}

/// Finds a copy of the file that `mark` means, made after the mark was: where `copytruncate` put what it cut
/// off.
pub fn find_copy(path: &Path, mark: &Mark) -> Result<Option<Found>, FileError> {
    for _ in 0..ATTEMPTS {
        if let Some(members) = members(path, None)? {
            return copy_among(&members, mark);
        }
    }
    Ok(None)
}

/// The file to go on in after the one that `mark` means, which has been read to its end and has been rotated away;
/// none while nothing has been written to any file after it: then its writer may still be at it.
pub fn next_after(path: &Path, mark: &Mark) -> Result<Option<Found>, FileError> {
    let Some(id) = mark.id else {
        return Ok(None);
    };
    for _ in 0..ATTEMPTS {
        let Some(members) = members(path, Some(id))? else {
            continue;
        };
        let own = members.iter().find(|member| member.id == id);
        if own.is_some_and(|own| own.path == path) {
            return Ok(None);
        }
        let successors = match own {
            Some(own) => after(&members, path, own),
            None => since(&members, path, mark)?,
        };
        let Some(first) = successors.first() else {
            return Ok(None);
        };
        if successors.iter().all(|member| member.length == 0) {
            return Ok(None);
        }
        let Some(file) = open_member(first)? else {
            continue;
        };
        // Unlinked and replaced by a longer copy of itself, as rsync does: what was read is not read again.
        let grown_copy = own.is_none() && mark.fingerprint.is_strong() && matches(mark, &file, &first.path)?;
        return Ok(Some(Found {
            file,
            path: first.path.clone(),
            position: if grown_copy { mark.position } else { 0 },
        }));
    }
    Ok(None)
}

fn beginning(file: File, path: &Path) -> Found {
    Found {
        file,
        path: path.to_owned(),
        position: 0,
    }
}

/// Whether `id` may be the file known as `known`. Devices are numbered anew when they are mounted, so content counts
/// for more than the device.
fn is_same(known: FileId, id: FileId, mark: &Mark) -> bool {
    known == id || (known.inode == id.inode && mark.fingerprint.is_strong())
}

fn matches(mark: &Mark, file: &File, path: &Path) -> Result<bool, FileError> {
    mark.fingerprint
        .matches(file, mark.position)
        .map_err(|error| FileError::io("read", path, error))
}

/// The file that `mark` means, renamed or copied, among `members`.
fn find_among(members: &[Member], mark: &Mark) -> Result<Option<Found>, FileError> {
    for member in members {
        let renamed = mark.id.is_some_and(|known| is_same(known, member.id, mark));
        // Nothing was read: only the name can tell that the inode was not given to another file since.
        let trusted = !mark.fingerprint.is_empty() || member.rotated.is_some();
        if renamed
            && trusted
            && let Some(file) = open_member(member)?
            && matches(mark, &file, &member.path)?
        {
            return Ok(Some(Found {
                file,
                path: member.path.clone(),
                position: mark.position,
            }));
        }
    }
    copy_among(members, mark)
}

/// The longest copy among `members`.
fn copy_among(members: &[Member], mark: &Mark) -> Result<Option<Found>, FileError> {
    let mut longest: Option<(u64, Found)> = None;
    for member in members {
        let likely = member.kin || member.rotated.is_some();
        let telling = mark.fingerprint.is_strong() || member.rotated.is_some();
        if mark.fingerprint.is_empty()
            || !(likely && telling)
            || member.length < mark.position
            || member.modified < mark.modified
            || longest
                .as_ref()
                .is_some_and(|(length, _)| *length >= member.length)
        {
            continue;
        }
        if let Some(file) = open_member(member)?
            && matches(mark, &file, &member.path)?
        {
            let found = Found {
                file,
                path: member.path.clone(),
                position: mark.position,
            };
            longest = Some((member.length, found));
        }
    }
    Ok(longest.map(|(_, found)| found))
}

/// What comes after `own` by its name: what was rotated away later, then the file at `path`.
fn after<'m>(members: &'m [Member], path: &Path, own: &Member) -> Vec<&'m Member> {
    let current = members.iter().find(|member| member.path == path);
    let mut later = Vec::new();
    if let Some(own_name) = &own.rotated {
        let grows = own_name.style == Style::Index && index_grows(members);
        later.extend(members.iter().filter(|member| {
            let name = member
                .rotated
                .as_ref()
                .filter(|name| name.style == own_name.style);
            name.is_some_and(|name| name.compare(own_name, grows) == Ordering::Greater)
                && current.is_none_or(|current| current.id != member.id)
                && member.path.parent() == own.path.parent()
        }));
        later.sort_by(|a, b| compare(a, b, grows));
    }
    later.extend(current);
    later
}

/// What comes after a file that cannot be found, by time: what was rotated away and written later, then the file at
/// `path`.
fn since<'m>(members: &'m [Member], path: &Path, mark: &Mark) -> Result<Vec<&'m Member>, FileError> {
    let current = members.iter().find(|member| member.path == path);
    let mut later = Vec::new();
    for member in members {
        // Numbers between stem and extension may belong to files that nobody rotated.
        let rotated = member
            .rotated
            .as_ref()
            .is_some_and(|name| name.style != Style::Between);
        if rotated
            && member.modified > mark.modified
            && current.is_none_or(|current| current.id != member.id)
            && (mark.fingerprint.is_empty() || !is_copy(member, mark)?)
        {
            later.push(member);
        }
    }
    let grows = index_grows(members);
    later.sort_by(|a, b| a.modified.cmp(&b.modified).then_with(|| compare(a, b, grows)));
    later.extend(current);
    Ok(later)
}

fn is_copy(member: &Member, mark: &Mark) -> Result<bool, FileError> {
    match open_member(member)? {
        Some(file) => matches(mark, &file, &member.path),
        None => Ok(false),
    }
}

fn compare(a: &Member, b: &Member, index_grows: bool) -> Ordering {
    match (&a.rotated, &b.rotated) {
        (Some(a), Some(b)) if a.style == b.style => a.compare(b, index_grows),
        _ => Ordering::Equal,
    }
}

/// Whether higher indices are newer. logrotate counts the other way; some log libraries count up, and then each file
/// was written later than the one before.
fn index_grows(members: &[Member]) -> bool {
    let mut indexed: Vec<(u64, u64)> = members
        .iter()
        .filter_map(|member| {
            let name = member.rotated.as_ref()?;
            (name.style == Style::Index).then(|| (name.numbers[0], member.modified))
        })
        .collect();
    indexed.sort_unstable();
    indexed.len() > 1 && indexed.windows(2).all(|pair| pair[0].1 < pair[1].1)
}

/// Opens `member`; none where its name leads to another file by now.
fn open_member(member: &Member) -> Result<Option<File>, FileError> {
    let opened = open_to_read(&member.path)?;
    Ok(opened
        .filter(|(_, metadata)| FileId::of(metadata) == member.id)
        .map(|(file, _)| file))
}

/// The files around `path` that may matter; none where the folder changed while it was read.
fn members(path: &Path, wanted: Option<FileId>) -> Result<Option<Vec<Member>>, FileError> {
    let mut members = Vec::new();
    let homes = homes(path);
    let mut listings = Vec::with_capacity(homes.len());
    for (folder, base) in &homes {
        let listing = list(folder)?;
        for (name, inode) in &listing {
            let rotated = RotatedName::parse(base, name);
            let kin = name.starts_with(base);
            if !kin && rotated.is_none() && wanted.is_none_or(|wanted| wanted.inode != *inode) {
                continue;
            }
            let entry = folder.join(std::ffi::OsStr::from_bytes(name));
            // What has gone, or cannot be examined, cannot be read either.
            let Ok(metadata) = std::fs::symlink_metadata(&entry) else {
                continue;
            };
            if metadata.is_file() && entry != path {
                members.push(Member {
                    rotated,
                    kin,
                    id: FileId::of(&metadata),
                    length: metadata.len(),
                    modified: modified(&metadata),
                    path: entry,
                });
            }
        }
        listings.push(listing);
    }
    if let Some((id, metadata)) = at_path(path)? {
        // A link's target stands for the link.
        members.retain(|member| member.id != id);
        members.push(Member {
            path: path.to_owned(),
            rotated: None,
            kin: true,
            id,
            length: metadata.len(),
            modified: modified(&metadata),
        });
    }
    for ((folder, _), listing) in homes.iter().zip(&listings) {
        if list(folder)? != *listing {
            return Ok(None);
        }
    }
    Ok(Some(members))
}

/// Names and inodes in `folder`, sorted; nothing where it is missing.
fn list(folder: &Path) -> Result<Vec<(Vec<u8>, u64)>, FileError> {
    let read = || {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            entries.push((entry.file_name().as_bytes().to_owned(), entry.ino()));
        }
        entries.sort_unstable();
        Ok::<_, io::Error>(entries)
    };
    match read() {
        Ok(entries) => Ok(entries),
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(FileError::io("list the folder", folder, error)),
    }
}
