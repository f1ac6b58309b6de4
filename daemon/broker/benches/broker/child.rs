//! Brokers in processes of their own: to be looked at from outside, and to be killed.
//!
//! A child says a line of JSON at each step and waits for a line to go on; it ends when its input does.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Subcommand;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::{Value, json};
use tidewater_broker::{Broker, BrokerOptions, Error, Isolation, Start};

use crate::figures::Spread;
use crate::load::{self, Batches, KeyedBatches};
use crate::process::cpu_seconds;
use crate::{Failure, Result, files};

/// What a child does. Not for people.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
pub enum Role {
    /// Opens a broker, and says what that took.
    Open { dir: PathBuf },
    /// Creates a topic in an empty broker.
    Create { dir: PathBuf, partitions: u32 },
    /// Writes batches of so many bytes, and reads, with all its might.
    Load {
        dir: PathBuf,
        partitions: u32,
        bytes: usize,
    },
    /// Writes so many bytes of records of so many keys, and compacts them.
    Compact {
        dir: PathBuf,
        bytes: usize,
        value: usize,
        keys: u64,
    },
    /// Writes so many bytes, says so, and goes on writing.
    Fill {
        dir: PathBuf,
        partitions: u32,
        bytes: u64,
    },
}

/// A child and what it says.
pub struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts this program again in a role.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("the child has no input")?;
        let output = child.stdout.take().ok_or("the child has no output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next thing it says.
    pub fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            return Err(format!("a child ended: {}", self.child.wait()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Lets it go on, and answers what it says then.
    pub fn ask(&mut self, line: &str) -> Result<Value> {
        writeln!(self.input, "{line}")?;
        self.hear()
    }

    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(value: &Value) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Waits to be told what to do; `None` once nobody is there to tell.
fn told() -> Result<Option<String>> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    Ok((!line.is_empty()).then(|| line.trim().to_owned()))
}

pub fn run(role: Role) -> Result<()> {
    // However the benchmark ends, nothing goes on filling the disk.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let runtime = load::runtime()?;
    match role {
        Role::Open { dir } => runtime.block_on(opened(&dir)),
        Role::Create { dir, partitions } => runtime.block_on(created(&dir, partitions)),
        Role::Load {
            dir,
            partitions,
            bytes,
        } => runtime.block_on(loaded(&dir, partitions, bytes)),
        Role::Compact {
            dir,
            bytes,
            value,
            keys,
        } => runtime.block_on(compacted(&dir, bytes, value, keys)),
        Role::Fill {
            dir,
            partitions,
            bytes,
        } => runtime.block_on(filled(&dir, partitions, bytes)),
    }
}

fn open(dir: &Path) -> Result<(Broker, Value)> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let broker = load::open(dir)?;
    let report = broker.recovery();
    let said = json!({
        "seconds": begun.elapsed().as_secs_f64(),
        "cpu_seconds": cpu_seconds() - cpu,
        "scanned_bytes": report.scanned_bytes,
        "actions": report.actions().count(),
    });
    Ok((broker, said))
}

/// Goes on as told: `append N` for N seconds, `idle` to look at the processor time, `close`.
async fn opened(dir: &Path) -> Result<()> {
    let (broker, said) = open(dir)?;
    say(&said)?;
    serve(&broker, 0).await
}

async fn created(dir: &Path, partitions: u32) -> Result<()> {
    let (broker, _) = open(dir)?;
    let begun = Instant::now();
    broker.create_topic("t", load::topic(partitions, "fsync")).await?;
    say(&json!({"seconds": begun.elapsed().as_secs_f64()}))?;
    serve(&broker, partitions).await
}

async fn serve(broker: &Broker, partitions: u32) -> Result<()> {
    while let Some(line) = tokio::task::spawn_blocking(told).await?? {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, "0"));
        match word {
            "append" => {
                let batches = Batches::of(1 << 10);
                let time = Duration::from_secs_f64(rest.parse()?);
                let done = load::write(
                    broker,
                    "t",
                    partitions,
                    partitions.clamp(64, 1_024),
                    &batches,
                    time,
                )
                .await?;
                say(&json!({"batches_per_second": done.rate() / batches.bytes() as f64}))?;
            }
            "touch" => {
                // One small batch to every partition.
                let begun = Instant::now();
                let mut running = Vec::new();
                for partition in 0..partitions {
                    let broker = broker.clone();
                    let batch = Batches::of(100).batch();
                    running.push(tokio::spawn(
                        async move { broker.append("t", partition, batch).await },
                    ));
                }
                for append in running {
                    append.await??;
                }
                say(&json!({"seconds": begun.elapsed().as_secs_f64()}))?;
            }
            "idle" => {
                let (begun, cpu) = (Instant::now(), cpu_seconds());
                tokio::time::sleep(Duration::from_secs_f64(rest.parse()?)).await;
                let share = (cpu_seconds() - cpu) / begun.elapsed().as_secs_f64();
                say(&json!({"cpu_share": share}))?;
            }
            "metrics" => {
                let mut times: Vec<f64> = Vec::new();
                for _ in 0..21 {
                    let begun = Instant::now();
                    black_box(broker.metrics());
                    times.push(begun.elapsed().as_secs_f64());
                }
                say(&json!({"seconds": Spread::of(times).median}))?;
            }
            "close" => {
                let begun = Instant::now();
                broker.close().await?;
                say(&json!({"seconds": begun.elapsed().as_secs_f64()}))?;
            }
            _ => return Err(format!("what is {line:?}?").into()),
        }
    }
    Ok(())
}

