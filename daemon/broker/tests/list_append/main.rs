//! Transactions under concurrency, fencing and crashes, checked in the manner of Elle's list-append.
//!
//! The method is that of Kingsbury and Alvaro, *Elle: Inferring Isolation Anomalies from Experimental Observations*,
//! VLDB 2020: transactions append elements, each unique, to lists; since a read of a list shows the order in which it
//! came to be, what was read tells which anomalies happened. Here a list is the records of one key, in the partition
//! the key belongs to; a transaction appends to several lists in several partitions; readers of committed data read
//! them all the while. Producers are fenced at random, transactions aborted, partitions with further lists added, and
//! in the second test the process killed.
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

mod history;
#[path = "../support/mod.rs"]
mod support;
mod workload;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use history::{History, Outcome, final_read};
use parking_lot::Mutex;
use support::Random;
use tidewater_broker::{Broker, BrokerOptions};
use workload::{Say, run};

/// At first.
const PARTITIONS: u32 = 3;
const MOST_PARTITIONS: u64 = 6;
const KEYS: u64 = 18;
const PRODUCERS: u64 = 4;
const DIR: &str = "BROKER_LISTS_DIR";
const ROUND: &str = "BROKER_LISTS_ROUND";

fn options(dir: &Path) -> BrokerOptions {
    BrokerOptions {
        segment_bytes: 20_000,
        checkpoint_bytes: 8_000,
        // The records have timestamps of long ago.
        topic_defaults: [("retention.ms".to_owned(), "-1".to_owned())].into(),
        ..BrokerOptions::new(dir)
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
    let start = || vec![0; MOST_PARTITIONS as usize];
    run(&broker, 0, MOST_PARTITIONS as u32, [start(), start()], say, stop).await;
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
    let finals = final_read(&broker);
    let everywhere = finals.iter().filter(|elements| !elements.is_empty()).count();
    assert_eq!(everywhere as u64, MOST_PARTITIONS, "those that were added, too");
    history.check(&finals);
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
    let (first, second) = numbers[1..].split_at(MOST_PARTITIONS as usize);
    let broker = Broker::open(options(Path::new(&dir))).unwrap();
    // The test harness has begun a line of its own.
    print("");
    let say: Say = Arc::new(|line| print(&line));
    // Another partition a round.
    let most = MOST_PARTITIONS.min(u64::from(PARTITIONS) + 1 + numbers[0]);
    let positions = [first.to_vec(), second.to_vec()];
    run(&broker, numbers[0], most as u32, positions, say, Arc::default()).await;
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
