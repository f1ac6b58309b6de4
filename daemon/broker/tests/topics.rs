//! Topics: settings that are altered at run time, partitions that are added, deletion that leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{batch, options, read};
use tidewater_broker::{
    BatchBuilder, Broker, BrokerOptions, Compression, Error, Isolation, ManualClock, SettingSource,
    TopicConfig,
};

fn config(partitions: u32, settings: &[(&str, &str)]) -> TopicConfig {
    let mut config = TopicConfig::new(partitions);
    for (name, value) in settings {
        config.settings.insert((*name).to_owned(), (*value).to_owned());
    }
    config
}

#[tokio::test]
async fn settings_are_altered_durably_and_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir);
    options
        .topic_defaults
        .insert("retention.bytes".to_owned(), "1000000".to_owned());
    let broker = Broker::open(options.clone()).unwrap();
    let created = broker
        .create_topic("t", config(2, &[("retention.ms", "1000"), ("segment.ms", "9")]))
        .await
        .unwrap();

    let unknown = [("segment.ms", Some("5")), ("retention", Some("5"))];
    let refused = broker.alter_topic("t", &unknown).await;
    assert!(
        matches!(&refused, Err(Error::UnknownSetting { near, .. }) if near.contains("retention.ms")),
        "{refused:?}"
    );
    let unknown = [("segment.ms", None), ("segment.mss", None)];
    assert!(matches!(
        broker.alter_topic("t", &unknown).await,
        Err(Error::UnknownSetting { .. })
    ));
    let invalid = [("segment.ms", Some("5")), ("cleanup.policy", Some("drop"))];
    assert!(matches!(
        broker.alter_topic("t", &invalid).await,
        Err(Error::InvalidOption {
            name: "cleanup.policy",
            ..
        })
    ));
    assert_eq!(broker.topic("t"), Some(created.clone()), "nothing has changed");
    assert!(matches!(
        broker.alter_topic("u", &[]).await,
        Err(Error::UnknownTopic { .. })
    ));
    assert!(matches!(
        broker
            .alter_topic("__consumer_offsets", &[("cleanup.policy", Some("delete"))])
            .await,
        Err(Error::InternalTopic { .. })
    ));

    let changes = [
        ("segment.ms", None),
        ("retention.ms", Some("-1")),
        ("max.message.bytes", Some("200")),
    ];
    broker.alter_topic("t", &changes).await.unwrap();
    let expected = BTreeMap::from([
        ("max.message.bytes".to_owned(), "200".to_owned()),
        ("retention.ms".to_owned(), "-1".to_owned()),
    ]);
    for round in 0..2 {
        let broker = if round == 0 {
            broker.clone()
        } else {
            broker.close().await.unwrap();
            Broker::open(options.clone()).unwrap()
        };
        let described = broker.describe_topic("t").unwrap();
        assert_eq!((described.info.id, described.info.partitions), (created.id, 2));
        assert_eq!(described.info.settings, expected);
        assert_eq!(described.setting("segment.ms"), Some("604800000"));
        assert_eq!(described.setting("nonsense"), None);
        let from = |source| {
            let settings = described.settings.iter().filter(|s| s.source == source);
            settings.map(|s| s.name).collect::<Vec<_>>()
        };
        assert_eq!(from(SettingSource::Topic), ["max.message.bytes", "retention.ms"]);
        assert_eq!(from(SettingSource::Broker), ["retention.bytes"]);
        // In force at once, and after reopening.
        broker.append("t", 0, batch(&["small"])).await.unwrap();
        let large = batch(&[&"x".repeat(200)]);
        let refused = broker.append("t", 0, large).await;
        assert!(
            matches!(refused, Err(Error::BatchTooLarge { limit: 200, .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn the_time_of_the_append_takes_the_place_of_the_producers() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(5_000));
    let broker = Broker::open_with_clock(options(&dir), Arc::<ManualClock>::clone(&clock)).unwrap();
    broker
        .create_topic("t", config(1, &[("message.timestamp.type", "LogAppendTime")]))
        .await
        .unwrap();
    let records = || {
        let mut batch = BatchBuilder::new(Compression::Lz4);
        for timestamp in [10, 900_000, 20] {
            batch.push(timestamp, None, Some(&[b'v'; 100]), &[]);
        }
        batch
    };
    broker.append("t", 0, records()).await.unwrap();
    clock.set_wall_clock(4_000);
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, records()).await.unwrap();
    transaction.commit().await.unwrap();
    broker
        .alter_topic("t", &[("message.timestamp.type", None)])
        .await
        .unwrap();
    broker.append("t", 0, records()).await.unwrap();
    assert_eq!(broker.offset_for_time("t", 0, 5_001).await.unwrap(), Some(8));
    drop((producer, broker));

    let broker = Broker::open(options(&dir)).unwrap();
    let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
    let mut timestamps = Vec::new();
    while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
        timestamps.extend(fetched.records().map(|record| record.timestamp));
    }
    assert_eq!(
        timestamps,
        [5_000, 5_000, 5_000, 4_000, 4_000, 4_000, 10, 900_000, 20]
    );
}

#[tokio::test]
async fn partitions_are_added_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    let created = broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    broker.append("t", 1, batch(&["before"])).await.unwrap();
    for total in [0, 1, 2, 10_001] {
        assert!(matches!(
            broker.add_partitions("t", total).await,
            Err(Error::InvalidTopic { .. })
        ));
    }
    let added = broker.add_partitions("t", 5).await.unwrap();
    assert_eq!((added.id, added.partitions), (created.id, 5));
    broker.append("t", 4, batch(&["after"])).await.unwrap();
    assert!(matches!(
        broker.append("t", 5, batch(&["x"])).await,
        Err(Error::UnknownPartition { partitions: 5, .. })
    ));
    drop(broker);
    let broker = Broker::open(options(&dir)).unwrap();
    assert_eq!(broker.topic("t"), Some(added));
    for (partition, value) in [(1, "before"), (4, "after")] {
        let expected = [(0, value.to_owned())];
        assert_eq!(read(&broker, "t", partition, Isolation::ReadCommitted), expected);
    }
}

