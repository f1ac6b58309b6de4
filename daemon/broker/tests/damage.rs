//! What is done about files that are not as they were left: torn ends are cut, damage is reported, indexes rebuilt.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{batch, copy_dir, options, read};
use tidewater_broker::{Broker, BrokerOptions, Error, Isolation, RecoveryAction, TopicConfig};
use uuid::Uuid;

fn open(dir: &Path) -> Broker {
    Broker::open(BrokerOptions {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        ..BrokerOptions::new(dir)
    })
    .unwrap()
}

fn partition(dir: &Path, topic: Uuid) -> PathBuf {
    dir.join("topics").join(topic.to_string()).join("0")
}

fn segments(dir: &Path, topic: Uuid) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(partition(dir, topic))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "log"));
    files.sort();
    files
}

fn values(broker: &Broker) -> Vec<String> {
    read(broker, "t", 0, Isolation::ReadCommitted)
        .into_iter()
        .map(|(_, v)| v)
        .collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// One segment of five batches of two records, not closed cleanly, and where the batches end.
async fn five_batches(dir: &Path) -> (Uuid, Vec<usize>) {
    let broker = Broker::open(BrokerOptions::new(dir)).unwrap();
    let id = broker.create_topic("t", TopicConfig::new(1)).await.unwrap().id;
    let mut ends = vec![0];
    for i in 0..5 {
        broker
            .append("t", 0, batch(&[&format!("{i}a"), &format!("{i}b")]))
            .await
            .unwrap();
        ends.push(fs::metadata(&segments(dir, id)[0]).unwrap().len() as usize);
    }
    (id, ends)
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_to_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let (id, ends) = five_batches(&origin).await;
    for length in ends[3]..ends[5] {
        let copy = dir.path().join("copy");
        copy_dir(&origin, &copy);
        let segment = segments(&copy, id).remove(0);
        fs::File::options()
            .write(true)
            .open(&segment)
            .unwrap()
            .set_len(length as u64)
            .unwrap();

        let broker = open(&copy);
        let whole = ends.iter().rposition(|end| *end <= length).unwrap();
        assert_eq!(values(&broker).len(), 2 * whole, "cut at byte {length}");
        let torn = length - ends[whole];
        let actions: Vec<_> = broker
            .recovery()
            .actions()
            .map(|(p, action)| (p.topic.as_str(), action))
            .collect();
        if torn == 0 {
            assert!(actions.is_empty(), "{actions:?}");
        } else {
            let [
                (
                    "t",
                    RecoveryAction::TailCut {
                        file,
                        position,
                        bytes,
                        offset,
                        ..
                    },
                ),
            ] = &actions[..]
            else {
                panic!("{actions:?}")
            };
            assert_eq!(
                (file, *position, *bytes),
                (&segment, ends[whole] as u64, torn as u64)
            );
            assert_eq!(*offset, 2 * whole as u64);
        }
        assert_eq!(
            broker.append("t", 0, batch(&["next"])).await.unwrap(),
            2 * whole as u64
        );
        broker.close().await.unwrap();
        drop(broker);
        let broker = open(&copy);
        assert!(broker.recovery().is_clean());
        assert_eq!(values(&broker).last().unwrap(), "next");
        drop(broker);
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[tokio::test]
async fn a_garbled_tail_is_cut_whichever_byte_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let (id, ends) = five_batches(&origin).await;
    for at in ends[4]..ends[5] {
        let copy = dir.path().join("copy");
        copy_dir(&origin, &copy);
        flip(&segments(&copy, id)[0], at);
        let broker = open(&copy);
        assert_eq!(values(&broker).len(), 8, "byte {at}");
        assert!(matches!(
            broker.recovery().actions().next().unwrap().1,
            RecoveryAction::TailCut { .. }
        ));
        drop(broker);
        fs::remove_dir_all(&copy).unwrap();
    }
}

/// A log of several segments, closed cleanly; its topic and values.
async fn closed_log(dir: &Path) -> (Uuid, Vec<String>) {
    let broker = open(dir);
    let id = broker.create_topic("t", TopicConfig::new(1)).await.unwrap().id;
    let mut all = Vec::new();
    for i in 0..60 {
        let pair = [format!("{i}a"), format!("{i}b")];
        broker.append("t", 0, batch(&[&pair[0], &pair[1]])).await.unwrap();
        all.extend(pair);
    }
    broker.close().await.unwrap();
    assert!(segments(dir, id).len() > 4);
    (id, all)
}

#[tokio::test]
async fn damage_before_the_checkpoint_is_reported_and_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let (id, all) = closed_log(&origin).await;
    // A byte of each field of a batch header, and of its records.
    for field in [0, 7, 8, 11, 12, 16, 17, 21, 23, 27, 35, 43, 51, 53, 57, 61, 70] {
        let copy = dir.path().join("copy");
        copy_dir(&origin, &copy);
        let files = segments(&copy, id);
        let size = fs::metadata(&files[1]).unwrap().len();
        flip(&files[1], field);

        let broker = open(&copy);
        assert!(
            broker.recovery().is_clean(),
            "old segments are not read when opening"
        );
        let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
        let mut good = 0;
        let error = loop {
            match reader.next(1 << 20).await {
                Ok(fetched) => good += fetched.len(),
                Err(e) => break e,
            }
        };
        let first: u64 = files[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(good as u64, first, "all before the damage is read");
        let Error::Corrupt {
            path,
            partition: 0,
            offset,
            ..
        } = &error
        else {
            panic!("field {field}: {error}")
        };
        assert_eq!((path, *offset), (&files[1], first));
        assert!(
            matches!(reader.try_next(1 << 20), Err(Error::Corrupt { .. })),
            "and stays refused"
        );
        // What follows can be read, and the log goes on.
        let after: u64 = files[2].file_stem().unwrap().to_str().unwrap().parse().unwrap();
        reader.seek(after).unwrap();
        assert_eq!(support::drain(&mut reader).len() as u64, all.len() as u64 - after);
        assert_eq!(
            broker.append("t", 0, batch(&["next"])).await.unwrap(),
            all.len() as u64
        );
        assert_eq!(fs::metadata(&files[1]).unwrap().len(), size);
        drop(broker);
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[tokio::test]
async fn a_short_or_missing_segment_is_set_apart() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let (id, all) = closed_log(&origin).await;
    let count = segments(&origin, id).len();
    for (which, missing) in [(1, false), (1, true), (count - 1, false), (count - 1, true)] {
        let copy = dir.path().join("copy");
        copy_dir(&origin, &copy);
        let file = segments(&copy, id).remove(which);
        if missing {
            fs::remove_file(&file).unwrap();
        } else {
            let size = fs::metadata(&file).unwrap().len();
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_len(size - 1)
                .unwrap();
        }
        for reopened in [false, true] {
            let broker = open(&copy);
            let actions: Vec<_> = broker
                .recovery()
                .actions()
                .map(|(_, action)| action.clone())
                .collect();
            let [RecoveryAction::SegmentQuarantined { file: found, reason }] = &actions[..] else {
                panic!("{actions:?}")
            };
            assert_eq!(found, &file);
            assert!(
                reason.contains(if missing { "missing" } else { "bytes" }),
                "{reason}"
            );
            let first: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let mut reader = broker.reader("t", 0, first, Isolation::ReadCommitted).unwrap();
            let read = reader.try_next(1 << 20).map(|_| ());
            assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
            let next = all.len() as u64 + u64::from(reopened);
            assert_eq!(
                broker.append("t", 0, batch(&["next"])).await.unwrap(),
                next,
                "no offset is used again"
            );
            broker.close().await.unwrap();
        }
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_costs_a_full_read_and_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let (id, all) = closed_log(dir.path()).await;
    flip(&partition(dir.path(), id).join("checkpoint"), 30);
    let broker = open(dir.path());
    let actions: Vec<_> = broker
        .recovery()
        .actions()
        .map(|(_, action)| action.clone())
        .collect();
    assert!(
        matches!(&actions[..], [RecoveryAction::CheckpointLost { .. }]),
        "{actions:?}"
    );
    assert_eq!(values(&broker), all);
    broker.close().await.unwrap();
    drop(broker);
    assert!(open(dir.path()).recovery().is_clean());
}

#[tokio::test]
async fn a_log_that_begins_later_than_it_did_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (id, all) = closed_log(dir.path()).await;
    fs::remove_file(partition(dir.path(), id).join("checkpoint")).unwrap();
    let files = segments(dir.path(), id);
    fs::remove_file(&files[0]).unwrap();
    let broker = open(dir.path());
    let actions: Vec<_> = broker.recovery().actions().map(|(_, action)| action).collect();
    let first: u64 = files[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let [RecoveryAction::CheckpointLost { reason }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(reason.contains(&format!("offset {first}")), "{reason}");
    assert_eq!(broker.offsets("t", 0).unwrap().log_start, first);
    assert_eq!(values(&broker), all[first as usize..]);
}

#[tokio::test]
async fn without_checkpoint_damage_in_the_middle_does_not_cost_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let (id, all) = closed_log(dir.path()).await;
    flip(&partition(dir.path(), id).join("checkpoint"), 30);
    let files = segments(dir.path(), id);
    flip(&files[1], 65);
    let broker = open(dir.path());
    let quarantined = RecoveryAction::SegmentQuarantined {
        file: files[1].clone(),
        reason: String::new(),
    };
    let found = broker.recovery().actions().any(|(_, action)| {
        matches!((action, &quarantined),
            (RecoveryAction::SegmentQuarantined { file: a, .. }, RecoveryAction::SegmentQuarantined { file: b, .. }) if a == b)
    });
    assert!(found, "{:?}", broker.recovery());
    let after: u64 = files[2].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mut reader = broker.reader("t", 0, after, Isolation::ReadCommitted).unwrap();
    assert_eq!(support::drain(&mut reader).len() as u64, all.len() as u64 - after);
}

#[tokio::test]
async fn indexes_are_rebuilt_when_missing_short_or_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let (id, all) = closed_log(&origin).await;
    let index_of = |segment: &Path| segment.with_extension("index");
    let good = fs::read(index_of(&segments(&origin, id)[1])).unwrap();
    assert!(good.len() > 3 * 8);
    let mut shifted = good.clone();
    shifted[8 + 7] += 1;
    for (what, bytes) in [
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("short", Some(good[..8].to_vec())),
        ("torn", Some(good[..good.len() - 3].to_vec())),
        ("wrong", Some(shifted)),
        ("garbage", Some(vec![0x55; 64])),
        (
            "of another segment",
            Some(fs::read(index_of(&segments(&origin, id)[0])).unwrap()),
        ),
    ] {
        let copy = dir.path().join("copy");
        copy_dir(&origin, &copy);
        for segment in segments(&copy, id) {
            fs::remove_file(index_of(&segment)).unwrap();
            if let Some(bytes) = &bytes {
                fs::write(index_of(&segment), bytes).unwrap();
            }
        }
        let broker = open(&copy);
        for (offset, value) in all.iter().enumerate() {
            let mut reader = broker
                .reader("t", 0, offset as u64, Isolation::ReadCommitted)
                .unwrap();
            let fetched = reader.next(1).await.unwrap();
            let record = fetched.records().next().unwrap();
            assert_eq!(
                (record.offset, record.value),
                (offset as u64, Some(value.as_bytes())),
                "index {what}"
            );
        }
        assert_eq!(
            fs::read(index_of(&segments(&copy, id)[1])).unwrap(),
            good,
            "index {what}"
        );
        drop(broker);
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_transaction_log_refuses_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(&dir)).unwrap();
    broker.create_topic("t", TopicConfig::new(1)).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    for value in ["a", "b"] {
        let mut transaction = producer.begin().unwrap();
        transaction.append("t", 0, batch(&[value])).await.unwrap();
        transaction.commit().await.unwrap();
    }
    drop(producer);
    broker.close().await.unwrap();
    drop(broker);
    let log = dir.path().join("data/transactions/00000000000000000000.log");
    flip(&log, 80);
    let Err(error) = Broker::open(options(&dir)) else {
        panic!("opened")
    };
    assert!(
        matches!(&error, Error::Corrupt { path, .. } if *path == log),
        "{error}"
    );
}
