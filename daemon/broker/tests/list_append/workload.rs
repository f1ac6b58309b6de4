//! What goes on at once: producers of transactions, one that fences them, one that adds partitions, readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewater_broker::{BatchBuilder, Broker, Compression, Error, Isolation, Start, TopicConfig};

use crate::history::{Element, partition_of};
use crate::support::Random;
use crate::{KEYS, MOST_PARTITIONS, PARTITIONS, PRODUCERS};

/// Where the history goes: an event a line, in the order things happened.
pub type Say = Arc<dyn Fn(String) + Send + Sync>;

/// A producer: transactions of a few appends each, until told to stop.
async fn produce(broker: Broker, round: u64, me: u64, say: Say, stop: Arc<AtomicBool>) {
    let mut random = Random::new(round * 100 + me);
    let id = format!("producer-{me}");
    let mut producer = broker.producer(&id).await.unwrap();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("{round}.{me}.{number}");
        say(format!("begin {name}"));
        let Ok(mut transaction) = producer.begin() else {
            say(format!("abort {name}"));
            producer = broker.producer(&id).await.unwrap();
            continue;
        };
        let mut fenced = false;
        for i in 0..=random.below(5) {
            // The lists of partitions there are: more come while it runs.
            let partitions = u64::from(broker.topic("lists").unwrap().partitions);
            let key = random.below(KEYS / MOST_PARTITIONS) * MOST_PARTITIONS + random.below(partitions);
            let element = format!("{name}.{i}");
            let mut batch = BatchBuilder::new(Compression::None);
            let pad = "x".repeat(random.below(200) as usize);
            let value = format!("{element} {pad}");
            batch.push(1, Some(key.to_string().as_bytes()), Some(value.as_bytes()), &[]);
            match transaction.append("lists", partition_of(key), batch).await {
                Ok(()) => say(format!("append {name} {key} {element}")),
                Err(Error::Fenced { .. } | Error::TransactionEnded { .. }) => {
                    fenced = true;
                    break;
                }
                Err(e) => panic!("{e}"),
            }
            if random.below(3) == 0 {
                tokio::task::yield_now().await;
            }
        }
        if fenced || random.below(6) == 0 {
            say(format!("abort {name}"));
            // Fenced, it was aborted by the instance that took over.
            let _ = transaction.abort().await;
        } else {
            say(format!("commit {name}"));
            match transaction.commit().await {
                Ok(_) => say(format!("ack {name}")),
                Err(Error::Fenced { .. } | Error::TransactionEnded { .. }) => {
                    fenced = true;
                    say(format!("abort {name}"));
                }
                Err(e) => panic!("{e}"),
            }
        }
        if fenced {
            producer = broker.producer(&id).await.unwrap();
        }
    }
}

/// Takes over from producers at random.
async fn fence(broker: Broker, round: u64, stop: Arc<AtomicBool>) {
    let mut random = Random::new(round * 100 + 77);
    while !stop.load(Ordering::SeqCst) {
        let id = format!("producer-{}", random.below(PRODUCERS));
        drop(broker.producer(&id).await.unwrap());
        for _ in 0..random.below(200) {
            tokio::task::yield_now().await;
        }
    }
}

/// Adds partitions, as many as there may be at most, one after the other.
async fn grow(broker: Broker, most: u32, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let partitions = broker.topic("lists").unwrap().partitions;
        if partitions >= most {
            return;
        }
        // Some go on with those there are.
        let end = broker.offsets("lists", partitions - 1).unwrap().end;
        if end > 20 {
            broker.add_partitions("lists", partitions + 1).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

/// Reads all partitions by turns, from `positions` on; those that are added, too.
async fn read(broker: Broker, me: u64, positions: Vec<u64>, say: Say, stop: Arc<AtomicBool>) {
    let mut readers = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        for partition in readers.len() as u32..broker.topic("lists").unwrap().partitions {
            let from = Start::Offset(positions[partition as usize]);
            let reader = broker.reader("lists", partition, from, Isolation::ReadCommitted);
            readers.push(reader.unwrap());
        }
        for (partition, reader) in readers.iter_mut().enumerate() {
            let from = reader.position();
            let mut elements = Vec::new();
            while let Some(fetched) = reader.try_next(1 << 16).unwrap() {
                elements.extend(fetched.records().map(|r| Element::of(r.offset, r.key, r.value)));
            }
            if reader.position() > from {
                let elements: Vec<_> = elements.iter().map(Element::told).collect();
                say(format!(
                    "read {me} {partition} {from} {} {}",
                    reader.position(),
                    elements.join(",")
                ));
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Runs all that goes on at once, until `stop`; the topic grows up to `most_partitions`.
pub async fn run(
    broker: &Broker,
    round: u64,
    most_partitions: u32,
    positions: [Vec<u64>; 2],
    say: Say,
    stop: Arc<AtomicBool>,
) {
    if broker.topic("lists").is_none() {
        let config = TopicConfig::new(PARTITIONS);
        broker.create_topic("lists", config).await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    for me in 0..PRODUCERS {
        tasks.spawn(produce(
            broker.clone(),
            round,
            me,
            Arc::clone(&say),
            Arc::clone(&stop),
        ));
    }
    tasks.spawn(fence(broker.clone(), round, Arc::clone(&stop)));
    tasks.spawn(grow(broker.clone(), most_partitions, Arc::clone(&stop)));
    for (me, positions) in (0..).zip(positions) {
        tasks.spawn(read(
            broker.clone(),
            me,
            positions,
            Arc::clone(&say),
            Arc::clone(&stop),
        ));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}
