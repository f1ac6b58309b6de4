//! `kill -9`: a process that does everything there is to do is killed at any moment, in recovery too, again and again.
//! What it said was acknowledged is there, once and in its place; transactions are whole; nothing is invented.
//!
//! `process` is what is killed: it says a line before what it begins and a line after what it was answered. `ledger`
//! takes these in and holds the directory against them (`shown`). The operating system keeps what was written, so all of this
//! holds with durability `os` too; what is left when the power fails is another test (`fault_tests`).
//!
//! A few rounds by default; `TIDEWATER_CRASH_ROUNDS=200` for more, `TIDEWATER_CRASH_SEED` for others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ledger;
mod process;
mod shown;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ledger::Ledger;
use support::Random;
use tidewater_broker::{Broker, BrokerOptions, Error};

const ROUNDS: u64 = 10;
/// After so many rounds a new directory is begun: each check reads all there is.
const ROUNDS_PER_DIR: u64 = 20;
const DIR: &str = "BROKER_CRASH_DIR";
const STATE: &str = "BROKER_CRASH_STATE";

fn options(dir: &Path) -> BrokerOptions {
    BrokerOptions {
        segment_bytes: 16_000,
        checkpoint_bytes: 6_000,
        index_interval_bytes: 500,
        compaction_interval: Duration::from_millis(20),
        // The records have timestamps of long ago.
        topic_defaults: [("retention.ms".to_owned(), "-1".to_owned())].into(),
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
fn spawn(test: &str, dir: &Path, state: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(STATE, state)
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

fn from_env(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let rounds = from_env("TIDEWATER_CRASH_ROUNDS", ROUNDS);
    let seed = from_env("TIDEWATER_CRASH_SEED", 7);
    let mut random = Random::new(seed);
    let mut totals = ledger::Totals::default();
    let mut round = 0;
    while round < rounds {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        process::create_topics(dir.path(), &mut ledger);
        for _ in 0..ROUNDS_PER_DIR.min(rounds - round) {
            let state = format!("{} {}", seed * 1_000_000 + round, ledger.numbered_state());
            // Sometimes while it is opening: it recovers then from a recovery that was killed.
            let enough = if random.below(5) == 0 {
                0
            } else {
                1 + random.below(400)
            };
            kill_after(
                enough,
                spawn("process::killed_process", dir.path(), &state),
                &mut ledger,
            );
            round += 1;
            // At times the next process finds what this one left, without a check in between.
            if random.below(4) > 0 || round == rounds {
                let broker = Broker::open(options(dir.path())).unwrap();
                ledger.note_recovery(&broker);
                ledger.check(&broker, &mut random);
            }
        }
        let broker = Broker::open(options(dir.path())).unwrap();
        ledger.check(&broker, &mut random);
        totals.add(&ledger.totals);
    }
    println!("{rounds} rounds: {totals:?}");
    assert!(totals.plausible(rounds), "{totals:?}");
}

/// Kills a process once it has said that so much is acknowledged.
fn kill_after(enough: u64, mut child: Child, ledger: &mut Ledger) {
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = 0;
    loop {
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        let Some(line) = line.strip_suffix('\n') else {
            panic!("it goes on until it is killed, and has ended: {:?}", child.wait());
        };
        acknowledged += u64::from(ledger.note(line));
        if acknowledged >= enough && ledger.opening {
            break;
        }
    }
    child.kill().unwrap();
    // What it had said before it died counts too; the last line may be cut.
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    for line in rest.split_inclusive('\n') {
        if let Some(line) = line.strip_suffix('\n') {
            ledger.note(line);
        }
    }
    child.wait().unwrap();
    ledger.opening = false;
    ledger.kills += 1;
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
        let output = spawn("opening_process", dir.path(), "")
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
