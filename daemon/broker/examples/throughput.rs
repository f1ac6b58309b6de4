//! How fast the log writes, commits and reads on this machine:
//! `cargo run --release -p tidewater-broker --example throughput [DIR]`.
//!
//! Prints records and megabytes a second, CPU seconds per million records, and commit latencies. `fsync` is on.

use std::error::Error;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, Isolation, Start, TopicConfig};

const PARTITIONS: u32 = 4;

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn batch(records: usize, value: &[u8]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for i in 0..records {
        batch.push(1_700_000_000_000, Some(&i.to_be_bytes()), Some(value), &[]);
    }
    batch
}

fn print(what: &str, records: usize, bytes: usize, begun: Instant, cpu: f64) {
    let seconds = begun.elapsed().as_secs_f64();
    let (rate, megabytes) = (records as f64 / seconds, bytes as f64 / 1e6 / seconds);
    let cpu = (cpu_seconds() - cpu) / records as f64 * 1e6;
    println!("{what:<44} {rate:>12.0} records/s {megabytes:>8.1} MB/s {cpu:>7.2} CPU s/million");
}

fn percentile(sorted: &[Duration], part: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// Transactions of `batches` batches of `records` records, one after the other, with a group offset each.
async fn transactions(
    broker: &Broker,
    count: usize,
    batches: u32,
    records: usize,
    size: usize,
) -> Result<(), Box<dyn Error>> {
    let producer = broker.producer("throughput").await?;
    let value = vec![b'v'; size];
    let mut latencies = Vec::with_capacity(count);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    for i in 0..count {
        let mut transaction = producer.begin()?;
        for b in 0..batches {
            transaction
                .append("t", b % PARTITIONS, batch(records, &value))
                .await?;
        }
        transaction
            .commit_group_offsets("g", &[("s", 0, i as u64)])
            .await?;
        let commit = Instant::now();
        transaction.commit().await?;
        latencies.push(commit.elapsed());
    }
    let total = count * batches as usize * records;
    print(
        &format!("commit {batches} x {records} records of {size} B"),
        total,
        total * size,
        begun,
        cpu,
    );
    latencies.sort_unstable();
    let (p50, p99) = (percentile(&latencies, 0.5), percentile(&latencies, 0.99));
    println!("{:<44} p50 {p50:?}, p99 {p99:?}", "  commit latency");
    Ok(())
}

fn read_all(broker: &Broker, isolation: Isolation) -> Result<(), Box<dyn Error>> {
    let (mut records, mut bytes) = (0, 0);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    for partition in 0..PARTITIONS {
        let mut reader = broker.reader("t", partition, Start::Earliest, isolation)?;
        let end = broker.offsets("t", partition)?.last_stable;
        while reader.position() < end {
            let Some(fetched) = reader.try_next(1 << 20)? else {
                break;
            };
            for record in fetched.records() {
                records += 1;
                bytes += record.value.unwrap_or_default().len();
            }
        }
    }
    print("read all back", records, bytes, begun, cpu);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let dir = std::env::args()
        .nth(1)
        .map_or(scratch.path().join("data"), Into::into);
    let broker = Broker::open(BrokerOptions::new(dir))?;
    broker.create_topic("t", TopicConfig::new(PARTITIONS)).await?;
    // Encoding alone, to tell it from writing.
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let value = vec![b'v'; 100];
    let built: usize = (0..200).map(|_| batch(5_000, &value).len()).sum();
    print("build batches of 100 B records", built, built * 100, begun, cpu);
    transactions(&broker, 100, 4, 2_500, 100).await?;
    transactions(&broker, 100, 4, 250, 2_000).await?;
    transactions(&broker, 1_000, 1, 1, 1_000).await?;
    read_all(&broker, Isolation::ReadCommitted)?;
    broker.close().await?;
    Ok(())
}
