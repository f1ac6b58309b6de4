//! The demo: a throwaway shop in PostgreSQL, streamed by the daemon into a second PostgreSQL and a file, through a `kill -9`, and
//! compared to the last row. Exits with 1 on any difference.
//!
//! `KEEP=1` leaves it running and tells what to try; `SCALE=10` makes ten times the rows.

mod keep;
mod report;
mod run;

use std::process::ExitCode;

use tidewater_tests::interrupt::interrupted;
use tidewater_tests::progress::Progress;

fn main() -> ExitCode {
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
            outcome = run::run(&mut progress) => Some(outcome),
            _ = interrupted() => None,
        };
        progress.clear();
        match outcome {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => {
                eprintln!("\nThe demo failed: {error}");
                ExitCode::FAILURE
            }
            None => {
                eprintln!("\nStopped; everything it started is gone.");
                ExitCode::from(130)
            }
        }
    })
}
