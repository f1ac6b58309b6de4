//! What a source's records become on their way to the log: converted, each with a partition, in batches.
//!
//! Records come from a plugin's frame as they are, or out of a chain of transforms. First
//! [`prepare_frame`](RecordEncoder::prepare_frame) or [`prepare`](RecordEncoder::prepare) sees to their topics and schemas,
//! which may wait for the log; then each is pushed by itself, so that one that cannot be converted leaves no trace in the
//! batches and the next goes on.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use tidewater_broker::{BatchBuilder, Compression};
use tidewater_plugin_api::{Frame, Record, SchemaRef, TopicPartition};
use tidewater_transforms::{self as transforms, Datum};
use tokio::sync::watch;

use crate::broker::{Broker, PartitionBatch, is_internal};
use crate::converter::Converters;
use crate::error::{Error, Result};
use crate::partitioner::{Partitioner, Partitioning, Side};
use crate::record_fault::{Part, RecordFault};
use crate::state_topic::unix_millis;
use crate::topic_rules::TopicRules;

/// How records are gathered and where they go.
#[derive(Clone, Debug)]
pub struct EncoderOptions {
    /// How batches are compressed.
    pub compression: Compression,
    /// Bytes at which a batch for one partition is closed and the next begun.
    pub batch_bytes: usize,
    /// How partitions are picked.
    pub partitioning: Partitioning,
    /// What topics that are not there are created with.
    pub topics: TopicRules,
}

/// Bytes of a batch where a configuration does not say.
pub const BATCH_BYTES: usize = 512 << 10;

/// Turns records into batches of bytes for partitions.
pub struct RecordEncoder {
    converters: Converters,
    options: EncoderOptions,
    /// Topics met so far; batches know them by their place here.
    topics: Vec<Topic>,
    places: HashMap<Arc<str>, usize>,
    /// Topics may have changed since they were met.
    changes: Option<watch::Receiver<u64>>,
    /// The places of the topics of the frame that was prepared last, by their place in it.
    of_frame: Vec<usize>,
    partitioner: Partitioner,
    /// For records without a timestamp.
    now: i64,
    scratch: Scratch,
}

struct Topic {
    name: Arc<str>,
    partitions: u32,
    /// Records pushed for it.
    records: u64,
}

/// Buffers that are used again and again.
#[derive(Default)]
struct Scratch {
    key: Vec<u8>,
    value: Vec<u8>,
    header: Vec<u8>,
    headers: Vec<u8>,
}

/// What a record is made of, wherever it came from.
struct Parts<'r> {
    place: usize,
    partition: Option<u32>,
    timestamp: Option<i64>,
    key: Encoded<'r>,
    value: Encoded<'r>,
}

/// A value in the frame's encoding, and its schema.
struct Encoded<'r> {
    schema: Option<&'r SchemaRef>,
    bytes: Option<Cow<'r, [u8]>>,
}

impl Encoded<'_> {
    fn side(&self) -> Side<'_> {
        Side {
            schema: self.schema,
            bytes: self.bytes.as_deref(),
        }
    }
}

impl<'r> Encoded<'r> {
    fn of(datum: &'r Datum, part: impl FnOnce() -> Part) -> Result<Self, RecordFault> {
        let schema = datum.schema();
        if let Some(bytes) = datum.as_encoded() {
            let bytes = Some(Cow::Borrowed(&**bytes));
            return Ok(Self { schema, bytes });
        }
        let mut bytes = Vec::new();
        match datum.encode(&mut bytes) {
            Ok(present) => Ok(Self {
                schema,
                bytes: present.then_some(Cow::Owned(bytes)),
            }),
            Err(error) => Err(RecordFault::found(part(), error)),
        }
    }
}

struct HeaderParts<'r> {
    name: &'r str,
    value: Encoded<'r>,
}

impl RecordEncoder {
    /// An encoder with these converters.
    pub fn new(converters: Converters, options: EncoderOptions) -> Self {
        Self {
            converters,
            partitioner: Partitioner::new(options.partitioning.clone()),
            options,
            topics: Vec::new(),
            places: HashMap::new(),
            changes: None,
            of_frame: Vec::new(),
            now: unix_millis(),
            scratch: Scratch::default(),
        }
    }

    /// Converts all records of `frame`, or none where one of them cannot be converted.
    pub async fn encode(&mut self, frame: &Frame, broker: &dyn Broker) -> Result<Vec<PartitionBatch>> {
        self.prepare_frame(frame, broker).await?;
        let mut batches = Batches::default();
        for record in frame.records() {
            self.push_frame_record(&record, &mut batches)
                .map_err(|fault| fault.into_error(&format!("a record for topic {}", record.topic())))?;
        }
        Ok(self.finish(batches))
    }

