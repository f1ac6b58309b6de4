//! The broker: the handle everything begins at.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::batch::builder::BatchBuilder;
use crate::clock::Clock;
use crate::disk::data_dir::DataDir;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::group::registry::Registry;
use crate::housekeeping::Keeper;
use crate::log::flusher::Flusher;
use crate::log::in_flight::Reserved;
use crate::log::{Log, Status};
use crate::options::BrokerOptions;
use crate::reader::{Isolation, Reader, Start, blocking};
use crate::reader_set::ReaderSet;
use crate::recovery_report::RecoveryReport;
use crate::topic::{GROUP_OFFSETS_TOPIC, Topic};
use crate::transaction::commit::Coordinator;
use crate::transaction::expiry::NextTimeout;
use crate::transaction::producer::{Producer, ProducerOptions};
use crate::transaction::producer_state::ProducerEntry;

/// An open broker. Clones are handles to the same one; it is closed by [`close`](Self::close), or when the last
/// handle, producer and transaction is dropped.
#[derive(Clone)]
pub struct Broker {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: BrokerOptions,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) groups: Arc<Registry>,
    pub(crate) topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// Held while a topic is created, altered or deleted.
    pub(crate) catalog: Arc<tokio::sync::Mutex<()>>,
    pub(crate) producers: Mutex<HashMap<String, Arc<ProducerEntry>>>,
    pub(crate) next_timeout: NextTimeout,
    pub(crate) recovery: RecoveryReport,
    /// The thread of short periodic work.
    pub(crate) keeper: Arc<Keeper>,
    /// The thread of compaction.
    pub(crate) cleaner: Arc<Keeper>,
    pub(crate) closed: Arc<AtomicBool>,
    /// Unlocked last.
    pub(crate) data_dir: Mutex<Option<DataDir>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("data_dir", &self.shared.options.data_dir)
            .field("closed", &self.shared.closed)
            .finish_non_exhaustive()
    }
}

/// The offsets that bound a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offsets {
    /// The first offset kept.
    pub log_start: u64,
    /// Everything before is durable and decided: where readers of committed data end.
    pub last_stable: u64,
    /// Everything before is durable.
    pub high_watermark: u64,
    /// The offset the next record gets.
    pub end: u64,
}

impl Broker {
    /// Opens the broker of a data directory, creating it if it is empty, and repairs what a crash left; see
    /// [`recovery`](Self::recovery). Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::InvalidOption`], [`Error::Corrupt`] if the transaction log is
    /// damaged, and those of the disk.
    pub fn open(options: BrokerOptions) -> Result<Self> {
        Self::open_on(Environment::default(), options)
    }

