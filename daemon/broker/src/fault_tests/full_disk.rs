//! No space for one kind of file at a time: what needs it is refused with an error that says so and leaves nothing
//! behind, all else goes on, reads above all; and once there is space everything works again by itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::crash_workload::batch;
use super::memory_disk::{MemoryDisk, Operation};
use crate::log::compaction::{Cleaned, CleanerLimits};
use crate::{
    BatchBuilder, Broker, BrokerOptions, Compression, Error, GROUP_OFFSETS_TOPIC, Isolation, Result, Start,
    TopicConfig,
};

const DIR: &str = "/tidewater";

fn open(disk: &MemoryDisk) -> Broker {
    let options = BrokerOptions {
        segment_bytes: 1_000,
        checkpoint_bytes: 2_000,
        index_interval_bytes: 300,
        flush_threads: 1,
        ..BrokerOptions::new(DIR)
    };
    Broker::open_on(Arc::new(disk.clone()), options).unwrap()
}

/// No space for what is written to or created under paths that contain `part`.
fn fill(disk: &MemoryDisk, part: &str) {
    let part = part.to_owned();
    disk.fail(move |operation, path| {
        let takes = matches!(operation, Operation::Write | Operation::Create);
        let full = takes && path.to_string_lossy().contains(&part);
        full.then(|| io::Error::from_raw_os_error(28))
    });
}

fn one(value: &str) -> BatchBuilder {
    batch(&[value.to_owned()])
}

fn value(n: usize) -> String {
    format!("{n} {}", "x".repeat(100))
}

async fn topic(broker: &Broker) -> PathBuf {
    let id = broker.create_topic("t", TopicConfig::new(2)).await.unwrap().id;
    Path::new(DIR).join("topics").join(id.to_string())
}

fn values(broker: &Broker, partition: u32) -> Vec<String> {
    let mut reader = broker
        .reader("t", partition, Start::Earliest, Isolation::ReadCommitted)
        .unwrap();
    let mut all = Vec::new();
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        all.extend(fetched.records().map(|r| text(r.value)));
    }
    all
}

#[track_caller]
fn refused<T>(result: Result<T>, part: &str) {
    match result {
        Err(Error::DiskFull { path, .. }) => {
            assert!(path.to_string_lossy().contains(part), "{}", path.display());
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("there is no space for it"),
    }
}

/// What a process finds that follows one that was killed.
fn killed(disk: &MemoryDisk) -> Broker {
    open(&disk.copy())
}

#[tokio::test]
async fn a_checkpoint_finds_no_space_and_writes_go_on() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    topic(&broker).await;
    fill(&disk, "checkpoint");
    let mut written = Vec::new();
    for n in 0..30 {
        broker.append("t", 0, one(&value(n))).await.unwrap();
        written.push(value(n));
    }
    assert_eq!(values(&broker, 0), written);
    let again = killed(&disk);
    assert_eq!(values(&again, 0), written);
    let all = again.recovery().scanned_bytes;
    drop(again);
    disk.heal();
    // The next sync writes the one that is due.
    let before = broker.metrics().broker.checkpoints;
    while broker.metrics().broker.checkpoints == before {
        broker.append("t", 0, one("small")).await.unwrap();
        written.push("small".to_owned());
    }
    let again = killed(&disk);
    assert_eq!(values(&again, 0), written);
    assert!(again.recovery().scanned_bytes < all);

    // Closing says that it could not, and loses nothing.
    fill(&disk, "checkpoint");
    broker.append("t", 0, one("last")).await.unwrap();
    written.push("last".to_owned());
    refused(broker.close().await, "checkpoint");
    drop(broker);
    disk.heal();
    let broker = open(&disk);
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(values(&broker, 0), written);
}

#[tokio::test]
async fn a_new_segment_finds_no_space() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    let dir = topic(&broker).await;
    let mut written = Vec::new();
    let partition = dir.join("0").to_string_lossy().into_owned();
    disk.fail(move |operation, path| {
        let first = path.ends_with("00000000000000000000.log");
        let full = operation == Operation::Create
            && !first
            && path.starts_with(&partition)
            && path.extension().is_some_and(|e| e == "log");
        full.then(|| io::Error::from_raw_os_error(28))
    });
    let mut n = 0;
    let error = loop {
        match broker.append("t", 0, one(&value(n))).await {
            Ok(_) => written.push(value(n)),
            Err(e) => break e,
        }
        n += 1;
    };
    assert!(written.len() > 3);
    refused::<()>(Err(error), ".log");
    // Again and again, and the other partition does not notice.
    for _ in 0..3 {
        refused(broker.append("t", 0, one(&value(n))).await, ".log");
        broker.append("t", 1, one("other")).await.unwrap();
    }
    assert_eq!(values(&broker, 0), written);
    assert_eq!(values(&killed(&disk), 0), written);
    disk.heal();
    assert_eq!(
        broker.append("t", 0, one(&value(n))).await.unwrap(),
        written.len() as u64
    );
    written.push(value(n));
    assert_eq!(values(&broker, 0), written);
    assert_eq!(values(&killed(&disk), 0), written);
    assert_eq!(values(&broker, 1).len(), 3);
}

