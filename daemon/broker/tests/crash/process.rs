//! The process that is killed: writers of all kinds at once, until the end.
//!
//! Each value tells who wrote it, in which batch or transaction, and how many there are of that, so that a reader can
//! tell whether it is whole and there once.

use std::collections::HashMap;
use std::env;
use std::path::Path;

use tidewater_broker::{
    BatchBuilder, Broker, Compression, Isolation, Sequence, Start, TopicConfig, Transaction,
};
use uuid::Uuid;

use crate::ledger::Ledger;
use crate::support::Random;
use crate::{DIR, STATE, hash, options, say};

pub const PARTITIONS: u32 = 4;
/// Transactional producers.
pub const WRITERS: u64 = 3;
/// Producers that number their batches.
pub const NUMBERED: u64 = 3;
const KEYS: u64 = 6;
/// A topic that comes and goes.
pub const VISITOR: &str = "visitor";

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Name, partitions and settings.
type NewTopic = (&'static str, u32, &'static [(&'static str, &'static str)]);

/// The topics that stay, created before anything is killed.
pub fn create_topics(dir: &Path, ledger: &mut Ledger) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let broker = Broker::open(options(dir)).unwrap();
    let topics: [NewTopic; 5] = [
        ("plain", 2, &[]),
        ("os", 2, &[("durability", "os")]),
        ("transactions", PARTITIONS, &[]),
        ("numbered", 2, &[]),
        (
            "keyed",
            1,
            &[
                ("cleanup.policy", "compact"),
                ("segment.bytes", "3000"),
                ("min.cleanable.dirty.ratio", "0"),
                ("delete.retention.ms", "30"),
            ],
        ),
    ];
    for (name, partitions, settings) in topics {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let config = TopicConfig {
            settings: settings.iter().map(owned).collect(),
            ..TopicConfig::new(partitions)
        };
        let info = runtime.block_on(broker.create_topic(name, config)).unwrap();
        ledger.created(info.id, partitions);
    }
}

fn pad(random: &mut Random, most: u64) -> String {
    "x".repeat(random.below(most) as usize)
}

fn codec(random: &mut Random) -> Compression {
    CODECS[random.below(CODECS.len() as u64) as usize]
}

fn batch(codec: Compression, values: &[String]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(codec);
    for value in values {
        batch.push(1, None, Some(value.as_bytes()), &[]);
    }
    batch
}

