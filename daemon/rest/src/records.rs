//! `/topics/{topic}/records`: reading and writing records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::select_all;
use serde::{Deserialize, Serialize};
use tidewater_broker::{BatchBuilder, Compression, RecordView, partition_for_key};
use tidewater_plugin_api::TopicPartition;
use tidewater_runtime::broker::{Broker, PartitionBatch, Reader};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::error::{ApiError, ErrorMessage, Result};
use crate::extract;
use crate::topics::refuse_internal;

/// The most records in one answer.
const MAX_RECORDS: usize = 10_000;
/// About the most bytes of records in one answer.
const MAX_BYTES: usize = 8 << 20;
/// The longest a call waits for records.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Bytes read of a partition at a time.
const FETCH_BYTES: usize = 1 << 20;

/// Which records to read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// The partition; all of them where it is left out.
    partition: Option<u32>,
    /// Where to begin: an offset, `earliest` (the default), `latest`, or with a minus so many before the end.
    offset: Option<String>,
    /// Begin at the first record of this time or later, in milliseconds since 1970; in place of `offset`.
    timestamp: Option<i64>,
    /// The most records to answer, 100 where it is left out.
    max: Option<usize>,
    /// How long to wait for a first record where there is none, in milliseconds.
    #[serde(default, rename = "wait.ms")]
    #[param(rename = "wait.ms")]
    wait_ms: u64,
}

/// Records, and where to go on.
#[derive(Serialize, ToSchema)]
struct RecordsView {
    records: Vec<RecordJson>,
    /// The next offset of each partition that was read, to go on from.
    next: BTreeMap<u32, u64>,
}

/// A record. Bytes that are UTF-8 stand as text in `key` and `value`, others in Base64 in `key_base64` and `value_base64`.
#[derive(Serialize, ToSchema)]
struct RecordJson {
    partition: u32,
    offset: u64,
    /// Milliseconds since 1970.
    timestamp: i64,
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<HeaderJson>,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HeaderJson {
    name: String,
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Records to write.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRecords {
    records: Vec<NewRecord>,
}

/// A record to write, with text or Base64.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRecord {
    /// Where it goes; else by its key as Kafka's clients do, or without a key to partition 0.
    partition: Option<u32>,
    /// Milliseconds since 1970; now where it is left out.
    timestamp: Option<i64>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    key_base64: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<HeaderJson>,
}

/// How many records were written to each partition.
#[derive(Serialize, ToSchema)]
struct Written {
    partitions: BTreeMap<u32, usize>,
}

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(read, write))
}

/// Reads committed records.
#[utoipa::path(get, path = "/topics/{topic}/records", tag = "topics", params(("topic" = String, Path), Wanted), responses(
    (status = 200, body = RecordsView),
    (status = 400, description = "An offset that is not there, or a parameter that cannot be", body = ErrorMessage),
    (status = 404, body = ErrorMessage),
))]
async fn read(
    State(broker): State<Arc<dyn Broker>>,
    extract::Path(topic): extract::Path<String>,
    extract::Query(wanted): extract::Query<Wanted>,
) -> Result<Json<RecordsView>> {
    let max = wanted.max.unwrap_or(100);
    if max > MAX_RECORDS {
        return Err(ApiError::bad_request(format!(
            "max is {max}; at most {MAX_RECORDS} records are answered at once, next tells where to go on"
        )));
    }
    let mut readers = Vec::new();
    for partition in partitions(&*broker, &topic, wanted.partition)? {
        let start = start(&*broker, &partition, &wanted).await?;
        readers.push((partition.partition, broker.reader(&partition, start)?));
    }
    let mut page = Page {
        max,
        ..Page::default()
    };
    for (partition, reader) in &mut readers {
        page.fill(*partition, reader.as_mut()).await?;
    }
    let wait = Duration::from_millis(wanted.wait_ms).min(MAX_WAIT);
    if page.records.is_empty() && !wait.is_zero() && max > 0 {
        page.wait(&mut readers, Instant::now() + wait).await?;
    }
    Ok(Json(RecordsView {
        records: page.records,
        next: page.next,
    }))
}

