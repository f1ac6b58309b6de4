//! Transactions under concurrency, fencing and crashes, checked in the manner of Elle's list-append.
//!
//! The method is that of Kingsbury and Alvaro, *Elle: Inferring Isolation Anomalies from Experimental Observations*,
//! VLDB 2020: transactions append elements, each unique, to lists; since a read of a list shows the order in which it
//! came to be, what was read tells which anomalies happened. Here a list is the records of one key, in the partition
//! the key belongs to; a transaction appends to several lists in several partitions; readers of committed data read
//! them all the while. Producers are fenced at random, transactions aborted, and in the second test the process killed.
//!
//! # What is promised, and so what is checked
//! A read of a partition ends at a position, the last stable offset at the time at most. *The final read*, taken when
//! all transactions are decided, is the order of versions of all lists.
//!
//! - **No aborted read (G1a)**: no element of a transaction that was aborted or fenced, or that a crash undid, is ever
//!   read, and none is in the final read.
//! - **No intermediate read (G1b)**: each read is the final read of the partition up to its position, with nothing
//!   missing. So all reads of a list are prefixes of one another (no *incompatible order*), and the elements of a
//!   transaction in one partition appear in their order without a gap, all of those before the position at once.
//!   A transaction whose elements in a partition lie around the position may so be seen in part: the last stable
//!   offset stops at the first record of the oldest open transaction, which may lie between them. Reads of
//!   two partitions are two reads: nothing says that they show the same transactions.
//! - **Nothing lost, nothing twice**: the elements of every acknowledged transaction are in the final read once, in the
//!   list they were appended to.
//! - **No torn transaction**: in the final read a transaction has all its elements, in all partitions, or none.
//! - **Order (G0)**: transactions of different producers may interleave differently in two partitions, as they do in
//!   Kafka; write cycles among concurrent transactions are no anomaly at read-committed in a log without locks. But a
//!   transaction that began after another was acknowledged comes after it in every list, and so there is no
//!   cycle among transactions that were not concurrent.
//! - **Reads are monotonic**: what was read stays, over crashes too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use support::Random;
use tidewater_broker::{
    BatchBuilder, Broker, BrokerOptions, Compression, Error, Isolation, Start, TopicConfig,
};

const PARTITIONS: u32 = 3;
const KEYS: u64 = 9;
const PRODUCERS: u64 = 4;
const DIR: &str = "BROKER_LISTS_DIR";
const ROUND: &str = "BROKER_LISTS_ROUND";

fn options(dir: &Path) -> BrokerOptions {
    BrokerOptions {
        segment_bytes: 20_000,
        checkpoint_bytes: 8_000,
        ..BrokerOptions::new(dir)
    }
}

/// Where the history goes: an event a line, in the order things happened.
type Say = Arc<dyn Fn(String) + Send + Sync>;

/// The lists of a partition: keys are spread over partitions.
fn partition_of(key: u64) -> u32 {
    (key % u64::from(PARTITIONS)) as u32
}

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
            let key = random.below(KEYS);
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

/// Reads all partitions by turns, from `positions` on.
async fn read(broker: Broker, me: u64, positions: Vec<u64>, say: Say, stop: Arc<AtomicBool>) {
    let mut readers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let from = Start::Offset(positions[partition as usize]);
            broker
                .reader("lists", partition, from, Isolation::ReadCommitted)
                .unwrap()
        })
        .collect();
    while !stop.load(Ordering::SeqCst) {
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

/// An element where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    offset: u64,
    key: u64,
    name: String,
}

impl Element {
    fn of(offset: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        Self {
            offset,
            key: text(key).parse().unwrap(),
            name: text(value).split(' ').next().unwrap().to_owned(),
        }
    }

    fn told(&self) -> String {
        format!("{}:{}:{}", self.offset, self.key, self.name)
    }

    fn parse(told: &str) -> Self {
        let fields: Vec<_> = told.split(':').collect();
        Self {
            offset: fields[0].parse().unwrap(),
            key: fields[1].parse().unwrap(),
            name: fields[2].to_owned(),
        }
    }
}