    /// As [`open`](Self::open), with the time from elsewhere: a [`ManualClock`](crate::ManualClock) in tests and
    /// simulations.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(options: BrokerOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let environment = Environment {
            clock,
            ..Environment::default()
        };
        Self::open_on(environment, options)
    }

    /// Does the periodic work at once, on the calling thread: compaction, time-outs that have passed. It happens by itself; tests and operators need not wait for it.
    pub fn run_housekeeping_now(&self) {
        self.shared.keeper.run_now();
        self.shared.cleaner.run_now();
    }

    pub(crate) fn from_shared(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What was found and done when the broker was opened.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.shared.recovery
    }

    /// The offsets that bound a partition.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`].
    pub fn offsets(&self, topic: &str, partition: u32) -> Result<Offsets> {
        let log = self.log(topic, partition)?;
        let end = log.end();
        let now = log.now();
        Ok(Offsets {
            log_start: now.log_start,
            last_stable: now.stable.offset,
            high_watermark: now.high.offset,
            end: end.max(now.high.offset),
        })
    }

    /// The first offset whose record has a timestamp at or after `timestamp`, milliseconds since 1970, among those below
    /// the high watermark; `None` if there is none. Kafka's `ListOffsets`. Timestamps need not rise: records before that
    /// offset are all earlier, records after it may be.
    ///
    /// ```
    /// # use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, TopicConfig};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
    /// # broker.create_topic("orders", TopicConfig::new(1)).await?;
    /// let mut batch = BatchBuilder::new(Compression::None);
    /// for timestamp in [1_000, 3_000, 2_000, 4_000] {
    ///     batch.push(timestamp, None, Some(b"order"), &[]);
    /// }
    /// broker.append("orders", 0, batch).await?;
    /// assert_eq!(broker.offset_for_time("orders", 0, 1_500).await?, Some(1));
    /// assert_eq!(broker.offset_for_time("orders", 0, 4_001).await?, None);
    /// # broker.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::Corrupt`].
    pub async fn offset_for_time(&self, topic: &str, partition: u32, timestamp: i64) -> Result<Option<u64>> {
        self.check_open()?;
        let log = self.log(topic, partition)?;
        blocking(move || log.offset_for_time(timestamp, log.now().high.offset)).await
    }

    /// Appends a batch outside any transaction, and returns the offset of its first record once it is durable
    /// (invariant 1). Waits for room among the bytes in flight first; dropped after that, the batch may be written.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::DiskFull`], [`Error::LogFailed`] and others.
    pub async fn append(&self, topic: &str, partition: u32, batch: BatchBuilder) -> Result<u64> {
        let log = self.writable_log(topic, partition)?;
        let reserved = self.reserve(&log, batch.bytes()).await;
        let mut sealed = batch.pack(log.compression())?.stamp(None);
        let appended = log.append(&mut sealed, reserved.hand_over())?;
        drop(sealed);
        log.durable(appended.next).await?;
        Ok(appended.base)
    }

    /// The next instance of the producer `transactional_id`: the one before is fenced, and a transaction it left open
    /// is aborted (invariant 9). Ids and epochs survive restarts.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`], [`Error::DiskFull`], [`Error::LogFailed`].
    pub async fn producer(&self, transactional_id: &str) -> Result<Producer> {
        let mut options = ProducerOptions::default();
        let longest = self.shared.options.transaction_max_timeout;
        options.transaction_timeout = options.transaction_timeout.min(longest);
        self.producer_with(transactional_id, options).await
    }

    /// As [`producer`](Self::producer), with other options than the default ones.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a time-out of zero or above
    /// [`BrokerOptions::transaction_max_timeout`]; and as [`producer`](Self::producer).
    pub async fn producer_with(&self, transactional_id: &str, options: ProducerOptions) -> Result<Producer> {
        self.check_open()?;
        options.validate(self.shared.options.transaction_max_timeout)?;
        let now = self.shared.flusher.clock.monotonic();
        let entry = {
            let mut producers = self.shared.producers.lock();
            let new = || Arc::new(ProducerEntry::new(transactional_id, None, now));
            Arc::clone(producers.entry(transactional_id.to_owned()).or_insert_with(new))
        };
        Producer::take_over(self.clone(), entry, options).await
    }

    /// Reads a partition. `from` is a [`Start`] or an offset.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::OffsetOutOfRange`].
    pub fn reader(
        &self,
        topic: &str,
        partition: u32,
        from: impl Into<Start>,
        isolation: Isolation,
    ) -> Result<Reader> {
        self.check_open()?;
        Reader::new(self.log(topic, partition)?, from.into(), isolation)
    }

    /// A set of readers, empty at first, that one task waits for: see [`ReaderSet`].
    pub fn reader_set(&self, isolation: Isolation) -> ReaderSet {
        ReaderSet::new(self.clone(), isolation)
    }

    /// Closes the broker: takes no more writes, ends what is under way, syncs everything, and writes checkpoints, so
    /// that opening it again has nothing to repair. Open transactions are aborted. Other handles get
    /// [`Error::Closed`] from then on.
    ///
    /// # Errors
    /// The first failure of a log; all are closed even so.
    pub async fn close(&self) -> Result<()> {
        if self.shared.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.shared.groups.close();
        let _catalog = self.shared.catalog.lock().await;
        let producers: Vec<_> = self.shared.producers.lock().values().cloned().collect();
        for entry in producers {
            entry.settle().await;
            entry.abort_open();
        }
        let shared = Arc::clone(&self.shared);
        // What runs of it comes to its end before the logs close.
        blocking(move || {
            shared.keeper.stop();
            shared.cleaner.stop();
            Ok(())
        })
        .await?;
        let mut closing = Vec::new();
        for log in self.shared.logs() {
            let (done, closed) = oneshot::channel();
            let told = move |result| {
                let _ = done.send(result);
            };
            log.close(Box::new(told));
            closing.push(closed);
        }
        let mut result = Ok(());
        for closed in closing {
            let closed = closed.await.unwrap_or(Err(Error::Closed));
            result = result.and(closed);
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            shared.flusher.stop();
            shared.data_dir.lock().take();
            Ok(())
        })
        .await?;
        result
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.shared.closed.load(Ordering::SeqCst) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// The wall clock: milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.shared.flusher.clock.now_ms()
    }

    pub(crate) fn coordinator(&self) -> &Arc<Coordinator> {
        &self.shared.coordinator
    }

    pub(crate) fn topics_dir(&self) -> Result<std::path::PathBuf> {
        self.shared
            .data_dir
            .lock()
            .as_ref()
            .map(DataDir::topics)
            .ok_or(Error::Closed)
    }

    pub(crate) fn log(&self, topic: &str, partition: u32) -> Result<Arc<Log>> {
        let topics = self.shared.topics.read();
        let found = topics.get(topic).ok_or_else(|| Error::UnknownTopic {
            topic: topic.to_owned(),
        })?;
        found
            .logs
            .get(partition as usize)
            .cloned()
            .ok_or_else(|| Error::UnknownPartition {
                topic: topic.to_owned(),
                partition,
                partitions: found.info.partitions,
            })
    }

    /// A log users may write to.
    pub(crate) fn writable_log(&self, topic: &str, partition: u32) -> Result<Arc<Log>> {
        self.check_open()?;
        refuse_internal(topic)?;
        self.log(topic, partition)
    }

    /// Takes room among the bytes in flight (invariant 6). What is not to be synced takes none: the operating system
    /// bounds that, and slows down who writes too fast for it.
    pub(crate) async fn reserve(&self, log: &Log, bytes: usize) -> Reserved<'_> {
        if !log.syncs() {
            return self.shared.flusher.in_flight.nothing();
        }
        let flush = || {
            for log in self.shared.logs() {
                log.schedule_if_holding();
            }
        };
        self.shared.flusher.in_flight.reserve(bytes, flush).await
    }
}

/// Users only read what the broker keeps for itself.
pub(crate) fn refuse_internal(topic: &str) -> Result<()> {
    if topic == GROUP_OFFSETS_TOPIC {
        return Err(Error::InternalTopic {
            topic: topic.to_owned(),
        });
    }
    Ok(())
}

impl Shared {
    /// All logs, the transaction log last.
    pub(crate) fn logs(&self) -> Vec<Arc<Log>> {
        let topics = self.topics.read();
        let mut logs: Vec<_> = topics
            .values()
            .flat_map(|topic| topic.logs.iter().cloned())
            .collect();
        logs.push(Arc::clone(&self.coordinator.transactions.log));
        logs
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.keeper.stop();
        self.cleaner.stop();
        // What is written is synced even so, and readers that outlive the broker are told.
        for log in self.logs() {
            drop(log.retire(Status::Closed));
        }
        self.flusher.stop();
    }
}
