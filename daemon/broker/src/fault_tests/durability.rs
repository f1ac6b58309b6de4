//! What `durability` promises: `os` waits for no sync and survives the end of the process, `fsync` that of the machine.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;

use super::crash_workload::batch;
use super::memory_disk::{MemoryDisk, Operation};
use super::power_failure::{Kept, Replay};
use crate::topic_settings::TopicSettings;
use crate::{
    BatchBuilder, Broker, BrokerOptions, Durability, Error, Isolation, Start, TopicConfig, TopicInfo,
};

fn options(durability: Durability) -> BrokerOptions {
    BrokerOptions {
        durability,
        checkpoint_bytes: 2_000,
        segment_bytes: 8_000,
        in_flight_bytes: 500,
        flush_threads: 1,
        ..BrokerOptions::new("/tidewater")
    }
}

fn open(disk: &MemoryDisk) -> Broker {
    Broker::open_on(Arc::new(disk.clone()), options(Durability::Fsync)).unwrap()
}

async fn create(broker: &Broker, name: &str, durability: &str) -> TopicInfo {
    let config = TopicConfig {
        partitions: 1,
        settings: BTreeMap::from([("durability".to_owned(), durability.to_owned())]),
    };
    broker.create_topic(name, config).await.unwrap()
}

fn one(value: &str) -> BatchBuilder {
    batch(&[value.to_owned()])
}

fn values(broker: &Broker, topic: &str) -> Vec<String> {
    let mut reader = broker
        .reader(topic, 0, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut all = Vec::new();
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        all.extend(fetched.records().map(|r| text(r.value)));
    }
    all
}

/// Fails, and counts, the syncs of files of a topic.
fn fail_syncs(disk: &MemoryDisk, topic: &TopicInfo) -> Arc<AtomicUsize> {
    let (id, count) = (topic.id.to_string(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    disk.fail(move |operation, path| {
        let fails = operation == Operation::Sync && path.to_string_lossy().contains(&id);
        fails.then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            io::Error::from_raw_os_error(5)
        })
    });
    count
}

fn set_durability(broker: &Broker, topic: &str, durability: Durability) {
    let settings = TopicSettings::of_broker(&options(durability)).unwrap();
    broker.log(topic, 0).unwrap().set_settings(Arc::new(settings));
}

#[tokio::test]
async fn os_acknowledges_what_is_written_and_syncs_nothing() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    let topic = create(&broker, "t", "os").await;
    let syncs = fail_syncs(&disk, &topic);
    let mut reader = broker
        .reader("t", 0, Start::Latest, Isolation::ReadCommitted)
        .unwrap();
    // More than the budget of bytes in flight: what is not to be synced takes none of it.
    for i in 0..10 {
        let value = format!("{i}{}", "x".repeat(100));
        assert_eq!(broker.append("t", 0, one(&value)).await.unwrap(), i);
        let fetched = reader
            .try_next(1 << 20)
            .unwrap()
            .expect("visible once acknowledged");
        assert_eq!(fetched.next_offset(), i + 1);
    }
    assert_eq!(syncs.load(Ordering::SeqCst), 0);
    assert_eq!(broker.offsets("t", 0).unwrap().high_watermark, 10);

    // A checkpoint says what is on disk: it comes after a sync, whose failure stops the log as any other.
    while syncs.load(Ordering::SeqCst) == 0 {
        match broker.append("t", 0, one(&"y".repeat(500))).await {
            Ok(_) | Err(Error::LogFailed { .. }) => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    }
    while broker.append("t", 0, one("z")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        values(&broker, "t")[0].len(),
        101,
        "what was acknowledged is still read"
    );
}

