//! A full disk: writes are refused with a clear error and leave nothing behind, reads go on, and once there is space
//! so do writes.
//!
//! The full disk is real: a small tmpfs where the test may mount one, else a limit on the size of files, set in a
//! process of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{batch, read};
use tidewater_broker::{Broker, BrokerOptions, Error, Isolation, TopicConfig};

const DIR: &str = "BROKER_DISK_FULL_DIR";

fn values(broker: &Broker, partition: u32) -> Vec<String> {
    read(broker, "t", partition, Isolation::ReadCommitted)
        .into_iter()
        .map(|(_, v)| v)
        .collect()
}

/// Fills the disk of `dir` until it refuses, then calls `make_space`. With `nothing_left` not even a small new file finds
/// space.
async fn fill_and_go_on(dir: &Path, nothing_left: bool, make_space: impl FnOnce()) {
    let options = BrokerOptions {
        segment_bytes: 100_000,
        checkpoint_bytes: 50_000,
        ..BrokerOptions::new(dir)
    };
    let broker = Broker::open(options.clone()).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    broker.append("t", 1, batch(&["first"])).await.unwrap();

    // A transaction is open when space runs out, with records in both partitions.
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["open"])).await.unwrap();
    transaction.append("t", 1, batch(&["open"])).await.unwrap();
    let (large, small) = ("x".repeat(7_000), "y".repeat(30));
    let mut written = Vec::new();
    // Large ones until they do not fit, then small ones: not even a marker fits in the end.
    for value in [&large, &small] {
        let refused = loop {
            assert!(written.len() < 100_000, "the disk does not fill");
            match broker.append("t", 0, batch(&[value])).await {
                Ok(_) => written.push(value.clone()),
                Err(e) => break e,
            }
        };
        let Error::DiskFull { path, free } = &refused else {
            panic!("{refused}")
        };
        assert!(path.starts_with(dir), "{}", path.display());
        let text = refused.to_string();
        assert!(
            text.contains(&free.to_string()) && text.contains("free or add space"),
            "{text}"
        );
    }

    // A batch of the transaction is refused; the transaction is as before.
    let more = transaction.append("t", 0, batch(&[&large])).await;
    assert!(matches!(more, Err(Error::DiskFull { .. })), "{more:?}");
    // Small as it is, a commit record may still fit into the last page of its file.
    let committed = match transaction.commit().await {
        Ok(_) => true,
        Err(Error::DiskFull { .. }) => false,
        Err(e) => panic!("{e}"),
    };
    // Even if there is no space for the markers it is decided, in both partitions alike, and what others wrote shows.
    let open = |committed: bool| {
        if committed {
            vec!["open".to_owned()]
        } else {
            Vec::new()
        }
    };
    written = [open(committed), written].concat();
    let mut second = [vec!["first".to_owned()], open(committed)].concat();
    assert_eq!(values(&broker, 0), written);
    assert_eq!(values(&broker, 1), second);

    let mut offset = 0;
    if nothing_left {
        let full = |result: Result<_, Error>| match result {
            Ok(()) => false,
            Err(Error::DiskFull { .. }) => true,
            Err(e) => panic!("{e}"),
        };
        assert!(full(
            broker.create_topic("u", TopicConfig::new(3)).await.map(drop)
        ));
        assert!(full(broker.add_partitions("t", 3).await.map(drop)));
        let hour = [("retention.ms", Some("3600000"))];
        assert!(full(broker.alter_topic("t", &hour).await.map(drop)));
        // A few fit into the last page of the file.
        while !full(broker.commit_group_offsets("f", &[("t", 0, offset + 1)]).await) {
            offset += 1;
            assert!(offset < 1_000);
        }
        while !full(broker.idempotent_producer().await.map(drop)) {}
        while !full(broker.producer("another").await.map(drop)) {}
        assert!(broker.topic("u").is_none());
        assert_eq!(broker.topic("t").unwrap().partitions, 2);
    }

    make_space();
    if nothing_left {
        broker.create_topic("u", TopicConfig::new(3)).await.unwrap();
        broker.idempotent_producer().await.unwrap();
        broker.producer("another").await.unwrap();
        let committed = broker.group_offsets("f").get(&("t".to_owned(), 0)).copied();
        assert_eq!(committed.unwrap_or(0), offset);
        broker
            .commit_group_offsets("f", &[("t", 0, 5_000)])
            .await
            .unwrap();
    }
    broker.append("t", 0, batch(&[&large])).await.unwrap();
    written.push(large.clone());
    assert_eq!(values(&broker, 0), written);
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["later"])).await.unwrap();
    transaction.append("t", 1, batch(&["later"])).await.unwrap();
    transaction
        .commit_group_offsets("g", &[("s", 0, 2)])
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    written.push("later".to_owned());
    drop(producer);
    for _ in 0..2 {
        let broker = Broker::open(options.clone());
        assert!(matches!(broker, Err(Error::Locked { .. })));
    }
    assert_eq!(values(&broker, 0), written);
    broker.close().await.unwrap();
    drop(broker);

    let broker = Broker::open(options).unwrap();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(values(&broker, 0), written);
    second.push("later".to_owned());
    assert_eq!(values(&broker, 1), second);
    assert_eq!(broker.group_offsets("g")[&("s".to_owned(), 0)], 2);
}

