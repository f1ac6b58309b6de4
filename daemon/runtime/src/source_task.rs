//! A source task, from `poll` to `commit`:
//!
//! 1. the plugin's `poll` gives a frame of records and the positions they reach;
//! 2. keys and values are converted, and each record finds its partition;
//! 3. records and positions become durable and visible in one transaction (invariants 1 and 2);
//! 4. only then is the plugin told, and may release its own source (invariant 3).
//!
//! While one transaction commits, what is polled meanwhile is converted and gathered for the next, up to a bound in bytes
//! (invariant 6): the slower the disk, the larger the transactions. They commit one after the other, so order is kept
//! (invariant 5).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use tidewater_broker::{BatchBuilder, Compression, partition_for_key};
use tidewater_plugin_api::{Frame, Record, SourcePosition, TopicPartition};
use tidewater_plugin_host::{PluginError, SourceTaskHandle};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, PartitionBatch, Producer, is_internal};
use crate::converter::{Converter, header_to_topic};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::offsets::OffsetStore;
use crate::retry::Retry;
use crate::state_topic::unix_millis;

/// Bytes at which a batch for one partition is closed and the next begun.
const BATCH_BYTES: usize = 512 << 10;

/// One life of a source task.
pub struct SourceTask {
    /// The connector's name.
    pub connector: String,
    /// The plugin's half, started.
    pub plugin: Arc<SourceTaskHandle>,
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// Where positions are stored.
    pub offsets: Arc<OffsetStore>,
    /// Accounts for every record (invariant 10).
    pub ledger: Arc<Ledger>,
    /// How records become bytes.
    pub encoder: RecordEncoder,
    /// When and how to try again what may heal.
    pub retry: Retry,
}

/// Bytes of records, before compression, at which a transaction is full.
const TRANSACTION_BYTES: usize = 4 << 20;

/// What is to commit in one transaction: polled frames, converted.
#[derive(Default)]
struct Batch {
    frames: Vec<Frame>,
    partitions: Vec<PartitionBatch>,
}

impl Batch {
    fn add(&mut self, frame: Frame, partitions: Vec<PartitionBatch>) {
        self.frames.push(frame);
        self.partitions.extend(partitions);
    }

    fn has_room(&self) -> bool {
        self.partitions
            .iter()
            .map(|batch| batch.records.bytes())
            .sum::<usize>()
            < TRANSACTION_BYTES
    }
}

/// How far `frames` reach: the last position of each source partition.
fn positions(frames: &[Frame]) -> Vec<SourcePosition> {
    let mut reached: Vec<SourcePosition> = Vec::new();
    for position in frames.iter().flat_map(Frame::positions) {
        match reached
            .iter_mut()
            .find(|known| known.partition == position.partition)
        {
            Some(known) => known.offset.clone_from(&position.offset),
            None => reached.push(position.clone()),
        }
    }
    reached
}

/// What became of a batch, with the producer that wrote it.
type Committed = (Box<dyn Producer>, Vec<Frame>, Result<()>);
type Committing = BoxFuture<'static, Committed>;

impl SourceTask {
    /// Runs until `stop`, or an error that neither the plugin nor the log recovers from by itself.
    pub async fn run(mut self, producer: Box<dyn Producer>, stop: &CancellationToken) -> Result<()> {
        let mut committing = None;
        let outcome = self.drive(producer, &mut committing, stop).await;
        // A commit that is under way ends in the log with us or without. Its outcome must be known before the task's next
        // life asks for its positions, else that would read the same records again.
        if let Some(last) = committing {
            let (_, _, _known) = last.await;
        }
        outcome
    }

