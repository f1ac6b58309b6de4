//! Tasks as the host runs them: one call after the other, positions kept only once their batch has been taken.
#![allow(dead_code)] // each test takes what it needs

use std::fs::OpenOptions;
use std::future::ready;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tidewater_connector_file::{FileSink, FileSource};
use tidewater_plugin_api::config::ConfigMap;
use tidewater_plugin_api::frame::SchemaCache;
use tidewater_plugin_api::{
    AssignedPartition, Config, Frame, FrameBuilder, Result, Schema, SinkConnector, SinkTask, SinkTaskContext,
    SourceConnector, SourcePosition, SourceTask, SourceTaskContext, TopicPartition, TopicPartitionOffset,
    Type, Value,
};

/// Longer than anything here can take: what waits so long waits for ever.
const PATIENCE: Duration = Duration::from_mins(1);

pub fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Appends to a file, which is made if need be.
pub fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// Asserts that both are the same, and shows where they part.
pub fn assert_same(read: &[String], expected: &[String], note: &str) {
    let parted = read
        .iter()
        .zip(expected)
        .position(|(read, expected)| read != expected);
    let at = parted.unwrap_or(read.len().min(expected.len()));
    let around = |lines: &[String]| {
        let shown = lines.iter().skip(at.saturating_sub(3)).take(6);
        shown
            .map(|line| line.chars().take(20).collect())
            .collect::<Vec<String>>()
            .join(" | ")
    };
    assert!(
        read == expected,
        "{note}: {} lines read, {} expected; from line {at} on they differ: read {}, expected {}",
        read.len(),
        expected.len(),
        around(read),
        around(expected)
    );
}

pub fn source_config(file: &Path, more: &[(&str, &str)]) -> Config {
    let mut map = map(&[("file", file.to_str().unwrap()), ("topic", "lines")]);
    map.extend(self::map(more));
    Config::new(FileSource::spec().config, map).unwrap()
}

/// A source task and what the host keeps of it.
pub struct Source {
    task: Box<dyn SourceTask>,
    batch: FrameBuilder,
    /// Stored durably, with all lines before.
    pub positions: Vec<SourcePosition>,
}

impl Source {
    pub async fn start(config: Config, positions: Vec<SourcePosition>) -> Result<Self> {
        let mut task = FileSource::create_task();
        let context = SourceTaskContext {
            connector: "files".into(),
            task: 0,
            generation: 1,
            config,
            positions: positions.clone(),
        };
        task.start(context).await?;
        Ok(Self {
            task,
            batch: FrameBuilder::new(),
            positions,
        })
    }

    pub async fn follow(file: &Path, more: &[(&str, &str)]) -> Self {
        Self::start(source_config(file, more), Vec::new()).await.unwrap()
    }

    fn take(&mut self) -> (Vec<String>, Vec<SourcePosition>) {
        let frame = Frame::parse(self.batch.finish(), &mut SchemaCache::default()).unwrap();
        let text =
            |record: tidewater_plugin_api::Record<'_>| match record.value().unwrap().to_value().unwrap() {
                Value::String(text) => text,
                other => format!("{other:?}"),
            };
        (frame.records().map(text).collect(), frame.positions().to_vec())
    }

    /// Waits for a batch, and stores its positions.
    pub async fn poll(&mut self) -> Result<Vec<String>> {
        let polled = tokio::time::timeout(PATIENCE, self.task.poll(&mut self.batch)).await;
        polled.expect("something to read")?;
        Ok(self.store())
    }

    /// What is there now. The poll is dropped where it would wait, as the host does to deliver something else.
    pub async fn glance(&mut self) -> Result<Vec<String>> {
        tokio::select! {
            biased;
            polled = self.task.poll(&mut self.batch) => polled?,
            () = ready(()) => {}
        }
        Ok(self.store())
    }

    /// As [`glance`](Self::glance), but what was read gets lost on the way.
    pub async fn glance_in_vain(&mut self) {
        let positions = self.positions.clone();
        self.glance().await.unwrap();
        self.positions = positions;
    }

    fn store(&mut self) -> Vec<String> {
        let (lines, positions) = self.take();
        for position in positions {
            self.positions
                .retain(|known| known.partition != position.partition);
            self.positions.push(position);
        }
        lines
    }

    /// Reads until `last` comes, or the end of patience.
    pub async fn read_until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().map(String::as_str) != Some(last) {
            lines.extend(self.poll().await.unwrap());
        }
        lines
    }

    /// Everything there is now.
    pub async fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let more = self.glance().await.unwrap();
            if more.is_empty() {
                return lines;
            }
            lines.extend(more);
        }
    }

    /// One of the task's counters.
    pub fn count(&self, name: &str) -> u64 {
        self.task.metrics()[name] as u64
    }
}

