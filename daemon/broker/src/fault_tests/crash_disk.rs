//! The power fails at any moment, and the disk is left in any state it may be in: what was acknowledged is there,
//! transactions are whole, nothing is invented, nothing that was seen is unseen.
//!
//! A workload runs once; then the power fails at many moments of its history, right after each acknowledgement above
//! all, with all, nothing, or some of what was not synced left. The broker is opened on each of these disks and held
//! against the [`Ledger`]. Then it goes on writing, and the power fails again, also while it was being opened.
//!
//! `TIDEWATER_CRASH_SEED` sets the seed, `TIDEWATER_CRASH_SEEDS` how many from there on are tried, each with a workload of
//! its own, and `TIDEWATER_CRASH_ROUNDS` how many moments of each workload.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

use super::crash_ledger::Ledger;
use super::crash_workload::Workload;
use super::memory_disk::{Event, MemoryDisk, Moment, Node};
use super::power_failure::{Kept, Replay};
use crate::{Broker, BrokerOptions};

const ROUNDS: usize = 150;

fn options(flush_threads: usize) -> BrokerOptions {
    BrokerOptions {
        segment_bytes: 9_000,
        checkpoint_bytes: 4_000,
        index_interval_bytes: 500,
        flush_threads,
        // The records have timestamps of long ago.
        topic_defaults: [("retention.ms".to_owned(), "-1".to_owned())].into(),
        ..BrokerOptions::new("/var/lib/tidewater")
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Runs the workload, and ends it cleanly if `close`.
fn run(workload: Workload, steps: usize, close: bool, send_again: bool) -> Ledger {
    runtime().block_on(async {
        if send_again {
            workload.send_again().await;
        }
        workload.run(steps).await;
        if close {
            workload.broker.close().await.unwrap();
        }
        let Workload { ledger, broker, .. } = workload;
        drop(broker);
        Arc::into_inner(ledger).unwrap().into_inner()
    })
}

/// Moments at which something was acknowledged or seen.
fn acknowledgements(ledger: &Ledger) -> Vec<Moment> {
    let appends = ledger.appends.iter().map(|append| append.claim);
    let transactions = ledger
        .transactions
        .iter()
        .filter_map(|transaction| transaction.claim);
    let offsets = ledger.offsets.iter().map(|offset| offset.claim);
    let created = ledger.topics.values().map(|life| life.created);
    let deleted = ledger.topics.values().filter_map(|life| life.deleted);
    let claims = appends
        .chain(transactions)
        .chain(offsets)
        .chain(created)
        .chain(deleted)
        .chain(ledger.registers.claims());
    let seen = ledger.seen.iter().map(|seen| seen.at);
    claims
        .filter_map(|claim| claim.acknowledged)
        .chain(seen)
        .collect()
}

/// The moments to fail at, in order: right after an acknowledgement, right after a change of a name, or any other.
fn moments(ledger: &Ledger, history: &[Event], count: usize, random: &mut Rng) -> Vec<Moment> {
    let told = acknowledgements(ledger);
    let named = |event: &Event| matches!(event, Event::Renamed { .. } | Event::Removed { .. });
    let named: Vec<_> = (1..)
        .zip(history)
        .filter(|(_, event)| named(event))
        .map(|(after, _)| after)
        .collect();
    let mut moments: Vec<_> = (0..count)
        .map(|i| match i % 4 {
            0 | 1 => *random.choice(&told).unwrap(),
            2 => *random.choice(&named).unwrap(),
            _ => random.usize(..=history.len()),
        })
        .collect();
    moments.sort_unstable();
    moments
}

/// A workload that was run, and the disk it was run on.
struct Ran {
    ledger: Ledger,
    base: Vec<Node>,
    history: Vec<Event>,
}

/// One power failure after a workload, and what comes of it.
fn fail_and_go_on(replay: &Replay<'_>, at: Moment, ran: &Ran, seed: u64) {
    let mut random = Rng::with_seed(seed);
    let kept = *random.choice(&Kept::EACH).unwrap();
    let killed = random.u32(..8) == 0;
    let (disk, after) = if killed {
        // Not the power fails, but the process is killed: what it wrote is there, but may yet go.
        let disk = MemoryDisk::after(&ran.base, &ran.history[..at]);
        (disk, ran.ledger.at(at))
    } else {
        (
            replay.power_failure(kept, &mut random),
            ran.ledger.restarted_at(at),
        )
    };
    let failed_at = disk.now();
    let mut opened = after.clone();
    let telling = Telling {
        what: if killed {
            "the process was killed"
        } else {
            "the power failed"
        },
        disk: Some(&disk),
        history: &ran.history[..at],
        kept,
    };
    let broker = Broker::open_on(Arc::new(disk.clone()), options(1)).unwrap();
    let open_at = disk.now();
    opened.check(&broker, open_at);
    drop(telling);
    let (base, history) = disk.history();
    let opening = Ran {
        ledger: after,
        base,
        history,
    };
    fail_again(&opening, failed_at..=open_at, &mut random);
    if !killed && random.u32(..4) > 0 {
        return;
    }
    // It goes on, and the power fails once more.
    let workload = Workload {
        disk: disk.clone(),
        broker,
        ledger: Arc::new(Mutex::new(opened)),
        generation: 1,
        seed: random.u64(..),
        failures: None,
    };
    let ledger = run(workload, 3, random.bool(), true);
    let (base, history) = disk.history();
    let end = history.len();
    let later = Ran {
        ledger,
        base,
        history,
    };
    fail_again(&later, open_at..=end, &mut random);
    fail_again(&later, open_at..=end, &mut random);
}

/// The power fails once more, at one of these moments.
fn fail_again(ran: &Ran, moments: RangeInclusive<Moment>, random: &mut Rng) {
    let at = random.usize(moments);
    let mut replay = Replay::new(&ran.base, &ran.history);
    replay.advance(at);
    let kept = *random.choice(&Kept::EACH).unwrap();
    let disk = replay.power_failure(kept, random);
    let _telling = Telling {
        what: "the power failed again",
        disk: Some(&disk),
        history: &ran.history[..at],
        kept,
    };
    let broker = Broker::open_on(Arc::new(disk.clone()), options(1)).unwrap();
    ran.ledger.restarted_at(at).check(&broker, disk.now());
}

fn fail_at_many_moments(seed: u64, flush_threads: usize) {
    let mut random = Rng::with_seed(seed);
    let disk = MemoryDisk::new();
    let workload = Workload {
        broker: Broker::open_on(Arc::new(disk.clone()), options(flush_threads)).unwrap(),
        disk: disk.clone(),
        ledger: Arc::default(),
        generation: 0,
        seed,
        failures: None,
    };
    let ledger = run(workload, 40, random.bool(), false);
    let (base, history) = disk.history();
    let ran = Ran {
        ledger,
        base,
        history,
    };
    let (ledger, history) = (&ran.ledger, &ran.history);
    let mut replay = Replay::new(&ran.base, history);
    let rounds = from_env("TIDEWATER_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    for at in moments(ledger, history, rounds, &mut random) {
        replay.advance(at);
        let round = random.u64(..);
        let outcome = catch_unwind(AssertUnwindSafe(|| fail_and_go_on(&replay, at, &ran, round)));
        if let Err(panic) = outcome {
            eprintln!(
                "TIDEWATER_CRASH_SEED={seed}, {flush_threads} flusher threads: after event {at} of {} (round {round})",
                history.len(),
            );
            std::panic::resume_unwind(panic);
        }
    }
}

/// Tells where it was if a check panics.
struct Telling<'t> {
    what: &'t str,
    /// The events up to here, and those after it that led to where it panicked.
    disk: Option<&'t MemoryDisk>,
    history: &'t [Event],
    kept: Kept,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let after = self.disk.map(|disk| disk.history().1).unwrap_or_default();
        let events = &self.history[self.history.len().saturating_sub(60)..];
        eprintln!("{} with {:?} kept, after these events:", self.what, self.kept);
        for event in events {
            eprintln!("  {}", brief(event));
        }
        eprintln!("and then these:");
        for event in after {
            eprintln!("  {}", brief(&event));
        }
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Write { file, at, bytes } => format!("Write {{ {} bytes at {at} of {file} }}", bytes.len()),
        other => format!("{other:?}"),
    }
}

fn fail_with_many_seeds(default: u64, flush_threads: usize) {
    let first = from_env("TIDEWATER_CRASH_SEED").unwrap_or(default);
    let seeds = from_env("TIDEWATER_CRASH_SEEDS").unwrap_or(1);
    for seed in first..first + seeds {
        fail_at_many_moments(seed, flush_threads);
    }
}

#[test]
fn nothing_is_lost_when_the_power_fails_with_one_flusher_thread() {
    fail_with_many_seeds(1, 1);
}

#[test]
fn nothing_is_lost_when_the_power_fails_with_several_flusher_threads() {
    fail_with_many_seeds(2, 3);
}
