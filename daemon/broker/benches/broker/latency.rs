//! One append in flight: what the log adds to the fdatasync it cannot do without.

use std::time::{Duration, Instant};

use crate::figures::{Cell, Part, Spread, percentile_ms};
use crate::load::{self, Batches};
use crate::raw::{Appended, noise};
use crate::{Bench, Result};

/// Appends by turns: short enough that both see the same disk.
const TURN: usize = 25;

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "latency",
        "One durable append after the other, from a thread that waits for each. Raw: one write of as many bytes, one \
         fdatasync, on\nthe calling thread. They take turns of 25.",
        &[
            "batch",
            "p50 ms",
            "raw p50",
            "p50 added",
            "p99 ms",
            "raw p99",
            "appends",
        ],
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let broker = load::open(&bench.dir.join("latency"))?;
    runtime.block_on(broker.create_topic("t", load::topic(1, "fsync")))?;
    let time = Duration::from_millis(bench.pick(2_000, 1_000));
    for bytes in [1 << 10, 64 << 10] {
        let batches = Batches::of(bytes);
        let data = noise(batches.bytes());
        let mut file = Appended::create(bench.dir.join("raw-latency"))?;
        let mut rounds = Vec::new();
        let mut count = 0;
        for round in 0..bench.pick(bench.rounds, 1) {
            bench
                .progress
                .step(&format!("latency: {} KB, round {}", bytes >> 10, round + 1));
            let (mut log, mut raw) = (Vec::new(), Vec::new());
            let end = Instant::now() + time;
            while Instant::now() < end {
                for _ in 0..TURN {
                    let begun = Instant::now();
                    file.write(&data)?;
                    file.sync()?;
                    raw.push(begun.elapsed());
                }
                for _ in 0..TURN {
                    let batch = batches.batch();
                    let begun = Instant::now();
                    runtime.block_on(broker.append("t", 0, batch))?;
                    log.push(begun.elapsed());
                }
            }
            log.sort_unstable();
            raw.sort_unstable();
            count += log.len();
            rounds.push((log, raw));
        }
        let log = |part| Spread::of(rounds.iter().map(|(log, _)| percentile_ms(log, part)));
        let raw = |part| Spread::of(rounds.iter().map(|(_, raw)| percentile_ms(raw, part)));
        let added = Spread::of(
            rounds
                .iter()
                .map(|(log, raw)| percentile_ms(log, 0.5) - percentile_ms(raw, 0.5)),
        );
        part.row(vec![
            Cell::text(format!("{} KB", bytes >> 10)),
            log(0.5).cell(3),
            raw(0.5).cell(3),
            added.cell(3),
            log(0.99).cell(3),
            raw(0.99).cell(3),
            Cell::count(count as u64),
        ]);
        if bytes == 1 << 10 {
            part.aim(
                "one append of 1 KB in flight, p50 over raw",
                "≤ 0.08 ms",
                format!("{:.3} ms", added.median),
                added.median <= 0.08,
            );
        }
    }
    runtime.block_on(broker.close())?;
    Ok(part)
}
