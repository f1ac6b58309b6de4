//! Appending and reading, topics, groups, fencing and isolation, through the public API.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::{batch, drain, options, read};
use tidewater_broker::{
    BatchBuilder, Broker, BrokerOptions, Compression, Error, Isolation, Start, TopicConfig,
};

fn committed(broker: &Broker, partition: u32) -> Vec<String> {
    read(broker, "t", partition, Isolation::ReadCommitted)
        .into_iter()
        .map(|(_, v)| v)
        .collect()
}

#[tokio::test]
async fn what_is_appended_is_read_and_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    assert!(broker.recovery().is_clean());
    let mut config = TopicConfig::new(2);
    config
        .settings
        .insert("retention.ms".to_owned(), "1000".to_owned());
    let info = broker.create_topic("t", config).await.unwrap();
    assert_eq!(broker.append("t", 1, batch(&["a", "b"])).await.unwrap(), 0);
    assert_eq!(broker.append("t", 1, batch(&["c"])).await.unwrap(), 2);
    assert_eq!(read(&broker, "t", 1, Isolation::ReadCommitted).len(), 3);
    assert!(read(&broker, "t", 0, Isolation::ReadUncommitted).is_empty());
    broker.close().await.unwrap();
    assert!(matches!(
        broker.append("t", 1, batch(&["x"])).await,
        Err(Error::Closed)
    ));

    let broker = Broker::open(options(&dir)).unwrap();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(broker.recovery().scanned_bytes, 0);
    assert_eq!(broker.topic("t"), Some(info));
    assert_eq!(broker.append("t", 1, batch(&["d"])).await.unwrap(), 3);
    let values: Vec<_> = read(&broker, "t", 1, Isolation::ReadCommitted)
        .into_iter()
        .collect();
    let expected = [(0, "a"), (1, "b"), (2, "c"), (3, "d")];
    assert_eq!(values, expected.map(|(offset, value)| (offset, value.to_owned())));
}

#[tokio::test]
async fn topics_are_checked_and_deleted_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    for name in ["", ".", "a b", "ü", &"x".repeat(250)] {
        let created = broker.create_topic(name, TopicConfig::new(1)).await;
        assert!(matches!(created, Err(Error::InvalidTopic { .. })), "{name:?}");
    }
    assert!(matches!(
        broker.create_topic("t", TopicConfig::new(0)).await,
        Err(Error::InvalidTopic { .. })
    ));
    let mut config = TopicConfig::new(1);
    config
        .settings
        .insert("segment.bytes".to_owned(), "many".to_owned());
    assert!(matches!(
        broker.create_topic("t", config).await,
        Err(Error::InvalidOption { .. })
    ));

    let first = broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    assert!(matches!(
        broker.create_topic("t", TopicConfig::new(1)).await,
        Err(Error::TopicExists { .. })
    ));
    assert!(matches!(
        broker.append("u", 0, batch(&["x"])).await,
        Err(Error::UnknownTopic { .. })
    ));
    assert!(matches!(
        broker.append("t", 1, batch(&["x"])).await,
        Err(Error::UnknownPartition { .. })
    ));
    assert!(matches!(
        broker.append("t", 0, batch(&[])).await,
        Err(Error::EmptyBatch)
    ));
    let internal = broker.append("__consumer_offsets", 0, batch(&["x"])).await;
    assert!(matches!(internal, Err(Error::InternalTopic { .. })));

    // A reader that waits learns of the deletion, and a transaction that wrote to the topic.
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, batch(&["x"])).await.unwrap();
    let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
    let waiting = tokio::spawn(async move { reader.next(1024).await.map(|_| ()) });
    broker.delete_topic("t").await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(Error::TopicDeleted { .. })));
    assert!(broker.topic("t").is_none());
    assert!(matches!(
        transaction.append("t", 0, batch(&["x"])).await,
        Err(Error::UnknownTopic { .. })
    ));
    assert!(matches!(
        transaction.commit().await,
        Err(Error::TopicDeleted { .. })
    ));
    producer.begin().unwrap().commit().await.unwrap();
    let second = broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    assert_ne!(first.id, second.id);
    drop((broker, producer));
    let broker = Broker::open(options(&dir)).unwrap();
    assert_eq!(
        broker
            .topics()
            .iter()
            .filter(|t| t.name == "t")
            .map(|t| t.id)
            .collect::<Vec<_>>(),
        [second.id]
    );
}

