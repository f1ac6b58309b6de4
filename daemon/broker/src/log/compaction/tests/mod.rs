//! Compaction of a log: the bench its tests work at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::batch::builder::BatchBuilder;
use crate::clock::ManualClock;
use crate::{Broker, BrokerOptions, Compression, Isolation, Reader, Start, TopicConfig};

mod passes;
mod what_stays;

const START: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_hours(1);

type Row = (u64, String, Option<String>);

/// A broker with one topic `t` of one partition, and a clock that stands still.
struct Bench {
    clock: Arc<ManualClock>,
    options: BrokerOptions,
    broker: Broker,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = BrokerOptions {
            segment_bytes: 2_000,
            index_interval_bytes: 300,
            ..BrokerOptions::new(dir.path().join("data"))
        };
        let clock = Arc::new(ManualClock::new(START));
        let broker = Broker::open_with_clock(options.clone(), clock.clone()).unwrap();
        let own = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", "7200000"),
        ];
        let config = TopicConfig {
            settings: own
                .iter()
                .chain(settings)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..TopicConfig::new(1)
        };
        broker.create_topic("t", config).await.unwrap();
        Self {
            clock,
            options,
            broker,
            dir,
        }
    }

    fn log(&self) -> Arc<Log> {
        self.broker.log("t", 0).unwrap()
    }

    async fn put(&self, rows: &[(&str, Option<&str>)]) -> u64 {
        self.broker.append("t", 0, batch(rows)).await.unwrap()
    }

    /// Writes as much as closes a segment, of one key, so that only the last of it stays.
    async fn fill(&self) {
        let sealed = self.log().state.lock().sealed.len();
        while self.log().state.lock().sealed.len() == sealed {
            self.put(&[("filler", Some(&"f".repeat(300)))]).await;
        }
    }

    fn compact(&self) -> Cleaned {
        let stop = AtomicBool::new(false);
        let limits = CleanerLimits {
            key_bytes: 1 << 20,
            stop: &stop,
        };
        self.log().compact(limits).unwrap()
    }

    fn reader(&self, start: impl Into<Start>, isolation: Isolation) -> Reader {
        self.broker.reader("t", 0, start, isolation).unwrap()
    }

    /// What is there, fillers aside.
    fn rows(&self, isolation: Isolation) -> Vec<Row> {
        rows(&mut self.reader(Start::Earliest, isolation))
    }

    fn committed(&self) -> Vec<Row> {
        self.rows(Isolation::ReadCommitted)
    }

    fn sealed(&self) -> Vec<SealedSegment> {
        self.log().state.lock().sealed.clone()
    }

    fn files(&self) -> Vec<String> {
        let mut names = self.log().disk.list(&self.log().dir).unwrap();
        names.retain(|name| !name.contains(".index"));
        names.sort_unstable();
        names
    }

    fn path(&self, name: SegmentName) -> PathBuf {
        log_path(&self.log().dir, name)
    }

    async fn reopen(mut self, clean: bool) -> Self {
        if clean {
            self.broker.close().await.unwrap();
        }
        let elsewhere = BrokerOptions::new(self.dir.path().join("elsewhere"));
        self.broker = Broker::open(elsewhere).unwrap();
        self.broker = Broker::open_with_clock(self.options.clone(), self.clock.clone()).unwrap();
        self
    }
}

fn batch(rows: &[(&str, Option<&str>)]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for (key, value) in rows {
        batch.push(START, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    }
    batch
}

fn rows(reader: &mut Reader) -> Vec<Row> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    while let Some(fetched) = reader.try_next(700).unwrap() {
        assert_eq!(fetched.len(), fetched.records().count());
        assert!(!fetched.is_empty());
        all.extend(
            fetched
                .records()
                .map(|r| (r.offset, text(r.key.unwrap()), r.value.map(text))),
        );
    }
    all.retain(|(_, key, _)| key != "filler");
    all
}

fn row(offset: u64, key: &str, value: Option<&str>) -> Row {
    (offset, key.to_owned(), value.map(str::to_owned))
}

/// The same files, opened again elsewhere.
async fn bench_again(bench: &Bench, clean: bool) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    copy(&bench.options.data_dir, &dir.path().join("data"));
    let options = BrokerOptions {
        data_dir: dir.path().join("data"),
        ..bench.options.clone()
    };
    let copied = Bench {
        broker: Broker::open_with_clock(options.clone(), bench.clock.clone()).unwrap(),
        clock: bench.clock.clone(),
        options,
        dir,
    };
    assert!(
        copied.broker.recovery().is_clean(),
        "{:?}",
        copied.broker.recovery()
    );
    copied.reopen(clean).await
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}
