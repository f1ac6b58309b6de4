use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::batch::builder::BatchBuilder;
use crate::clock::ManualClock;
use crate::{Broker, BrokerOptions, Compression, Isolation, Reader, Start, TopicConfig};

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

#[tokio::test]
async fn the_last_of_each_key_stays_at_its_offset() {
    let bench = Bench::new(&[]).await;
    bench.put(&[("a", Some("1")), ("b", Some("1"))]).await;
    bench.put(&[("a", Some("2")), ("c", Some("1"))]).await;
    bench.fill().await;
    let next = bench.put(&[("a", Some("3"))]).await;
    bench.fill().await;
    let before = bench.broker.offsets("t", 0).unwrap();

    let cleaned = bench.compact();
    assert_eq!(cleaned.passes, 1);
    assert!(cleaned.written < cleaned.read / 2, "{cleaned:?}");
    let expected = [
        row(1, "b", Some("1")),
        row(3, "c", Some("1")),
        row(next, "a", Some("3")),
    ];
    assert_eq!(bench.committed(), expected);
    assert_eq!(bench.rows(Isolation::ReadUncommitted), expected);
    assert_eq!(bench.broker.offsets("t", 0).unwrap(), before);
    let [first, second] = bench.sealed()[..] else {
        panic!("{:?}", bench.sealed());
    };
    assert_eq!((first.base, first.generation, second.generation), (0, 1, 1));
    let files = [
        "00000000000000000000-1.log".to_owned(),
        format!("{:020}-1.log", second.base),
        format!("{:020}.log", second.next),
        "checkpoint".to_owned(),
    ];
    assert_eq!(bench.files(), files, "what was replaced is gone");
    assert_eq!(bench.compact(), Cleaned::default(), "there is nothing left to do");

    // Readers begin anywhere, at what went too.
    for start in 0..before.end {
        let expected: Vec<_> = expected.iter().filter(|row| row.0 >= start).cloned().collect();
        assert_eq!(
            rows(&mut bench.reader(start, Isolation::ReadCommitted)),
            expected,
            "from {start}"
        );
    }
    for clean in [false, true] {
        let bench = bench_again(&bench, clean).await;
        assert_eq!(bench.committed(), expected);
        assert_eq!(bench.compact(), Cleaned::default());
    }

    // Neighbours that have become small become one.
    bench.fill().await;
    bench.compact();
    let one = bench.sealed()[0];
    assert_eq!((one.base, one.next, one.generation), (0, second.next, 2));
    assert_eq!(bench.committed(), expected);
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

#[tokio::test]
async fn tombstones_stay_for_their_time_after_they_were_compacted() {
    let bench = Bench::new(&[]).await;
    bench.put(&[("a", Some("1")), ("b", Some("1"))]).await;
    bench.put(&[("a", None)]).await;
    bench.fill().await;
    bench.clock.advance(10 * HOUR);
    bench.compact();
    let with = [row(1, "b", Some("1")), row(2, "a", None)];
    assert_eq!(
        bench.committed(),
        with,
        "their time begins when they are compacted"
    );
    bench.clock.advance(HOUR);
    assert_eq!(bench.compact().passes, 0);
    let bench = bench.reopen(true).await;
    assert_eq!(bench.committed(), with);
    // A clock set back in between makes it longer, not shorter.
    bench.clock.set_wall_clock(START);
    assert_eq!(bench.compact().passes, 0);
    bench.clock.set_wall_clock(START + 12 * 3_600_000);
    assert_eq!(bench.compact().passes, 1, "due although nothing is dirty");
    assert_eq!(bench.committed(), with[..1]);
    assert_eq!(bench.sealed()[0].tombstones, None);
}

#[tokio::test]
async fn transactions_leave_their_committed_records_and_nothing_else() {
    let bench = Bench::new(&[]).await;
    let producer = bench.broker.producer("p").await.unwrap();
    let mut aborted = producer.begin().unwrap();
    aborted
        .append("t", 0, batch(&[("a", Some("no")), ("z", Some("no"))]))
        .await
        .unwrap();
    bench.put(&[("a", Some("1"))]).await;
    aborted.abort().await.unwrap();
    let mut committed = producer.begin().unwrap();
    committed
        .append("t", 0, batch(&[("b", Some("yes"))]))
        .await
        .unwrap();
    committed.commit().await.unwrap();
    // An aborted record does not supersede one that counts.
    let mut aborted = producer.begin().unwrap();
    aborted.append("t", 0, batch(&[("b", Some("no"))])).await.unwrap();
    aborted.abort().await.unwrap();
    bench.fill().await;

    // A transaction that is open holds back what comes after its beginning.
    let mut open = producer.begin().unwrap();
    open.append("t", 0, batch(&[("b", Some("later"))])).await.unwrap();
    bench.fill().await;
    bench.fill().await;
    let sealed = bench.sealed().len();
    let mut old = bench.reader(0, Isolation::ReadCommitted);
    assert_eq!(
        old.try_next(1).unwrap().unwrap().records().next().unwrap().value,
        Some(&b"1"[..])
    );
    bench.compact();
    let now = bench.sealed();
    assert!(
        now.len() == sealed && now[0].generation == 1 && now[1].generation == 0,
        "{now:?}"
    );
    let expected = [row(2, "a", Some("1")), row(4, "b", Some("yes"))];
    assert_eq!(bench.committed(), expected);
    assert_eq!(rows(&mut old), expected[1..], "a reader in the middle goes on");
    let scan = bench.rows(Isolation::ReadUncommitted);
    assert_eq!((&scan[..2], scan[2].2.as_deref()), (&expected[..], Some("later")));
    {
        let log = bench.log();
        let aborted = log.aborted.read();
        assert!(
            aborted.ranges.is_empty() && aborted.plain == now[0].next,
            "{aborted:?}"
        );
    }

    open.commit().await.unwrap();
    bench.compact();
    assert_eq!(bench.committed().last().unwrap().2.as_deref(), Some("later"));
    drop((producer, old));
    let bench = bench.reopen(false).await;
    assert_eq!(bench.committed().len(), 2);
}

#[tokio::test]
async fn more_keys_than_memory_take_several_passes() {
    let bench = Bench::new(&[("segment.bytes", "6000")]).await;
    let mut last = BTreeMap::new();
    for round in 0..3 {
        for n in 0..90 {
            let (key, value) = (format!("k{n}"), format!("{round}-{n}"));
            last.insert(bench.put(&[(&key, Some(&value))]).await, (key, value));
        }
    }
    bench.fill().await;
    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        key_bytes: 40 * 24,
        stop: &stop,
    };
    let cleaned = bench.log().compact(limits).unwrap();
    assert!(cleaned.passes >= 3, "{cleaned:?}");
    let expected: Vec<_> = last
        .into_iter()
        .skip(180)
        .map(|(offset, (key, value))| row(offset, &key, Some(&value)))
        .collect();
    assert_eq!(bench.committed(), expected);
    assert_eq!(bench.compact(), Cleaned::default());
}

