//! The change stream into the broker, beside `pg_recvlogical` on a slot with the same content.

use std::process::Stdio;
use std::time::Instant;

use tidewater_tests::error::{Error, Result};
use tidewater_tests::progress::{Progress, count};

use crate::bed::{Bed, DATABASE};
use crate::figures::{Flow, Ratio};

/// Rounds of both, one after the other.
pub async fn measure(bed: &Bed, progress: &mut Progress, rounds: usize) -> Result<Ratio> {
    let mut ratio = Ratio {
        beside: "pg_recvlogical -f /dev/null",
        tool_rows_per_second: Vec::new(),
        daemon: Flow::default(),
    };
    for round in 1..=rounds {
        progress.step(format!("stream, round {round}: pg_recvlogical"));
        let rate = bed.rows as f64 / receive(bed).await?;
        ratio.tool_rows_per_second.push(rate);
        progress.done(&format!("{} rows/s", count(rate as u64)));

        progress.step(format!("stream, round {round}: tidewater into the broker"));
        bed.slot("bench_daemon").await?;
        let mut run = bed.start(&[bed.source_file("bench_daemon", "no_data")])?;
        let (seconds, usage) = run.written("bench-source", bed.rows).await?;
        run.daemon.stop().await?;
        bed.drop_slot("bench_daemon").await?;
        ratio.daemon.add(bed.rows, seconds, usage);
        progress.done(&format!("{} rows/s", count((bed.rows as f64 / seconds) as u64)));
    }
    Ok(ratio)
}

async fn receive(bed: &Bed) -> Result<f64> {
    bed.slot("bench_tool").await?;
    let mut command = bed.source.client("pg_recvlogical", DATABASE);
    command.args([
        "--dbname",
        DATABASE,
        "--slot",
        "bench_tool",
        "--start",
        "-f",
        "/dev/null",
        "--fsync-interval=0",
        "--endpos",
        &bed.end,
    ]);
    command.args(["-o", "proto_version=1", "-o", "publication_names=bench"]);
    let started = Instant::now();
    let output = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(Error::io("running", "pg_recvlogical"))?;
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(Error::Child {
            what: format!("pg_recvlogical failed ({})", output.status),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    bed.drop_slot("bench_tool").await?;
    Ok(seconds)
}