/// A mounted file system, unmounted when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let size = c"size=1m";
    if mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(size)).is_ok() {
        let mounted = Mounted(dir.path().to_owned());
        let ballast = mounted.0.join("ballast");
        fs::write(&ballast, vec![0; 300_000]).unwrap();
        fill_and_go_on(&mounted.0.join("data"), true, || {
            fs::remove_file(&ballast).unwrap();
        })
        .await;
    } else {
        limited_in_a_process_of_its_own(dir.path());
    }
}

#[tokio::test]
async fn deleting_a_topic_makes_space_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let size = c"size=1m";
    if mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(size)).is_err() {
        // Nothing smaller than the disk of the machine can be filled here.
        return;
    }
    let mounted = Mounted(dir.path().to_owned());
    let options = BrokerOptions {
        segment_bytes: 100_000,
        ..BrokerOptions::new(mounted.0.join("data"))
    };
    let broker = Broker::open(options.clone()).unwrap();
    for name in ["t", "u"] {
        broker.create_topic(name, TopicConfig::new(1)).await.unwrap();
    }
    broker.append("u", 0, batch(&["kept"])).await.unwrap();
    // To be forgotten with the topic, for which a record is written.
    broker.commit_group_offsets("g", &[("t", 0, 1)]).await.unwrap();
    for value in ["x".repeat(7_000), "y".repeat(30)] {
        let refused = loop {
            match broker.append("t", 0, batch(&[&value])).await {
                Ok(written) => assert!(written < 100_000, "the disk does not fill"),
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    }
    while broker.commit_group_offsets("h", &[("u", 0, 1)]).await.is_ok() {}
    broker.delete_topic("t").await.unwrap();
    broker
        .append("u", 0, batch(&[&"z".repeat(300_000)]))
        .await
        .unwrap();
    assert!(broker.group_offsets("g").is_empty());
    broker.close().await.unwrap();
    drop(broker);
    let broker = Broker::open(options).unwrap();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(read(&broker, "u", 0, Isolation::ReadCommitted).len(), 2);
}

#[tokio::test]
async fn a_broker_opens_on_a_full_disk_and_serves_reads() {
    let dir = tempfile::tempdir().unwrap();
    let size = c"size=1m";
    if mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(size)).is_err() {
        // Nothing smaller than the disk of the machine can be filled here.
        return;
    }
    let mounted = Mounted(dir.path().to_owned());
    let options = BrokerOptions::new(mounted.0.join("data"));
    let ballast = mounted.0.join("ballast");
    fs::write(&ballast, vec![0; 300_000]).unwrap();
    let broker = Broker::open(options.clone()).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    broker.append("t", 0, batch(&["first"])).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let mut committed = producer.begin().unwrap();
    committed.append("t", 1, batch(&["committed"])).await.unwrap();
    committed.commit().await.unwrap();
    // Open when the process ends, to be aborted by the next.
    let mut open = producer.begin().unwrap();
    open.append("t", 1, batch(&["open"])).await.unwrap();
    broker.append("t", 1, batch(&["behind"])).await.unwrap();
    for value in ["x".repeat(7_000), "y".repeat(30)] {
        while broker.append("t", 0, batch(&[&value])).await.is_ok() {}
    }
    while broker.append("t", 1, batch(&["z"])).await.is_ok() {}
    let ended = dir.path().join("data-of-the-process-that-ended");
    fs::rename(mounted.0.join("data"), &ended).unwrap();
    let options = BrokerOptions {
        data_dir: ended,
        ..options
    };
    let expected = [0, 1].map(|partition| values(&broker, partition));
    assert_eq!(
        expected[1].len(),
        1,
        "what is behind the open transaction waits for its end"
    );
    drop((open, producer, broker));

    let broker = Broker::open(options.clone()).unwrap();
    assert_eq!(values(&broker, 0), expected[0]);
    let second = values(&broker, 1);
    assert_eq!(second[..2], ["committed", "behind"]);
    let refused = broker.append("t", 0, batch(&[&"x".repeat(7_000)])).await;
    assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    fs::remove_file(&ballast).unwrap();
    broker.append("t", 0, batch(&["more"])).await.unwrap();
    broker.append("t", 1, batch(&["more"])).await.unwrap();
    broker.close().await.unwrap();
    drop(broker);
    let broker = Broker::open(options).unwrap();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(values(&broker, 1), [second, vec!["more".to_owned()]].concat());
    assert!(!values(&broker, 1).contains(&"open".to_owned()));
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    limited_in_a_process_of_its_own(dir.path());
}

/// Runs [`limited_process`] with files of at most 64 KiB. The shell has it ignore the signal that goes with the limit.
fn limited_in_a_process_of_its_own(dir: &Path) {
    let run =
        "trap '' XFSZ; ulimit -S -f 128; exec \"$0\" limited_process --exact --ignored --test-threads=1";
    let status = Command::new("sh")
        .args(["-c", run])
        .arg(env::current_exe().unwrap())
        .env(DIR, dir)
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
#[ignore = "run by the tests of the full disk, as a process with a limit on the size of files"]
async fn limited_process() {
    let dir = PathBuf::from(env::var(DIR).unwrap());
    let limit = getrlimit(Resource::Fsize);
    assert!(limit.current.is_some_and(|bytes| bytes <= 65_536), "{limit:?}");
    let raise = || {
        let limit = getrlimit(Resource::Fsize);
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )
        .unwrap();
    };
    fill_and_go_on(&dir.join("data"), false, raise).await;
}