#[tokio::test]
async fn what_is_worth_it_and_what_must_wait() {
    let settings = [
        ("min.cleanable.dirty.ratio", "0.5"),
        ("min.compaction.lag.ms", "3600000"),
        ("max.compaction.lag.ms", "36000000"),
    ];
    let bench = Bench::new(&settings).await;
    let worthwhile = || bench.log().workload().unwrap().is_worthwhile(500_000);
    assert!(!worthwhile(), "nothing is closed");
    for n in 0..40 {
        bench.put(&[(&format!("k{n}"), Some(&"v".repeat(150)))]).await;
    }
    bench.fill().await;
    assert!(!worthwhile(), "too young");
    bench.clock.advance(HOUR);
    assert!(worthwhile());
    bench.compact();
    let clean: u64 = bench.sealed().iter().map(|s| s.size).sum();

    bench.fill().await;
    assert!(!worthwhile(), "too young");
    bench.clock.advance(HOUR);
    let work = bench.log().workload().unwrap();
    assert!(
        !worthwhile() && work.dirty_bytes > 0 && work.dirty_bytes < clean,
        "{work:?}"
    );
    bench.clock.advance(9 * HOUR);
    assert!(worthwhile(), "it has waited as long as it may");
    bench.broker.run_housekeeping_now();
    assert_eq!(bench.compact(), Cleaned::default(), "the cleaner did it");
}

