//! Batches sent again are written once: through the API for producers in this process, and through the one for protocol
//! front ends, across errors, dropped calls and restarts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use support::{batch, options, read};
use tidewater_broker::{Appended, Broker, Error, IdempotentProducer, Isolation, Sequence, TopicConfig};

async fn open(dir: &tempfile::TempDir) -> Broker {
    let broker = Broker::open(options(dir)).unwrap();
    if broker.topic("t").is_none() {
        broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    }
    broker
}

fn values(broker: &Broker, partition: u32) -> Vec<String> {
    let all = read(broker, "t", partition, Isolation::ReadCommitted);
    all.into_iter().map(|(_, value)| value).collect()
}

async fn send(
    broker: &Broker,
    epoch: i16,
    base_sequence: i32,
    records: &[&str],
) -> Result<(u64, bool), Error> {
    let sequence = Sequence {
        producer_id: 7,
        epoch,
        base_sequence,
    };
    let appended = broker
        .append_with_sequence("t", 0, batch(records), sequence)
        .await;
    appended.map(
        |Appended {
             base_offset,
             duplicate,
             ..
         }| (base_offset, duplicate),
    )
}

#[tokio::test]
async fn a_front_end_gets_kafkas_answers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir).await;
    assert_eq!(send(&broker, 0, 0, &["a", "b"]).await.unwrap(), (0, false));
    assert_eq!(send(&broker, 0, 0, &["a", "b"]).await.unwrap(), (0, true));
    broker.append("t", 0, batch(&["other"])).await.unwrap();
    assert_eq!(send(&broker, 0, 2, &["c"]).await.unwrap(), (3, false));
    assert_eq!(send(&broker, 0, 0, &["a", "b"]).await.unwrap(), (0, true));
    let gap = send(&broker, 0, 4, &["e"]).await;
    assert!(
        matches!(
            gap,
            Err(Error::OutOfOrderSequence {
                expected: 3,
                got: 4,
                ..
            })
        ),
        "{gap:?}"
    );
    for i in 3..8 {
        send(&broker, 0, i, &["d"]).await.unwrap();
    }
    let old = send(&broker, 0, 2, &["c"]).await;
    assert!(
        matches!(
            old,
            Err(Error::DuplicateSequence {
                sequence: 2,
                expected: 8,
                ..
            })
        ),
        "{old:?}"
    );

    let early = send(&broker, 1, 8, &["x"]).await;
    assert!(
        matches!(
            early,
            Err(Error::OutOfOrderSequence {
                expected: 0,
                got: 8,
                ..
            })
        ),
        "{early:?}"
    );
    assert_eq!(send(&broker, 1, 0, &["x"]).await.unwrap(), (9, false));
    let fenced = send(&broker, 0, 8, &["y"]).await;
    assert!(
        matches!(
            fenced,
            Err(Error::InvalidProducerEpoch {
                epoch: 0,
                current: 1,
                ..
            })
        ),
        "{fenced:?}"
    );
    // Each partition counts for itself; a producer it never heard of may begin anywhere.
    let sequence = Sequence {
        producer_id: 7,
        epoch: 0,
        base_sequence: 40,
    };
    broker
        .append_with_sequence("t", 1, batch(&["z"]), sequence)
        .await
        .unwrap();

    assert_eq!(
        values(&broker, 0),
        ["a", "b", "other", "c", "d", "d", "d", "d", "d", "x"]
    );
    for wrong in [
        Sequence {
            producer_id: -1,
            ..sequence
        },
        Sequence {
            epoch: -1,
            ..sequence
        },
        Sequence {
            base_sequence: -1,
            ..sequence
        },
    ] {
        let refused = broker.append_with_sequence("t", 1, batch(&["z"]), wrong).await;
        assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
    }
}

/// Both after a clean stop, where the checkpoint has the state, and without one, where it is followed again.
#[tokio::test]
async fn what_was_sent_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir).await;
    for i in 0..7 {
        send(&broker, 2, i, &["a"]).await.unwrap();
    }
    broker.close().await.unwrap();

    let broker = open(&dir).await;
    assert_eq!(broker.recovery().scanned_bytes, 0);
    assert_eq!(send(&broker, 2, 3, &["a"]).await.unwrap(), (3, true));
    assert!(matches!(
        send(&broker, 2, 1, &["a"]).await,
        Err(Error::DuplicateSequence { .. })
    ));
    assert_eq!(send(&broker, 2, 7, &["a"]).await.unwrap(), (7, false));
    drop(broker);

    let broker = open(&dir).await;
    assert!(broker.recovery().scanned_bytes > 0);
    assert_eq!(send(&broker, 2, 7, &["a"]).await.unwrap(), (7, true));
    assert_eq!(send(&broker, 2, 3, &["a"]).await.unwrap(), (3, true));
    assert!(matches!(
        send(&broker, 2, 9, &["a"]).await,
        Err(Error::OutOfOrderSequence { expected: 8, .. })
    ));
    assert!(matches!(
        send(&broker, 1, 8, &["a"]).await,
        Err(Error::InvalidProducerEpoch { .. })
    ));
    assert_eq!(values(&broker, 0).len(), 8);
}

