//! The change stream through the broker into a table and a file at once.

use tidewater_tests::error::Result;
use tidewater_tests::progress::{Progress, count};

use crate::bed::{Bed, DATABASE};
use crate::figures::Flow;

/// Rounds from an empty table and an empty file.
pub async fn measure(bed: &Bed, progress: &mut Progress, rounds: usize) -> Result<Flow> {
    let mut flow = Flow::default();
    for round in 1..=rounds {
        progress.step(format!("both sinks, round {round}"));
        bed.target
            .execute(DATABASE, "DROP TABLE IF EXISTS events, tidewater_offsets")
            .await?;
        bed.slot("bench_daemon").await?;
        let files = [
            bed.source_file("bench_daemon", "no_data"),
            bed.mirror_file(),
            bed.lines_file(),
        ];
        let mut run = bed.start(&files)?;
        run.written("bench-lines", bed.rows).await?;
        let (seconds, usage) = run.written("bench-mirror", bed.rows).await?;
        run.daemon.stop().await?;
        bed.drop_slot("bench_daemon").await?;
        flow.add(bed.rows, seconds, usage);
        progress.done(&format!("{} rows/s", count((bed.rows as f64 / seconds) as u64)));
    }
    Ok(flow)
}