#[tokio::test]
async fn a_damaged_segment_is_set_apart_and_those_before_it_are_compacted() {
    let bench = Bench::new(&[]).await;
    bench.put(&[("a", Some("1"))]).await;
    bench.put(&[("a", Some("2"))]).await;
    bench.fill().await;
    bench.put(&[("b", Some("1"))]).await;
    bench.fill().await;
    bench.put(&[("a", Some("3"))]).await;
    bench.fill().await;
    let [first, second, third] = bench.sealed()[..] else {
        panic!("{:?}", bench.sealed());
    };
    let path = bench.path(second.name());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();

    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        key_bytes: 1 << 20,
        stop: &stop,
    };
    assert!(matches!(bench.log().compact(limits), Err(Error::Corrupt { .. })));
    assert_eq!(bench.sealed(), [first, second, third], "nothing was replaced");
    assert_eq!(bench.compact().passes, 1);
    let now = bench.sealed();
    assert_eq!((now[0].generation, &now[1..]), (1, &[second, third][..]));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(bench.compact(), Cleaned::default());
    // What is whole is served.
    let mut reader = bench.reader(0, Isolation::ReadCommitted);
    assert_eq!(
        reader
            .try_next(1 << 20)
            .unwrap()
            .unwrap()
            .records()
            .next()
            .unwrap()
            .offset,
        1
    );
    reader.seek(third.base).unwrap();
    assert_eq!(rows(&mut reader).len(), 1);
}

#[tokio::test]
async fn a_lost_checkpoint_leaves_the_highest_generations() {
    let bench = Bench::new(&[]).await;
    for round in 0..3 {
        for n in 0..10 {
            bench.put(&[(&format!("k{n}"), Some(&format!("{round}")))]).await;
        }
        bench.fill().await;
        bench.compact();
        // What a crash leaves that comes before the removal of what was replaced.
        let stale = bench.path(SegmentName::written(3));
        std::fs::write(&stale, b"no batch").unwrap();
    }
    let (expected, log) = (bench.committed(), bench.log());
    std::fs::write(log.dir.join("00000000000000000000-9.cleaned"), b"unfinished").unwrap();
    let sealed = bench.sealed();
    bench.broker.close().await.unwrap();
    std::fs::remove_file(log.dir.join("checkpoint")).unwrap();
    std::fs::write(log.dir.join("checkpoint"), b"not one").unwrap();
    let bench = bench.reopen(false).await;
    assert_eq!(bench.committed(), expected);
    let names: Vec<_> = sealed.iter().map(SealedSegment::name).collect();
    let found: Vec<_> = bench.sealed().iter().map(SealedSegment::name).collect();
    assert_eq!(found, names);
    assert!(
        bench
            .files()
            .iter()
            .all(|name| !name.contains("cleaned") && name != "00000000000000000003.log")
    );
}

#[tokio::test]
async fn a_record_without_a_key_is_refused_and_one_that_is_there_stays() {
    let bench = Bench::new(&[]).await;
    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.push(START, Some(b"k"), Some(b"v"), &[]);
    keyless.push(START, None, Some(b"v"), &[]);
    let refused = bench.broker.append("t", 0, keyless).await;
    assert!(matches!(refused, Err(Error::KeyRequired { .. })), "{refused:?}");

    // From before the topic was compacted.
    let compacted = bench.log().settings();
    let mut deleted = (*compacted).clone();
    deleted.cleanup_policy.compact = false;
    bench.log().set_settings(Arc::new(deleted));
    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.push(START, None, None, &[]);
    bench.broker.append("t", 0, keyless).await.unwrap();
    bench.log().set_settings(compacted);
    bench.put(&[("a", Some("1"))]).await;
    bench.fill().await;
    bench.clock.advance(100 * HOUR);
    bench.compact();
    bench.clock.advance(100 * HOUR);
    bench.compact();
    let mut reader = bench.reader(0, Isolation::ReadCommitted);
    let fetched = reader.try_next(1 << 20).unwrap().unwrap();
    let first = fetched.records().next().unwrap();
    assert_eq!((first.offset, first.key, first.value), (0, None, None));
}