/// The partitions that are asked for.
fn partitions(broker: &dyn Broker, topic: &str, wanted: Option<u32>) -> Result<Vec<TopicPartition>> {
    let Some(found) = broker.topic(topic) else {
        return Err(ApiError::not_found(format!(
            "there is no topic {topic}; GET /topics lists them"
        )));
    };
    let numbers = match wanted {
        Some(wanted) if wanted >= found.partitions => {
            let partitions = found.partitions;
            return Err(ApiError::not_found(format!(
                "topic {topic} has no partition {wanted}; it has {partitions}, from 0"
            )));
        }
        Some(wanted) => wanted..wanted + 1,
        None => 0..found.partitions,
    };
    let topic = found.name;
    let of = |partition| TopicPartition {
        topic: topic.clone(),
        partition,
    };
    Ok(numbers.map(of).collect())
}

/// Where reading a partition begins.
async fn start(broker: &dyn Broker, partition: &TopicPartition, wanted: &Wanted) -> Result<u64> {
    let (first, end) = broker.bounds(partition)?;
    if let Some(timestamp) = wanted.timestamp {
        if wanted.offset.is_some() {
            return Err(ApiError::bad_request(
                "both offset and timestamp are given; give one of them",
            ));
        }
        let found = broker.offset_for_time(partition, timestamp).await?;
        return Ok(found.unwrap_or(end).clamp(first, end));
    }
    match wanted.offset.as_deref() {
        None | Some("earliest") => Ok(first),
        Some("latest") => Ok(end),
        Some(text) => {
            let fault = || {
                ApiError::bad_request(format!(
                    "offset is {text:?}; it must be a number, earliest, latest, or -N for the last N"
                ))
            };
            let offset: i64 = text.parse().map_err(|_| fault())?;
            if offset < 0 {
                return Ok(end.saturating_sub(offset.unsigned_abs()).max(first));
            }
            let offset = offset.unsigned_abs();
            if (first..=end).contains(&offset) {
                return Ok(offset);
            }
            Err(ApiError::bad_request(format!(
                "offset {offset} is not in {}-{}, whose offsets go from {first} to {end}",
                partition.topic, partition.partition
            )))
        }
    }
}

/// An answer that is being filled.
#[derive(Default)]
struct Page {
    max: usize,
    bytes: usize,
    records: Vec<RecordJson>,
    next: BTreeMap<u32, u64>,
}

impl Page {
    fn is_full(&self) -> bool {
        self.records.len() >= self.max || self.bytes >= MAX_BYTES
    }

    /// Takes what is there already.
    async fn fill(&mut self, partition: u32, reader: &mut dyn Reader) -> Result<()> {
        self.next.insert(partition, reader.position());
        while !self.is_full() {
            let before = reader.position();
            let fetched = reader.try_next(FETCH_BYTES).await?;
            if let Some(fetched) = &fetched {
                self.take(partition, fetched.records(), reader.position());
            } else {
                self.next.insert(partition, reader.position());
            }
            if fetched.is_none() && reader.position() == before {
                break;
            }
        }
        Ok(())
    }

    /// Waits for a first record in any partition.
    async fn wait(&mut self, readers: &mut [(u32, Box<dyn Reader>)], until: Instant) -> Result<()> {
        let waits = readers.iter_mut().map(|(partition, reader)| {
            Box::pin(async move {
                let fetched = reader.next(FETCH_BYTES).await;
                (*partition, fetched, reader.position())
            })
        });
        if let Ok(((partition, fetched, position), _, _)) =
            tokio::time::timeout_at(until, select_all(waits)).await
        {
            self.take(partition, fetched?.records(), position);
        }
        Ok(())
    }