pub fn sink_config(file: &Path, more: &[(&str, &str)]) -> Config {
    let mut map = map(&[("file", file.to_str().unwrap())]);
    map.extend(self::map(more));
    Config::new(FileSink::spec().config, map).unwrap()
}

pub fn partition(number: u32) -> AssignedPartition {
    TopicPartition {
        topic: "lines".into(),
        partition: number,
    }
    .assigned("first")
}

/// A sink task that has been started.
pub struct Sink {
    pub task: Box<dyn SinkTask>,
}

impl Sink {
    pub async fn start(config: Config, generation: u64) -> Result<Self> {
        let mut task = FileSink::create_task();
        let context = SinkTaskContext {
            connector: "files".into(),
            task: 0,
            generation,
            config,
        };
        task.start(context).await?;
        Ok(Self { task })
    }

    /// Starts a task, opens partition 0, and gives the offset to go on from.
    pub async fn open(file: &Path, generation: u64) -> Result<(Self, u64)> {
        let mut sink = Self::start(sink_config(file, &[]), generation).await?;
        let offsets = sink.task.open(&[partition(0)]).await?;
        Ok((sink, next_offset(&offsets)))
    }

    /// Puts the lines from `offset` on into partition 0.
    pub async fn put(&mut self, offset: u64, lines: &[&str]) -> Result<()> {
        let report = self.task.put(&batch(offset, lines)).await?;
        assert!(!report.durable, "only a flush makes durable");
        Ok(())
    }

    /// One of the task's counters.
    pub fn count(&self, name: &str) -> u64 {
        self.task.metrics()[name] as u64
    }

    pub async fn flush(&mut self) -> Result<()> {
        self.task.flush().await
    }
}

pub fn next_offset(offsets: &[TopicPartitionOffset]) -> u64 {
    let known = offsets
        .iter()
        .find(|known| known.partition == partition(0).partition);
    known.map_or(0, |known| known.offset)
}

/// A batch of partition 0.
pub fn batch(offset: u64, lines: &[&str]) -> Frame {
    let schema = Arc::new(Schema::new(Type::String));
    let mut batch = FrameBuilder::new();
    let topic = batch.topic("lines").unwrap();
    let id = batch.schema(&schema).unwrap();
    for (offset, line) in (offset..).zip(lines) {
        let mut record = batch.record(topic);
        record.value(id, |value| value.string(line));
        record.partition(0);
        record.offset(offset);
        record.push().unwrap();
    }
    Frame::parse(batch.finish(), &mut SchemaCache::default()).unwrap()
}

/// The lines of a JSON-lines file of strings; every line must be whole.
pub fn written(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A file system of its own, of one MiB, unmounted at the end.
pub struct SmallDisk {
    pub folder: tempfile::TempDir,
}

impl SmallDisk {
    /// None where this user may not mount: the test then says so and proves nothing.
    pub fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let disk = Self { folder };
        if !rustix::process::geteuid().is_root() || !disk.again() {
            eprintln!("not tested: mounting a small disk needs root");
            return None;
        }
        Some(disk)
    }

    /// Mounts an empty file system over the folder.
    pub fn again(&self) -> bool {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(self.folder.path());
        mount.status().is_ok_and(|status| status.success())
    }

    /// Unmounts, even while files are open.
    pub fn unmount(&self) {
        let status = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .status();
        assert!(status.unwrap().success());
    }

    pub fn read_only(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(self.folder.path())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What a failed test leaves mounted; not mounted is fine.
        let _ = Command::new("umount")
            .args(["--quiet", "--lazy"])
            .arg(self.folder.path())
            .status();
    }
}