#[tokio::test]
async fn a_waiting_reader_wakes_and_may_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let mut reader = broker
        .reader("t", 0, Start::Latest, Isolation::ReadCommitted)
        .unwrap();
    // A call that is dropped while it waits loses nothing.
    let waited = tokio::time::timeout(Duration::from_millis(1), reader.next(1024)).await;
    assert!(waited.is_err());
    let waiting = tokio::spawn(async move {
        let fetched = reader.next(1024).await.unwrap();
        let offsets: Vec<_> = fetched.records().map(|r| r.offset).collect();
        (offsets, reader.position())
    });
    tokio::task::yield_now().await;
    broker.append("t", 0, batch(&["a", "b"])).await.unwrap();
    assert_eq!(waiting.await.unwrap(), (vec![0, 1], 2));
}

#[tokio::test]
async fn reads_are_bounded_and_seek_within_batches() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let value = "v".repeat(1000);
    for _ in 0..20 {
        broker
            .append("t", 0, batch(&[&value, &value, &value]))
            .await
            .unwrap();
    }
    let mut reader = broker.reader("t", 0, 31, Isolation::ReadCommitted).unwrap();
    let mut expected = 31;
    while let Some(fetched) = reader.try_next(10_000).unwrap() {
        assert!(fetched.data().len() <= 10_000);
        for record in fetched.records() {
            assert_eq!(record.offset, expected);
            expected += 1;
        }
        assert_eq!((fetched.next_offset(), reader.position()), (expected, expected));
    }
    assert_eq!(expected, 60);
    // The first batch is given even if it is larger.
    reader.seek(1).unwrap();
    let fetched = reader.next(1).await.unwrap();
    assert_eq!(fetched.records().map(|r| r.offset).collect::<Vec<_>>(), [1, 2]);
    assert!(matches!(
        reader.seek(61),
        Err(Error::OffsetOutOfRange { end: 60, .. })
    ));
    assert_eq!(reader.position(), 3);
}

#[tokio::test]
async fn lz4_batches_read_back_within_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    for i in 0..10_u8 {
        let mut batch = BatchBuilder::new(Compression::Lz4);
        for j in 0..100_u8 {
            batch.push(i64::from(i), Some(&[i, j]), Some(&[i; 500]), &[("h", Some(&[j]))]);
        }
        broker.append("t", 0, batch).await.unwrap();
    }
    let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
    let mut seen = 0_u64;
    while let Some(fetched) = reader.try_next(120_000).unwrap() {
        assert!(
            fetched.len() <= 200,
            "two batches of 50 KB fit, not {}",
            fetched.len()
        );
        for record in fetched.records() {
            let (i, j) = ((seen / 100) as u8, (seen % 100) as u8);
            assert_eq!((record.offset, record.timestamp), (seen, i64::from(i)));
            assert_eq!(
                (record.key, record.value),
                (Some(&[i, j][..]), Some(&[i; 500][..]))
            );
            assert_eq!(record.headers().collect::<Vec<_>>(), [("h", Some(&[j][..]))]);
            seen += 1;
        }
    }
    assert_eq!(seen, 1000);
}

#[tokio::test]
async fn transactions_show_whole_and_in_order_of_the_last_stable_offset() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let (p, q) = (
        broker.producer("p").await.unwrap(),
        broker.producer("q").await.unwrap(),
    );

    let mut a = p.begin().unwrap();
    assert!(matches!(p.begin(), Err(Error::TransactionOpen { .. })));
    a.append("t", 0, batch(&["a1"])).await.unwrap();
    a.append("t", 1, batch(&["a2"])).await.unwrap();
    let mut b = q.begin().unwrap();
    b.append("t", 0, batch(&["b1"])).await.unwrap();
    broker.append("t", 0, batch(&["plain"])).await.unwrap();
    a.append("t", 0, batch(&["a3"])).await.unwrap();
    a.commit_group_offsets("g", &[("s", 0, 7)]).await.unwrap();

    assert!(committed(&broker, 0).is_empty());
    let done = b.commit().await.unwrap();
    assert_eq!(
        (done.partitions[0].base_offset, done.partitions[0].last_offset),
        (1, 1)
    );
    // b is committed, but a, which began before it, is open.
    assert!(committed(&broker, 0).is_empty());
    assert_eq!(broker.offsets("t", 0).unwrap().last_stable, 0);
    // What is uncommitted shows once it is durable, as the records up to "plain" are.
    let all: Vec<_> = read(&broker, "t", 0, Isolation::ReadUncommitted)
        .into_iter()
        .map(|(_, v)| v)
        .collect();
    assert_eq!(all[..3], ["a1", "b1", "plain"]);
    assert!(broker.group_offsets("g").is_empty());

    let done = a.commit().await.unwrap();
    assert_eq!(
        done.partitions.len(),
        2,
        "the topic of group offsets is not reported"
    );
    assert_eq!(committed(&broker, 0), ["a1", "b1", "plain", "a3"]);
    assert_eq!(committed(&broker, 1), ["a2"]);
    assert_eq!(broker.group_offsets("g")[&("s".to_owned(), 0)], 7);
}