/// The transaction an element is of.
fn transaction_of(element: &str) -> &str {
    element.rsplit_once('.').unwrap().0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nobody said: killed while committing, or before.
    Unknown,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Transaction {
    /// Element and key.
    appends: Vec<(String, u64)>,
    outcome: Outcome,
    commit_begun: bool,
    /// Which line of the history; `acknowledged` likewise.
    begun: usize,
    acknowledged: Option<usize>,
}

struct Read {
    partition: usize,
    from: u64,
    to: u64,
    elements: Vec<Element>,
}

#[derive(Default)]
struct History {
    transactions: HashMap<String, Transaction>,
    reads: Vec<Read>,
    lines: usize,
    /// How far each reader has come, by reader and partition.
    positions: HashMap<(String, usize), u64>,
}

impl History {
    /// Takes in a line; answers whether it acknowledges a transaction.
    fn note(&mut self, line: &str) -> bool {
        self.lines += 1;
        let fields: Vec<_> = line.split(' ').collect();
        let at = self.lines;
        match fields[..] {
            ["begin", name] => {
                let new = Transaction {
                    appends: Vec::new(),
                    outcome: Outcome::Unknown,
                    commit_begun: false,
                    begun: at,
                    acknowledged: None,
                };
                assert!(self.transactions.insert(name.to_owned(), new).is_none());
            }
            ["append", name, key, element] => {
                let append = (element.to_owned(), key.parse().unwrap());
                self.transactions.get_mut(name).unwrap().appends.push(append);
            }
            ["commit", name] => self.transactions.get_mut(name).unwrap().commit_begun = true,
            ["abort", name] => self.transactions.get_mut(name).unwrap().outcome = Outcome::Aborted,
            ["ack", name] => {
                let transaction = self.transactions.get_mut(name).unwrap();
                transaction.outcome = Outcome::Committed;
                transaction.acknowledged = Some(at);
                return true;
            }
            ["read", reader, partition, from, to, elements] => {
                let partition = partition.parse().unwrap();
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                let elements = elements.split(',').filter(|told| !told.is_empty());
                let elements = elements.map(Element::parse).collect();
                let before = self.positions.insert((reader.to_owned(), partition), to);
                assert!(
                    before.is_none_or(|before| before == from),
                    "{reader} left {before:?} and came to {from}"
                );
                self.reads.push(Read {
                    partition,
                    from,
                    to,
                    elements,
                });
            }
            // What the test harness prints.
            _ => {}
        }
        false
    }

    fn positions(&self, reader: u64) -> Vec<u64> {
        let of = |partition| self.positions.get(&(reader.to_string(), partition)).copied();
        (0..PARTITIONS as usize)
            .map(|partition| of(partition).unwrap_or(0))
            .collect()
    }

    /// Holds the history against the final read of each partition.
    fn check(&self, finals: &[Vec<Element>]) {
        let mut places: HashMap<&str, (usize, &Element)> = HashMap::new();
        for (partition, elements) in finals.iter().enumerate() {
            assert!(elements.is_sorted_by(|a, b| a.offset < b.offset));
            for element in elements {
                assert_eq!(partition_of(element.key) as usize, partition);
                let twice = places.insert(&element.name, (partition, element));
                assert!(twice.is_none(), "{} is there twice", element.name);
            }
        }
        for name in places.keys() {
            assert!(
                self.transactions.contains_key(transaction_of(name)),
                "{name} is invented"
            );
        }
        let mut committed = HashSet::new();
        for (name, transaction) in &self.transactions {
            let there = transaction.appends.iter().filter(|(element, key)| {
                let found = places.get(element.as_str());
                assert!(
                    found.is_none_or(|(_, found)| found.key == *key),
                    "{element} is in another list"
                );
                found.is_some()
            });
            let there = there.count();
            let all = transaction.appends.len();
            match transaction.outcome {
                Outcome::Committed => assert_eq!(there, all, "{name} is acknowledged and has lost elements"),
                Outcome::Aborted => assert_eq!(there, 0, "{name} was aborted and shows (G1a)"),
                Outcome::Unknown => {
                    assert!(there == 0 || there == all, "{name} is torn: {there} of {all}");
                    assert!(
                        there == 0 || transaction.commit_begun,
                        "{name} was not to be committed"
                    );
                }
            }
            if there > 0 {
                committed.insert(name.as_str());
            }
        }
        for name in places.keys() {
            let transaction = &self.transactions[transaction_of(name)];
            // The last append of a killed process may not have been said.
            let said = transaction.appends.iter().any(|(element, _)| element == name);
            assert!(said, "{name} was never appended");
        }
        for read in &self.reads {
            let elements = &finals[read.partition];
            let range = elements.partition_point(|e| e.offset < read.from)
                ..elements.partition_point(|e| e.offset < read.to);
            assert_eq!(
                read.elements, elements[range],
                "a read of partition {} from {} to {} is not what was committed there (G1a, G1b)",
                read.partition, read.from, read.to
            );
        }
        self.check_order(finals, &committed);
    }

    /// What began after another was acknowledged comes after it.
    fn check_order(&self, finals: &[Vec<Element>], committed: &HashSet<&str>) {
        for elements in finals {
            let mut spans: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            for element in elements {
                let span = spans
                    .entry(transaction_of(&element.name))
                    .or_insert((element.offset, element.offset));
                span.1 = element.offset;
            }
            // In order of acknowledgement: the furthest offset of those acknowledged by some line.
            let mut by_ack: Vec<(usize, u64)> = Vec::new();
            for (name, (_, last)) in &spans {
                by_ack.extend(self.transactions[*name].acknowledged.map(|at| (at, *last)));
            }
            by_ack.sort_unstable();
            let mut furthest = 0;
            for entry in &mut by_ack {
                furthest = furthest.max(entry.1);
                entry.1 = furthest;
            }
            for (name, (first, _)) in &spans {
                assert!(committed.contains(name));
                let begun = self.transactions[*name].begun;
                let before = by_ack.partition_point(|(at, _)| *at < begun);
                if let Some((_, last)) = before.checked_sub(1).map(|i| by_ack[i]) {
                    assert!(
                        *first > last,
                        "{name} comes before one that ended before it began (G0)"
                    );
                }
            }
        }
    }
}

/// The final read, when nothing is open any more.
fn final_read(broker: &Broker) -> Vec<Vec<Element>> {
    let read = |partition| {
        let mut reader = broker
            .reader("lists", partition, Start::Earliest, Isolation::ReadCommitted)
            .unwrap();
        let mut elements = Vec::new();
        while let Some(fetched) = reader.try_next(1 << 20).unwrap() {
            elements.extend(fetched.records().map(|r| Element::of(r.offset, r.key, r.value)));
        }
        let offsets = broker.offsets("lists", partition).unwrap();
        assert_eq!(offsets.last_stable, offsets.high_watermark, "all is decided");
        elements
    };
    (0..PARTITIONS).map(read).collect()
}

/// Runs all that goes on at once, until `stop`.
async fn run(broker: &Broker, round: u64, positions: [Vec<u64>; 2], say: Say, stop: Arc<AtomicBool>) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn concurrent_transactions_show_no_anomaly() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(dir.path())).unwrap();
    let (history, stop) = (
        Arc::new(Mutex::new(History::default())),
        Arc::new(AtomicBool::new(false)),
    );
    let acknowledged = Mutex::new(0);
    let (noting, stopping) = (Arc::clone(&history), Arc::clone(&stop));
    let say: Say = Arc::new(move |line| {
        if noting.lock().note(&line) {
            let mut acknowledged = acknowledged.lock();
            *acknowledged += 1;
            if *acknowledged >= 600 {
                stopping.store(true, Ordering::SeqCst);
            }
        }
    });
    let start = || vec![0; PARTITIONS as usize];
    run(&broker, 0, [start(), start()], say, stop).await;
    let history = history.lock();
    let aborted = history
        .transactions
        .values()
        .filter(|t| t.outcome == Outcome::Aborted)
        .count();
    assert!(
        aborted > 20 && history.reads.len() > 20,
        "{aborted} aborted, {} reads",
        history.reads.len()
    );
    history.check(&final_read(&broker));
}

