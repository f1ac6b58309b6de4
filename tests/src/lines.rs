//! A file that grows: its lines counted as they come, by the kernel's notice and not by polling.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::watch;

use crate::error::{Error, Result};

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

/// One line a file sink wrote with `format=record`.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordLine {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: u64,
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Value,
    /// Its value; `Null` for a tombstone.
    pub value: Value,
}

/// Reads a file of records. A line that is no record, or a last one without its end, is an error.
pub fn read_records(path: &Path) -> Result<Vec<RecordLine>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("reading", path))?;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(Error::Different(format!(
            "{} ends in half a line",
            path.display()
        )));
    }
    let bad = |number: usize, line: &str| {
        Error::Different(format!(
            "line {} of {} is no record: {line:.200}",
            number + 1,
            path.display()
        ))
    };
    let parse = |(number, line): (usize, &str)| {
        let mut value: Value = serde_json::from_str(line).map_err(|_| bad(number, line))?;
        let part = |name: &str| {
            value
                .get(name)
                .and_then(Value::as_u64)
                .ok_or_else(|| bad(number, line))
        };
        let (partition, offset) = (part("partition")?, part("offset")?);
        let topic = value
            .get("topic")
            .and_then(Value::as_str)
            .ok_or_else(|| bad(number, line))?
            .to_owned();
        Ok(RecordLine {
            topic,
            partition,
            offset,
            key: value["key"].take(),
            value: value["value"].take(),
        })
    };
    text.lines().enumerate().map(parse).collect()
}

/// Proves that no record is in `lines` twice and that each partition's are in the order of their offsets.
pub fn check_order(lines: &[RecordLine]) -> Result<()> {
    let mut last: HashMap<(&str, u64), u64> = HashMap::new();
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