#[tokio::test]
async fn times_are_found_after_compaction() {
    let bench = Bench::new(&[]).await;
    for n in 0..60 {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(
            START + n * 10,
            Some(format!("k{}", n % 20).as_bytes()),
            Some(&[b'v'; 40]),
            &[],
        );
        bench.broker.append("t", 0, batch).await.unwrap();
    }
    bench.fill().await;
    bench.compact();
    let log = bench.log();
    for n in 40..60_u64 {
        assert_eq!(
            log.offset_for_time(START + n as i64 * 10, u64::MAX).unwrap(),
            Some(n)
        );
    }
    assert_eq!(log.offset_for_time(START, u64::MAX).unwrap(), Some(40));
}

#[tokio::test]
async fn committed_offsets_are_compacted_and_read_back() {
    let bench = Bench::new(&[]).await;
    for n in 0..200 {
        bench
            .broker
            .commit_group_offsets("g", &[("t", 0, n), ("t", 1, n * 2)])
            .await
            .unwrap();
    }
    bench
        .broker
        .commit_group_offsets("gone", &[("t", 0, 1)])
        .await
        .unwrap();
    bench.broker.delete_group_offsets("gone").await.unwrap();
    let log = bench.broker.log(crate::GROUP_OFFSETS_TOPIC, 0).unwrap();
    let size = |log: &Log| log.state.lock().sealed.iter().map(|s| s.size).sum::<u64>();
    let before = size(&log);
    bench.broker.run_housekeeping_now();
    assert!(size(&log) < before / 10, "{} of {before}", size(&log));
    let bench = bench.reopen(true).await;
    assert_eq!(bench.broker.group_offsets("g")[&("t".to_owned(), 1)], 398);
    assert_eq!(bench.broker.groups(), ["g"]);
}

#[tokio::test]
async fn readers_and_writers_go_on_while_it_runs() {
    let bench = Bench::new(&[]).await;
    let (log, stop) = (bench.log(), Arc::new(AtomicBool::new(false)));
    let cleaner = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let never = AtomicBool::new(false);
            let mut passes = 0;
            while !stop.load(Ordering::SeqCst) {
                let limits = CleanerLimits {
                    key_bytes: 2_000,
                    stop: &never,
                };
                passes += log.compact(limits).unwrap().passes;
            }
            passes
        })
    };
    let producer = bench.broker.producer("p").await.unwrap();
    let mut readers: Vec<_> = (0..3)
        .map(|_| (bench.reader(0, Isolation::ReadCommitted), 0, BTreeMap::new()))
        .collect();
    let mut last = BTreeMap::new();
    for n in 0..600_u64 {
        let (key, value) = (format!("k{}", n * 7 % 23), format!("{n:040}"));
        let mut transaction = producer.begin().unwrap();
        transaction
            .append("t", 0, batch(&[(&key, Some(&value))]))
            .await
            .unwrap();
        if n % 4 == 0 {
            transaction.abort().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
            last.insert(key, value);
        }
        // Some readers follow closely, some lag behind.
        for (i, (reader, least, seen)) in readers.iter_mut().enumerate() {
            if n % (1 + 40 * i as u64) != 0 {
                continue;
            }
            for (offset, key, value) in rows(reader) {
                assert!(offset >= *least, "offsets rise");
                *least = offset + 1;
                let number: u64 = value.as_ref().unwrap().parse().unwrap();
                assert!(!number.is_multiple_of(4), "{number} was aborted");
                seen.insert(key, value.unwrap());
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    assert!(cleaner.join().unwrap() > 0);
    for (reader, _, seen) in &mut readers {
        seen.extend(
            rows(reader)
                .into_iter()
                .map(|(_, key, value)| (key, value.unwrap())),
        );
        assert_eq!(*seen, last, "each reader has the last of each key");
    }
}