async fn loaded(dir: &Path, partitions: u32, bytes: usize) -> Result<()> {
    let (broker, _) = open(dir)?;
    broker.create_topic("t", load::topic(partitions, "fsync")).await?;
    for partition in 0..partitions {
        let mut reader = broker.reader("t", partition, Start::Earliest, Isolation::ReadCommitted)?;
        tokio::spawn(async move {
            let mut records = 0;
            while let Ok(fetched) = reader.next(1 << 20).await {
                records += fetched.records().count();
            }
            records
        });
    }
    say(&json!({"ready": true}))?;
    let seconds: f64 = tokio::task::spawn_blocking(told)
        .await??
        .unwrap_or_default()
        .parse()?;
    let time = Duration::from_secs_f64(seconds);
    let done = load::write(&broker, "t", partitions, 64, &Batches::of(bytes), time).await?;
    say(&json!({"bytes_per_second": done.rate()}))?;
    tokio::task::spawn_blocking(told).await??;
    Ok(())
}

async fn compacted(dir: &Path, bytes: usize, value: usize, keys: u64) -> Result<()> {
    let broker = Broker::open(BrokerOptions {
        // When it is told to, and not before.
        compaction_interval: Duration::from_hours(1),
        ..load::options(dir)
    })?;
    let mut topic = load::topic(1, "os");
    for (name, value) in [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0"),
        ("segment.bytes", "67108864"),
    ] {
        topic.settings.insert(name.to_owned(), value.to_owned());
    }
    broker.create_topic("t", topic).await?;
    let mut batches = KeyedBatches::new(value, keys);
    let mut written = 0;
    while written < bytes {
        let batch = batches.next_batch();
        written += batch.bytes();
        broker.append("t", 0, batch).await?;
    }
    say(&json!({"bytes": files::bytes(&files::segments(dir)?)?}))?;
    told()?;
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    broker.run_housekeeping_now();
    let said = json!({
        "seconds": begun.elapsed().as_secs_f64(),
        "cpu_seconds": cpu_seconds() - cpu,
        "bytes": files::bytes(&files::segments(dir)?)?,
    });
    say(&said)?;
    told()?;
    Ok(())
}

async fn filled(dir: &Path, partitions: u32, bytes: u64) -> Result<()> {
    let (broker, _) = open(dir)?;
    match broker.create_topic("t", load::topic(partitions, "fsync")).await {
        Ok(_) | Err(Error::TopicExists { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    let written = Arc::new(AtomicU64::new(0));
    let batches = Batches::of(64 << 10);
    let mut running = Vec::new();
    for writer in 0..64 {
        let (broker, written, batches) = (broker.clone(), Arc::clone(&written), batches.clone());
        running.push(tokio::spawn(async move {
            let mut partition = writer;
            loop {
                partition = (partition + 64) % partitions;
                let batch = batches.batch();
                let size = batch.bytes() as u64;
                broker.append("t", partition, batch).await?;
                let before = written.fetch_add(size, Ordering::Relaxed);
                if before < bytes && before + size >= bytes {
                    say(&json!({"filled": before + size}))?;
                }
            }
            #[expect(
                unreachable_code,
                reason = "it writes until it is killed; this is the type of its errors"
            )]
            Ok::<(), Failure>(())
        }));
    }
    for writer in running {
        writer.await??;
    }
    Ok(())
}
