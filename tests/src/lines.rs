//! A file that grows: its lines counted as they come, by the kernel's notice and not by polling.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::topics::TopicRecord;

/// Counts a file's complete lines while it is written.
#[derive(Debug)]
pub struct LineCount {
    path: PathBuf,
    read: u64,
    lines: u64,
    changed: watch::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl LineCount {
    /// Watches `path`, which need not be there yet; its folder must.
    pub fn watch(path: &Path) -> Result<Self> {
        let (sender, changed) = watch::channel(());
        let failed = |error: notify::Error| Error::Io {
            doing: "watching",
            path: path.to_owned(),
            source: std::io::Error::other(error),
        };
        let mut watcher = notify::recommended_watcher(move |_| {
            let _ = sender.send(());
        })
        .map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            read: 0,
            lines: 0,
            changed,
            _watcher: watcher,
        })
    }

    /// How many complete lines it has now.
    pub fn now(&mut self) -> Result<u64> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self.lines),
            other => other.map_err(Error::io("opening", &self.path))?,
        };
        file.seek(SeekFrom::Start(self.read))
            .map_err(Error::io("reading", &self.path))?;
        let mut chunk = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut chunk).map_err(Error::io("reading", &self.path))?;
            if read == 0 {
                return Ok(self.lines);
            }
            self.read += read as u64;
            self.lines += chunk[..read].split(|byte| *byte == b'\n').count() as u64 - 1;
        }
    }

    /// Waits until there are `lines`; answers how many there are then, or when nothing was written for as long as `patience`.
    pub async fn reach(&mut self, lines: u64, patience: Duration) -> Result<u64> {
        loop {
            self.changed.borrow_and_update();
            let now = self.now()?;
            if now >= lines
                || tokio::time::timeout(patience, self.changed.changed())
                    .await
                    .is_err()
            {
                return Ok(now);
            }
        }
    }
}

/// Where a record stands, or where a line of a file came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
}

impl From<TopicRecord<'_>> for Place {
    fn from(record: TopicRecord<'_>) -> Self {
        Self {
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
        }
    }
}

/// Shows `visit` the records of a file, each with its key and its value, in order. A line that is no record, or a last one without its
/// end, is an error.
pub fn visit_records(path: &Path, mut visit: impl FnMut(TopicRecord<'_>) -> Result<()>) -> Result<()> {
    #[derive(Deserialize)]
    struct Line<'l> {
        topic: String,
        partition: u32,
        offset: u64,
        #[serde(borrow)]
        key: &'l RawValue,
        #[serde(borrow)]
        value: &'l RawValue,
    }
    let mut reader = BufReader::new(File::open(path).map_err(Error::io("opening", path))?);
    let (mut line, mut number) = (String::new(), 0);
    while reader.read_line(&mut line).map_err(Error::io("reading", path))? > 0 {
        number += 1;
        let bad = |what: &dyn std::fmt::Display| {
            Error::Different(format!(
                "line {number} of {}: {what}: {line:.200}",
                path.display()
            ))
        };
        if !line.ends_with('\n') {
            return Err(bad(&"the file ends in half a line"));
        }
        let record: Line<'_> = serde_json::from_str(&line).map_err(|error| bad(&error))?;
        visit(TopicRecord {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            key: present(record.key),
            value: present(record.value),
        })?;
        line.clear();
    }
    Ok(())
}

fn present(json: &RawValue) -> Option<&[u8]> {
    (json.get() != "null").then_some(json.get().as_bytes())
}

/// Proves that no record is in `lines` twice and that each partition's are in the order of their offsets.
pub fn check_order(lines: &[Place]) -> Result<()> {
    let mut last: HashMap<(&str, u32), u64> = HashMap::new();
    for line in lines {
        let before = last.insert((&line.topic, line.partition), line.offset);
        if before.is_some_and(|before| before >= line.offset) {
            return Err(Error::Different(format!(
                "{}-{}: offset {} was written after {}: doubled or out of order",
                line.topic,
                line.partition,
                line.offset,
                before.unwrap_or_default()
            )));
        }
    }
    Ok(())
}
