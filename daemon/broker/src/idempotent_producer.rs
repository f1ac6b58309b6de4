//! Producers that number their batches, so that sending one again never writes it twice.
//!
//! The log tells a batch sent again from a new one by the producer's id and the batch's sequence; the rules are in
//! [`producers`](crate::log::producers). A batch is numbered when it is first written, and keeps its bytes and its number
//! until it is acknowledged: a call that failed or was dropped is simply made again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::batch::builder::{BatchBuilder, ProducerStamp, SealedBatch};
use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::producers::sequence_after;

/// A producer whose batches are written exactly once, each by itself; for many at once see
/// [`Producer`](crate::Producer).
///
/// ```
/// # use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, TopicConfig};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
/// broker.create_topic("clicks", TopicConfig::new(1)).await?;
/// let producer = broker.idempotent_producer().await?;
///
/// let mut records = BatchBuilder::new(Compression::Zstd);
/// records.push(1_700_000_000_000, None, Some(b"a click"), &[]);
/// let mut batch = producer.prepare("clicks", 0, records)?;
/// let first = batch.send().await?;
/// // Had that failed, or been dropped while it waited: again, until it is acknowledged.
/// let again = batch.send().await?;
/// assert_eq!((first.base_offset, again.base_offset), (0, 0));
/// assert_eq!(broker.offsets("clicks", 0)?.end, 1);
/// # broker.close().await
/// # }
/// ```
pub struct IdempotentProducer {
    shared: Arc<Shared>,
}

struct Shared {
    broker: RwLock<Broker>,
    id: i64,
    /// The next sequence by topic and partition. Held while a batch is numbered and written, so that sequences lie in
    /// the log in their order.
    sequences: Mutex<HashMap<(Uuid, u32), NextSequence>>,
}

impl std::fmt::Debug for IdempotentProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdempotentProducer")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PreparedBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedBatch")
            .field("producer_id", &self.producer.id)
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("written", &self.written.is_some())
            .finish_non_exhaustive()
    }
}

type NextSequence = Arc<Mutex<i32>>;

/// The epoch of idempotent producers: there is one instance of an id.
const EPOCH: i16 = 0;

/// A batch of an [`IdempotentProducer`], kept until it is acknowledged.
///
/// Dropped before that, it may have been written or not, once; and where a log failed before it was on disk, the
/// producer cannot go on in that partition without it.
#[must_use = "it is written when it is sent"]
pub struct PreparedBatch {
    producer: Arc<Shared>,
    topic: String,
    topic_id: Uuid,
    partition: u32,
    next_sequence: NextSequence,
    batch: SealedBatch,
    /// Whether the batch has its sequence.
    numbered: bool,
    /// Where it was written.
    written: Option<(Arc<Log>, crate::log::Appended)>,
}

/// Who wrote a batch and which of its batches it is: what a Kafka client says of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// The id of the producer, from 0.
    pub producer_id: i64,
    /// The epoch of its instance, from 0.
    pub epoch: i16,
    /// The producer's count of records in the partition before the batch, modulo 2^31.
    pub base_sequence: i32,
}

/// Where a numbered batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: u64,
    /// It had been written before, and was not written again.
    pub duplicate: bool,
}

impl Broker {
    /// A new idempotent producer. Its id is one that nobody had and, even after a crash, nobody else will have.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::LogFailed`], [`Error::Closed`].
    pub async fn idempotent_producer(&self) -> Result<IdempotentProducer> {
        self.check_open()?;
        let id = self.coordinator().transactions.allocate_producer_id().await?;
        Ok(IdempotentProducer {
            shared: Arc::new(Shared {
                broker: RwLock::new(self.clone()),
                id,
                sequences: Mutex::default(),
            }),
        })
    }