#[tokio::test]
async fn aborted_transactions_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let (p, q) = (
        broker.producer("p").await.unwrap(),
        broker.producer("q").await.unwrap(),
    );
    let mut kept = q.begin().unwrap();
    kept.append("t", 0, batch(&["kept"])).await.unwrap();
    for how in ["abort", "drop"] {
        let mut t = p.begin().unwrap();
        t.append("t", 0, batch(&[how])).await.unwrap();
        t.commit_group_offsets("g", &[("s", 0, 7)]).await.unwrap();
        if how == "abort" {
            t.abort().await.unwrap();
        } else {
            drop(t);
        }
    }
    kept.commit().await.unwrap();
    broker.append("t", 0, batch(&["plain"])).await.unwrap();
    for _ in 0..2 {
        assert_eq!(committed(&broker, 0), ["kept", "plain"]);
    }
    assert!(broker.group_offsets("g").is_empty());

    // A reader at the end of aborted records moves past them without giving anything.
    let mut t = p.begin().unwrap();
    t.append("t", 0, batch(&["gone"])).await.unwrap();
    let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
    assert_eq!(drain(&mut reader).len(), 2);
    drop(t);
    broker.append("t", 0, batch(&["last"])).await.unwrap();
    assert_eq!(
        drain(&mut reader).into_iter().map(|(_, v)| v).collect::<Vec<_>>(),
        ["last"]
    );
    assert_eq!(reader.position(), broker.offsets("t", 0).unwrap().end);

    // After a clean stop and after a crash it is the same.
    broker.close().await.unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    assert_eq!(broker.recovery().scanned_bytes, 0);
    assert_eq!(committed(&broker, 0), ["kept", "plain", "last"]);
}

#[tokio::test]
async fn a_new_instance_fences_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let old = broker.producer("p").await.unwrap();
    let mut open = old.begin().unwrap();
    open.append("t", 0, batch(&["old"])).await.unwrap();

    let new = broker.producer("p").await.unwrap();
    assert_eq!((new.id(), new.epoch()), (old.id(), old.epoch() + 1));
    assert!(matches!(
        open.append("t", 0, batch(&["old"])).await,
        Err(Error::Fenced { current: 1, .. })
    ));
    assert!(matches!(
        open.commit_group_offsets("g", &[("s", 0, 1)]).await,
        Err(Error::Fenced { .. })
    ));
    assert!(matches!(open.commit().await, Err(Error::Fenced { .. })));
    assert!(matches!(old.begin(), Err(Error::Fenced { .. })));
    let mut t = new.begin().unwrap();
    t.append("t", 0, batch(&["new"])).await.unwrap();
    t.commit().await.unwrap();
    assert_eq!(committed(&broker, 0), ["new"]);

    drop((old, new));
    broker.close().await.unwrap();
    drop(broker);
    let broker = Broker::open(options(&dir)).unwrap();
    let next = broker.producer("p").await.unwrap();
    assert_eq!((next.id(), next.epoch()), (0, 2), "epochs survive");
    assert_eq!(broker.producer("q").await.unwrap().id(), 1);
}

#[tokio::test]
async fn group_offsets_survive_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker
        .commit_group_offsets("g", &[("t", 0, 5), ("t", 1, 6)])
        .await
        .unwrap();
    broker.commit_group_offsets("g", &[("t", 0, 9)]).await.unwrap();
    broker.commit_group_offsets("h", &[("t", 0, 1)]).await.unwrap();
    drop(broker);
    let broker = Broker::open(options(&dir)).unwrap();
    assert_eq!(
        broker.group_offsets("g").into_iter().collect::<Vec<_>>(),
        [(("t".to_owned(), 0), 9), (("t".to_owned(), 1), 6)]
    );
    assert_eq!(broker.groups(), ["g", "h"]);
    broker.delete_group_offsets("g").await.unwrap();
    assert_eq!(broker.groups(), ["h"]);
    broker.close().await.unwrap();
    drop(broker);
    let broker = Broker::open(options(&dir)).unwrap();
    assert!(broker.group_offsets("g").is_empty());
    assert_eq!(broker.group_offsets("h").len(), 1);
}