#[tokio::test]
async fn calls_that_are_dropped_and_made_again_write_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir).await;
    let producer = broker.idempotent_producer().await.unwrap();
    let mut expected = Vec::new();
    for i in 0..40 {
        let value = format!("v{i}");
        let mut prepared = producer.prepare("t", 0, batch(&[value.as_str(), "and"])).unwrap();
        // Polled once and dropped: the batch is written then, its acknowledgement is lost.
        for _ in 0..i % 3 {
            let polled = futures_poll_once(prepared.send()).await;
            assert!(polled.is_none_or(|sent| sent.is_ok()));
        }
        let sent = prepared.send().await.unwrap();
        assert_eq!(sent.base_offset, i * 2);
        expected.extend([value, "and".to_owned()]);
    }
    assert_eq!(values(&broker, 0), expected);
}

/// Polls a future once, and drops it.
async fn futures_poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_producer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir).await;
    let producer = Arc::new(broker.idempotent_producer().await.unwrap());
    let task = |task: u32, producer: Arc<IdempotentProducer>| async move {
        let mut last = None;
        for i in 0..50 {
            let value = format!("{task}.{i}");
            let mut prepared = producer.prepare("t", task % 2, batch(&[value.as_str()])).unwrap();
            let _ = futures_poll_once(prepared.send()).await;
            let offset = prepared.send().await.unwrap().base_offset;
            assert!(last < Some(offset));
            last = Some(offset);
        }
    };
    let tasks: Vec<_> = (0..6)
        .map(|i| tokio::spawn(task(i, Arc::clone(&producer))))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for partition in 0..2 {
        let values = values(&broker, partition);
        assert_eq!(values.len(), 150);
        assert_eq!(values.iter().collect::<HashSet<_>>().len(), 150, "each once");
    }
}

/// The broker goes and comes again while batches are in doubt: they are sent again with the numbers they have.
#[tokio::test]
async fn batches_in_doubt_are_sent_again_to_the_reopened_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir).await;
    let producer = broker.idempotent_producer().await.unwrap();
    let mut doubtful = Vec::new();
    for i in 0..3 {
        let mut prepared = producer
            .prepare("t", 0, batch(&[format!("v{i}").as_str()]))
            .unwrap();
        let _ = futures_poll_once(prepared.send()).await;
        doubtful.push(prepared);
    }
    let mut never_sent = producer.prepare("t", 0, batch(&["later"])).unwrap();
    broker.close().await.unwrap();
    assert!(matches!(doubtful[0].send().await, Err(Error::Closed)));
    assert!(matches!(never_sent.send().await, Err(Error::Closed)));

    // What was written last is lost, as a power failure could have it.
    let id = broker.topic("t").unwrap().id;
    let partition = dir.path().join("data/topics").join(id.to_string()).join("0");
    let log = partition.join(format!("{:020}.log", 0));
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() / 3]).unwrap();
    std::fs::remove_file(partition.join("checkpoint")).unwrap();

    let broker = open(&dir).await;
    assert_eq!(values(&broker, 0), ["v0"]);
    producer.reopened(&broker);
    // The third must not come before the second, and the fourth not at all before them.
    let gap = doubtful[2].send().await;
    assert!(
        matches!(
            gap,
            Err(Error::OutOfOrderSequence {
                expected: 1,
                got: 2,
                ..
            })
        ),
        "{gap:?}"
    );
    for (i, prepared) in doubtful.iter_mut().enumerate() {
        let sent = prepared.send().await.unwrap();
        assert_eq!((sent.base_offset, sent.duplicate), (i as u64, i == 0));
    }
    assert_eq!(never_sent.send().await.unwrap().base_offset, 3);
    assert_eq!(values(&broker, 0), ["v0", "v1", "v2", "later"]);
}

#[tokio::test]
async fn a_topic_of_the_same_name_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir).await;
    let producer = broker.idempotent_producer().await.unwrap();
    producer
        .prepare("t", 0, batch(&["a"]))
        .unwrap()
        .send()
        .await
        .unwrap();
    let mut prepared = producer.prepare("t", 0, batch(&["b"])).unwrap();
    broker.delete_topic("t").await.unwrap();
    assert!(matches!(prepared.send().await, Err(Error::UnknownTopic { .. })));
    broker.create_topic("t", TopicConfig::new(2)).await.unwrap();
    assert!(matches!(prepared.send().await, Err(Error::TopicDeleted { .. })));
    let mut prepared = producer.prepare("t", 0, batch(&["c"])).unwrap();
    assert_eq!(prepared.send().await.unwrap().base_offset, 0);
}

/// No id comes twice, however the broker ends and whatever else takes ids.
#[tokio::test]
async fn producer_ids_are_never_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = HashSet::new();
    for round in 0..6 {
        let broker = open(&dir).await;
        for i in 0..3 {
            assert!(seen.insert(broker.idempotent_producer().await.unwrap().id()));
            let name = format!("p{round}.{i}");
            assert!(seen.insert(broker.producer(&name).await.unwrap().id()));
        }
        if round % 2 == 0 {
            broker.close().await.unwrap();
        }
    }
    // More than one block at a time.
    let broker = open(&dir).await;
    for _ in 0..2_500 {
        assert!(seen.insert(broker.idempotent_producer().await.unwrap().id()));
    }
}
