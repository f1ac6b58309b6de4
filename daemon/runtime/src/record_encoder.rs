//! What a source's records become on their way to the log: converted, each with a partition, in batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidewater_broker::{BatchBuilder, Compression, partition_for_key};
use tidewater_plugin_api::{Frame, Record, TopicPartition};

use crate::broker::{Broker, PartitionBatch, is_internal};
use crate::converter::{Converter, header_to_topic};
use crate::error::{Error, Result};
use crate::state_topic::unix_millis;

/// Bytes at which a batch for one partition is closed and the next begun.
const BATCH_BYTES: usize = 512 << 10;

/// Turns the records of a frame into batches of bytes for partitions.
pub struct RecordEncoder {
    key: Box<dyn Converter>,
    value: Box<dyn Converter>,
    compression: Compression,
    new_topic: NewTopic,
    /// The partitions of topics seen so far.
    known: HashMap<Arc<str>, u32>,
    /// Where records without a key go, per batch one partition after the other.
    keyless: u32,
    key_bytes: Vec<u8>,
    key_present: bool,
    value_bytes: Vec<u8>,
}

/// What a topic that is not there yet is created with.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// The number of partitions.
    pub partitions: u32,
    /// Settings under Kafka's names.
    pub settings: BTreeMap<String, String>,
}

impl RecordEncoder {
    /// An encoder with these converters.
    pub fn new(
        key: Box<dyn Converter>,
        value: Box<dyn Converter>,
        compression: Compression,
        new_topic: NewTopic,
    ) -> Self {
        Self {
            key,
            value,
            compression,
            new_topic,
            known: HashMap::new(),
            keyless: 0,
            key_bytes: Vec::new(),
            key_present: false,
            value_bytes: Vec::new(),
        }
    }

    /// Converts all records of `frame`; topics that are missing are created.
    pub async fn encode(&mut self, frame: &Frame, broker: &dyn Broker) -> Result<Vec<PartitionBatch>> {
        let mut counts = Vec::with_capacity(frame.topics().len());
        for topic in frame.topics() {
            if !self.known.contains_key(topic) {
                if is_internal(topic) {
                    return Err(Error::State(format!(
                        "a source may not write to {topic}, which keeps the worker's own state; give its records another topic"
                    )));
                }
                let made = broker
                    .ensure_topic(topic, self.new_topic.partitions, &self.new_topic.settings)
                    .await?;
                self.known.insert(topic.clone(), made.partitions);
            }
            counts.push(self.known[topic]);
        }
        self.key.prepare(frame.schemas()).await?;
        self.value.prepare(frame.schemas()).await?;
        self.keyless = self.keyless.wrapping_add(1);

        let mut finished = Vec::new();
        // The batch that is open for each (topic, partition), in the order they were first met.
        let mut open: BTreeMap<(usize, u32), BatchBuilder> = BTreeMap::new();
        let now = unix_millis();
        for record in frame.records() {
            let topic = record.topic_index();
            let partition = self.partition(&record, counts[topic])?;
            let builder = open
                .entry((topic, partition))
                .or_insert_with(|| BatchBuilder::new(self.compression));
            self.push(&record, now, builder)?;
            if builder.bytes() >= BATCH_BYTES {
                let full = std::mem::replace(builder, BatchBuilder::new(self.compression));
                finished.push(partition_batch(frame, (topic, partition), full));
            }
        }
        let rest = open.into_iter().filter(|(_, records)| !records.is_empty());
        finished.extend(rest.map(|(place, records)| partition_batch(frame, place, records)));
        Ok(finished)
    }

    /// Converts the key, which stays in `key_bytes` for [`push`](Self::push), and picks the partition.
    fn partition(&mut self, record: &Record<'_>, partitions: u32) -> Result<u32> {
        self.key_bytes.clear();
        let key = self
            .key
            .to_topic(record.key_schema(), record.key_bytes(), &mut self.key_bytes);
        self.key_present = key.map_err(|source| Error::Convert {
            place: format!("key of a record for topic {}", record.topic()),
            source,
        })?;
        match record.partition() {
            Some(stated) if stated < partitions => Ok(stated),
            Some(stated) => Err(Error::State(format!(
                "a record names partition {stated} of topic {}, which has {partitions}; \
                 set topic.creation.default.partitions before the topic is created",
                record.topic()
            ))),
            None if self.key_present => Ok(partition_for_key(&self.key_bytes, partitions)),
            None => Ok(self.keyless % partitions),
        }
    }

    fn push(&mut self, record: &Record<'_>, now: i64, builder: &mut BatchBuilder) -> Result<()> {
        let place = |part: &str| format!("{part} of a record for topic {}", record.topic());
        self.value_bytes.clear();
        let value = self
            .value
            .to_topic(record.value_schema(), record.value_bytes(), &mut self.value_bytes);
        let value = value.map_err(|source| Error::Convert {
            place: place("value"),
            source,
        })?;
        let mut headers = Vec::new();
        for header in record.headers() {
            let header = header.map_err(|error| Error::State(format!("{}: {error}", place("header"))))?;
            let mut bytes = Vec::new();
            if !header.value.is_null() {
                header_to_topic(header.schema.map(|schema| &**schema), header.value, &mut bytes).map_err(
                    |source| Error::Convert {
                        place: place("header"),
                        source,
                    },
                )?;
            }
            headers.push((header.name, (!header.value.is_null()).then_some(bytes)));
        }
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_deref()))
            .collect();
        let key = self.key_present.then_some(&*self.key_bytes);
        builder.push(
            record.timestamp().unwrap_or(now),
            key,
            value.then_some(&*self.value_bytes),
            &headers,
        );
        Ok(())
    }
}

fn partition_batch(frame: &Frame, (topic, partition): (usize, u32), records: BatchBuilder) -> PartitionBatch {
    PartitionBatch {
        partition: TopicPartition {
            topic: frame.topics()[topic].to_string(),
            partition,
        },
        records,
    }
}
