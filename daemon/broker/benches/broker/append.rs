//! Appending without waiting for the disk: what the log itself costs.

use std::hint::black_box;
use std::time::Instant;

use crate::figures::{Cell, Part, Spread, number};
use crate::load::{self, Batches};
use crate::process::cpu_seconds;
use crate::raw::{Appended, noise};
use crate::{Bench, Result};

/// One round of something: records a second, and processor seconds of the whole process per million.
struct Round {
    rate: f64,
    cpu: f64,
}

fn timed(records: u64, work: impl FnOnce() -> Result<()>) -> Result<Round> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    work()?;
    let millions = records as f64 / 1e6;
    Ok(Round {
        rate: records as f64 / begun.elapsed().as_secs_f64(),
        cpu: (cpu_seconds() - cpu) / millions,
    })
}

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "append",
        "Records of 100 bytes (and 8 of key) are built into batches and appended by one thread, durability `os`: \
         acknowledged once in\nthe page cache. Raw: write of as many bytes. CPU is that of the whole process, \
         background threads included.",
        &[
            "records a batch",
            "M records/s",
            "M building only",
            "M raw write",
            "CPU s/M records",
            "building",
            "raw write",
        ],
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let broker = load::open(&bench.dir.join("append"))?;
    let total: u64 = bench.pick(5_000_000, 1_000_000);
    for records in [10, 100, 600] {
        let batches = Batches::of_records(records, 100);
        let data = noise(batches.bytes());
        let count = total / records as u64;
        let name = format!("t-{records}");
        runtime.block_on(broker.create_topic(&name, load::topic(1, "os")))?;
        let (mut ours, mut built, mut raws) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..bench.pick(bench.rounds, 1) {
            bench
                .progress
                .step(&format!("append: batches of {records}, round {}", round + 1));
            built.push(timed(total, || {
                for _ in 0..count {
                    black_box(batches.batch());
                }
                Ok(())
            })?);
            let mut file = Appended::create(bench.dir.join("raw-append"))?;
            raws.push(timed(total, || {
                for _ in 0..count {
                    file.write(&data)?;
                }
                Ok(())
            })?);
            drop(file);
            ours.push(timed(total, || {
                runtime.block_on(async {
                    for _ in 0..count {
                        broker.append(&name, 0, batches.batch()).await?;
                    }
                    Ok(())
                })
            })?);
        }
        runtime.block_on(broker.delete_topic(&name))?;
        let rate = |rounds: &[Round]| Spread::of(rounds.iter().map(|r| r.rate / 1e6));
        let cpu = |rounds: &[Round]| Spread::of(rounds.iter().map(|r| r.cpu));
        part.row(vec![
            Cell::count(records as u64),
            rate(&ours).cell(2),
            rate(&built).cell(2),
            rate(&raws).cell(2),
            cpu(&ours).cell(3),
            cpu(&built).cell(3),
            cpu(&raws).cell(3),
        ]);
        if records == 600 {
            // As many as one core could do: the slower of the wall clock and the processor time.
            let reached = rate(&ours).median.min(1.0 / cpu(&ours).median);
            part.aim(
                "append of 100-byte records with `os`, on one core",
                "≥ 5 M/s",
                format!(
                    "{} M/s ({} M in a CPU second)",
                    number(reached, 1),
                    number(1.0 / cpu(&ours).median, 1)
                ),
                reached >= 5.0,
            );
        }
    }
    runtime.block_on(broker.close())?;
    Ok(part)
}
