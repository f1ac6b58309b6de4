//! How fast the log is, beside what the disk and the page cache give raw to the same bytes in the same run.
//!
//! `make bench-broker`, or `cargo bench -p tidewater-broker --bench broker -- --help`. Machines vary several-fold from
//! hour to hour, virtual ones above all: every figure is taken in rounds that alternate with the raw one, and the
//! ratios and processor seconds are what counts.

mod append;
mod child;
mod codecs;
mod compaction;
mod figures;
mod files;
mod latency;
mod load;
mod memory;
mod partitions;
mod process;
mod progress;
mod raw;
mod read;
mod recovery;
mod throughput;
mod transactions;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use child::Role;
use figures::Part;
use progress::Progress;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Measures the log beside raw writes and syncs of the same bytes on the same disk.
#[derive(Debug, Parser)]
#[command(name = "bench-broker", after_help = EXAMPLES, args_override_self = true)]
struct Arguments {
    /// What to measure; all of it unless said.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Subject>,
    /// Rounds that alternate with the raw ones; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where to put the data; a temporary folder is made in it and removed. It decides which disk is measured.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Less of everything: about a minute, and only a hint.
    #[arg(long)]
    quick: bool,
    /// Most bytes of log to recover, in GB. As much is needed on the disk, and some more.
    #[arg(long, value_name = "GB", default_value_t = 20)]
    recover: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// What cargo passes to benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

const EXAMPLES: &str = "\
Examples:
  make bench-broker                                         everything, in about ten minutes
  make bench-broker ARGS=--quick                            everything, in about a minute
  make bench-broker ARGS=\"--only throughput,latency --rounds 5\"
  make bench-broker ARGS=\"--only recovery --recover 5 --dir /mnt/fast\"
  make bench-broker ARGS=\"--json\" > figures.json";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Group commit: many writers, durable, beside write + fdatasync.
    Throughput,
    /// One append in flight, beside write + fdatasync.
    Latency,
    /// Transactions, beside the fdatasyncs they need.
    Transactions,
    /// Appending without waiting for the disk, on one core.
    Append,
    /// Reading from the page cache and from the disk.
    Read,
    /// Appending and reading with each compression codec.
    Codecs,
    /// Compaction, beside reading and writing as many bytes.
    Compaction,
    /// Resident memory, idle and loaded.
    Memory,
    /// The cost of 1 to 10,000 partitions.
    Partitions,
    /// Opening after kill -9 and after a clean stop, by size.
    Recovery,
}

/// What every measurement needs to know.
struct Bench {
    dir: PathBuf,
    rounds: usize,
    quick: bool,
    recover_bytes: u64,
    progress: Progress,
}

impl Bench {
    /// `full`, or `quick` where less of everything was asked for.
    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let outcome = match arguments.role.take() {
        Some(role) => child::run(role),
        None => measure(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nbench-broker failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the run when it is interrupted, and leaves nothing behind.
fn clean_up_when_interrupted(scratch: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let wait = async move {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminated.recv() => Ok(()),
        }
    };
    std::thread::spawn(move || {
        if runtime.block_on(wait).is_ok() {
            // What is still being written to may come back; there is no more to be done about it.
            let _ = std::fs::remove_dir_all(&scratch);
            std::process::exit(130);
        }
    });
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.dir)?;
    let scratch = tempfile::Builder::new()
        .prefix("bench-broker-")
        .tempdir_in(&arguments.dir)
        .map_err(|e| format!("cannot make a folder in {}: {e}", arguments.dir.display()))?;
    clean_up_when_interrupted(scratch.path().to_owned())?;
    let mut bench = Bench {
        dir: scratch.path().to_owned(),
        rounds: arguments.rounds as usize,
        quick: arguments.quick,
        recover_bytes: arguments.recover * 1_000_000_000,
        progress: Progress::new(),
    };
    let mut parts: Vec<Part> = Vec::new();
    for subject in Subject::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(subject) {
            continue;
        }
        let measure = match subject {
            Subject::Throughput => throughput::measure,
            Subject::Latency => latency::measure,
            Subject::Transactions => transactions::measure,
            Subject::Append => append::measure,
            Subject::Read => read::measure,
            Subject::Codecs => codecs::measure,
            Subject::Compaction => compaction::measure,
            Subject::Memory => memory::measure,
            Subject::Partitions => partitions::measure,
            Subject::Recovery => recovery::measure,
        };
        let part = measure(&mut bench)?;
        bench.progress.clear();
        if !arguments.json {
            println!("{part}");
        }
        parts.push(part);
    }
    if arguments.json {
        println!("{}", figures::json(&parts));
    } else {
        println!("{}", figures::aims(&parts));
    }
    Ok(())
}