#[tokio::test]
async fn under_fsync_again_nothing_is_acknowledged_before_all_of_it_is_on_disk() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    let topic = create(&broker, "t", "os").await;
    broker.append("t", 0, one("a")).await.unwrap();
    set_durability(&broker, "t", Durability::Fsync);
    broker.append("t", 0, one("b")).await.unwrap();
    let log = broker.log("t", 0).unwrap();
    assert_eq!(
        log.synced_to(),
        2,
        "what was acknowledged before is on disk with it"
    );

    set_durability(&broker, "t", Durability::Os);
    broker.append("t", 0, one("c")).await.unwrap();
    assert_eq!(log.synced_to(), 2);
    fail_syncs(&disk, &topic);
    set_durability(&broker, "t", Durability::Fsync);
    let refused = broker.append("t", 0, one("d")).await;
    assert!(matches!(refused, Err(Error::LogFailed { .. })), "{refused:?}");
    assert_eq!(values(&broker, "t"), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_transaction_over_both_is_whole_after_a_crash_and_durable_where_it_is_synced() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    create(&broker, "os", "os").await;
    create(&broker, "synced", "fsync").await;
    let producer = broker.producer("p").await.unwrap();
    for value in ["a", "b"] {
        let mut transaction = producer.begin().unwrap();
        transaction.append("os", 0, one(value)).await.unwrap();
        transaction.append("synced", 0, one(value)).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let mut open_one = producer.begin().unwrap();
    open_one.append("os", 0, one("c")).await.unwrap();
    assert_eq!(values(&broker, "os"), ["a", "b"]);
    let end = disk.now();
    let (base, history) = disk.history();

    // The process ends: all of it is there.
    let crashed = MemoryDisk::after(&base, &history);
    let again = open(&crashed);
    assert_eq!(
        (values(&again, "os"), values(&again, "synced")),
        (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()])
    );
    drop(again);

    // The machine ends: what is synced is there, and of the rest a beginning.
    let mut replay = Replay::new(&base, &history);
    replay.advance(end);
    let mut lost = 0;
    for kept in Kept::EACH {
        let again = open(&replay.power_failure(kept, &mut Rng::with_seed(1)));
        assert_eq!(values(&again, "synced"), ["a", "b"], "{kept:?}");
        let rest = values(&again, "os");
        assert!(
            ["a", "b"].starts_with(&rest.iter().map(String::as_str).collect::<Vec<_>>()),
            "{kept:?}: {rest:?}"
        );
        lost += 2 - rest.len();
    }
    assert!(lost > 0, "some state of the disk lacks it");
    drop((open_one, producer, broker));
}

#[tokio::test]
async fn a_power_failure_before_the_first_checkpoint_leaves_a_beginning_of_the_log() {
    let disk = MemoryDisk::new();
    let options = BrokerOptions {
        checkpoint_bytes: 1 << 30,
        ..options(Durability::Fsync)
    };
    let broker = Broker::open_on(Arc::new(disk.clone()), options).unwrap();
    let topic = create(&broker, "t", "os").await;
    let begun = disk.now();
    // Nothing asks for a sync before the first segment is full.
    let written: Vec<String> = (0..25).map(|i| format!("{i}{}", "x".repeat(900))).collect();
    for value in &written {
        broker.append("t", 0, one(value)).await.unwrap();
    }
    broker.close().await.unwrap();
    drop(broker);
    let id = topic.id.to_string();
    let names = disk
        .files()
        .into_keys()
        .filter(|path| path.to_string_lossy().contains(&id));
    let segments = names
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .count();
    assert!(segments >= 3, "{segments} segments");

    let (base, history) = disk.history();
    let mut replay = Replay::new(&base, &history);
    for at in begun..=history.len() {
        replay.advance(at);
        for seed in 0..40 {
            let again = open(&replay.power_failure(Kept::Some, &mut Rng::with_seed(seed)));
            let offsets = again.offsets("t", 0).unwrap();
            assert_eq!(
                offsets.log_start,
                0,
                "after event {at}, seed {seed}: {:?}",
                again.recovery()
            );
            let left = values(&again, "t");
            assert!(written.starts_with(&left), "after event {at}, seed {seed}");
        }
    }
}