    /// Appends a batch whose producer keeps its own id and sequence, as clients of the Kafka protocol do, and returns
    /// once it is durable. A batch that was written before is not written again; its offset is answered once *that* is
    /// durable.
    ///
    /// # Errors
    /// [`Error::OutOfOrderSequence`], [`Error::DuplicateSequence`], [`Error::InvalidProducerEpoch`], and those of
    /// [`append`](Self::append).
    pub async fn append_with_sequence(
        &self,
        topic: &str,
        partition: u32,
        batch: BatchBuilder,
        sequence: Sequence,
    ) -> Result<Appended> {
        let numbers = [
            ("producer_id", sequence.producer_id),
            ("epoch", i64::from(sequence.epoch)),
            ("base_sequence", i64::from(sequence.base_sequence)),
        ];
        for (name, value) in numbers {
            if value < 0 {
                return Err(Error::InvalidOption {
                    name,
                    value: value.to_string(),
                    allowed: "a number from 0",
                });
            }
        }
        let log = self.writable_log(topic, partition)?;
        let batch = batch.pack(log.compression())?;
        let reserved = self.reserve(&log, batch.bytes()).await;
        let mut batch = batch.stamp(Some(ProducerStamp {
            id: sequence.producer_id,
            epoch: sequence.epoch,
            sequence: sequence.base_sequence,
            transactional: false,
        }));
        let appended = log.append(&mut batch, reserved.hand_over())?;
        drop(batch);
        log.durable(appended.next).await?;
        Ok(Appended {
            base_offset: appended.base,
            duplicate: appended.duplicate,
        })
    }
}

impl IdempotentProducer {
    /// The producer id, which its batches carry.
    pub fn id(&self) -> i64 {
        self.shared.id
    }

    /// Compresses a batch for a partition; it is written by [`PreparedBatch::send`]. Batches get their place in the
    /// order in which they are first sent.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::EmptyBatch`], [`Error::BatchTooLarge`].
    pub fn prepare(&self, topic: &str, partition: u32, batch: BatchBuilder) -> Result<PreparedBatch> {
        let log = self.shared.broker.read().writable_log(topic, partition)?;
        let stamp = ProducerStamp {
            id: self.shared.id,
            epoch: EPOCH,
            sequence: 0,
            transactional: false,
        };
        let batch = batch.pack(log.compression())?.stamp(Some(stamp));
        let place = (log.id.topic_id, partition);
        let next_sequence = Arc::clone(self.shared.sequences.lock().entry(place).or_default());
        Ok(PreparedBatch {
            producer: Arc::clone(&self.shared),
            topic: topic.to_owned(),
            topic_id: log.id.topic_id,
            partition,
            next_sequence,
            batch,
            numbered: false,
            written: None,
        })
    }

    /// Goes on with `broker`, which is the same data directory opened again: after [`Error::LogFailed`] only that tells
    /// what is on disk. Batches that were sent and not acknowledged are sent again, in their order, with the numbers they
    /// have; what is there already is not written twice.
    pub fn reopened(&self, broker: &Broker) {
        *self.shared.broker.write() = broker.clone();
    }
}

impl PreparedBatch {
    /// Writes the batch, unless an earlier call did, and answers where it is once it is durable (invariant 1). Waits for
    /// room among the bytes in flight first. After an error, or when dropped while it waits, it can be called again.
    ///
    /// # Errors
    /// Those of [`Broker::append`]. [`Error::OutOfOrderSequence`] after the broker was
    /// [reopened](IdempotentProducer::reopened), if a batch before this one is missing: send that first.
    pub async fn send(&mut self) -> Result<Appended> {
        let broker = self.producer.broker.read().clone();
        let log = broker.writable_log(&self.topic, self.partition)?;
        if log.id.topic_id != self.topic_id {
            return Err(Error::TopicDeleted {
                topic: self.topic.clone(),
            });
        }
        let here = |(written, _): &&(Arc<Log>, _)| Arc::ptr_eq(written, &log);
        let appended = if let Some((_, appended)) = self.written.as_ref().filter(here) {
            *appended
        } else {
            let reserved = broker.reserve(&log, self.batch.bytes().len()).await;
            let mut next = self.next_sequence.lock();
            if !self.numbered {
                self.batch.set_sequence(*next);
            }
            let appended = log.append(&mut self.batch, reserved.hand_over())?;
            if !self.numbered {
                *next = sequence_after(*next, self.batch.count);
                self.numbered = true;
            }
            drop(next);
            self.written = Some((Arc::clone(&log), appended));
            appended
        };
        log.durable(appended.next).await?;
        Ok(Appended {
            base_offset: appended.base,
            duplicate: appended.duplicate,
        })
    }

    /// The topic it is for.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition it is for.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.batch.count as usize
    }

    /// Whether it has none, which never is.
    pub fn is_empty(&self) -> bool {
        self.batch.count == 0
    }
}
