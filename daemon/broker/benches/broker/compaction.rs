//! Compaction: how fast the last record of each key is found and the others left out, and in how much memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::child::Running;
use crate::figures::{Cell, Part};
use crate::process::{cpu_seconds, resident};
use crate::raw::{Appended, Done, noise};
use crate::{Bench, Result, files};

pub fn measure(bench: &mut Bench) -> Result<Part> {
    let mut part = Part::new(
        "compaction",
        "Records of random keys, ten for each key, written by a process of its own, then compacted by it at one go: \
         `MB/s` counts the\nbytes it began with. Raw: the same files read twice, as compaction does, 1 MiB at a time, and \
         as many bytes as it leaves\nwritten, one fdatasync for each 64 MiB.",
        &[
            "record",
            "keys",
            "before MB",
            "left MB",
            "MB/s",
            "raw MB/s",
            "ratio",
            "CPU s/GB",
            "raw CPU s/GB",
            "peak RSS MB",
        ],
    );
    let bytes: usize = bench.pick(600_000_000, 150_000_000);
    for value in [100, 1_000] {
        let keys = bytes / (value + 20) / 10;
        bench.progress.step(&format!("compaction: records of {value} B"));
        let dir = bench.dir.join("compaction");
        let path = dir.to_string_lossy().into_owned();
        let arguments = [bytes, value, keys].map(|n| n.to_string());
        let [bytes, value, keys_text] = &arguments;
        let mut child = Running::start(&["compact", &path, bytes, value, keys_text])?;
        let before = child.hear()?;
        let segments = files::segments(&dir)?;
        // What both read is in the page cache, for the first as for the second.
        let read = read_twice(&segments)?;
        let after = child.ask("")?;
        let memory = resident(child.pid())?;
        let figure = |said: &serde_json::Value, key: &str| said[key].as_f64().unwrap_or(f64::NAN);
        let (began, left) = (figure(&before, "bytes"), figure(&after, "bytes"));
        let written = write(bench.dir.join("raw-compaction"), left as u64)?;
        child.kill()?;
        std::fs::remove_dir_all(&dir)?;
        let raw = Done {
            bytes: began as u64,
            seconds: read.seconds + written.seconds,
            cpu_seconds: read.cpu_seconds + written.cpu_seconds,
        };
        let log = Done {
            bytes: began as u64,
            seconds: figure(&after, "seconds"),
            cpu_seconds: figure(&after, "cpu_seconds"),
        };
        part.row(vec![
            Cell::text(format!("{value} B")),
            Cell::count(keys as u64),
            Cell::number(began / 1e6, 0),
            Cell::number(left / 1e6, 0),
            Cell::number(log.rate() / 1e6, 0),
            Cell::number(raw.rate() / 1e6, 0),
            Cell::number(log.rate() / raw.rate(), 2),
            Cell::number(log.cpu_per_gb(), 2),
            Cell::number(raw.cpu_per_gb(), 2),
            Cell::number(memory.peak as f64 / 1e6, 1),
        ]);
    }
    Ok(part)
}

fn timed(bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Done> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    work()?;
    Ok(Done {
        bytes,
        seconds: begun.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - cpu,
    })
}

fn read_twice(paths: &[PathBuf]) -> Result<Done> {
    let read = |path: &Path| -> Result<()> {
        let file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        let mut position = 0;
        loop {
            match file.read_at(&mut buffer, position)? {
                0 => return Ok(()),
                read => position += read as u64,
            }
        }
    };
    timed(2 * files::bytes(paths)?, || {
        for _ in 0..2 {
            for path in paths {
                read(path)?;
            }
        }
        Ok(())
    })
}

fn write(path: PathBuf, bytes: u64) -> Result<Done> {
    let data = noise(1 << 20);
    let mut file = Appended::create(path)?;
    let steps = bytes.div_ceil(data.len() as u64);
    timed(bytes, || {
        for step in 1..=steps {
            file.write(&data)?;
            if step % 64 == 0 || step == steps {
                file.sync()?;
            }
        }
        Ok(())
    })
}