#[tokio::test]
async fn much_in_flight_waits_and_then_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(BrokerOptions {
        in_flight_bytes: 4096,
        ..options(&dir)
    })
    .unwrap();
    broker.create_topic("t", TopicConfig::new(4)).await.unwrap();
    let value = "v".repeat(900);
    let mut writers = Vec::new();
    for w in 0..4 {
        let (broker, value) = (broker.clone(), value.clone());
        writers.push(tokio::spawn(async move {
            let producer = broker.producer(&format!("p{w}")).await.unwrap();
            // The budget holds four of these batches; the transactions could never end if it were not given back
            // while they are open.
            let mut t = producer.begin().unwrap();
            for i in 0..40 {
                t.append("t", i % 4, batch(&[&value])).await.unwrap();
            }
            // And a batch above the whole budget goes through.
            t.append("t", w, batch(&[&value.repeat(10)])).await.unwrap();
            t.commit().await.unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let total: usize = (0..4).map(|p| committed(&broker, p).len()).sum();
    assert_eq!(total, 4 * 41);
}

#[tokio::test]
async fn the_directory_is_locked_and_its_format_checked() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    let Err(error) = Broker::open(options(&dir)) else {
        panic!("opened twice")
    };
    let Error::Locked { pid, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(
        error
            .to_string()
            .contains(&dir.path().join("data").display().to_string()),
        "{error}"
    );
    drop(broker);
    let format = dir.path().join("data/format");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "tidewater-log 1\n");
    std::fs::write(&format, "tidewater-log 2\n").unwrap();
    let Err(error) = Broker::open(options(&dir)) else {
        panic!("opened a newer format")
    };
    assert!(matches!(error, Error::Format { supported: 1, .. }), "{error}");
}

const SECOND: &str = "BROKER_SECOND_PROCESS_DIR";

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_has_closed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    let second = || {
        // What it says is kept back: where it opens, its test fails, as it is to.
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["second_process", "--exact", "--ignored", "--test-threads=1"])
            .env(SECOND, dir.path().join("data"))
            .env("BROKER_FIRST_PID", std::process::id().to_string())
            .output()
            .unwrap();
        output.status.success()
    };
    assert!(second(), "the second process was not refused");
    broker.close().await.unwrap();
    drop(broker);
    assert!(!second(), "it opens");
}

#[tokio::test]
#[ignore = "run by another test, as a process of its own: succeeds if it is refused"]
async fn second_process() {
    let dir = std::env::var(SECOND).unwrap();
    let first: u32 = std::env::var("BROKER_FIRST_PID").unwrap().parse().unwrap();
    let refused = Broker::open(BrokerOptions::new(dir)).map(drop);
    assert!(
        matches!(refused, Err(Error::Locked { pid: Some(pid), .. }) if pid == first),
        "{refused:?}"
    );
}

#[tokio::test]
async fn many_transactions_keep_the_transaction_log_short() {
    let dir = tempfile::tempdir().unwrap();
    let small = BrokerOptions {
        segment_bytes: 4096,
        ..options(&dir)
    };
    let broker = Broker::open(small.clone()).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let quiet = broker.producer("quiet").await.unwrap();
    let mut open = quiet.begin().unwrap();
    open.append("t", 1, batch(&["quiet"])).await.unwrap();
    open.commit().await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    for i in 0..600 {
        let mut t = producer.begin().unwrap();
        t.append("t", 0, batch(&[&i.to_string()])).await.unwrap();
        t.commit().await.unwrap();
    }
    drop((producer, quiet));
    broker.close().await.unwrap();
    drop(broker);
    let bytes: u64 = std::fs::read_dir(dir.path().join("data/transactions"))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert!(
        bytes < 60_000,
        "600 commit records of 150 bytes take 90 KB, the log has {bytes}"
    );
    let broker = Broker::open(small).unwrap();
    assert_eq!(committed(&broker, 0).len(), 600);
    assert_eq!(committed(&broker, 1), ["quiet"]);
    assert_eq!(broker.producer("p").await.unwrap().epoch(), 1);
    assert_eq!(broker.producer("quiet").await.unwrap().epoch(), 1);
}