    async fn drive(
        &mut self,
        producer: Box<dyn Producer>,
        committing: &mut Option<Committing>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut poll = poll(self.plugin.clone());
        let mut waiting: Option<Batch> = None;
        let mut idle_producer = Some(producer);
        let mut stopping = false;

        loop {
            // A batch that waits goes out as soon as the one before it is done (invariant 5).
            if waiting.is_some()
                && let Some(producer) = idle_producer.take()
                && let Some(batch) = waiting.take()
            {
                *committing = Some(self.commit(producer, batch));
            }
            if stopping && committing.is_none() {
                return Ok(());
            }
            tokio::select! {
                biased;
                (producer, frames, outcome) = pending_or(committing) => {
                    *committing = None;
                    match outcome {
                        Ok(()) => {
                            self.retry.succeeded();
                            self.acknowledge(&positions(&frames), stop).await?;
                            idle_producer = Some(producer);
                        }
                        Err(error) if error.is_retriable() => {
                            self.ledger.retried();
                            if !self.retry.wait(&error, stop).await {
                                return Ok(()); // nothing of the batch is visible; it is read again next time
                            }
                            let mut again = Batch::default();
                            for frame in frames {
                                self.convert(frame, &mut again, stop).await?;
                            }
                            *committing = Some(self.commit(producer, again));
                        }
                        Err(error) => return Err(error),
                    }
                }
                // What was polled is finished; nothing more is polled.
                () = stop.cancelled(), if !stopping => stopping = true,
                polled = &mut poll, if !stopping && waiting.as_ref().is_none_or(Batch::has_room) => {
                    match polled.map_err(Error::from) {
                        Ok(frame) => {
                            self.retry.succeeded();
                            self.ledger.read(frame.len() as u64);
                            self.convert(frame, waiting.get_or_insert_default(), stop).await?;
                        }
                        Err(error) if error.is_retriable() => {
                            self.ledger.retried();
                            self.retry.wait(&error, stop).await;
                        }
                        Err(error) => return Err(error),
                    }
                    poll = self::poll(self.plugin.clone());
                }
            }
        }
    }

    /// Converts a frame and adds it to `batch`.
    async fn convert(&mut self, frame: Frame, batch: &mut Batch, stop: &CancellationToken) -> Result<()> {
        loop {
            match self.encoder.encode(&frame, &*self.broker).await {
                Ok(partitions) => {
                    batch.add(frame, partitions);
                    return Ok(());
                }
                Err(error) if error.is_retriable() && self.retry.wait(&error, stop).await => {
                    self.ledger.retried();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Commits a batch, with the record of its positions, so that they hold for what they cover and no more (invariant 2).
    /// It runs by itself, so that its outcome is noted whatever becomes of this life.
    fn commit(&self, mut producer: Box<dyn Producer>, batch: Batch) -> Committing {
        let (offsets, ledger, connector) =
            (self.offsets.clone(), self.ledger.clone(), self.connector.clone());
        let commit = tokio::spawn(async move {
            let Batch {
                frames,
                mut partitions,
            } = batch;
            let reached = positions(&frames);
            partitions.extend(offsets.batch(&connector, &reached));
            let outcome = producer.commit(partitions).await;
            if outcome.is_ok() {
                ledger.written(frames.iter().map(|frame| frame.len() as u64).sum());
                offsets.committed(&connector, &reached);
            }
            (producer, frames, outcome)
        });
        Box::pin(async move {
            match commit.await {
                Ok(committed) => committed,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The process is on its way out.
                    Err(_) => std::future::pending().await,
                },
            }
        })
    }

    /// Tells the plugin what is durable: it may now acknowledge its own source (invariant 3).
    async fn acknowledge(&mut self, positions: &[SourcePosition], stop: &CancellationToken) -> Result<()> {
        if positions.is_empty() {
            return Ok(());
        }
        loop {
            match self.plugin.commit(positions).await.map_err(Error::from) {
                Ok(()) => return Ok(()),
                // Not told in the end: the source repeats what is then known to be here already.
                Err(error) if error.is_retriable() => {
                    if !self.retry.wait(&error, stop).await {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn poll(plugin: Arc<SourceTaskHandle>) -> BoxFuture<'static, Result<Frame, PluginError>> {
    Box::pin(async move { plugin.poll().await })
}

/// The future in `slot`, or one that never ends.
pub(crate) async fn pending_or<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
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
    async fn encode(&mut self, frame: &Frame, broker: &dyn Broker) -> Result<Vec<PartitionBatch>> {
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