    /// Makes ready for the records of `frame`: topics that are missing are created.
    pub async fn prepare_frame(&mut self, frame: &Frame, broker: &dyn Broker) -> Result<()> {
        self.follow(broker);
        self.of_frame.clear();
        for topic in frame.topics() {
            let place = self.place(topic, broker).await?;
            self.of_frame.push(place);
        }
        self.converters.key.prepare(frame.schemas()).await?;
        self.converters.value.prepare(frame.schemas()).await?;
        self.converters.header.prepare(frame.schemas()).await?;
        self.begin();
        Ok(())
    }

    /// Makes ready for a record that came out of a chain; its topic is created where it is missing.
    pub async fn prepare(&mut self, record: &transforms::Record, broker: &dyn Broker) -> Result<()> {
        self.follow(broker);
        if !self.places.contains_key(&record.topic) {
            self.place(&record.topic, broker).await?;
        }
        let Converters { key, value, header } = &mut self.converters;
        for (converter, datum) in [(key, &record.key), (value, &record.value)] {
            if let Some(schema) = datum.schema()
                && !converter.knows(schema)
            {
                converter.prepare(std::slice::from_ref(schema)).await?;
            }
        }
        for schema in record.headers.iter().filter_map(|header| header.value.schema()) {
            if !header.knows(schema) {
                header.prepare(std::slice::from_ref(schema)).await?;
            }
        }
        Ok(())
    }

    /// Says that what is pushed from now on was polled later: records without a key go to another partition, and those
    /// without a timestamp get the time of now. A frame that is prepared begins by itself.
    pub fn begin(&mut self) {
        self.partitioner.next_poll();
        self.now = unix_millis();
    }

    /// Takes note of partitions that topics have got, and forgets topics that are gone.
    fn follow(&mut self, broker: &dyn Broker) {
        let changes = self.changes.get_or_insert_with(|| broker.topic_changes());
        if !changes.has_changed().unwrap_or(false) {
            return;
        }
        changes.mark_unchanged();
        let topics = &mut self.topics;
        self.places.retain(|name, place| match broker.topic(name) {
            Some(topic) => {
                topics[*place].partitions = topic.partitions;
                true
            }
            None => false,
        });
    }

    async fn place(&mut self, topic: &Arc<str>, broker: &dyn Broker) -> Result<usize> {
        if let Some(&place) = self.places.get(topic) {
            return Ok(place);
        }
        if is_internal(topic) {
            return Err(Error::State(format!(
                "a source may not write to {topic}, which keeps the worker's own state; give its records another topic"
            )));
        }
        let made = match (broker.topic(topic), self.options.topics.of(topic)) {
            (Some(there), _) => there,
            (None, Some(new)) => broker.ensure_topic(topic, new.partitions, &new.settings).await?,
            (None, None) => {
                return Err(Error::State(format!(
                    "topic {topic} is not there, and the worker lets connectors create none; create it, or set \
                     topic.creation.enable=true in the worker's file"
                )));
            }
        };
        let place = self.topics.len();
        self.topics.push(Topic {
            name: topic.clone(),
            partitions: made.partitions,
            records: 0,
        });
        self.places.insert(topic.clone(), place);
        Ok(place)
    }

    /// Adds a record of the frame that was prepared last. Nothing is added where it cannot be converted.
    pub fn push_frame_record(
        &mut self,
        record: &Record<'_>,
        batches: &mut Batches,
    ) -> Result<(), RecordFault> {
        let place = self.of_frame.get(record.topic_index()).copied();
        let encoded = |schema, bytes: Option<_>| Encoded {
            schema,
            bytes: bytes.map(Cow::Borrowed),
        };
        let parts = Parts {
            place: place.ok_or_else(|| unprepared(record.topic()))?,
            partition: record.partition(),
            timestamp: record.timestamp(),
            key: encoded(record.key_schema(), record.key_bytes()),
            value: encoded(record.value_schema(), record.value_bytes()),
        };
        let headers = record.headers().map(|header| {
            let header = header.map_err(|error| RecordFault::found(Part::Headers, error))?;
            Ok(HeaderParts {
                name: header.name,
                value: encoded(header.schema, header.encoded),
            })
        });
        self.add(&parts, headers, batches)
    }

    /// Adds a record that came out of a chain and was [prepared](Self::prepare). Nothing is added where it cannot be
    /// converted.
    pub fn push(&mut self, record: &transforms::Record, batches: &mut Batches) -> Result<(), RecordFault> {
        let place = self.places.get(&record.topic).copied();
        let parts = Parts {
            place: place.ok_or_else(|| unprepared(&record.topic))?,
            partition: record.partition,
            timestamp: record.timestamp,
            key: Encoded::of(&record.key, || Part::Key)?,
            value: Encoded::of(&record.value, || Part::Value)?,
        };
        let headers = record.headers.iter().map(|header| {
            Ok(HeaderParts {
                name: &header.name,
                value: Encoded::of(&header.value, || Part::Header(header.name.to_string()))?,
            })
        });
        self.add(&parts, headers, batches)
    }

