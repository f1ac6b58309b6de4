//! Dead letters: records that could not be taken further, kept as they were in a topic of their own, with Kafka Connect's
//! headers that say where they came from and why they are here.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_broker::{BatchBuilder, Compression, RecordView, partition_for_key};
use tidewater_plugin_api::TopicPartition;

use crate::broker::{Broker, PartitionBatch};
use crate::error::Result;
use crate::failure::Failure;

/// Bytes at which a batch of dead letters is closed and the next begun.
const BATCH_BYTES: usize = 512 << 10;

/// The prefix of the headers that tell why a record is a dead letter.
pub const HEADERS: &str = "__connect.errors.";

/// A topic for dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterTopic {
    /// The topic, which is made with one partition where it is missing.
    pub name: String,
    /// Whether dead letters carry [`HEADERS`].
    pub context_headers: bool,
}

/// A header: name and value.
pub type OwnedHeader = (String, Option<Vec<u8>>);

/// A record as bytes, on its way to the dead-letter topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The key; none is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// The value; none is Kafka's null.
    pub value: Option<Vec<u8>>,
    /// The headers in order.
    pub headers: Vec<OwnedHeader>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

impl DeadLetter {
    /// A record of a topic, as it is there.
    pub fn of(record: &RecordView<'_>) -> Self {
        let owned = |(name, value): (&str, Option<&[u8]>)| (name.to_owned(), value.map(<[u8]>::to_vec));
        Self {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers().map(owned).collect(),
            timestamp: record.timestamp,
        }
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + length(value));
        64 + length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

/// Where a record that failed had come from, or was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A sink: the topic it was read from. A source: the topic the plugin gave it.
    pub topic: String,
    /// A sink: the partition it was read from.
    pub partition: Option<u32>,
    /// A sink: its offset there.
    pub offset: Option<u64>,
}

impl Origin {
    /// A record of a topic.
    pub fn of(partition: &TopicPartition, offset: u64) -> Self {
        Self {
            topic: partition.topic.clone(),
            partition: Some(partition.partition),
            offset: Some(offset),
        }
    }
}

/// Kafka Connect's headers for a record of task `task` of `connector` that failed with `fault`. `class` is what failed on it,
/// `message` the fault's text without secrets (invariant 8).
pub fn context_headers(
    connector: &str,
    task: u32,
    origin: &Origin,
    fault: &Failure,
    class: &str,
    message: &str,
) -> Vec<OwnedHeader> {
    let partition = origin.partition.map(|partition| partition.to_string());
    let offset = origin.offset.map(|offset| offset.to_string());
    let task = task.to_string();
    let trace = format!("{}: {message}", fault.stage.exception());
    [
        ("topic", Some(origin.topic.as_str())),
        ("partition", partition.as_deref()),
        ("offset", offset.as_deref()),
        ("connector.name", Some(connector)),
        ("task.id", Some(&task)),
        ("stage", Some(fault.stage.name())),
        ("class.name", Some(class)),
        ("exception.class.name", Some(fault.stage.exception())),
        ("exception.message", Some(message)),
        ("exception.stacktrace", Some(&trace)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((format!("{HEADERS}{name}"), Some(value?.as_bytes().to_vec()))))
    .collect()
}

/// The dead letters as batches for their topic, which is made where it is missing. Those of one key keep their order
/// (invariant 5).
pub async fn batches(
    broker: &Arc<dyn Broker>,
    topic: &DeadLetterTopic,
    letters: &[DeadLetter],
) -> Result<Vec<PartitionBatch>> {
    if letters.is_empty() {
        return Ok(Vec::new());
    }
    let made = broker.ensure_topic(&topic.name, 1, &BTreeMap::new()).await?;
    let batch = |partition, records| PartitionBatch {
        partition: TopicPartition {
            topic: topic.name.clone(),
            partition,
        },
        records,
    };
    let mut finished = Vec::new();
    let mut open: BTreeMap<u32, BatchBuilder> = BTreeMap::new();
    for letter in letters {
        let key = letter.key.as_deref();
        let partition = key.map_or(0, |key| partition_for_key(key, made.partitions));
        let headers: Vec<_> = letter
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let records = open
            .entry(partition)
            .or_insert_with(|| BatchBuilder::new(Compression::None));
        records.push(letter.timestamp, key, letter.value.as_deref(), &headers);
        if records.bytes() >= BATCH_BYTES
            && let Some(full) = open.remove(&partition)
        {
            finished.push(batch(partition, full));
        }
    }
    finished.extend(
        open.into_iter()
            .map(|(partition, records)| batch(partition, records)),
    );
    Ok(finished)
}
