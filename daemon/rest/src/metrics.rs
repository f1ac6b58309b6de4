//! `/metrics`: what is counted, for Prometheus, in the OpenMetrics text format. README's table lists names and labels.

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
use tidewater_runtime::broker::Broker;
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
async fn metrics(State(broker): State<Arc<dyn Broker>>) -> Result<impl IntoResponse> {
    let mut registry = Registry::with_prefix("tidewater");
    registry.register_collector(Box::new(LogFigures(broker.metrics())));
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
