//! Resident memory of a process that holds a broker and nothing else.

use std::time::Duration;

use crate::child::Running;
use crate::figures::{Cell, Part, size};
use crate::process::resident;
use crate::{Bench, Result};

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "memory",
        "A process of its own with 12 partitions: opened and left alone; then, each in a process of its own, 64 \
         writers of batches of\n64 KB and of 1 MB, and a reader following each partition, 1 MiB at a time.",
        &["state", "RSS MB", "peak RSS MB", "MB/s written"],
    );
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    bench.progress.step("memory: idle");
    let dir = bench.dir.join("idle");
    let mut child = Running::start(&["create", &dir.to_string_lossy(), "12"])?;
    child.hear()?;
    child.ask("idle 0.5")?;
    let idle = resident(child.pid())?;
    child.kill()?;
    part.row(vec![
        Cell::text("idle"),
        Cell::number(megabytes(idle.now), 1),
        Cell::number(megabytes(idle.peak), 1),
        Cell::text(""),
    ]);
    let mut most = 0;
    for bytes in [64 << 10, 1 << 20] {
        let state = format!("batches of {}", size(bytes));
        bench.progress.step(&format!("memory: {state}"));
        let dir = bench.dir.join("loaded");
        let mut child = Running::start(&["load", &dir.to_string_lossy(), "12", &bytes.to_string()])?;
        child.hear()?;
        let time = Duration::from_secs(bench.pick(5, 2));
        let said = child.ask(&time.as_secs_f64().to_string())?;
        let loaded = resident(child.pid())?;
        child.kill()?;
        std::fs::remove_dir_all(&dir)?;
        most = most.max(loaded.peak);
        part.row(vec![
            Cell::text(state),
            Cell::number(megabytes(loaded.now), 1),
            Cell::number(megabytes(loaded.peak), 1),
            Cell::number(said["bytes_per_second"].as_f64().unwrap_or(f64::NAN) / 1e6, 0),
        ]);
    }
    let (idle, loaded) = (megabytes(idle.now), megabytes(most));
    part.aim(
        "resident memory, idle",
        "≤ 30 MB",
        format!("{idle:.1} MB"),
        idle <= 30.0,
    );
    part.aim(
        "resident memory under load, at most",
        "≤ 150 MB",
        format!("{loaded:.1} MB"),
        loaded <= 150.0,
    );
    Ok(part)
}