#[tokio::test]
async fn a_topic_created_again_inherits_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    let first = broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    broker.append("t", 0, batch(&["old"])).await.unwrap();
    broker
        .commit_group_offsets("g", &[("t", 0, 1), ("other", 0, 7)])
        .await
        .unwrap();
    // An offset that is under way when the topic goes.
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction
        .commit_group_offsets("h", &[("t", 0, 1)])
        .await
        .unwrap();
    broker.delete_topic("t").await.unwrap();
    // And one that comes late.
    broker.commit_group_offsets("late", &[("t", 0, 1)]).await.unwrap();
    let second = broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    assert_ne!(first.id, second.id);
    transaction.commit().await.unwrap();
    let check = |broker: &Broker| {
        assert_eq!(
            broker.group_offsets("g"),
            BTreeMap::from([(("other".to_owned(), 0), 7)])
        );
        assert!(broker.group_offsets("h").is_empty());
        assert!(broker.group_offsets("late").is_empty());
        assert!(read(broker, "t", 0, Isolation::ReadUncommitted).is_empty());
    };
    check(&broker);
    drop((producer, broker));
    let broker = Broker::open(options(&dir)).unwrap();
    check(&broker);
    let removed = fs::read_dir(dir.path().join("data/topics"))
        .unwrap()
        .all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".deleted"));
    assert!(removed);
}