#[tokio::test]
async fn a_commit_record_finds_no_space() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    topic(&broker).await;
    let producer = broker.producer("p").await.unwrap();
    let counting = broker.idempotent_producer().await.unwrap();
    for round in 0..3 {
        fill(&disk, "/transactions/");
        let mut transaction = producer.begin().unwrap();
        transaction.append("t", 0, one("lost")).await.unwrap();
        transaction.append("t", 1, one("lost")).await.unwrap();
        transaction
            .commit_group_offsets("g", &[("s", 0, 99)])
            .await
            .unwrap();
        refused(transaction.commit().await, "/transactions/");
        refused(broker.producer("other").await.map(drop), "/transactions/");
        // What needs no space there goes on.
        broker.append("t", 0, one("plain")).await.unwrap();
        counting
            .prepare("t", 1, one("counted"))
            .unwrap()
            .send()
            .await
            .unwrap();
        broker
            .commit_group_offsets("h", &[("s", 0, round)])
            .await
            .unwrap();
        let mut aborted = producer.begin().unwrap();
        aborted.append("t", 0, one("aborted")).await.unwrap();
        aborted.abort().await.unwrap();
        let check = |broker: &Broker| {
            assert!(
                !values(broker, 0)
                    .iter()
                    .chain(&values(broker, 1))
                    .any(|v| v == "lost" || v == "aborted")
            );
            assert_eq!(
                values(broker, 0).iter().filter(|v| *v == "plain").count() as u64,
                round + 1
            );
            assert_eq!(
                values(broker, 0).iter().filter(|v| *v == "both").count() as u64,
                round
            );
            let committed = broker.group_offsets("g").get(&("s".to_owned(), 0)).copied();
            assert_eq!(committed, round.checked_sub(1));
            assert_eq!(broker.group_offsets("h")[&("s".to_owned(), 0)], round);
        };
        check(&broker);
        check(&killed(&disk));
        disk.heal();
        let mut transaction = producer.begin().unwrap();
        transaction.append("t", 0, one("both")).await.unwrap();
        transaction.append("t", 1, one("both")).await.unwrap();
        transaction
            .commit_group_offsets("g", &[("s", 0, round)])
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        broker.producer("other").await.unwrap();
    }
    for partition in [0, 1] {
        assert_eq!(
            values(&broker, partition).iter().filter(|v| *v == "both").count(),
            3
        );
    }
}

#[tokio::test]
async fn markers_find_no_space_and_the_outcome_holds() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    let dir = topic(&broker).await;
    let producer = broker.producer("p").await.unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let mut aborted = producer.begin().unwrap();
        aborted.append("t", 0, one("aborted")).await.unwrap();
        fill(&disk, &dir.to_string_lossy());
        aborted.abort().await.unwrap();
        disk.heal();
        let mut transaction = producer.begin().unwrap();
        transaction.append("t", 0, one(&value(round))).await.unwrap();
        transaction.append("t", 1, one(&value(round))).await.unwrap();
        fill(&disk, &dir.to_string_lossy());
        transaction.commit().await.unwrap();
        expected.push(value(round));
        refused(
            broker.append("t", 0, one("no space")).await,
            &dir.to_string_lossy(),
        );
        for partition in [0, 1] {
            assert_eq!(values(&broker, partition), expected);
            assert_eq!(values(&killed(&disk), partition), expected);
        }
        disk.heal();
        broker.append("t", 0, one("plain")).await.unwrap();
        expected.push("plain".to_owned());
        assert_eq!(values(&broker, 0), expected);
        broker.append("t", 1, one("plain")).await.unwrap();
    }
    drop(producer);
    broker.close().await.unwrap();
    drop(broker);
    let broker = open(&disk);
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(
        (values(&broker, 0), values(&broker, 1)),
        (expected.clone(), expected)
    );
}

