//! A source task, from `poll` to `commit`:
//!
//! 1. the plugin's `poll` gives a frame of records and the positions they reach;
//! 2. keys and values are converted, and each record finds its partition;
//! 3. records and positions become durable and visible in one transaction (invariants 1 and 2);
//! 4. only then is the plugin told, and may release its own source (invariant 3).
//!
//! While one batch commits, the next is polled and converted; it is committed after, so order is kept (invariant 5) and at
//! most two batches are in memory (invariant 6).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use tidewater_broker::{BatchBuilder, Compression, partition_for_key};
use tidewater_plugin_api::{Frame, Record, TopicPartition};
use tidewater_plugin_host::{PluginError, SourceTaskHandle};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::broker::{Broker, PartitionBatch, Producer};
use crate::converter::{Converter, header_to_topic};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::offsets::OffsetStore;
use crate::state_topic::unix_millis;

/// Bytes at which a batch for one partition is closed and the next begun.
const BATCH_BYTES: usize = 512 << 10;

/// One life of a source task.
pub struct SourceTask {
    /// The connector's name.
    pub connector: String,
    /// The plugin's half.
    pub plugin: Arc<SourceTaskHandle>,
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// Writes this task's transactions.
    pub producer: Box<dyn Producer>,
    /// Where positions are stored.
    pub offsets: Arc<OffsetStore>,
    /// Accounts for every record (invariant 10).
    pub ledger: Arc<Ledger>,
    /// How records become bytes.
    pub encoder: RecordEncoder,
    /// When to try again what may heal.
    pub backoff: Backoff,
}

/// A polled batch, converted.
struct Batch {
    frame: Frame,
    partitions: Vec<PartitionBatch>,
}

type Committing = BoxFuture<'static, (Box<dyn Producer>, Frame, Result<()>)>;

