//! Checkpoints, and what is known of producers without one.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use fastrand::Rng;

use super::*;
use crate::fault_tests::power_failure::{Kept, Replay};

#[tokio::test]
async fn a_checkpoint_with_any_bit_wrong_or_any_length_costs_a_full_read_and_no_record() {
    let left = Left::new(3).await;
    let path = left.partition.join("checkpoint");
    let size = left.disk.size(&path).unwrap() as usize;
    let flips = (0..size * 8).filter(|bit| *bit < 16 * 8 || bit % 11 == 0);
    let cuts = (0..size).step_by(7);
    for (bit, length) in flips
        .map(|bit| (Some(bit), size))
        .chain(cuts.map(|length| (None, length)))
    {
        let what = format!("bit {bit:?}, {length} bytes");
        let disk = left.disk.copy();
        disk.change(&path, |bytes| bytes.truncate(length));
        if let Some(bit) = bit {
            flip(&disk, &path, bit);
        }
        let broker = open(&disk).unwrap();
        let found = actions(&broker);
        assert!(
            matches!(&found[..], [RecoveryAction::CheckpointLost { .. }]),
            "{what}: {found:?}"
        );
        assert_eq!(all(&broker), left.values, "{what}");
        let next = broker.append("t", 0, one("next")).await.unwrap();
        assert_eq!(next, left.values.len() as u64, "{what}");
    }
}

#[tokio::test]
async fn a_checkpoint_of_before_costs_reading_what_came_since() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    let id = broker.create_topic("t", TopicConfig::new(1)).await.unwrap().id;
    let path = Path::new(DIR)
        .join("topics")
        .join(id.to_string())
        .join("0/checkpoint");
    let mut stored: Vec<Vec<u8>> = Vec::new();
    let mut values = Vec::new();
    for n in 0..60 {
        broker.append("t", 0, one(&value(n))).await.unwrap();
        values.push(value(n));
        let now = disk.files().remove(&path);
        stored.extend(now.filter(|now| stored.last() != Some(now)));
    }
    broker.close().await.unwrap();
    drop(broker);
    assert!(stored.len() > 2, "{} checkpoints", stored.len());
    for old in stored {
        let disk = disk.copy();
        disk.change(&path, |bytes| *bytes = old);
        let broker = open(&disk).unwrap();
        assert!(broker.recovery().is_clean(), "{:?}", broker.recovery());
        assert_eq!(all(&broker), values);
    }
}

#[tokio::test]
async fn nothing_is_removed_for_a_checkpoint_of_before_a_compaction() {
    let disk = MemoryDisk::new();
    let (broker, partition) = compacted_topic(&disk).await;
    for n in 0..40 {
        put(&broker, &format!("k{}", n % 3), n, None).await;
    }
    let path = partition.join("checkpoint");
    broker.log("t", 0).unwrap().checkpoint_soon();
    let old = disk.files()[&path].clone();
    compact(&broker);
    let (expected, _) = read(&broker, 0);
    broker.close().await.unwrap();
    drop(broker);
    let good = disk.files()[&path].clone();
    let whole = disk.files();
    disk.change(&path, |bytes| *bytes = old);
    let broker = open(&disk).unwrap();
    let found = actions(&broker);
    let apart = |action: &RecoveryAction| matches!(action, RecoveryAction::SegmentQuarantined { .. });
    assert!(!found.is_empty() && found.iter().all(apart), "{found:?}");
    drop(broker);
    let left = disk.files();
    let logs = whole
        .keys()
        .filter(|path| path.starts_with(&partition) && path.extension().is_some_and(|e| e == "log"));
    for log in logs {
        assert!(left.contains_key(log), "{} is gone", log.display());
    }
    // So whoever has the right one puts it back, and all is there.
    disk.change(&path, |bytes| *bytes = good);
    let broker = open(&disk).unwrap();
    assert_eq!(all(&broker), expected);
}

async fn compacted_topic(disk: &MemoryDisk) -> (Broker, PathBuf) {
    let broker = open(disk).unwrap();
    let settings = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0")];
    let config = TopicConfig {
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..TopicConfig::new(1)
    };
    let id = broker.create_topic("t", config).await.unwrap().id;
    (
        broker,
        Path::new(DIR).join("topics").join(id.to_string()).join("0"),
    )
}

/// Appends a record, by a producer that counts if there is a `sequence`.
async fn put(broker: &Broker, key: &str, n: usize, sequence: Option<i32>) {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1, Some(key.as_bytes()), Some(value(n).as_bytes()), &[]);
    match sequence {
        Some(base_sequence) => {
            let sequence = numbered(base_sequence);
            broker
                .append_with_sequence("t", 0, batch, sequence)
                .await
                .unwrap();
        }
        None => {
            broker.append("t", 0, batch).await.unwrap();
        }
    }
}

fn numbered(base_sequence: i32) -> Sequence {
    Sequence {
        producer_id: 7_000,
        epoch: 0,
        base_sequence,
    }
}

fn compact(broker: &Broker) {
    let stop = AtomicBool::new(false);
    let limits = CleanerLimits {
        key_bytes: 1 << 20,
        stop: &stop,
    };
    let cleaned = broker.log("t", 0).unwrap().compact(limits).unwrap();
    assert!(cleaned.written > 0, "{cleaned:?}");
}