#[tokio::test]
async fn a_crash_after_the_rename_forgets_the_offsets_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    let topics = dir.path().join("data/topics");
    let mut dirs = Vec::new();
    for name in ["gone", "again", "torn"] {
        let info = broker.create_topic(name, TopicConfig::new(1)).await.unwrap();
        broker.append(name, 0, batch(&["x"])).await.unwrap();
        dirs.push(topics.join(info.id.to_string()));
    }
    let offsets = [("gone", 0, 1), ("again", 0, 1), ("torn", 0, 1)];
    broker.commit_group_offsets("g", &offsets).await.unwrap();
    // Deleted while a copy of its files is kept, and created again: what is left of the first is no reason to forget
    // what is committed in the second.
    support::copy_dir(&dirs[1], &dirs[1].with_extension("copy"));
    broker.delete_topic("again").await.unwrap();
    broker.create_topic("again", TopicConfig::new(1)).await.unwrap();
    broker
        .commit_group_offsets("g", &[("again", 0, 5)])
        .await
        .unwrap();
    drop(broker);
    for (i, dir) in dirs.iter().enumerate() {
        let from = if i == 1 {
            dir.with_extension("copy")
        } else {
            dir.clone()
        };
        fs::rename(from, dir.with_extension("deleted")).unwrap();
    }
    // The files of this one were being removed.
    fs::remove_file(dirs[2].with_extension("deleted").join("topic.json")).unwrap();

    for _ in 0..2 {
        let broker = Broker::open(options(&dir)).unwrap();
        assert_eq!(
            broker.group_offsets("g"),
            BTreeMap::from([(("again".to_owned(), 0), 5), (("torn".to_owned(), 0), 1)])
        );
        let left = fs::read_dir(&topics)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some())
            .count();
        assert_eq!(left, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn topics_come_and_go_under_load() {
    const ROUNDS: usize = 30;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..3 {
        let (broker, stop) = (broker.clone(), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let producer = broker.producer(&format!("p{writer}")).await.unwrap();
            let group = format!("g{writer}");
            while !stop.load(Ordering::SeqCst) {
                let mut transaction = producer.begin().unwrap();
                let appended = transaction.append("t", writer % 2, batch(&["x"])).await;
                let expected = |e: &Error| {
                    matches!(
                        e,
                        Error::UnknownTopic { .. }
                            | Error::UnknownPartition { .. }
                            | Error::TopicDeleted { .. }
                    )
                };
                if let Err(error) = &appended {
                    assert!(expected(error), "{error}");
                }
                transaction
                    .commit_group_offsets(&group, &[("kept", 0, 1)])
                    .await
                    .unwrap();
                if let Err(error) = transaction.commit().await {
                    assert!(expected(&error), "{error}");
                }
                if let Ok(mut reader) = broker.reader("t", 0, 0, Isolation::ReadUncommitted)
                    && let Err(error) = reader.try_next(1 << 20)
                {
                    assert!(expected(&error), "{error}");
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    let mut ids = Vec::new();
    for round in 0..ROUNDS {
        let info = broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
        ids.push(info.id);
        assert!(broker.offsets("t", 0).unwrap().log_start == 0);
        broker.add_partitions("t", 2).await.unwrap();
        broker
            .alter_topic("t", &[("segment.bytes", Some("300"))])
            .await
            .unwrap();
        let appended = broker.append("t", 1, batch(&["mine"])).await.unwrap();
        broker
            .commit_group_offsets("mine", &[("t", 1, appended + 1)])
            .await
            .unwrap();
        if round + 1 < ROUNDS {
            broker.delete_topic("t").await.unwrap();
            assert!(broker.group_offsets("mine").is_empty());
        }
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ROUNDS, "each has an id of its own");
    let last = broker.topic("t");
    broker.close().await.unwrap();
    drop(broker);
    let broker = Broker::open(options(&dir)).unwrap();
    assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
    assert_eq!(broker.topic("t"), last);
    assert_eq!(broker.topics().len(), 2);
    assert_eq!(fs::read_dir(dir.path().join("data/topics")).unwrap().count(), 2);
}

#[tokio::test]
async fn the_offsets_of_groups_have_small_segments() {
    let dir = tempfile::tempdir().unwrap();
    let segment_bytes = |broker: &Broker| {
        let described = broker
            .describe_topic(tidewater_broker::GROUP_OFFSETS_TOPIC)
            .unwrap();
        described.setting("segment.bytes").unwrap().to_owned()
    };
    // All of them are read when the broker opens, and the last is not compacted.
    for _ in 0..2 {
        let broker = Broker::open(options(&dir)).unwrap();
        assert_eq!(segment_bytes(&broker), (16 << 20).to_string());
    }
    let small = BrokerOptions {
        segment_bytes: 5_000,
        ..BrokerOptions::new(dir.path().join("small"))
    };
    assert_eq!(segment_bytes(&Broker::open(small).unwrap()), "5000");
}
