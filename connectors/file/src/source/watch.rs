//! Waiting until the file may have changed.
//!
//! The folder is watched, not the file: so a file that does not exist yet, a rename and a new file are seen too. An
//! event says only that it is time to look. A slow look without an event covers file systems that report none,
//! and folders that are unmounted and come back.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::regular_file::FileId;
use crate::rotation::homes;

/// Watches the folders of one file.
#[derive(Debug)]
pub struct FolderWatch {
    path: PathBuf,
    rescan: Duration,
    changed: Arc<Notify>,
    /// Watching ends when this is dropped. None where the system has no watch to give.
    watcher: Option<RecommendedWatcher>,
    /// What is watched: the folder's path and which folder that was.
    watched: Vec<(PathBuf, FileId)>,
}

impl FolderWatch {
    /// Watches for changes of the file at `path`; looks every `rescan` at the latest.
    pub fn new(path: &Path, rescan: Duration) -> Self {
        let mut watch = Self {
            path: path.to_owned(),
            rescan,
            changed: Arc::new(Notify::new()),
            watcher: None,
            watched: Vec::new(),
        };
        watch.refresh();
        watch
    }

    /// Waits until the file may have changed since the last call. Dropped while it waits, it misses nothing.
    pub async fn wait(&mut self) {
        if tokio::time::timeout(self.rescan, self.changed.notified())
            .await
            .is_err()
        {
            self.refresh();
        }
    }

    /// Watches the folders that hold the file now: they may have been mounted, made anew, or a link may lead elsewhere.
    pub fn refresh(&mut self) {
        let homes = homes(&self.path);
        let mut folders: Vec<(PathBuf, FileId)> = Vec::with_capacity(homes.len());
        for (folder, _) in &homes {
            if let Ok(metadata) = std::fs::metadata(folder)
                && !folders.iter().any(|(_, id)| *id == FileId::of(&metadata))
            {
                folders.push((folder.clone(), FileId::of(&metadata)));
            }
        }
        if folders == self.watched {
            return;
        }
        self.watcher = None;
        self.watched.clear();
        match self.watch(&folders, homes.into_iter().map(|(_, name)| name).collect()) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.watched = folders;
                // What happened before the watch began was not reported.
                self.changed.notify_one();
            }
            Err(error) => tracing::warn!(
                file = %self.path.display(),
                %error,
                "cannot watch the folder; the file is looked at every rescan.interval.ms instead (is fs.inotify.max_user_watches too low?)"
            ),
        }
    }

    fn watch(
        &self,
        folders: &[(PathBuf, FileId)],
        names: Vec<Vec<u8>>,
    ) -> notify::Result<RecommendedWatcher> {
        let changed = self.changed.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, |event| concerns(event, &names)) {
                changed.notify_one();
            }
        })?;
        for (folder, _) in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

/// Whether it is time to look. Writes to other files of a busy folder are not; reading, which this connector does
/// itself, never is.
fn concerns(event: &Event, names: &[Vec<u8>]) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(notify::event::ModifyKind::Name(_)) | EventKind::Remove(_) => true,
        _ => {
            event.need_rescan()
                || event.paths.is_empty()
                || event.paths.iter().any(|path| {
                    let name = path.file_name().map_or(&b""[..], |name| name.as_bytes());
                    names.iter().any(|known| name.starts_with(stem(known)))
                })
        }
    }
}

/// The name without its extension: rotated names begin with it.
fn stem(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|&byte| byte == b'.') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    }
}
