//! Reading a log back, from the page cache and from the disk.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use tidewater_broker::{Broker, Isolation, Start};

use crate::figures::{Cell, Part, Spread, number};
use crate::load::{self, Batches};
use crate::process::cpu_seconds;
use crate::raw::Done;
use crate::{Bench, Result, files};

const STEP: usize = 1 << 20;

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "read",
        "One reader, 1 MiB at a time, every batch's CRC and every record's bounds checked. `records` iterates over all \
         records and\nlooks at each key and value, `bytes` takes the batches as they are. Raw: pread of the same \
         files, 1 MiB at a time. Cold: taken\nout of the page cache before (fadvise DONTNEED).",
        &[
            "record",
            "page cache",
            "records GB/s",
            "M records/s",
            "bytes GB/s",
            "raw GB/s",
            "records CPU s/GB",
            "bytes CPU s/GB",
            "raw CPU s/GB",
        ],
    );
    let runtime = load::runtime()?;
    let dir = bench.dir.join("read");
    let broker = load::open(&dir)?;
    let total = bench.pick(1 << 30, 128 << 20);
    for (value, records) in [(100, 600), (1_000, 64)] {
        let name = format!("t-{value}");
        bench
            .progress
            .step(&format!("read: writing records of {value} B"));
        let batches = Batches::of_records(records, value);
        let count = total / batches.bytes();
        runtime.block_on(async {
            broker.create_topic(&name, load::topic(1, "os")).await?;
            for _ in 0..count {
                broker.append(&name, 0, batches.batch()).await?;
            }
            Ok::<(), tidewater_broker::Error>(())
        })?;
        let id = broker.topic(&name).map(|info| info.id.to_string());
        let files = files::segments(&dir.join("topics").join(id.unwrap_or_default()))?;
        for cold in [false, true] {
            let (mut iterated, mut counted, mut raws, mut rates) = (vec![], vec![], vec![], vec![]);
            for round in 0..bench.pick(bench.rounds, 1) {
                let state = if cold { "cold" } else { "warm" };
                bench
                    .progress
                    .step(&format!("read: {value} B, {state}, round {}", round + 1));
                let prepare = || if cold { files::evict(&files) } else { Ok(()) };
                prepare()?;
                raws.push(raw(&files)?);
                prepare()?;
                let (done, records) = log(&broker, &name, true)?;
                rates.push(records as f64 / done.seconds / 1e6);
                iterated.push(done);
                prepare()?;
                counted.push(log(&broker, &name, false)?.0);
            }
            let rate = |rounds: &[Done]| Spread::of(rounds.iter().map(|d| d.rate() / 1e9));
            let cpu = |rounds: &[Done]| Spread::of(rounds.iter().map(Done::cpu_per_gb));
            part.row(vec![
                Cell::text(format!("{value} B")),
                Cell::text(if cold { "cold" } else { "warm" }),
                rate(&iterated).cell(2),
                Spread::of(rates).cell(1),
                rate(&counted).cell(2),
                rate(&raws).cell(2),
                cpu(&iterated).cell(2),
                cpu(&counted).cell(2),
                cpu(&raws).cell(2),
            ]);
            if !cold {
                let reached = rate(&iterated).median;
                part.aim(
                    format!("read of a warm log, all records of {value} B"),
                    "≥ 2 GB/s",
                    format!(
                        "{} GB/s ({} GB in a CPU second)",
                        number(reached, 2),
                        number(1.0 / cpu(&iterated).median, 2)
                    ),
                    reached >= 2.0,
                );
            }
        }
        runtime.block_on(broker.delete_topic(&name))?;
    }
    runtime.block_on(broker.close())?;
    Ok(part)
}

fn raw(files: &[PathBuf]) -> Result<Done> {
    let mut buffer = vec![0; STEP];
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let mut bytes = 0;
    for path in files {
        let file = File::open(path)?;
        let mut position = 0;
        loop {
            let read = file.read_at(&mut buffer, position)?;
            if read == 0 {
                break;
            }
            position += read as u64;
        }
        bytes += position;
    }
    Ok(Done {
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - cpu,
    })
}

/// Reads the whole topic; answers how long it took, and how many records there were.
fn log(broker: &Broker, topic: &str, iterate: bool) -> Result<(Done, u64)> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let (mut bytes, mut records, mut content) = (0, 0, 0);
    let mut reader = broker.reader(topic, 0, Start::Earliest, Isolation::ReadCommitted)?;
    while let Some(fetched) = reader.try_next(STEP)? {
        bytes += fetched.data().len() as u64;
        if iterate {
            for record in fetched.records() {
                records += 1;
                content += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            }
        }
    }
    black_box(content);
    let done = Done {
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - cpu,
    };
    Ok((done, records))
}