#[tokio::test]
async fn a_topic_finds_no_space() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    topic(&broker).await;
    let before = disk.files();
    let count = |disk: &MemoryDisk| {
        crate::disk::Disk::list(disk, &Path::new(DIR).join("topics"))
            .unwrap()
            .len()
    };
    let topics = count(&disk);
    for part in ["/topics/", "topic.tmp"] {
        fill(&disk, part);
        refused(broker.create_topic("u", TopicConfig::new(3)).await, "/topics/");
        refused(broker.add_partitions("t", 4).await, "/topics/");
        let altered = broker.alter_topic("t", &[("segment.ms", Some("1000"))]).await;
        refused(altered, "/topics/");
        assert!(broker.topic("u").is_none());
        let t = broker.describe_topic("t").unwrap();
        assert_eq!(t.info.partitions, 2);
        assert_ne!(t.setting("segment.ms"), Some("1000"));
        assert_eq!(disk.files(), before, "nothing is left behind");
        assert_eq!(count(&disk), topics);
        disk.heal();
    }
    broker.create_topic("u", TopicConfig::new(3)).await.unwrap();
    broker.add_partitions("t", 4).await.unwrap();
    broker
        .alter_topic("t", &[("segment.ms", Some("1000"))])
        .await
        .unwrap();
    broker.append("t", 3, one("x")).await.unwrap();
    let again = killed(&disk);
    assert_eq!(
        (again.topic("u"), again.topic("t")),
        (broker.topic("u"), broker.topic("t"))
    );
    assert!(again.recovery().is_clean(), "{:?}", again.recovery());
    assert_eq!(values(&again, 3), ["x"]);
}

#[tokio::test]
async fn a_groups_offsets_find_no_space() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    topic(&broker).await;
    let offsets = broker.topic(GROUP_OFFSETS_TOPIC).unwrap().id.to_string();
    let producer = broker.producer("p").await.unwrap();
    broker.commit_group_offsets("g", &[("t", 0, 7)]).await.unwrap();
    fill(&disk, &offsets);
    refused(broker.commit_group_offsets("g", &[("t", 0, 8)]).await, &offsets);
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, one("x")).await.unwrap();
    refused(
        transaction.commit_group_offsets("g", &[("t", 0, 9)]).await,
        &offsets,
    );
    // The transaction is as before.
    transaction.commit().await.unwrap();
    let check = |broker: &Broker, offset| {
        assert_eq!(broker.group_offsets("g")[&("t".to_owned(), 0)], offset);
        assert_eq!(values(broker, 0), ["x"]);
    };
    check(&broker, 7);
    check(&killed(&disk), 7);
    disk.heal();
    broker.commit_group_offsets("g", &[("t", 0, 8)]).await.unwrap();
    check(&broker, 8);
    check(&killed(&disk), 8);
}

#[tokio::test]
async fn deleting_a_topic_makes_space_for_the_record_that_forgets_it() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    let dir = topic(&broker).await;
    broker.append("t", 0, one("x")).await.unwrap();
    broker.commit_group_offsets("g", &[("t", 0, 1)]).await.unwrap();
    let freed = AtomicBool::new(false);
    disk.fail(move |operation, path| match operation {
        Operation::Remove if path.starts_with(dir.with_extension("deleted")) => {
            freed.store(true, Ordering::SeqCst);
            None
        }
        Operation::Write | Operation::Create if !freed.load(Ordering::SeqCst) => {
            Some(io::Error::from_raw_os_error(28))
        }
        _ => None,
    });
    broker.delete_topic("t").await.unwrap();
    assert!(broker.group_offsets("g").is_empty());
    assert!(killed(&disk).group_offsets("g").is_empty());
}

#[tokio::test]
async fn a_compaction_finds_no_space() {
    let disk = MemoryDisk::new();
    let broker = open(&disk);
    let settings = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0")];
    let config = TopicConfig {
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..TopicConfig::new(1)
    };
    broker.create_topic("t", config).await.unwrap();
    let keyed = |n: usize| {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(
            1,
            Some(format!("k{}", n % 3).as_bytes()),
            Some(value(n).as_bytes()),
            &[],
        );
        batch
    };
    let compact = || -> Result<Cleaned> {
        let stop = AtomicBool::new(false);
        let limits = CleanerLimits {
            key_bytes: 1 << 20,
            stop: &stop,
        };
        broker.log("t", 0).unwrap().compact(limits)
    };
    let last = |broker: &Broker| {
        let all = values(broker, 0);
        all[all.len() - 3..].to_vec()
    };
    let mut n = 0;
    for part in [".cleaned", "checkpoint"] {
        for _ in 0..30 {
            broker.append("t", 0, keyed(n)).await.unwrap();
            n += 1;
        }
        let before = values(&broker, 0);
        fill(&disk, part);
        refused(compact(), "/topics/");
        assert!(values(&broker, 0).ends_with(&before[before.len() - 3..]));
        assert!(part != ".cleaned" || values(&broker, 0) == before);
        // It takes writes, and another process finds all there is.
        broker.append("t", 0, keyed(n)).await.unwrap();
        n += 1;
        let expected: Vec<_> = (n - 3..n).map(value).collect();
        assert_eq!(last(&broker), expected);
        assert_eq!(last(&killed(&disk)), expected);
        disk.heal();
        compact().unwrap();
        assert!(values(&broker, 0).len() < before.len());
        assert_eq!(last(&broker), expected);
        assert_eq!(values(&killed(&disk), 0), values(&broker, 0));
        let unfinished = disk
            .files()
            .into_keys()
            .filter(|path| path.extension().is_some_and(|e| e == "cleaned"));
        assert_eq!(unfinished.count(), 0);
    }
}
