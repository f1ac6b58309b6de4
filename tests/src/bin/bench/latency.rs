//! From the commit in the source to the commit in the target under a moderate, steady load, both servers with synchronous commits;
//! and the daemon's memory before that load, with three connectors and nothing to do.

use std::time::Duration;

use sqlx::Connection;
use tidewater_tests::arrivals::Arrivals;
use tidewater_tests::error::{Error, Result};
use tidewater_tests::latency::{Latencies, now_micros};
use tidewater_tests::progress::Progress;
use tidewater_tests::settle::QUIET;

use crate::bed::{Bed, DATABASE};
use crate::figures::Latency;

/// One run.
pub async fn measure(bed: &Bed, progress: &mut Progress, seconds: u64, pace: u64) -> Result<Latency> {
    progress.step(format!("latency: {pace} commits a second for {seconds} s"));
    bed.target
        .execute(DATABASE, "DROP TABLE IF EXISTS events, tidewater_offsets")
        .await?;
    let mut arrivals = Arrivals::watch(&bed.target, DATABASE).await?;
    // A slot at the end of what was written: only the rows of this load flow.
    let slot = "SELECT pg_create_logical_replication_slot('bench_latency', 'pgoutput')";
    bed.source.execute(DATABASE, slot).await?;
    let files = [
        bed.source_file("bench_latency", "no_data"),
        bed.mirror_file(),
        bed.lines_file(),
    ];
    let mut run = bed.start(&files)?;

    // One row through everything: from then on all is set up and at rest.
    bed.source.execute(DATABASE, &insert(-1)).await?;
    run.written("bench-lines", 1).await?;
    run.written("bench-mirror", 1).await?;
    let idle_rss = run.daemon.usage()?.rss;

    let mut writer = bed.source.connect(DATABASE).await?;
    let since = now_micros();
    let rows = (seconds * pace) as i64;
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / pace.max(1) as f64));
    for id in 0..rows {
        ticks.tick().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(insert(-2 - id)))
            .execute(&mut writer)
            .await
            .map_err(Error::sql("writing a row"))?;
        if id % pace.max(1) as i64 == 0 {
            progress.detail(&format!("{id} of {rows} commits"));
        }
    }
    let until = now_micros();
    let last = format!("SELECT count(*) FROM public.events WHERE id = {}", -1 - rows);
    while bed.target.value(DATABASE, &last).await?.as_deref() != Some("1") {
        if !arrivals.next(QUIET).await? {
            return Err(Error::Child {
                what: "the last row does not arrive".to_owned(),
                output: run.daemon.log_tail(),
            });
        }
    }
    writer.close().await.map_err(Error::sql("closing a connection"))?;
    let (mut one, mut other) = (
        bed.source.connect(DATABASE).await?,
        bed.target.connect(DATABASE).await?,
    );
    let latencies = Latencies::read(&mut one, &mut other, "public.events", "id", since, until).await?;
    run.daemon.stop().await?;
    bed.drop_slot("bench_latency").await?;
    let missing = || Error::Different("no row was measured".to_owned());
    let p50_ms = latencies.millis(50.0).ok_or_else(missing)?;
    let p99_ms = latencies.millis(99.0).ok_or_else(missing)?;
    progress.done(&format!("p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms"));
    Ok(Latency {
        rows: latencies.len() as u64,
        p50_ms,
        p99_ms,
        idle_rss,
    })
}

fn insert(id: i64) -> String {
    format!(
        "INSERT INTO events VALUES ({id}, 1, 'live', 1.50, 'a note of an ordinary length', true, clock_timestamp())"
    )
}
