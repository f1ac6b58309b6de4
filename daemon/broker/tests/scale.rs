//! Many partitions: what they may cost in descriptors, and in reading after a crash.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use tidewater_broker::{
    BatchBuilder, Broker, BrokerOptions, Compression, Isolation, RecoveryAction, Start, TopicConfig,
};

fn batch(text: &str) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(0, None, Some(text.as_bytes()), &[]);
    batch
}

/// Files of a broker that this process has open.
fn open_segments(dir: &Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets
        .filter(|path| path.starts_with(dir) && path.extension().is_some_and(|e| e == "log"))
        .count()
}

#[tokio::test]
async fn many_partitions_take_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        open_files: 8,
        ..BrokerOptions::new(dir.path().join("data"))
    };
    let broker = Broker::open(options.clone()).unwrap();
    broker.create_topic("t", TopicConfig::new(200)).await.unwrap();
    assert_eq!(
        open_segments(dir.path()),
        0,
        "nothing is written, nothing is open"
    );
    for round in 0..2 {
        for partition in 0..200 {
            let text = format!("{round} {partition}");
            let offset = broker.append("t", partition, batch(&text)).await.unwrap();
            assert_eq!(offset, round);
        }
        assert!(
            open_segments(dir.path()) <= 16,
            "{} are open",
            open_segments(dir.path())
        );
    }
    broker.close().await.unwrap();
    drop(broker);

    let broker = Broker::open(options).unwrap();
    assert!(broker.recovery().is_clean());
    assert_eq!(open_segments(dir.path()), 0, "a clean start needs none of them");
    for partition in 0..200 {
        let offset = broker.append("t", partition, batch("more")).await.unwrap();
        assert_eq!(offset, 2);
        let mut reader = broker
            .reader("t", partition, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        let fetched = reader.try_next(1 << 20).unwrap().unwrap();
        let values: Vec<_> = fetched.records().map(|r| r.value.unwrap().to_owned()).collect();
        let expected = [
            format!("0 {partition}"),
            format!("1 {partition}"),
            "more".to_owned(),
        ];
        assert_eq!(values, expected.map(String::into_bytes));
    }
    assert!(open_segments(dir.path()) <= 16);
}

#[tokio::test]
async fn what_is_read_after_a_crash_is_bounded_over_all_partitions() {
    const PARTITIONS: u32 = 40;
    const LIMIT: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        recovery_bytes: LIMIT,
        ..BrokerOptions::new(dir.path().join("data"))
    };
    let text = "x".repeat(1_000);
    // One partition after the other, as tables are copied; then all of them by turns.
    for in_turns in [false, true] {
        let broker = Broker::open(options.clone()).unwrap();
        let name = format!("t-{in_turns}");
        broker
            .create_topic(&name, TopicConfig::new(PARTITIONS))
            .await
            .unwrap();
        for i in 0..PARTITIONS * 20 {
            let partition = if in_turns { i % PARTITIONS } else { i / 20 };
            broker.append(&name, partition, batch(&text)).await.unwrap();
        }
        // Dropped and not closed: all is on disk, and no checkpoint says so.
        drop(broker);
        let broker = Broker::open(options.clone()).unwrap();
        let scanned = broker.recovery().scanned_bytes;
        assert!(
            (1..=LIMIT + LIMIT / 4).contains(&scanned),
            "{scanned} bytes were read"
        );
        assert!(broker.recovery().is_clean());
        for partition in 0..PARTITIONS {
            assert_eq!(broker.offsets(&name, partition).unwrap().high_watermark, 20);
        }
        broker.close().await.unwrap();
        drop(broker);
        let broker = Broker::open(options.clone()).unwrap();
        assert_eq!(
            broker.recovery().scanned_bytes,
            0,
            "closed in order, nothing is read"
        );
    }
}

#[tokio::test]
async fn partitions_nothing_was_written_to_are_whole_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions::new(dir.path().join("data"));
    let broker = Broker::open(options.clone()).unwrap();
    broker.create_topic("t", TopicConfig::new(3)).await.unwrap();
    broker.append("t", 1, batch("one")).await.unwrap();
    drop(broker);
    let broker = Broker::open(options).unwrap();
    let actions: Vec<RecoveryAction> = broker.recovery().actions().map(|(_, a)| a.clone()).collect();
    assert_eq!(actions, []);
    for (partition, end) in [(0, 0), (1, 1), (2, 0)] {
        assert_eq!(broker.offsets("t", partition).unwrap().end, end);
        assert_eq!(broker.append("t", partition, batch("x")).await.unwrap(), end);
    }
}
