//! `/metrics`: what is counted, for Prometheus, in the OpenMetrics text format. docs/rest.md lists names and labels.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tidewater_broker::{Metrics, PartitionMetrics};
use tidewater_runtime::Worker;
use tidewater_runtime::ledger::LedgerSnapshot;
use tidewater_runtime::status::State as Standing;
use tidewater_runtime::status::Subject;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::error::{ApiError, Result};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// All metrics as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String, content_type = OPEN_METRICS)))]
async fn metrics(State(worker): State<Arc<Worker>>) -> Result<impl IntoResponse> {
    let mut registry = Registry::with_prefix("tidewater");
    registry.register_collector(Box::new(LogFigures(worker.broker().metrics())));
    registry.register_collector(Box::new(TaskFigures::of(&worker)));
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|error| ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}

/// The figures of the log.
#[derive(Debug)]
struct LogFigures(Metrics);

/// A figure of each partition: its name, what it is, and how it is read.
type Figure = (&'static str, &'static str, fn(&PartitionMetrics) -> u64);

const COUNTERS: [Figure; 6] = [
    ("topic_appends", "Batches appended", |p| p.appends),
    ("topic_records_in", "Records appended", |p| p.records_in),
    ("topic_bytes_in", "Bytes appended, as they are stored", |p| {
        p.bytes_in
    }),
    ("topic_fetches", "Times a reader was given records", |p| p.fetches),
    (
        "topic_records_out",
        "Records in the batches given to readers",
        |p| p.records_out,
    ),
    (
        "topic_bytes_out",
        "Bytes given to readers, as they are stored",
        |p| p.bytes_out,
    ),
];

const GAUGES: [Figure; 8] = [
    ("topic_size_bytes", "Bytes of the partition's segments", |p| {
        p.size_bytes
    }),
    ("topic_segments", "Segments of the partition", |p| {
        p.segments as u64
    }),
    (
        "topic_damaged_segments",
        "Segments set apart because they are damaged",
        |p| p.damaged_segments as u64,
    ),
    ("topic_log_start_offset", "The first offset kept", |p| p.log_start),
    (
        "topic_last_stable_offset",
        "Where readers of committed data end",
        |p| p.last_stable,
    ),
    ("topic_high_watermark", "Everything before is acknowledged", |p| {
        p.high_watermark
    }),
    (
        "topic_open_transactions",
        "Transactions with records here that are not decided",
        |p| p.open_transactions as u64,
    ),
    (
        "topic_failed",
        "1 if the partition takes no more writes since the disk failed",
        |p| u64::from(p.failed),
    ),
];

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