/// One line at once, so that a line is whole or not there.
fn print(line: &str) {
    let line = format!("{line}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
#[ignore = "run by the test with crashes, as the process it kills"]
async fn killed_process() {
    let dir = env::var(DIR).unwrap();
    // The positions of the two readers follow the round.
    let numbers: Vec<u64> = env::var(ROUND)
        .unwrap()
        .split(' ')
        .map(|n| n.parse().unwrap())
        .collect();
    let (first, second) = numbers[1..].split_at(PARTITIONS as usize);
    let broker = Broker::open(options(Path::new(&dir))).unwrap();
    // The test harness has begun a line of its own.
    print("");
    let say: Say = Arc::new(|line| print(&line));
    let positions = [first.to_vec(), second.to_vec()];
    run(&broker, numbers[0], positions, say, Arc::default()).await;
}

fn spawn(dir: &Path, round: u64, history: &History) -> Child {
    let positions = [history.positions(0), history.positions(1)].concat();
    let numbers: Vec<_> = std::iter::once(round)
        .chain(positions)
        .map(|n| n.to_string())
        .collect();
    Command::new(env::current_exe().unwrap())
        .args([
            "killed_process",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .env(ROUND, numbers.join(" "))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn transactions_of_killed_processes_show_no_anomaly() {
    let rounds = env::var("TIDEWATER_CRASH_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(21);
    let mut history = History::default();
    for round in 0..rounds {
        let mut child = spawn(dir.path(), round, &history);
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let enough = 1 + random.below(80);
        let mut acknowledged = 0;
        let mut killed = false;
        loop {
            let mut line = String::new();
            told.read_line(&mut line).unwrap();
            // What it had said before it died counts too; the last line may be cut.
            let Some(line) = line.strip_suffix('\n') else {
                break;
            };
            acknowledged += u64::from(history.note(line));
            if acknowledged >= enough && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "it goes on until it is killed");
        child.wait().unwrap();
        let broker = Broker::open(options(dir.path())).unwrap();
        history.check(&final_read(&broker));
    }
    let unknown = history
        .transactions
        .values()
        .filter(|t| t.outcome == Outcome::Unknown)
        .count();
    assert!(unknown as u64 >= rounds, "{unknown} were under way when killed");
}
