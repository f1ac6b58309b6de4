//! The benchmarks: every figure beside what PostgreSQL's own tools reach on the same data in the same run.
//!
//! Machines vary several-fold from hour to hour: read the ratios and the processor seconds, not the absolutes.

mod bed;
mod figures;
mod latency;
mod sinks;
mod snapshot;
mod stream;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tidewater_tests::Result;
use tidewater_tests::interrupt::interrupted;
use tidewater_tests::progress::Progress;

use bed::Bed;
use figures::Figures;

/// Measures the daemon beside PostgreSQL's own tools.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Rows to stream and to snapshot in each round.
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of load for the latency.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Single-row transactions a second for the latency.
    #[arg(long, default_value_t = 200)]
    pace: u64,
    /// What to measure; all of it unless said.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// How records stand in topics.
    #[arg(long, value_enum, default_value_t = Converter::Typed)]
    converter: Converter,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Converter {
    /// As they are in memory, their schemas kept once.
    Typed,
    /// As JSON, each with its schema: Kafka Connect's default.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Change stream into the broker, beside `pg_recvlogical`.
    Stream,
    /// Snapshot into the broker, beside `COPY … TO STDOUT`.
    Snapshot,
    /// Change stream through the broker into both sinks.
    Sinks,
    /// Commit-to-sink latency and idle memory.
    Latency,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread for all: the children end with the thread that started them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let mut progress = Progress::new();
        let outcome = tokio::select! {
            outcome = measure(&arguments, &mut progress) => outcome,
            _ = interrupted() => return ExitCode::from(130),
        };
        progress.clear();
        match outcome {
            Ok(figures) if arguments.json => {
                println!("{}", serde_json::json!(figures));
                ExitCode::SUCCESS
            }
            Ok(figures) => {
                println!("\n{figures}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("\nThe benchmark failed: {error}");
                ExitCode::FAILURE
            }
        }
    })
}

async fn measure(arguments: &Arguments, progress: &mut Progress) -> Result<Figures> {
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let mut figures = Figures::default();
    let converter = match arguments.converter {
        Converter::Typed => "typed",
        Converter::Json => "json",
    };
    let bed = Bed::set_up(progress, arguments.rows, converter).await?;
    if wanted(Part::Stream) {
        figures.stream = Some(stream::measure(&bed, progress, arguments.rounds).await?);
    }
    if wanted(Part::Snapshot) {
        figures.snapshot = Some(snapshot::measure(&bed, progress, arguments.rounds).await?);
    }
    if wanted(Part::Sinks) {
        figures.sinks = Some(sinks::measure(&bed, progress, arguments.rounds).await?);
    }
    if wanted(Part::Latency) {
        figures.latency = Some(latency::measure(&bed, progress, arguments.seconds, arguments.pace).await?);
    }
    Ok(figures)
}
