//! The figures, as a table for people and as JSON.

use std::fmt;

use serde::Serialize;
use tidewater_tests::child::Usage;
use tidewater_tests::progress::count;
use tidewater_tests::stats::median;
use tidewater_tests::table::table;

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Change stream into the broker.
    pub stream: Option<Ratio>,
    /// Snapshot into the broker.
    pub snapshot: Option<Ratio>,
    /// Change stream through the broker into both sinks.
    pub sinks: Option<Flow>,
    /// From commit to sink.
    pub latency: Option<Latency>,
}

/// The daemon beside a tool of PostgreSQL's, in interleaved rounds.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// The tool.
    pub beside: &'static str,
    /// Its rows per second, each round.
    pub tool_rows_per_second: Vec<f64>,
    /// The daemon.
    pub daemon: Flow,
}

impl Ratio {
    /// The daemon's median rate over the tool's.
    pub fn ratio(&self) -> f64 {
        median(&self.daemon.rows_per_second) / median(&self.tool_rows_per_second)
    }
}

/// What the daemon did in each round.
#[derive(Debug, Default, Serialize)]
pub struct Flow {
    /// Rows per second, from the daemon's start to the last row in place.
    pub rows_per_second: Vec<f64>,
    /// Processor seconds of the daemon per million rows.
    pub cpu_seconds_per_million: Vec<f64>,
    /// The most resident memory, in bytes.
    pub peak_rss: Vec<u64>,
}

impl Flow {
    /// Notes a round: `rows` in `seconds`, with the daemon's usage at its end.
    pub fn add(&mut self, rows: u64, seconds: f64, usage: Usage) {
        self.rows_per_second.push(rows as f64 / seconds);
        self.cpu_seconds_per_million
            .push(usage.cpu_seconds / rows as f64 * 1e6);
        self.peak_rss.push(usage.peak_rss);
    }

    fn peak_megabytes(&self) -> f64 {
        self.peak_rss.iter().copied().max().unwrap_or(0) as f64 / 1e6
    }
}

/// Latency and memory of the whole way under a moderate load.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Rows measured.
    pub rows: u64,
    /// Half of the rows took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, in milliseconds.
    pub p99_ms: f64,
    /// Resident memory with three connectors and nothing to do, in bytes.
    pub idle_rss: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = table(&["figure", "measured", "beside", "aim"]);
        let rate = |rates: &[f64]| format!("{} rows/s", count(median(rates) as u64));
        let ratios = [
            ("stream → broker", &self.stream, "0.8"),
            ("snapshot → broker", &self.snapshot, "0.5"),
        ];
        for (name, ratio, aim) in ratios {
            let Some(ratio) = ratio else { continue };
            let tool = format!("{} {}", ratio.beside, rate(&ratio.tool_rows_per_second));
            lines.add_row([
                name.to_owned(),
                rate(&ratio.daemon.rows_per_second),
                tool,
                String::new(),
            ]);
            lines.add_row([
                format!("{name}, ratio"),
                format!("{:.2}", ratio.ratio()),
                String::new(),
                format!("≥ {aim}"),
            ]);
        }
        let sinks = self.sinks.as_ref();
        if let Some(flow) = sinks {
            lines.add_row([
                "stream → broker → both sinks",
                &rate(&flow.rows_per_second),
                "",
                "",
            ]);
        }
        let flows = [
            ("stream → broker", self.stream.as_ref().map(|ratio| &ratio.daemon)),
            (
                "snapshot → broker",
                self.snapshot.as_ref().map(|ratio| &ratio.daemon),
            ),
            ("both sinks", sinks),
        ];
        for (name, flow) in flows {
            let Some(flow) = flow else { continue };
            let cpu = format!("{:.1} s", median(&flow.cpu_seconds_per_million));
            lines.add_row([
                format!("CPU per million rows, {name}"),
                cpu,
                String::new(),
                "≤ 6 s".to_owned(),
            ]);
            let peak = format!("{:.0} MB", flow.peak_megabytes());
            lines.add_row([
                format!("memory at most, {name}"),
                peak,
                String::new(),
                "≤ 150 MB".to_owned(),
            ]);
        }
        if let Some(latency) = &self.latency {
            let p50 = format!("{:.1} ms", latency.p50_ms);
            lines.add_row(["commit to sink, p50", &p50, "", ""]);
            lines.add_row([
                "commit to sink, p99",
                &format!("{:.1} ms", latency.p99_ms),
                "",
                "",
            ]);
            let idle = format!("{:.0} MB", latency.idle_rss as f64 / 1e6);
            lines.add_row(["memory at rest, three connectors", &idle, "", "≤ 40 MB"]);
        }
        write!(f, "{lines}")
    }
}
