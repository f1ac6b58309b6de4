//! `kill -9`: a process that writes is killed at any moment, again and again. What it said was acknowledged is there,
//! transactions are whole, nothing is invented, and group offsets are those of the transactions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Random, batch, read};
use tidewater_broker::{Broker, BrokerOptions, Error, Isolation, TopicConfig};

const PARTITIONS: u32 = 4;
const WRITERS: u64 = 3;
const ROUNDS: u64 = 32;
const DIR: &str = "BROKER_CRASH_DIR";
const SEED: &str = "BROKER_CRASH_SEED";

fn options(dir: &Path) -> BrokerOptions {
    BrokerOptions {
        segment_bytes: 16_000,
        checkpoint_bytes: 6_000,
        index_interval_bytes: 500,
        ..BrokerOptions::new(dir)
    }
}

/// FNV-1a, to compare what was acknowledged with what is read.
fn hash(value: &str) -> u64 {
    value.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// This test binary again, running `test` alone.
fn spawn(test: &str, dir: &Path, seed: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// One line at once, so that a line is whole or not there.
fn say(line: &str) {
    std::io::stdout()
        .lock()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

async fn write(broker: Broker, writer: u64, seed: u64) {
    let mut random = Random::new(seed * 31 + writer);
    let producer = broker.producer(&format!("w{writer}")).await.unwrap();
    let group = format!("g{writer}");
    let mut number = broker
        .group_offsets(&group)
        .get(&("s".to_owned(), 0))
        .copied()
        .unwrap_or(0);
    loop {
        let mut transaction = producer.begin().unwrap();
        let used: Vec<u32> = (0..PARTITIONS).filter(|_| random.below(2) > 0).collect();
        let per = 1 + random.below(6);
        let total = used.len() as u64 * per;
        let aborts = random.below(6) == 0;
        let kind = if aborts { "aborted" } else { "t" };
        let mut sent = HashMap::new();
        for partition in used {
            let pad = "x".repeat(random.below(300) as usize);
            let value = |i| format!("{kind} {writer} {number} {total} {partition}.{i} {pad}");
            let values: Vec<_> = (0..per).map(value).collect();
            let texts: Vec<_> = values.iter().map(String::as_str).collect();
            transaction.append("t", partition, batch(&texts)).await.unwrap();
            sent.insert(partition, values);
        }
        transaction
            .commit_group_offsets(&group, &[("s", 0, number + 1)])
            .await
            .unwrap();
        if aborts {
            transaction.abort().await.unwrap();
            continue;
        }
        let committed = transaction.commit().await.unwrap();
        for place in committed.partitions {
            for (offset, value) in (place.base_offset..).zip(&sent[&place.partition]) {
                say(&format!("record {} {offset} {}", place.partition, hash(value)));
            }
        }
        number += 1;
        say(&format!("transaction {writer} {number}"));
        if random.below(3) == 0 {
            let partition = random.below(u64::from(PARTITIONS)) as u32;
            let offset = broker.append("t", partition, batch(&["plain"])).await.unwrap();
            say(&format!("record {partition} {offset} {}", hash("plain")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the crash test, as the process it kills"]
async fn writer_process() {
    let dir = env::var(DIR).unwrap();
    let seed: u64 = env::var(SEED).unwrap().parse().unwrap();
    let broker = Broker::open(options(Path::new(&dir))).unwrap();
    if broker.topic("t").is_none() {
        broker
            .create_topic("t", TopicConfig::new(PARTITIONS))
            .await
            .unwrap();
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| tokio::spawn(write(broker.clone(), w, seed)))
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[derive(Default)]
struct Ledger {
    /// What was acknowledged: the hash by partition and offset.
    records: BTreeMap<(u32, u64), u64>,
    transactions: HashMap<u64, u64>,
}

impl Ledger {
    fn note(&mut self, line: &str) -> bool {
        let fields: Vec<_> = line.split(' ').collect();
        match fields[..] {
            ["record", partition, offset, hash] => {
                let place = (partition.parse().unwrap(), offset.parse().unwrap());
                let before = self.records.insert(place, hash.parse().unwrap());
                assert_eq!(before, None, "offset {place:?} was given out twice");
            }
            ["transaction", writer, count] => {
                self.transactions
                    .insert(writer.parse().unwrap(), count.parse().unwrap());
                return true;
            }
            // What the test harness prints.
            _ => {}
        }
        false
    }

    /// Holds what is read against what was acknowledged; takes over what was committed without having been said.
    fn check(&mut self, broker: &Broker) {
        let mut seen: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut totals = HashMap::new();
        let mut unseen = self.records.clone();
        for partition in 0..PARTITIONS {
            for (offset, value) in read(broker, "t", partition, Isolation::ReadCommitted) {
                let found = hash(&value);
                let acknowledged = unseen.remove(&(partition, offset));
                assert!(
                    acknowledged.is_none_or(|hash| hash == found),
                    "{partition} {offset}: {value}"
                );
                self.records.insert((partition, offset), found);
                if value == "plain" {
                    continue;
                }
                let fields: Vec<_> = value.split(' ').collect();
                assert_eq!(fields[0], "t", "an aborted record shows: {value}");
                let key = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
                *seen.entry(key).or_default() += 1;
                totals.insert(key, fields[3].parse::<u64>().unwrap());
            }
        }
        assert!(unseen.is_empty(), "acknowledged and lost: {unseen:?}");
        for (key, count) in &seen {
            assert_eq!(
                *count, totals[key],
                "transaction {key:?} is whole, and there once"
            );
        }
        for writer in 0..WRITERS {
            let next = broker
                .group_offsets(&format!("g{writer}"))
                .get(&("s".to_owned(), 0))
                .copied()
                .unwrap_or(0);
            let acknowledged = self.transactions.get(&writer).copied().unwrap_or(0);
            assert!(
                (acknowledged..=acknowledged + 1).contains(&next),
                "{next} after {acknowledged}"
            );
            let shown = seen
                .keys()
                .filter(|(w, _)| *w == writer)
                .map(|(_, n)| n + 1)
                .max()
                .unwrap_or(0);
            assert!(
                shown <= next,
                "transaction {shown} of writer {writer} shows, its offset is {next}"
            );
            self.transactions.insert(writer, next);
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(7);
    let mut ledger = Ledger::default();
    for round in 0..ROUNDS {
        let mut child = spawn("writer_process", dir.path(), round);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = 1 + random.below(60);
        let mut transactions = 0;
        while transactions < enough {
            let line = lines
                .next()
                .expect("the writer goes on until it is killed")
                .unwrap();
            transactions += u64::from(ledger.note(&line));
        }
        child.kill().unwrap();
        // What it had said before it died counts too; the last line may be cut.
        let mut rest = Vec::new();
        for line in lines {
            rest.extend(line);
        }
        for line in &rest {
            ledger.note(line);
        }
        child.wait().unwrap();
        let broker = Broker::open(options(dir.path())).unwrap();
        ledger.check(&broker);
    }
    assert!(ledger.records.len() > 500, "{} records", ledger.records.len());
}

#[tokio::test]
#[ignore = "run by the test of the lock, as the second process"]
async fn opening_process() {
    let dir = env::var(DIR).unwrap();
    match Broker::open(options(Path::new(&dir))) {
        Ok(_) => say("opened"),
        Err(Error::Locked { pid, .. }) => say(&format!("locked by {pid:?}")),
        Err(e) => say(&format!("failed: {e}")),
    }
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let answer = || {
        let output = spawn("opening_process", dir.path(), 0)
            .wait_with_output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let known = |line: &&str| line.ends_with("opened") || line.contains("locked by");
        text.lines().find(known).unwrap_or(&text).to_owned()
    };
    let broker = Broker::open(options(dir.path())).unwrap();
    assert!(
        answer().ends_with(&format!("locked by Some({})", std::process::id())),
        "{}",
        answer()
    );
    drop(broker);
    assert!(answer().ends_with("opened"), "{}", answer());
}