    fn add<'r>(
        &mut self,
        parts: &Parts<'r>,
        header_parts: impl Iterator<Item = Result<HeaderParts<'r>, RecordFault>>,
        batches: &mut Batches,
    ) -> Result<(), RecordFault> {
        let Converters { key, value, header } = &mut self.converters;
        let Scratch {
            key: key_scratch,
            value: value_scratch,
            header: header_scratch,
            headers: header_bytes,
        } = &mut self.scratch;
        key_scratch.clear();
        value_scratch.clear();
        header_bytes.clear();

        let key_class = key.class();
        let key = key.to_topic(parts.key.schema, parts.key.bytes.as_deref(), key_scratch);
        let key = key.map_err(|source| RecordFault {
            part: Part::Key,
            class: Some(key_class),
            source,
        })?;
        let topic = &mut self.topics[parts.place];
        let partition = match parts.partition {
            Some(stated) if stated < topic.partitions => stated,
            Some(stated) => {
                let fault = format!(
                    "a record names partition {stated} of topic {}, which has {}; set topic.creation.default.partitions \
                     before the topic is created",
                    topic.name, topic.partitions
                );
                return Err(RecordFault::found(Part::Partition, fault));
            }
            None => {
                let sides = (parts.key.side(), parts.value.side());
                let picked = self.partitioner.pick(key, sides, topic.records, topic.partitions);
                picked.map_err(|fault| RecordFault::found(Part::Partition, fault))?
            }
        };
        let value_class = value.class();
        let value = value.to_topic(parts.value.schema, parts.value.bytes.as_deref(), value_scratch);
        let value = value.map_err(|source| RecordFault {
            part: Part::Value,
            class: Some(value_class),
            source,
        })?;
        let mut spans: Vec<(&str, Option<Range<usize>>)> = Vec::new();
        for parts in header_parts {
            let HeaderParts { name, value } = parts?;
            header_scratch.clear();
            let bytes = match header.to_topic(value.schema, value.bytes.as_deref(), header_scratch) {
                Ok(bytes) => bytes,
                Err(source) => {
                    return Err(RecordFault {
                        part: Part::Header(name.to_owned()),
                        class: Some(header.class()),
                        source,
                    });
                }
            };
            let start = header_bytes.len();
            header_bytes.extend_from_slice(bytes.unwrap_or_default());
            spans.push((name, bytes.map(|_| start..header_bytes.len())));
        }
        let headers: Vec<_> = spans
            .into_iter()
            .map(|(name, span)| (name, span.map(|span| &header_bytes[span])))
            .collect();

        let builder = batches
            .open
            .entry((parts.place, partition))
            .or_insert_with(|| BatchBuilder::new(self.options.compression));
        let before = if builder.is_empty() { 0 } else { builder.bytes() };
        builder.push(parts.timestamp.unwrap_or(self.now), key, value, &headers);
        batches.bytes += builder.bytes() - before;
        batches.records += 1;
        topic.records += 1;
        if builder.bytes() >= self.options.batch_bytes {
            let full = std::mem::replace(builder, BatchBuilder::new(self.options.compression));
            batches.full.push(partition_batch(topic, partition, full));
        }
        Ok(())
    }

    /// The batches, to be committed.
    pub fn finish(&self, batches: Batches) -> Vec<PartitionBatch> {
        let mut finished = batches.full;
        for ((place, partition), records) in batches.open {
            if !records.is_empty() {
                finished.push(partition_batch(&self.topics[place], partition, records));
            }
        }
        finished
    }
}

fn unprepared(topic: &str) -> RecordFault {
    RecordFault::found(
        Part::Whole,
        format!("topic {topic} was not prepared; please report this"),
    )
}

fn partition_batch(topic: &Topic, partition: u32, records: BatchBuilder) -> PartitionBatch {
    PartitionBatch {
        partition: TopicPartition {
            topic: topic.name.to_string(),
            partition,
        },
        records,
    }
}

/// Records that are converted, to be committed together. They are of one encoder, which [finishes](RecordEncoder::finish)
/// them.
#[derive(Debug, Default)]
pub struct Batches {
    /// The batches that are full, in order.
    full: Vec<PartitionBatch>,
    /// The batch that is open for each topic, by its place, and partition.
    open: BTreeMap<(usize, u32), BatchBuilder>,
    bytes: usize,
    records: u64,
}

impl Batches {
    /// Bytes so far, before compression.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records so far.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }
}

#[cfg(test)]
mod tests;
