//! Opening after `kill -9` in the middle of writing, and after a clean stop, as the log grows.

use crate::child::Running;
use crate::figures::{Cell, Part, size};
use crate::process::resident;
use crate::{Bench, Result, files};

const PARTITIONS: u32 = 132;

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "recovery",
        "132 partitions, written evenly by 64 writers of 64 KB batches that are killed as they write. Then opened by a \
         new process: with\nthe page cache as the kill left it, and (killed again at once) with all files taken out of \
         it. Then closed, and opened once more.",
        &[
            "log",
            "segments",
            "after kill -9 s",
            "scanned MB",
            "CPU s",
            "RSS MB",
            "cold s",
            "clean close s",
            "after clean close s",
        ],
    );
    let dir = bench.dir.join("recovery");
    let path = dir.to_string_lossy().into_owned();
    let most = bench.pick(bench.recover_bytes, bench.recover_bytes.min(400_000_000));
    let mut sizes: Vec<u64> = [1_000_000_000, 5_000_000_000]
        .into_iter()
        .filter(|size| *size < most)
        .collect();
    sizes.push(most);
    let (mut written, mut slowest) = (0, 0.0_f64);
    for target in sizes {
        bench.progress.step(&format!(
            "recovery: writing {} in {PARTITIONS} partitions",
            size(target)
        ));
        let more = target.saturating_sub(written).to_string();
        let mut child = Running::start(&["fill", &path, &PARTITIONS.to_string(), &more])?;
        child.hear()?;
        child.kill()?;
        bench
            .progress
            .step(&format!("recovery: opening {}", size(target)));
        let mut child = Running::start(&["open", &path])?;
        let warm = child.hear()?;
        let memory = resident(child.pid())?;
        child.kill()?;
        files::evict(&files::all(&dir)?)?;
        let mut child = Running::start(&["open", &path])?;
        let cold = child.hear()?;
        let closed = child.ask("close")?;
        drop(child);
        let mut child = Running::start(&["open", &path])?;
        let clean = child.hear()?;
        child.kill()?;
        let segments = files::segments(&dir)?;
        written = files::bytes(&segments)?;
        let seconds = |value: &serde_json::Value| value["seconds"].as_f64().unwrap_or(f64::NAN);
        let number = |key: &str| warm[key].as_f64().unwrap_or(f64::NAN);
        part.row(vec![
            Cell::text(size(written)),
            Cell::count(segments.len() as u64),
            Cell::number(seconds(&warm), 3),
            Cell::number(number("scanned_bytes") / 1e6, 0),
            Cell::number(number("cpu_seconds"), 2),
            Cell::number(memory.now as f64 / 1e6, 1),
            Cell::number(seconds(&cold), 3),
            Cell::number(seconds(&closed), 3),
            Cell::number(seconds(&clean), 3),
        ]);
        slowest = seconds(&warm).max(seconds(&cold));
    }
    std::fs::remove_dir_all(&dir)?;
    part.aim(
        format!(
            "opening {} in {PARTITIONS} partitions after kill -9, warm and cold",
            size(written)
        ),
        "≤ 2 s",
        format!("{slowest:.2} s at most"),
        slowest <= 2.0,
    );
    Ok(part)
}
