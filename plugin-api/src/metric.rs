//! Metrics of a whole plugin, recorded as things happen; the host shows them beside its own. What belongs to one task is
//! better told by [`SourceTask::metrics`](crate::SourceTask::metrics) and [`SinkTask::metrics`](crate::SinkTask::metrics).
//!
//! ```
//! use tidewater_plugin_api::metric::{Counter, Gauge};
//!
//! static ROWS: Counter = Counter::new("rows_copied_total");
//! static OPEN: Gauge = Gauge::new("connections_open");
//!
//! ROWS.add(1000);
//! OPEN.set(3.0);
//! ```
//!
//! Outside of a host, as in an author's unit tests, nothing is recorded.

use std::sync::OnceLock;

use crate::abi::MetricKind;
use crate::export::host;

#[derive(Debug)]
struct Metric {
    name: &'static str,
    kind: MetricKind,
    id: OnceLock<u32>,
}

impl Metric {
    const fn new(name: &'static str, kind: MetricKind) -> Self {
        Self {
            name,
            kind,
            id: OnceLock::new(),
        }
    }

    fn record(&self, value: f64) {
        let id = self.id.get().copied().or_else(|| {
            // Not kept where there is no host yet: one may come.
            let id = host::register_metric(self.name, self.kind)?;
            Some(*self.id.get_or_init(|| id))
        });
        if let Some(id) = id {
            host::record_metric(id, value);
        }
    }
}

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(Metric);

impl Counter {
    /// A counter called `name`, which should say what it counts and in what unit: `rows_copied_total`.
    pub const fn new(name: &'static str) -> Self {
        Self(Metric::new(name, MetricKind::Counter))
    }

    /// Counts `count` more.
    pub fn add(&self, count: u64) {
        self.0.record(count as f64);
    }
}

/// A number that goes up and down.
#[derive(Debug)]
pub struct Gauge(Metric);

impl Gauge {
    /// A gauge called `name`, which should say what it measures and in what unit: `connections_open`.
    pub const fn new(name: &'static str) -> Self {
        Self(Metric::new(name, MetricKind::Gauge))
    }

    /// It is `value` now.
    pub fn set(&self, value: f64) {
        self.0.record(value);
    }
}
