//! Group commit beside the best the disk can do with the same bytes.

use std::time::Duration;

use crate::figures::{Cell, Part, Spread, size};
use crate::load::{self, Batches, SYNCS};
use crate::{Bench, Result, raw};

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "throughput",
        "Durable appends: each writer waits for its append before the next. Raw: as many files as partitions, as many \
         threads as\nthere can be syncs at once (the least of partitions, writers and 4), each thread going round its \
         files: one write of all\nbytes that the writers of a partition have in flight, one fdatasync. So raw is told \
         what to group; the log has to find it.",
        &[
            "batch",
            "partitions",
            "writers",
            "MB/s",
            "raw MB/s",
            "ratio",
            "CPU s/GB",
            "raw CPU s/GB",
        ],
    );
    let runtime = load::runtime()?;
    let broker = load::open(&bench.dir.join("throughput"))?;
    let time = Duration::from_millis(bench.pick(400, 150));
    let rounds = bench.pick(bench.rounds, 1);
    let writers: &[u32] = bench.pick(&[1, 4, 16, 64], &[1, 64]);
    let mut least: f64 = f64::INFINITY;
    let mut large = Vec::new();
    for bytes in [1 << 10, 16 << 10, 64 << 10] {
        for partitions in [1, 12] {
            for &writers in writers {
                bench.progress.step(&format!(
                    "throughput: {} batches, {partitions} partitions, {writers} writers",
                    size(bytes as u64)
                ));
                let batches = Batches::of(bytes);
                let files = partitions as usize;
                let group = (writers as usize).div_ceil(files) * batches.bytes();
                let threads = SYNCS.min(files).min(writers as usize);
                let name = format!("t-{bytes}-{partitions}-{writers}");
                runtime.block_on(broker.create_topic(&name, load::topic(partitions, "fsync")))?;
                let mut raw_files = raw::Files::create(&bench.dir, files)?;
                let (mut ours, mut raws) = (Vec::new(), Vec::new());
                for round in 0..rounds {
                    let mut raw = || raw_files.grouped(threads, group, time);
                    let log =
                        || runtime.block_on(load::write(&broker, &name, partitions, writers, &batches, time));
                    // Whoever comes first may find the disk rested.
                    let (log, raw) = if round % 2 == 0 {
                        let raw = raw()?;
                        (log()?, raw)
                    } else {
                        (log()?, raw()?)
                    };
                    ours.push(log);
                    raws.push(raw);
                }
                runtime.block_on(broker.delete_topic(&name))?;
                drop(raw_files);
                let ratio = Spread::of(ours.iter().zip(&raws).map(|(log, raw)| log.rate() / raw.rate()));
                if bytes == 64 << 10 {
                    least = least.min(ratio.median);
                    large.push(ratio.median);
                }
                part.row(vec![
                    Cell::text(size(bytes as u64)),
                    Cell::count(partitions.into()),
                    Cell::count(writers.into()),
                    Spread::of(ours.iter().map(|d| d.rate() / 1e6)).cell(1),
                    Spread::of(raws.iter().map(|d| d.rate() / 1e6)).cell(1),
                    ratio.cell(2),
                    Spread::of(ours.iter().map(raw::Done::cpu_per_gb)).cell(2),
                    Spread::of(raws.iter().map(raw::Done::cpu_per_gb)).cell(2),
                ]);
            }
        }
    }
    let middle = Spread::of(large).median;
    part.aim(
        "group commit of 64 KB batches against raw: median of the cases",
        "≥ 0.8",
        format!("{middle:.2} (least {least:.2})"),
        middle >= 0.8,
    );
    runtime.block_on(broker.close())?;
    Ok(part)
}