impl SourceTask {
    /// Runs until `stop`, or an error that the plugin or the log cannot recover from here.
    pub async fn run(mut self, stop: &CancellationToken) -> Result<()> {
        let plugin = self.plugin.clone();
        plugin.start().await?;
        let mut poll = poll(plugin.clone());
        let mut waiting: Option<Batch> = None;
        let mut idle_producer = Some(self.producer);
        let mut committing: Option<Committing> = None;
        let mut stopping = false;

        loop {
            // A batch that waits goes out as soon as the one before it is done.
            if waiting.is_some()
                && let Some(producer) = idle_producer.take()
                && let Some(batch) = waiting.take()
            {
                committing = Some(commit(producer, batch));
            }
            if stopping && committing.is_none() && waiting.is_none() {
                return Ok(());
            }
            tokio::select! {
                biased;
                (producer, frame, outcome) = pending_or(&mut committing) => {
                    committing = None;
                    match outcome {
                        Ok(()) => {
                            self.backoff.reset();
                            self.ledger.written(frame.len() as u64);
                            self.offsets.committed(&self.connector, frame.positions());
                            if !frame.positions().is_empty() {
                                plugin.commit(frame.positions()).await?; // invariant 3
                            }
                        }
                        Err(error) if error.is_retriable() => {
                            self.ledger.retried();
                            wait_to_retry(&mut self.backoff, &error, stop).await;
                            if stop.is_cancelled() {
                                return Ok(()); // nothing of the batch is visible; it is read again next time
                            }
                            let partitions = self.encoder.encode(&frame, &*self.broker).await?;
                            let again = with_positions(Batch { frame, partitions }, &self.offsets, &self.connector);
                            committing = Some(commit(producer, again));
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                    idle_producer = Some(producer);
                }
                () = stop.cancelled(), if !stopping => {
                    // What was polled is finished; nothing more is polled.
                    stopping = true;
                }
                polled = &mut poll, if !stopping && waiting.is_none() => {
                    match polled {
                        Ok(frame) => {
                            self.ledger.read(frame.len() as u64);
                            let partitions = self.encoder.encode(&frame, &*self.broker).await?;
                            waiting = Some(with_positions(Batch { frame, partitions }, &self.offsets, &self.connector));
                        }
                        Err(error) => {
                            let error = Error::from(error);
                            if !error.is_retriable() {
                                return Err(error);
                            }
                            self.ledger.retried();
                            wait_to_retry(&mut self.backoff, &error, stop).await;
                        }
                    }
                    poll = self::poll(plugin.clone());
                }
            }
        }
    }
}

fn poll(plugin: Arc<SourceTaskHandle>) -> BoxFuture<'static, Result<Frame, PluginError>> {
    Box::pin(async move { plugin.poll().await })
}

/// Adds the record of the positions to the transaction of the records they cover (invariant 2).
fn with_positions(mut batch: Batch, offsets: &OffsetStore, connector: &str) -> Batch {
    batch.partitions.extend(offsets.batch(connector, batch.frame.positions()));
    batch
}

fn commit(mut producer: Box<dyn Producer>, batch: Batch) -> Committing {
    Box::pin(async move {
        let outcome = producer.commit(batch.partitions).await;
        (producer, batch.frame, outcome)
    })
}

/// The future in `slot`, or one that never ends.
pub(crate) async fn pending_or<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Says what failed and waits until it is time to try again, or to stop.
pub(crate) async fn wait_to_retry(backoff: &mut Backoff, error: &Error, stop: &CancellationToken) {
    let delay = backoff.next_delay();
    tracing::warn!(%error, attempt = backoff.attempts(), retry_in_ms = delay.as_millis() as u64, "will try again");
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = stop.cancelled() => {}
    }
}

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
    pub fn new(key: Box<dyn Converter>, value: Box<dyn Converter>, compression: Compression, new_topic: NewTopic) -> Self {
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
    async fn encode(&mut self, frame: &Frame, broker: &dyn Broker) -> Result<Vec<PartitionBatch>> {
        let mut counts = Vec::with_capacity(frame.topics().len());
        for topic in frame.topics() {
            if !self.known.contains_key(topic) {
                let made = broker.ensure_topic(topic, self.new_topic.partitions, &self.new_topic.settings).await?;
                self.known.insert(topic.clone(), made.partitions);
            }
            counts.push(self.known[topic]);
        }
        self.keyless = self.keyless.wrapping_add(1);

        let mut finished = Vec::new();
        // The batch that is open for each (topic, partition), in the order they were first met.
        let mut open: BTreeMap<(usize, u32), BatchBuilder> = BTreeMap::new();
        let now = unix_millis();
        for record in frame.records() {
            let topic = record.topic_index();
            let partition = self.partition(&record, counts[topic])?;
            let builder = open.entry((topic, partition)).or_insert_with(|| BatchBuilder::new(self.compression));
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
        let key = self.key.to_topic(record.key_schema(), record.key_bytes(), &mut self.key_bytes);
        self.key_present = key.map_err(|source| Error::Convert { place: format!("key of a record for topic {}", record.topic()), source })?;
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
        let value = self.value.to_topic(record.value_schema(), record.value_bytes(), &mut self.value_bytes);
        let value = value.map_err(|source| Error::Convert { place: place("value"), source })?;
        let mut headers = Vec::new();
        for header in record.headers() {
            let header = header.map_err(|error| Error::State(format!("{}: {error}", place("header"))))?;
            let mut bytes = Vec::new();
            if !header.value.is_null() {
                header_to_topic(header.schema.map(|schema| &**schema), header.value, &mut bytes)
                    .map_err(|source| Error::Convert { place: place("header"), source })?;
            }
            headers.push((header.name, (!header.value.is_null()).then_some(bytes)));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_deref())).collect();
        let key = self.key_present.then_some(&*self.key_bytes);
        builder.push(record.timestamp().unwrap_or(now), key, value.then_some(&*self.value_bytes), &headers);
        Ok(())
    }
}

fn partition_batch(frame: &Frame, (topic, partition): (usize, u32), records: BatchBuilder) -> PartitionBatch {
    PartitionBatch { partition: TopicPartition { topic: frame.topics()[topic].to_string(), partition }, records }
}