fn acknowledged(topic: Uuid, partition: u32, base: u64, values: &[String]) {
    let hashes: Vec<_> = values.iter().map(|value| hash(value).to_string()).collect();
    say(&format!("batch {topic} {partition} {base} {}", hashes.join(" ")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the crash test, as the process it kills"]
async fn killed_process() {
    let dir = env::var(DIR).unwrap();
    let state = env::var(STATE).unwrap();
    let mut state = state.split(' ');
    let round: u64 = state.next().unwrap().parse().unwrap();
    // The test harness has begun a line of its own.
    say("");
    say("opening");
    let broker = Broker::open(options(Path::new(&dir))).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for (writer, topic) in (0..).zip(["plain", "plain", "os"]) {
        tasks.spawn(append(broker.clone(), topic, writer, round));
    }
    for writer in 0..NUMBERED {
        tasks.spawn(send_numbered(
            broker.clone(),
            writer,
            state.next().unwrap().to_owned(),
        ));
    }
    for writer in 0..WRITERS {
        tasks.spawn(transactions(broker.clone(), writer, round));
    }
    tasks.spawn(keys(broker.clone(), round));
    tasks.spawn(read_keys(broker.clone(), round));
    tasks.spawn(group_offsets(broker.clone(), round));
    tasks.spawn(visitors(broker, round));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Batches outside transactions, of every codec; now and then one of many pages, which may be cut within.
async fn append(broker: Broker, topic: &'static str, writer: u64, round: u64) {
    let mut random = Random::new(round * 31 + writer);
    let info = broker.topic(topic).unwrap();
    for number in 0.. {
        let partition = random.below(2) as u32;
        let count = 1 + random.below(5);
        let most = if random.below(50) == 0 { 150_000 } else { 300 };
        let values: Vec<_> = (0..count)
            .map(|i| {
                format!(
                    "batch {writer}.{round}.{number} {i} {count} {}",
                    pad(&mut random, most)
                )
            })
            .collect();
        let batch = batch(codec(&mut random), &values);
        let base = broker.append(topic, partition, batch).await.unwrap();
        acknowledged(info.id, partition, base, &values);
        // What is not synced is fast: the others have their turn.
        tokio::task::yield_now().await;
    }
}

/// The values of a numbered batch: the same each time it is sent.
pub fn numbered_values(writer: u64, number: u64) -> Vec<String> {
    let mut random = Random::new(writer * 1_000_003 + number);
    let count = 1 + random.below(4);
    let value = |i| format!("numbered {writer} {number} {i} {count} {}", pad(&mut random, 200));
    (0..count).map(value).collect()
}

/// Three batches at a time, as a client does that lost its connection: from before the first that was not acknowledged
/// on. Two that were, and at most three whose fate is not known, are the five the broker remembers.
async fn send_numbered(broker: Broker, writer: u64, state: String) {
    let known = state.split_once(':');
    let (id, first) = if let Some((id, next)) = known {
        let next: u64 = next.parse().unwrap();
        (id.parse().unwrap(), next.saturating_sub(2))
    } else {
        let id = broker.idempotent_producer().await.unwrap().id();
        say(&format!("numbering {writer} {id}"));
        (id, 0)
    };
    let mut sequence: i32 = (0..first).map(|n| numbered_values(writer, n).len() as i32).sum();
    let broker = &broker;
    for number in (first..).step_by(3) {
        let mut send = |number| {
            let values = numbered_values(writer, number);
            let base_sequence = sequence;
            sequence += values.len() as i32;
            async move {
                let batch = batch(CODECS[number as usize % 5], &values);
                let sequence = Sequence {
                    producer_id: id,
                    epoch: 0,
                    base_sequence,
                };
                let partition = writer as u32 % 2;
                let sent = broker.append_with_sequence("numbered", partition, batch, sequence);
                let sent = sent.await.unwrap();
                let base = sent.base_offset;
                say(&format!("sent {writer} {number} {base} {}", sent.duplicate));
            }
        };
        tokio::join!(send(number), send(number + 1), send(number + 2));
    }
}

/// Transactions over some partitions, keys of the compacted topic, and a group's offset; some are aborted.
async fn transactions(broker: Broker, writer: u64, round: u64) {
    let mut random = Random::new(round * 31 + 10 + writer);
    let producer = broker.producer(&format!("w{writer}")).await.unwrap();
    let topic = broker.topic("transactions").unwrap().id;
    let group = format!("g{writer}");
    let place = ("source".to_owned(), 0);
    let mut number = broker.group_offsets(&group).get(&place).copied().unwrap_or(0);
    loop {
        let mut transaction = producer.begin().unwrap();
        let used: Vec<u32> = (0..PARTITIONS).filter(|_| random.below(2) > 0).collect();
        let per = 1 + random.below(6);
        let total = used.len() as u64 * per;
        let aborts = random.below(6) == 0;
        let kind = if aborts { "aborted" } else { "transaction" };
        let mut sent = HashMap::new();
        for partition in used {
            let values: Vec<_> = (0..per)
                .map(|i| {
                    let pad = pad(&mut random, 300);
                    format!("{kind} {writer} {number} {total} {partition}.{i} {pad}")
                })
                .collect();
            let batch = batch(codec(&mut random), &values);
            transaction
                .append("transactions", partition, batch)
                .await
                .unwrap();
            sent.insert(partition, values);
        }
        let keys = if random.below(3) == 0 {
            let keys = change_keys(&format!("{kind} {writer} {number}"), writer, &mut random);
            append_keys(&mut transaction, &keys).await;
            keys
        } else {
            Vec::new()
        };
        transaction
            .commit_group_offsets(&group, &[("source", 0, number + 1)])
            .await
            .unwrap();
        if aborts {
            transaction.abort().await.unwrap();
            continue;
        }
        begin_keys(&keys);
        let committed = transaction.commit().await.unwrap();
        for place in committed.partitions {
            if place.topic == "keyed" {
                end_keys(&keys, place.base_offset);
            } else {
                acknowledged(topic, place.partition, place.base_offset, &sent[&place.partition]);
            }
        }
        number += 1;
        say(&format!("transaction {writer} {number}"));
    }
}

/// A key and its new value; none deletes it.
type KeyChange = (String, Option<String>);

/// A change of one or two of the writer's own keys.
fn change_keys(name: &str, writer: u64, random: &mut Random) -> Vec<KeyChange> {
    let first = random.below(KEYS);
    let change = |n| {
        let key = format!("{writer}-{}", (first + n) % KEYS);
        let value = (random.below(4) > 0).then(|| format!("{name} {}", pad(random, 100)));
        (key, value)
    };
    (0..=first % 2).map(change).collect()
}

fn keyed_batch(changes: &[KeyChange]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(CODECS[changes.len()]);
    for (key, value) in changes {
        batch.push(1, Some(key.as_bytes()), value.as_ref().map(String::as_bytes), &[]);
    }
    batch
}

async fn append_keys(transaction: &mut Transaction, changes: &[KeyChange]) {
    let batch = keyed_batch(changes);
    transaction.append("keyed", 0, batch).await.unwrap();
}

fn begin_keys(changes: &[KeyChange]) {
    for (key, value) in changes {
        let state = value
            .as_ref()
            .map_or_else(|| "-".to_owned(), |value| hash(value).to_string());
        say(&format!("keying {key} {state}"));
    }
}

fn end_keys(changes: &[KeyChange], base: u64) {
    for (offset, (key, _)) in (base..).zip(changes) {
        say(&format!("keyed {key} {offset}"));
    }
}

/// Changes keys outside transactions.
async fn keys(broker: Broker, round: u64) {
    let mut random = Random::new(round * 31 + 20);
    for number in 0.. {
        let changes = change_keys(&format!("plain {round}.{number}"), WRITERS, &mut random);
        begin_keys(&changes);
        let base = broker.append("keyed", 0, keyed_batch(&changes)).await.unwrap();
        end_keys(&changes, base);
    }
}

/// Reads the compacted topic while it is compacted, from the beginning and from anywhere: never stranded.
async fn read_keys(broker: Broker, round: u64) {
    let mut random = Random::new(round * 31 + 21);
    let open = |from| broker.reader("keyed", 0, from, Isolation::ReadCommitted).unwrap();
    let mut reader = open(Start::Earliest);
    let mut next = 0;
    loop {
        // Waits if there is nothing more.
        let fetched = reader.next(2_000).await.unwrap();
        for record in fetched.records() {
            assert!(record.offset >= next, "offsets rise");
            next = record.offset + 1;
        }
        assert!(reader.position() >= next);
        if reader.lag() == 0 {
            let start = random.below(2) * random.below(reader.limit() + 1);
            reader = open(Start::Offset(start));
            next = start;
        }
    }
}

async fn group_offsets(broker: Broker, round: u64) {
    for number in 0.. {
        let next = round * 1_000_000 + number;
        say(&format!("committing {next}"));
        let offsets = [("source", 0, next)];
        broker.commit_group_offsets("plain", &offsets).await.unwrap();
        say(&format!("committed {next}"));
    }
}

/// A topic that comes, takes records, grows, is altered, and goes; a group reads it.
async fn visitors(broker: Broker, round: u64) {
    let mut random = Random::new(round * 31 + 30);
    for visit in 0.. {
        let id = if let Some(left) = broker.topic(VISITOR) {
            say(&format!("found {} {}", left.id, left.partitions));
            left.id
        } else {
            assert!(
                broker.group_offsets("visitors").is_empty(),
                "offsets of a topic that is gone"
            );
            say("creating");
            let config = TopicConfig::new(1 + random.below(2) as u32);
            let created = broker.create_topic(VISITOR, config).await.unwrap();
            say(&format!("created {} {}", created.id, created.partitions));
            created.id
        };
        for step in 0..random.below(8) {
            let partitions = broker.topic(VISITOR).unwrap().partitions;
            match random.below(5) {
                0 => {
                    let total = partitions + 1;
                    say(&format!("growing {id} {total}"));
                    broker.add_partitions(VISITOR, total).await.unwrap();
                    say(&format!("grown {id} {total}"));
                }
                1 => {
                    let value = (1_000 + random.below(9_000)).to_string();
                    say(&format!("altering {id} {value}"));
                    let change = [("index.interval.bytes", Some(value.as_str()))];
                    broker.alter_topic(VISITOR, &change).await.unwrap();
                    say(&format!("altered {id} {value}"));
                }
                2 => {
                    let offset = [(VISITOR, 0, step)];
                    broker.commit_group_offsets("visitors", &offset).await.unwrap();
                }
                _ => {
                    let values = [format!("batch {VISITOR}.{round}.{visit}.{step} 0 1 ")];
                    let partition = random.below(u64::from(partitions)) as u32;
                    let batch = batch(codec(&mut random), &values);
                    let base = broker.append(VISITOR, partition, batch).await.unwrap();
                    acknowledged(id, partition, base, &values);
                }
            }
        }
        say(&format!("deleting {id}"));
        broker.delete_topic(VISITOR).await.unwrap();
        say(&format!("deleted {id}"));
    }
}
