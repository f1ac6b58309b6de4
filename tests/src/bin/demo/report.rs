//! What the demo has measured and proven, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidewater_tests::child::Usage;
use tidewater_tests::compare::Comparison;
use tidewater_tests::daemon_log::Ledger;
use tidewater_tests::latency::Latencies;
use tidewater_tests::progress::count;
use tidewater_tests::shop::Changes;
use tidewater_tests::table::table;

/// A stretch of the run.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    rows: u64,
    took: Duration,
    cpu_seconds: f64,
}

impl Stage {
    /// So many rows in so much time, for so much of the daemon's processor time.
    pub fn new(name: &'static str, rows: u64, took: Duration, cpu_seconds: f64) -> Self {
        Self {
            name,
            rows,
            took,
            cpu_seconds,
        }
    }
}

/// Everything the demo reports.
#[derive(Debug, Default)]
pub struct Report {
    /// The stretches, in their order.
    pub stages: Vec<Stage>,
    /// Both databases row by row.
    pub comparison: Option<Comparison>,
    /// The changes committed in the source.
    pub changes: Option<Changes>,
    /// Expected and found lines of the file.
    pub lines: Option<(u64, u64)>,
    /// Commit to sink, before the kill.
    pub latencies: Latencies,
    /// The tasks' books after the last stop.
    pub ledgers: BTreeMap<(String, u64), Ledger>,
    idle_rss: u64,
    peak_rss: u64,
}

impl Report {
    /// Memory under load.
    pub fn note_loaded(&mut self, usage: Usage) {
        self.peak_rss = self.peak_rss.max(usage.peak_rss);
    }

    /// Memory when everything has come to rest.
    pub fn note_idle(&mut self, usage: Usage) {
        self.idle_rss = usage.rss;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stages = table(&[
            "stage",
            "rows",
            "seconds",
            "rows/s",
            "daemon CPU s",
            "CPU s per million",
        ]);
        for Stage {
            name,
            rows,
            took,
            cpu_seconds,
        } in &self.stages
        {
            let seconds = took.as_secs_f64();
            stages.add_row([
                (*name).to_owned(),
                count(*rows),
                format!("{seconds:.1}"),
                count((*rows as f64 / seconds) as u64),
                format!("{cpu_seconds:.1}"),
                format!("{:.1}", cpu_seconds / (*rows).max(1) as f64 * 1e6),
            ]);
        }
        writeln!(
            f,
            "{stages}\n  Live rates are what the writers made, in small transactions; what the daemon can do, and at what cost, prints `make bench`.\n"
        )?;
        if let Some(comparison) = &self.comparison {
            let mut tables = table(&["table", "source rows", "mirror rows", "differing rows"]);
            for one in &comparison.tables {
                let different = one.unreadable.clone().unwrap_or_else(|| count(one.different));
                tables.add_row([
                    one.table.clone(),
                    count(one.source_rows),
                    count(one.target_rows),
                    different,
                ]);
            }
            writeln!(f, "{tables}\n")?;
        }
        if !self.ledgers.is_empty() {
            let mut books = table(&[
                "task (last run)",
                "read",
                "written",
                "filtered",
                "dead-lettered",
                "dropped",
                "in flight",
            ]);
            for ((connector, task), ledger) in &self.ledgers {
                let Ledger {
                    read,
                    written,
                    filtered,
                    dead_lettered,
                    dropped,
                    in_flight,
                } = *ledger;
                let counts = [read, written, filtered, dead_lettered, dropped, in_flight].map(count);
                books.add_row(std::iter::once(format!("{connector}-{task}")).chain(counts));
            }
            writeln!(f, "{books}\n")?;
        }
        if let Some(Changes {
            creates,
            updates,
            deletes,
        }) = self.changes
        {
            let [creates, updates, deletes] = [creates, updates, deletes].map(count);
            writeln!(
                f,
                "  Committed live in the source  {creates} creates, {updates} updates, {deletes} deletes"
            )?;
        }
        if let Some((expected, found)) = self.lines {
            writeln!(
                f,
                "  Lines of the file             {} of {} expected",
                count(found),
                count(expected)
            )?;
        }
        if let (Some(half), Some(most)) = (self.latencies.millis(50.0), self.latencies.millis(99.0)) {
            let rows = count(self.latencies.len() as u64);
            writeln!(
                f,
                "  Commit to sink                p50 {half:.1} ms, p99 {most:.1} ms ({rows} rows before the kill)"
            )?;
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let (idle, peak) = (megabytes(self.idle_rss), megabytes(self.peak_rss));
        writeln!(
            f,
            "  Daemon memory                 {idle:.0} MB at rest, {peak:.0} MB at most"
        )
    }
}
