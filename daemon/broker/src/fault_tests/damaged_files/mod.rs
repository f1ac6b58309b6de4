//! Files that are not as the broker left them, bit by bit: what was on disk and is damaged is reported and never served
//! or cut, what may be torn is cut and reported, what can be made again is made again, and nothing panics.

mod checkpoints;
mod metadata;
mod segments;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::crash_workload::batch;
use super::memory_disk::{MemoryDisk, Operation};
use crate::batch::header::HEADER_BYTES;
use crate::disk::{Disk, OpenMode};
use crate::log::compaction::CleanerLimits;
use crate::log::segment::header_at;
use crate::{
    BatchBuilder, Broker, BrokerOptions, Compression, Error, Isolation, Reader, RecoveryAction, Result,
    Sequence, Start, TopicConfig,
};

const DIR: &str = "/tidewater";

/// A disk with one topic `t` of one partition, on which no broker runs.
struct Left {
    disk: MemoryDisk,
    partition: PathBuf,
    values: Vec<String>,
}

fn open(disk: &MemoryDisk) -> Result<Broker> {
    let options = BrokerOptions {
        segment_bytes: 1_000,
        // Only where a segment is closed, and when the broker is.
        checkpoint_bytes: 1 << 30,
        index_interval_bytes: 300,
        flush_threads: 1,
        ..BrokerOptions::new(DIR)
    };
    Broker::open_on(Arc::new(disk.clone()), options)
}

fn value(n: usize) -> String {
    format!("{n} {}", "x".repeat(60))
}

fn one(value: &str) -> BatchBuilder {
    batch(&[value.to_owned()])
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap().to_vec()).unwrap()
}

/// What is read until the end or an error.
fn drain(reader: &mut Reader) -> (Vec<String>, Option<Error>) {
    let mut all = Vec::new();
    loop {
        match reader.try_next(200) {
            Ok(Some(fetched)) => all.extend(fetched.records().map(|record| text(record.value))),
            Ok(None) => return (all, None),
            Err(e) => return (all, Some(e)),
        }
    }
}

fn read(broker: &Broker, from: impl Into<Start>) -> (Vec<String>, Option<Error>) {
    drain(&mut broker.reader("t", 0, from, Isolation::ReadCommitted).unwrap())
}

/// All there is, without an error.
fn all(broker: &Broker) -> Vec<String> {
    let (all, error) = read(broker, Start::Earliest);
    assert!(error.is_none(), "{error:?}");
    all
}

fn actions(broker: &Broker) -> Vec<RecoveryAction> {
    broker
        .recovery()
        .actions()
        .map(|(_, action)| action.clone())
        .collect()
}

fn flip(disk: &MemoryDisk, path: &Path, bit: usize) {
    disk.change(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
}

impl Left {
    /// Closed segments and one that is written to, closed cleanly; then `torn` batches more, and the process died.
    async fn new(torn: usize) -> Self {
        let disk = MemoryDisk::new();
        let broker = open(&disk).unwrap();
        let id = broker.create_topic("t", TopicConfig::new(1)).await.unwrap().id;
        let mut values = Vec::new();
        for n in 0..37 {
            broker.append("t", 0, one(&value(n))).await.unwrap();
            values.push(value(n));
        }
        broker.close().await.unwrap();
        drop(broker);
        let broker = open(&disk).unwrap();
        for n in 37..37 + torn {
            broker.append("t", 0, one(&value(n))).await.unwrap();
            values.push(value(n));
        }
        drop(broker);
        let partition = Path::new(DIR).join("topics").join(id.to_string()).join("0");
        let left = Self {
            disk,
            partition,
            values,
        };
        assert!(left.segments().len() > 4);
        left
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let files = self.disk.files().into_keys();
        files
            .filter(|path| {
                path.starts_with(&self.partition) && path.extension().is_some_and(|e| e == extension)
            })
            .collect()
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.files("log")
    }

    fn base(path: &Path) -> usize {
        path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
    }

    /// Where the `nth` batch of a segment begins.
    fn position(&self, path: &Path, nth: usize) -> usize {
        let file = self.disk.open(path, OpenMode::Existing).unwrap();
        (0..nth).fold(0, |at, _| {
            at + header_at(file.as_ref(), at as u64).unwrap().unwrap().length
        })
    }
}
