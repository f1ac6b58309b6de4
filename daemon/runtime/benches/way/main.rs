//! What the whole way costs: from a source that does nothing to a sink that does nothing, and what an idle connector costs.
//!
//! Processor time is what counts, of the whole process with all its threads: it does not depend on who else is on the machine
//! as the seconds of a clock do.
//!
//! `cargo build --release --example noop -p tidewater-runtime && cargo bench -p tidewater-runtime --bench way -- --help`

#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark that fails may panic

mod bed;
mod idle;
mod stages;
mod whole;

use std::time::Duration;

const HELP: &str = "\
Options:
  --records N     records of each figure (default 400000)
  --only PART     stages, whole or idle
  --converter C   typed, json or bytes; all of them unless said
  --seconds N     how long idle connectors are watched (default 5)
  --connectors N  how many idle connectors; 1, 100 and 1000 unless said";

/// What is asked for.
struct Arguments {
    records: usize,
    only: Option<String>,
    converter: Option<String>,
    seconds: u64,
    connectors: Option<usize>,
}

impl Arguments {
    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    /// What stands in topics, and how, that is measured.
    fn converters(&self) -> Vec<&str> {
        match &self.converter {
            Some(converter) => vec![converter],
            None => vec!["bytes", "typed", "json"],
        }
    }
}

fn main() {
    let mut arguments = Arguments {
        records: 400_000,
        only: None,
        converter: None,
        seconds: 5,
        connectors: None,
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().expect("an option has a value");
        match argument.as_str() {
            "--bench" => {} // cargo's own
            "--records" => arguments.records = value().parse().expect("a number"),
            "--only" => arguments.only = Some(value()),
            "--converter" => arguments.converter = Some(value()),
            "--seconds" => arguments.seconds = value().parse().expect("a number"),
            "--connectors" => arguments.connectors = Some(value().parse().expect("a number")),
            _ => {
                println!("{HELP}");
                return;
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        if arguments.wants("stages") {
            stages::measure(&arguments.converters(), arguments.records).await;
        }
        if arguments.wants("whole") {
            whole::measure(&arguments.converters(), arguments.records).await;
        }
        if arguments.wants("idle") {
            idle::measure(arguments.connectors, Duration::from_secs(arguments.seconds)).await;
        }
    });
}