    /// Takes records up to what there is room for.
    fn take<'a>(&mut self, partition: u32, records: impl Iterator<Item = RecordView<'a>>, next: u64) {
        for record in records {
            if self.is_full() {
                self.next.insert(partition, record.offset);
                return;
            }
            self.bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            self.records.push(RecordJson::of(partition, &record));
        }
        self.next.insert(partition, next);
    }
}

impl RecordJson {
    fn of(partition: u32, record: &RecordView<'_>) -> Self {
        let (key, key_base64) = shown(record.key);
        let (value, value_base64) = shown(record.value);
        let header = |(name, value): (&str, Option<&[u8]>)| {
            let (value, value_base64) = shown(value);
            HeaderJson {
                name: name.to_owned(),
                value,
                value_base64,
            }
        };
        Self {
            partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key,
            key_base64,
            value,
            value_base64,
            headers: record.headers().map(header).collect(),
        }
    }
}

/// Bytes as text where they are text, else in Base64.
fn shown(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text.to_owned()), None),
        Some((bytes, Err(_))) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// Writes records; they are durable when this answers. Those of one partition are written together or not at all.
#[utoipa::path(post, path = "/topics/{topic}/records", tag = "topics", params(("topic" = String, Path)), request_body = NewRecords,
    responses(
        (status = 200, body = Written),
        (status = 400, body = ErrorMessage),
        (status = 403, description = "The topic keeps the worker's own state", body = ErrorMessage),
        (status = 404, body = ErrorMessage),
        (status = 507, description = "The disk is full", body = ErrorMessage),
    ))]
async fn write(
    State(broker): State<Arc<dyn Broker>>,
    extract::Path(topic): extract::Path<String>,
    extract::Json(new): extract::Json<NewRecords>,
) -> Result<Json<Written>> {
    refuse_internal(&topic, "written to")?;
    let count = partitions(&*broker, &topic, None)?.len() as u32;
    let mut batches: BTreeMap<u32, (usize, BatchBuilder)> = BTreeMap::new();
    for (i, record) in new.records.iter().enumerate() {
        let place = |part: &str| format!("records[{i}].{part}");
        let key = bytes(&place("key"), record.key.as_deref(), record.key_base64.as_deref())?;
        let value = bytes(
            &place("value"),
            record.value.as_deref(),
            record.value_base64.as_deref(),
        )?;
        let mut headers = Vec::with_capacity(record.headers.len());
        for header in &record.headers {
            let value = bytes(
                &place("headers"),
                header.value.as_deref(),
                header.value_base64.as_deref(),
            )?;
            headers.push((header.name.as_str(), value));
        }
        let partition = match (record.partition, &key) {
            (Some(stated), _) if stated >= count => {
                return Err(ApiError::bad_request(format!(
                    "{} is {stated}; topic {topic} has {count} partitions, from 0",
                    place("partition")
                )));
            }
            (Some(stated), _) => stated,
            (None, Some(key)) => partition_for_key(key, count),
            (None, None) => 0,
        };
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_deref()))
            .collect();
        let (written, batch) = batches
            .entry(partition)
            .or_insert_with(|| (0, BatchBuilder::new(Compression::None)));
        *written += 1;
        batch.push(
            record.timestamp.unwrap_or_else(now_ms),
            key.as_deref(),
            value.as_deref(),
            &headers,
        );
    }
    let mut written = BTreeMap::new();
    for (partition, (records, batch)) in batches {
        let partition = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        written.insert(partition.partition, records);
        broker
            .append(PartitionBatch {
                partition,
                records: batch,
            })
            .await?;
    }
    Ok(Json(Written { partitions: written }))
}

fn bytes(place: &str, text: Option<&str>, base64: Option<&str>) -> Result<Option<Vec<u8>>> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(ApiError::bad_request(format!(
            "{place} and {place}_base64 are both given; give one of them"
        ))),
        (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(base64)) => {
            let decoded = STANDARD.decode(base64);
            decoded
                .map(Some)
                .map_err(|error| ApiError::bad_request(format!("{place}_base64 is no Base64: {error}")))
        }
        (None, None) => Ok(None),
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
