//! What partitions cost, from one to ten thousand.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::child::Running;
use crate::figures::{Cell, Part};
use crate::load::{Batches, SYNCS};
use crate::process::{open_files, resident};
use crate::{Bench, Result, raw};

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "partitions",
        "A process of its own for each. `touch`: one small durable append to every partition, all at once. `appends`: \
         1 KB each, durable,\nby 64 to 1,024 writers over all partitions; raw: as many files, 4 threads, write and \
         fdatasync of 1 KB each in turn. RSS per\npartition is after both, less that with one partition. Metrics: \
         one snapshot of all.\nOpen: after kill -9 and after a clean close.",
        &[
            "partitions",
            "create s",
            "touch s",
            "appends/s",
            "raw/s",
            "ratio",
            "files open",
            "RSS MB",
            "RSS KB/partition",
            "idle CPU %",
            "metrics ms",
            "open after kill s",
            "close s",
            "open after close s",
        ],
    );
    let seconds = bench.pick(2.0, 0.5);
    let mut one = None;
    for &partitions in bench.pick(&[1_u32, 10, 100, 1_000, 10_000][..], &[1, 100, 1_000]) {
        bench.progress.step(&format!("partitions: {partitions}, raw"));
        let raw = raw_files(&bench.dir, partitions as usize, seconds)?;
        bench.progress.step(&format!("partitions: {partitions}"));
        let dir = bench.dir.join("partitions");
        let path = dir.to_string_lossy().into_owned();
        let figure = |said: &Value, key: &str| said[key].as_f64().unwrap_or(f64::NAN);
        let mut child = Running::start(&["create", &path, &partitions.to_string()])?;
        let created = child.hear()?;
        let touched = child.ask("touch")?;
        let appended = child.ask(&format!("append {seconds}"))?;
        let idle = child.ask("idle 1")?;
        let metrics = child.ask("metrics")?;
        let memory = resident(child.pid())?.now;
        let files = open_files(child.pid())?;
        child.kill()?;
        let mut child = Running::start(&["open", &path])?;
        let killed = child.hear()?;
        let closed = child.ask("close")?;
        drop(child);
        let mut child = Running::start(&["open", &path])?;
        let clean = child.hear()?;
        child.kill()?;
        std::fs::remove_dir_all(&dir)?;
        let one = *one.get_or_insert(memory);
        let rate = figure(&appended, "batches_per_second");
        let each = memory.saturating_sub(one) as f64 / 1e3 / f64::from(partitions - 1).max(1.0);
        part.row(vec![
            Cell::count(partitions.into()),
            Cell::number(figure(&created, "seconds"), 3),
            Cell::number(figure(&touched, "seconds"), 3),
            Cell::number(rate, 0),
            Cell::number(raw, 0),
            Cell::number(rate / raw, 2),
            Cell::count(files),
            Cell::number(memory as f64 / 1e6, 1),
            if partitions == 1 {
                Cell::text("")
            } else {
                Cell::number(each, 1)
            },
            Cell::number(figure(&idle, "cpu_share") * 100.0, 1),
            Cell::number(figure(&metrics, "seconds") * 1e3, 3),
            Cell::number(figure(&killed, "seconds"), 3),
            Cell::number(figure(&closed, "seconds"), 3),
            Cell::number(figure(&clean, "seconds"), 3),
        ]);
    }
    Ok(part)
}

/// Writes and syncs a second with this many files.
fn raw_files(dir: &Path, files: usize, seconds: f64) -> Result<f64> {
    let bytes = Batches::of(1 << 10).bytes();
    let threads = SYNCS.min(files);
    let mut files = raw::Files::create(dir, files)?;
    let done = files.grouped(threads, bytes, Duration::from_secs_f64(seconds))?;
    Ok(done.rate() / bytes as f64)
}