#[tokio::test]
async fn without_a_checkpoint_a_producer_whose_batches_were_compacted_goes_on() {
    let disk = MemoryDisk::new();
    let (broker, partition) = compacted_topic(&disk).await;
    let segments = |disk: &MemoryDisk| {
        let files = disk.files().into_keys();
        let logs =
            files.filter(|path| path.starts_with(&partition) && path.extension().is_some_and(|e| e == "log"));
        logs.collect::<Vec<_>>()
    };
    // A first segment of which nothing goes; then one of which all but the last record does.
    let mut sequence = 0;
    while segments(&disk).len() < 2 {
        put(&broker, &format!("first {sequence}"), 0, Some(sequence)).await;
        sequence += 1;
    }
    while segments(&disk).len() < 4 {
        put(&broker, "again", 0, Some(sequence)).await;
        sequence += 1;
    }
    let mut n = 0;
    while segments(&disk).len() < 6 {
        put(&broker, &format!("others {n}"), n, None).await;
        n += 1;
    }
    compact(&broker);
    broker.close().await.unwrap();
    drop(broker);
    let names: Vec<_> = segments(&disk)
        .iter()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    assert!(
        names[0] == "00000000000000000000.log" && names[1].to_str().unwrap().ends_with("-1.log"),
        "{names:?}"
    );
    flip(&disk, &partition.join("checkpoint"), 100);

    let broker = open(&disk).unwrap();
    assert!(matches!(
        &actions(&broker)[..],
        [RecoveryAction::CheckpointLost { .. }]
    ));
    let batch = || one_with_key("next");
    let sent = broker
        .append_with_sequence("t", 0, batch(), numbered(sequence))
        .await
        .unwrap();
    assert!(!sent.duplicate);
    // From now on it is known again.
    let again = broker
        .append_with_sequence("t", 0, batch(), numbered(sequence))
        .await
        .unwrap();
    assert!(again.duplicate && again.base_offset == sent.base_offset);
    let gap = broker
        .append_with_sequence("t", 0, batch(), numbered(sequence + 9))
        .await;
    assert!(matches!(gap, Err(Error::OutOfOrderSequence { .. })), "{gap:?}");
}

fn one_with_key(key: &str) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(1, Some(key.as_bytes()), Some(b"x"), &[]);
    batch
}

#[tokio::test]
async fn without_a_checkpoint_a_producer_whose_batches_are_damaged_goes_on() {
    let disk = MemoryDisk::new();
    let broker = open(&disk).unwrap();
    let id = broker.create_topic("t", TopicConfig::new(1)).await.unwrap().id;
    for n in 0..12 {
        put(&broker, "k", n, Some(n as i32)).await;
    }
    for n in 0..12 {
        put(&broker, "k", n, None).await;
    }
    broker.close().await.unwrap();
    drop(broker);
    let partition = Path::new(DIR).join("topics").join(id.to_string()).join("0");
    let left = Left {
        disk,
        partition,
        values: Vec::new(),
    };
    let segments = left.segments();
    assert!(Left::base(&segments[2]) > 11 && Left::base(&segments[1]) < 11);
    flip(&left.disk, &left.partition.join("checkpoint"), 100);
    flip(
        &left.disk,
        &segments[1],
        left.position(&segments[1], 1) * 8 + 30 * 8,
    );
    let broker = open(&left.disk).unwrap();
    let sent = broker
        .append_with_sequence("t", 0, one_with_key("k"), numbered(12))
        .await;
    assert!(sent.is_ok(), "{sent:?}");
}

#[tokio::test]
async fn without_a_checkpoint_a_transaction_whose_batches_were_compacted_is_whole() {
    let disk = MemoryDisk::new();
    let (broker, partition) = compacted_topic(&disk).await;
    broker.create_topic("u", TopicConfig::new(1)).await.unwrap();
    let producer = broker.producer("p").await.unwrap();
    let mut transaction = producer.begin().unwrap();
    transaction.append("t", 0, one_with_key("k")).await.unwrap();
    transaction.append("u", 0, one("committed")).await.unwrap();
    transaction.commit().await.unwrap();
    // The marker is on disk in the topic that is compacted, and not in the other.
    for n in 0..20 {
        put(&broker, &format!("k{}", n % 3), n, None).await;
    }
    compact(&broker);
    let end = disk.now();
    let (base, history) = disk.history();
    drop((producer, broker));
    let mut replay = Replay::new(&base, &history);
    replay.advance(end);
    let disk = replay.power_failure(Kept::Nothing, &mut Rng::with_seed(1));
    flip(&disk, &partition.join("checkpoint"), 100);
    let broker = open(&disk).unwrap();
    let found = actions(&broker);
    let marked = |action: &RecoveryAction| matches!(action, RecoveryAction::TransactionCommitted { .. });
    assert!(found.iter().any(marked), "the marker was not on disk: {found:?}");
    let mut reader = broker.reader("u", 0, 0, Isolation::ReadCommitted).unwrap();
    assert_eq!(drain(&mut reader).0, ["committed"]);
}
