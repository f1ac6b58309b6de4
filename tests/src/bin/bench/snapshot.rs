//! The snapshot into the broker, beside `COPY … TO STDOUT` of the same table.

use std::process::Stdio;
use std::time::Instant;

use tidewater_tests::error::{Error, Result};
use tidewater_tests::progress::{Progress, count};

use crate::bed::{Bed, DATABASE};
use crate::figures::{Flow, Ratio};

/// Rounds of both, one after the other.
pub async fn measure(bed: &Bed, progress: &mut Progress, rounds: usize) -> Result<Ratio> {
    let mut ratio = Ratio {
        beside: "psql -c 'COPY … TO STDOUT'",
        tool_rows_per_second: Vec::new(),
        daemon: Flow::default(),
    };
    for round in 1..=rounds {
        progress.step(format!("snapshot, round {round}: COPY"));
        let rate = bed.rows as f64 / copy(bed).await?;
        ratio.tool_rows_per_second.push(rate);
        progress.done(&format!("{} rows/s", count(rate as u64)));

        progress.step(format!("snapshot, round {round}: tidewater into the broker"));
        let mut run = bed.start(&[bed.source_file("bench_snapshot", "initial_only")])?;
        let (seconds, usage) = run.written("bench-source", bed.rows).await?;
        run.daemon.stop().await?;
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'bench_snapshot'";
        bed.source.execute(DATABASE, drop).await?;
        ratio.daemon.add(bed.rows, seconds, usage);
        progress.done(&format!("{} rows/s", count((bed.rows as f64 / seconds) as u64)));
    }
    Ok(ratio)
}

async fn copy(bed: &Bed) -> Result<f64> {
    let mut command = bed.source.client("psql", DATABASE);
    command
        .args(["-X", "-q", "-c", "COPY events TO STDOUT"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let started = Instant::now();
    let status = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(Error::io("running", "psql"))?;
    if !status.success() {
        return Err(Error::Child {
            what: format!("psql failed ({status})"),
            output: String::new(),
        });
    }
    Ok(started.elapsed().as_secs_f64())
}