impl LogFigures {
    fn partitions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in COUNTERS {
            let kind = ConstCounter::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for partition in &self.0.partitions {
                let value = ConstCounter::new(read(partition));
                value.encode(family.encode_family(&labels(partition))?)?;
            }
        }
        for (name, help, read) in GAUGES {
            let kind = ConstGauge::new(0.0).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for partition in &self.0.partitions {
                let value = ConstGauge::new(read(partition) as f64);
                value.encode(family.encode_family(&labels(partition))?)?;
            }
        }
        Ok(())
    }

    fn groups(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = ConstGauge::new(0.0).metric_type();
        let help = "Offsets between what the group has committed and the last stable offset";
        let mut family = encoder.encode_descriptor("group_lag", help, None, kind)?;
        for group in &self.0.groups {
            let Some(lag) = group.lag else { continue };
            let partition = group.partition.to_string();
            let labels = [
                ("group", group.group.as_str()),
                ("topic", group.topic.as_str()),
                ("partition", partition.as_str()),
            ];
            ConstGauge::new(lag as f64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn labels(partition: &PartitionMetrics) -> [(&'static str, String); 2] {
    [
        ("topic", partition.topic.to_string()),
        ("partition", partition.partition.to_string()),
    ]
}

impl Collector for LogFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let broker = &self.0.broker;
        let encoder = &mut encoder;
        let fsync = &broker.fsync_seconds;
        let kind = prometheus_client::metrics::MetricType::Histogram;
        let mut histogram = encoder.encode_descriptor(
            "log_fsync_seconds",
            "fdatasyncs, and how long each took",
            None,
            kind,
        )?;
        // What lies between two bounds, as the encoder adds them up.
        let mut before = 0;
        let mut buckets = Vec::with_capacity(fsync.buckets.len() + 1);
        for &(bound, upto) in &fsync.buckets {
            buckets.push((bound, upto - before));
            before = upto;
        }
        buckets.push((f64::MAX, fsync.count - before));
        histogram.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
            fsync.sum,
            fsync.count,
            &buckets,
            None,
        )?;
        counter(
            encoder,
            "log_fsync_errors",
            "fdatasyncs that failed",
            broker.fsync_errors,
        )?;
        counter(
            encoder,
            "log_checkpoints",
            "Checkpoints of partitions written",
            broker.checkpoints,
        )?;
        let in_flight = "Bytes written and not yet synced, or reserved to be";
        gauge(
            encoder,
            "log_in_flight_bytes",
            in_flight,
            broker.in_flight_bytes as f64,
        )?;
        let limit = "What log_in_flight_bytes may be at most";
        gauge(
            encoder,
            "log_in_flight_limit_bytes",
            limit,
            broker.in_flight_limit_bytes as f64,
        )?;
        let waiting = "Appends that wait for room among the bytes in flight";
        gauge(
            encoder,
            "log_appends_waiting",
            waiting,
            broker.appends_waiting as f64,
        )?;
        self.partitions(encoder)?;
        self.groups(encoder)
    }
}

/// The figures of the tasks.
#[derive(Debug)]
struct TaskFigures {
    /// By connector and task.
    ledgers: Vec<(String, usize, LedgerSnapshot)>,
    /// Connectors with no task number, and tasks: whether each runs, and its failures since the last life that lasted.
    standings: Vec<(String, Option<u32>, bool, u32)>,
}

/// A figure of each task: its name, what it is, and how it is read.
type TaskFigure = (&'static str, &'static str, fn(&LedgerSnapshot) -> u64);

/// The books of a task (invariant 10): read = written + filtered + dead-lettered + dropped + in flight.
const BOOKS: [TaskFigure; 6] = [
    (
        "task_records_read",
        "Records taken from the plugin or from topics",
        |l| l.read,
    ),
    (
        "task_records_written",
        "Records that are durable in topics or in the target",
        |l| l.written,
    ),
    ("task_records_filtered", "Records dropped on purpose", |l| {
        l.filtered
    }),
    (
        "task_records_dead_lettered",
        "Records sent to a dead-letter topic",
        |l| l.dead_lettered,
    ),
    (
        "task_records_dropped",
        "Records given up as errors.tolerance says",
        |l| l.dropped,
    ),
    (
        "task_retries",
        "Attempts after the first, over all batches",
        |l| l.retried,
    ),
];

impl TaskFigures {
    fn of(worker: &Worker) -> Self {
        let report = worker.report().into_iter();
        let ledgers = report.flat_map(|(connector, tasks)| {
            let tasks = tasks.into_iter().enumerate();
            tasks.map(move |(task, ledger)| (connector.clone(), task, ledger))
        });
        let statuses = worker.statuses().into_iter();
        let standings = statuses.map(|(subject, status)| {
            let standing = status.standing;
            let task = match &subject {
                Subject::Connector(_) => None,
                Subject::Task(_, task) => Some(*task),
            };
            let runs = standing.state == Standing::Running;
            (subject.connector().to_owned(), task, runs, standing.retries)
        });
        Self {
            ledgers: ledgers.collect(),
            standings: standings.collect(),
        }
    }
}

fn of_task(connector: &str, task: &impl ToString) -> [(&'static str, String); 2] {
    [("connector", connector.to_owned()), ("task", task.to_string())]
}

impl Collector for TaskFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in BOOKS {
            let kind = ConstCounter::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (connector, task, ledger) in &self.ledgers {
                let value = ConstCounter::new(read(ledger));
                value.encode(family.encode_family(&of_task(connector, task))?)?;
            }
        }
        let kind = ConstGauge::new(0.0).metric_type();
        let help = "Records between read and what became of them";
        let mut family = encoder.encode_descriptor("task_records_in_flight", help, None, kind)?;
        for (connector, task, ledger) in &self.ledgers {
            let value = ConstGauge::new(ledger.in_flight as f64);
            value.encode(family.encode_family(&of_task(connector, task))?)?;
        }
        let help = "1 if the task is RUNNING";
        let mut family = encoder.encode_descriptor("task_running", help, None, kind)?;
        for (connector, task, runs, _) in &self.standings {
            let Some(task) = task else { continue };
            let value = ConstGauge::new(f64::from(u8::from(*runs)));
            value.encode(family.encode_family(&of_task(connector, task))?)?;
        }
        let help = "1 if the connector is RUNNING";
        let mut family = encoder.encode_descriptor("connector_running", help, None, kind)?;
        for (connector, task, runs, _) in &self.standings {
            if task.is_none() {
                let value = ConstGauge::new(f64::from(u8::from(*runs)));
                value.encode(family.encode_family(&[("connector", connector.as_str())])?)?;
            }
        }
        let help = "Failures of the task since its last life that lasted";
        let mut family = encoder.encode_descriptor("task_failures", help, None, kind)?;
        for (connector, task, _, failures) in &self.standings {
            let Some(task) = task else { continue };
            let value = ConstGauge::new(f64::from(*failures));
            value.encode(family.encode_family(&of_task(connector, task))?)?;
        }
        Ok(())
    }
}
