//! The whole way in a worker: a source task, the log with fsync, a sink task, all at once.

use std::time::{Duration, Instant};

use tidewater_runtime::Worker;
use tidewater_runtime::config::WorkerConfig;

use crate::bed::{connector, converters, cpu, keys, registry};

/// Prints a line for each size of records and batches.
pub async fn measure(names: &[&str], records: usize) {
    println!("\nThe whole way, a source and a sink in one worker, durable.");
    println!(
        "{:<9}{:>6}{:>7} {:>12} {:>16} {:>16}",
        "converter", "bytes", "batch", "records/s", "CPU s/million", "records/s, core"
    );
    for name in names {
        for bytes in [100, 1000] {
            for batch in [1, 100, 1000, 5000] {
                let count = if batch == 1 { records / 10 } else { records };
                line(name, bytes, batch, count as u64).await;
            }
        }
    }
}

async fn line(name: &str, bytes: usize, batch: usize, count: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = registry(folder.path());
    let config = WorkerConfig {
        data_dir: folder.path().join("data"),
        offset_flush_interval: Duration::from_millis(20),
        ..WorkerConfig::default()
    };
    let (converter, shape) = converters(name);
    let source = keys([
        ("name", "noop-in".to_owned()),
        ("connector.class", "noop-source".to_owned()),
        ("records", count.to_string()),
        ("batch", batch.to_string()),
        ("bytes", bytes.to_string()),
        ("shape", shape.to_owned()),
        ("key.converter", "bytes".to_owned()),
        ("value.converter", converter.to_owned()),
    ]);
    let sink = keys([
        ("name", "noop-out".to_owned()),
        ("connector.class", "noop-sink".to_owned()),
        ("topics", "noop".to_owned()),
        ("consumer.override.max.poll.records", batch.to_string()),
        ("key.converter", "bytes".to_owned()),
        ("value.converter", converter.to_owned()),
    ]);
    let source = connector(&registry, folder.path(), &source);
    let sink = connector(&registry, folder.path(), &sink);
    let worker = Worker::start(&config, registry).await.expect("a worker");
    let (begun, clock) = (cpu(), Instant::now());
    worker.run_from_file(sink).await.expect("a sink");
    worker.run_from_file(source).await.expect("a source");
    loop {
        let report = worker.report();
        let written = report.get("noop-out").and_then(|tasks| tasks.first());
        if written.is_some_and(|ledger| ledger.written >= count) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (used, took) = (cpu() - begun, clock.elapsed().as_secs_f64());
    println!(
        "{name:<9}{bytes:>6}{batch:>7} {:>12.0} {:>16.2} {:>16.0}",
        count as f64 / took,
        used / count as f64 * 1e6,
        count as f64 / used
    );
    worker.shutdown().await;
}
