//! What there is once: the descriptions of topics, the directories, the transaction log.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::*;

#[tokio::test]
async fn the_description_of_a_topic_with_any_bit_wrong_is_not_believed() {
    let left = Left::new(0).await;
    let info = open(&left.disk).unwrap().topic("t").unwrap();
    let path = left.partition.parent().unwrap().join("topic.json");
    let size = left.disk.size(&path).unwrap() as usize;
    let refused = |disk: &MemoryDisk, what: &str| {
        let Err(Error::Damaged { path: found, .. }) = open(disk) else {
            panic!("opened: {what}")
        };
        assert_eq!(found, path, "{what}");
    };
    let mut same = 0;
    for bit in 0..size * 8 {
        let disk = left.disk.copy();
        flip(&disk, &path, bit);
        match open(&disk) {
            // A letter of the id in the other case.
            Ok(broker) => {
                assert_eq!(broker.topic("t").as_ref(), Some(&info), "bit {bit}");
                same += 1;
            }
            Err(Error::Damaged { path: found, .. }) => assert_eq!(found, path, "bit {bit}"),
            Err(e) => panic!("bit {bit}: {e}"),
        }
    }
    assert!(same <= 32, "{same} bits made no difference");
    for length in 0..size {
        let disk = left.disk.copy();
        disk.change(&path, |bytes| bytes.truncate(length));
        refused(&disk, &format!("{length} bytes"));
    }
    // Without it a topic does not exist, and is removed; not one that has records.
    left.disk.remove_file(&path).unwrap();
    refused(&left.disk, "missing");
    assert!(left.segments().len() > 4);
}

#[tokio::test]
async fn what_is_missing_is_reported_or_refused() {
    let left = Left::new(0).await;
    let disk = left.disk.copy();
    disk.remove_dir_all(&left.partition).unwrap();
    let broker = open(&disk).unwrap();
    let found = actions(&broker);
    assert_eq!(
        found,
        [RecoveryAction::PartitionLost {
            dir: left.partition.clone()
        }]
    );
    assert_eq!(broker.append("t", 0, one("next")).await.unwrap(), 0);
    for name in ["topics", "transactions"] {
        let disk = left.disk.copy();
        let dir = Path::new(DIR).join(name);
        disk.remove_dir_all(&dir).unwrap();
        let Err(Error::Damaged { path, .. }) = open(&disk) else {
            panic!("opened without {name}")
        };
        assert_eq!(path, dir);
    }
}

#[tokio::test]
async fn two_topics_of_one_name_are_refused() {
    let left = Left::new(0).await;
    let broker = open(&left.disk).unwrap();
    let other = broker.create_topic("u", TopicConfig::new(1)).await.unwrap();
    drop(broker);
    let topics = Path::new(DIR).join("topics");
    let path = topics.join(other.id.to_string()).join("topic.json");
    let mut second = crate::TopicInfo::new("t", 1, BTreeMap::default()).unwrap();
    second.id = other.id;
    second.store(&left.disk, &topics).unwrap();
    let refused = open(&left.disk).map(drop);
    assert!(matches!(&refused, Err(Error::Damaged { .. })), "{refused:?}");
    // One that was copied to another directory neither.
    let copy = topics.join("copy");
    left.disk.create_dir_all(&copy).unwrap();
    let json = left.disk.read(&path).unwrap();
    left.disk.remove_dir_all(path.parent().unwrap()).unwrap();
    let file = left.disk.open(&copy.join("topic.json"), OpenMode::Empty).unwrap();
    file.write_all_at(&json, 0).unwrap();
    let refused = open(&left.disk).map(drop);
    assert!(
        matches!(&refused, Err(Error::Damaged { path, .. }) if path.starts_with(&copy)),
        "{refused:?}"
    );
}

/// Transactions over two partitions and a group's offsets, closed cleanly.
async fn transactions() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    for n in 0..3 {
        let mut transaction = producer.begin().unwrap();
        transaction.append("t", 0, one(&value(n))).await.unwrap();
        transaction.append("t", 1, one(&value(n))).await.unwrap();
        transaction
            .commit_group_offsets("g", &[("s", 0, n as u64)])
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    drop(producer);
    broker.close().await.unwrap();
    disk
}

#[tokio::test]
async fn a_transaction_log_with_any_bit_wrong_is_refused() {
    let disk = transactions().await;
    let log = Path::new(DIR).join("transactions/00000000000000000000.log");
    let size = disk.size(&log).unwrap() as usize;
    for bit in (0..size * 8).filter(|bit| *bit < HEADER_BYTES * 8 || bit % 7 == 0) {
        let disk = disk.copy();
        flip(&disk, &log, bit);
        let refused = open(&disk).map(drop);
        assert!(
            matches!(&refused, Err(Error::Corrupt { path, .. }) if *path == log),
            "bit {bit}: {refused:?}"
        );
        assert_eq!(disk.size(&log).unwrap() as usize, size, "bit {bit}");
    }
    for length in 0..size {
        let disk = disk.copy();
        disk.change(&log, |bytes| bytes.truncate(length));
        let refused = open(&disk).map(drop);
        assert!(
            matches!(&refused, Err(Error::Corrupt { .. })),
            "{length} bytes: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_transaction_log_is_read_without_its_checkpoint() {
    let disk = transactions().await;
    let checkpoint = Path::new(DIR).join("transactions/checkpoint");
    let size = disk.size(&checkpoint).unwrap() as usize;
    for bit in 0..size * 8 {
        if bit % 13 != 0 {
            continue;
        }
        let disk = disk.copy();
        flip(&disk, &checkpoint, bit);
        let broker = open(&disk).unwrap();
        assert!(
            matches!(&actions(&broker)[..], [RecoveryAction::CheckpointLost { .. }]),
            "bit {bit}"
        );
        assert_eq!(read(&broker, 0).0.len(), 3, "bit {bit}");
        assert_eq!(broker.group_offsets("g")[&("s".to_owned(), 0)], 2, "bit {bit}");
        assert_eq!(broker.producer("p").await.unwrap().epoch(), 1, "bit {bit}");
    }
}

#[tokio::test]
async fn a_transaction_log_without_its_beginning_is_refused() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let transactions = Path::new(DIR).join("transactions");
    let segments = |disk: &MemoryDisk| {
        let files = disk.files().into_keys();
        let logs = files
            .filter(|path| path.starts_with(&transactions) && path.extension().is_some_and(|e| e == "log"));
        logs.collect::<Vec<_>>()
    };
    // What is void stays, to be taken away by hand.
    disk.fail(|operation, _| (operation == Operation::Remove).then(|| io::Error::from_raw_os_error(5)));
    let mut n = 0;
    while segments(&disk).len() < 2 {
        broker.producer(&format!("p{n}")).await.unwrap();
        n += 1;
    }
    drop(broker);
    disk.heal();
    let segments = segments(&disk);
    disk.remove_file(&segments[0]).unwrap();
    disk.remove_file(&transactions.join("checkpoint")).ok();
    // All that holds was written again in the second.
    let broker = open(&disk.copy()).unwrap();
    assert_eq!(broker.producer("p0").await.unwrap().epoch(), 1);
    drop(broker);
    // Unless that was torn.
    let first = header_at(disk.open(&segments[1], OpenMode::Existing).unwrap().as_ref(), 0);
    let length = first.unwrap().unwrap().length;
    disk.change(&segments[1], |bytes| bytes.truncate(length));
    let refused = open(&disk).map(drop);
    let Err(Error::Corrupt { reason, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains("before"), "{reason}");
}
