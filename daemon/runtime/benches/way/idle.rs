//! Connectors with nothing to do: what one costs.

use std::process::Command;
use std::time::Duration;

use tidewater_runtime::Worker;
use tidewater_runtime::config::WorkerConfig;

use crate::bed::{connector, cpu, keys, registry};

/// Prints a line for each number of connectors; each is measured in a process of its own, since memory stays with one.
pub async fn measure(connectors: Option<usize>, span: Duration) {
    if let Some(connectors) = connectors {
        return line(connectors, span).await;
    }
    println!("\nIdle connectors, half of them sources and half sinks of a topic of their own.");
    println!(
        "{:>10} {:>12} {:>16} {:>16} {:>22}",
        "connectors", "threads", "memory, MB", "KB a connector", "CPU ms/s, connector"
    );
    for connectors in [1, 100, 1000] {
        let this = std::env::current_exe().expect("this program");
        let ended = Command::new(this)
            .args(["--only", "idle", "--connectors", &connectors.to_string()])
            .args(["--seconds", &span.as_secs().to_string()])
            .status()
            .expect("another process");
        assert!(ended.success(), "{ended}");
    }
}

async fn line(connectors: usize, span: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = registry(folder.path());
    let config = WorkerConfig {
        data_dir: folder.path().join("data"),
        ..WorkerConfig::default()
    };
    let worker = Worker::start(&config, registry.clone()).await.expect("a worker");
    let bare = status("VmRSS");
    for number in 0..connectors {
        let mut of = keys([("name", format!("idle-{number}"))]);
        if number % 2 == 0 {
            of.insert("connector.class".into(), "noop-source".into());
            of.insert("topic".into(), format!("idle-{number}"));
            of.insert("records".into(), "1".into());
        } else {
            of.insert("connector.class".into(), "noop-sink".into());
            of.insert("topics".into(), format!("idle-{}", number - 1));
        }
        of.insert("value.converter".into(), "bytes".into());
        of.insert("key.converter".into(), "bytes".into());
        let config = connector(&registry, folder.path(), &of);
        worker.run_from_file(config).await.expect("a connector");
    }
    // At rest: every source has made its record, every sink has it.
    let busy = |worker: &Worker| {
        let report = worker.report();
        let done = report
            .values()
            .filter(|tasks| tasks.first().is_some_and(|ledger| ledger.written >= 1))
            .count();
        done < connectors
    };
    while busy(&worker) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = cpu();
    tokio::time::sleep(span).await;
    let used = (cpu() - begun) / span.as_secs_f64();
    let memory = status("VmRSS");
    println!(
        "{connectors:>10} {:>12} {:>16.1} {:>16.0} {:>22.3}",
        status("Threads"),
        memory as f64 / 1e3,
        memory.saturating_sub(bare) as f64 / connectors as f64,
        used * 1e3 / connectors as f64
    );
    worker.shutdown().await;
}

/// A number of this process' status: kilobytes, for memory.
fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.map(|line| line.trim_start_matches(':').trim().trim_end_matches(" kB"));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
