//! Transactions beside the fdatasyncs they need: one round of them, all at once.

use std::time::{Duration, Instant};

use tidewater_broker::Broker;

use crate::figures::{Cell, Part, Spread, percentile_ms};
use crate::load::{self, Batches, SYNCS};
use crate::{Bench, Failure, Result, raw};

/// Commits by turns with raw ones.
const TURN: usize = 20;

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "transactions",
        "A transaction writes one batch to each of its partitions and a consumer-group offset. Raw: as many files as \
         it writes to\n(partitions, group offsets, transaction log), all written, then synced by at most 4 threads at \
         once. With one producer\nthey take turns of 20; with more only the log is measured, and the ratio is to raw \
         rounds one after the other.",
        &[
            "partitions",
            "batch",
            "producers",
            "commits/s",
            "ratio to raw",
            "p50 ms",
            "raw p50",
            "p99 ms",
            "raw p99",
        ],
    );
    let runtime = load::runtime()?;
    let broker = load::open(&bench.dir.join("transactions"))?;
    let time = Duration::from_millis(bench.pick(1_000, 300));
    for (partitions, bytes) in [(1, 1 << 10), (4, 16 << 10), (12, 64 << 10)] {
        let name = format!("t-{partitions}");
        runtime.block_on(broker.create_topic(&name, load::topic(partitions, "fsync")))?;
        let batches = Batches::of(bytes);
        let files = partitions as usize + 2;
        let mut raw_rates = Vec::new();
        let mut raw_times = Vec::new();
        for &producers in bench.pick(&[1_u32, 8, 64][..], &[1, 64]) {
            bench.progress.step(&format!(
                "transactions: {partitions} partitions, {producers} producers"
            ));
            let (mut rates, mut times) = (Vec::new(), Vec::new());
            for _ in 0..bench.pick(bench.rounds, 1) {
                if producers == 1 {
                    let (mut log, mut raw) = (Vec::new(), Vec::new());
                    let end = Instant::now() + 2 * time;
                    while Instant::now() < end {
                        raw.extend(raw::rounds_of_syncs(
                            &bench.dir,
                            files,
                            SYNCS,
                            batches.bytes(),
                            TURN,
                        )?);
                        let commit = commits(&broker, &name, partitions, 0, &batches, None);
                        log.extend(runtime.block_on(commit)?);
                    }
                    let per_second = |times: &[Duration]| {
                        times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64()
                    };
                    raw_rates.push(per_second(&raw));
                    rates.push(per_second(&log));
                    raw.sort_unstable();
                    log.sort_unstable();
                    raw_times.push(raw);
                    times.push(log);
                } else {
                    let begun = Instant::now();
                    let mut all =
                        runtime.block_on(many(&broker, &name, partitions, producers, &batches, time))?;
                    rates.push(all.len() as f64 / begun.elapsed().as_secs_f64());
                    all.sort_unstable();
                    times.push(all);
                }
            }
            let at = |times: &[Vec<Duration>], part| Spread::of(times.iter().map(|t| percentile_ms(t, part)));
            let raw_cell = |part| {
                if producers == 1 {
                    at(&raw_times, part).cell(2)
                } else {
                    Cell::text("")
                }
            };
            let raw_rate = Spread::of(raw_rates.iter().copied()).median;
            part.row(vec![
                Cell::count(partitions.into()),
                Cell::text(format!("{} KB", bytes >> 10)),
                Cell::count(producers.into()),
                Spread::of(rates.iter().copied()).cell(0),
                Spread::of(rates.iter().map(|rate| rate / raw_rate)).cell(2),
                at(&times, 0.5).cell(2),
                raw_cell(0.5),
                at(&times, 0.99).cell(2),
                raw_cell(0.99),
            ]);
        }
        runtime.block_on(broker.delete_topic(&name))?;
    }
    runtime.block_on(broker.close())?;
    Ok(part)
}

/// Transactions of one producer, one after the other: a turn of them, or until some time has passed.
async fn commits(
    broker: &Broker,
    topic: &str,
    partitions: u32,
    number: u32,
    batches: &Batches,
    time: Option<Duration>,
) -> Result<Vec<Duration>> {
    let producer = broker.producer(&format!("p-{number}")).await?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while time.map_or(times.len() < TURN, |time| begun.elapsed() < time) {
        let built: Vec<_> = (0..partitions).map(|_| batches.batch()).collect();
        let one = Instant::now();
        let mut transaction = producer.begin()?;
        for (partition, batch) in (0..partitions).zip(built) {
            transaction.append(topic, partition, batch).await?;
        }
        let offset = times.len() as u64;
        let group = format!("g-{number}");
        transaction
            .commit_group_offsets(&group, &[("source", number, offset)])
            .await?;
        transaction.commit().await?;
        times.push(one.elapsed());
    }
    Ok(times)
}

async fn many(
    broker: &Broker,
    topic: &str,
    partitions: u32,
    producers: u32,
    batches: &Batches,
    time: Duration,
) -> Result<Vec<Duration>> {
    let mut running = Vec::new();
    for number in 0..producers {
        let (broker, topic, batches) = (broker.clone(), topic.to_owned(), batches.clone());
        running.push(tokio::spawn(async move {
            commits(&broker, &topic, partitions, number, &batches, Some(time)).await
        }));
    }
    let mut all = Vec::new();
    for producer in running {
        all.extend(producer.await.map_err(Failure::from)??);
    }
    Ok(all)
}
