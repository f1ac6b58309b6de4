//! An embedded, durable, partitioned log of Kafka v2 record batches.
//!
//! A [`Broker`] keeps topics of partitions in a directory. Records are appended in batches, by themselves or in
//! transactions over many partitions and consumer-group offsets; they are acknowledged, and visible to readers, once
//! they are on disk. The broker runs inside its process and knows nothing of who uses it.
//!
//! ```
//! use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, Isolation, Start, TopicConfig};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
//! broker.create_topic("orders", TopicConfig::new(3)).await?;
//!
//! // Two partitions and the position of their source, all or nothing.
//! let producer = broker.producer("orders-source-0").await?;
//! let mut transaction = producer.begin()?;
//! for (key, value) in [("a-1", "apples"), ("b-2", "bread")] {
//!     let mut batch = BatchBuilder::new(Compression::None);
//!     batch.push(1_700_000_000_000, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
//!     let partition = tidewater_broker::partition_for_key(key.as_bytes(), 3);
//!     transaction.append("orders", partition, batch).await?;
//! }
//! transaction.commit_group_offsets("orders-source", &[("file", 0, 42)]).await?;
//! let committed = transaction.commit().await?;
//!
//! let first = &committed.partitions[0];
//! let mut reader = broker.reader("orders", first.partition, Start::Earliest, Isolation::ReadCommitted)?;
//! let fetched = reader.next(1 << 20).await?;
//! let record = fetched.records().next().unwrap();
//! assert_eq!((record.offset, record.value), (0, Some(&b"apples"[..])));
//! assert_eq!(broker.group_offsets("orders-source")[&("file".to_owned(), 0)], 42);
//! broker.close().await
//! # }
//! ```
//!
//! # Capabilities
//! **Topics** are created, described, altered, grown and deleted at run time, under Kafka's names of settings:
//! ```
//! # use tidewater_broker::{Broker, BrokerOptions, TopicConfig};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
//! broker.create_topic("prices", TopicConfig::new(2).set("cleanup.policy", "compact")).await?;
//! broker.alter_topic("prices", &[("compression.type", Some("zstd"))]).await?;
//! broker.add_partitions("prices", 4).await?;
//! assert_eq!(broker.describe_topic("prices")?.info.partitions, 4);
//! broker.delete_topic("prices").await?;
//! # broker.close().await
//! # }
//! ```
//! **Appending** returns once the records are on disk; many appends at a time share one sync. **Readers** wait without
//! polling, one partition each or [many at a time](ReaderSet), and begin at an offset, a time, or either end:
//! ```
//! # use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, Isolation, Start, TopicConfig};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
//! # broker.create_topic("clicks", TopicConfig::new(1)).await?;
//! let mut batch = BatchBuilder::new(Compression::Lz4);
//! for time in [1_000, 2_000, 3_000] {
//!     batch.push(time, Some(b"key"), Some(b"value"), &[("header", Some(b"x"))]);
//! }
//! assert_eq!(broker.append("clicks", 0, batch).await?, 0);
//! let mut reader = broker.reader("clicks", 0, Start::Timestamp(1_500), Isolation::ReadCommitted)?;
//! assert_eq!(reader.next(1 << 20).await?.records().next().unwrap().offset, 1);
//! # broker.close().await
//! # }
//! ```
//! An **[`IdempotentProducer`]** may send a batch again until it knows that it was written, once; a **[`Producer`]**
//! writes to many partitions all or nothing, as above. Both have their examples.
//!
//! A **[`Consumer`]** reads as a member of a group, which shares out the partitions and keeps the offsets:
//! ```
//! # use tidewater_broker::{AutoOffsetReset, BatchBuilder, Broker, BrokerOptions, Compression, ConsumerEvent, ConsumerOptions, OffsetCommit, TopicConfig};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
//! # broker.create_topic("orders", TopicConfig::new(2)).await?;
//! # broker.create_topic("bills", TopicConfig::new(1)).await?;
//! # let mut batch = BatchBuilder::new(Compression::None);
//! # batch.push(1_700_000_000_000, None, Some(b"apples"), &[]);
//! # broker.append("orders", 1, batch).await?;
//! let mut consumer = broker.consumer(ConsumerOptions {
//!     auto_offset_reset: AutoOffsetReset::Earliest,
//!     ..ConsumerOptions::new("billing")
//! })?;
//! consumer.subscribe(&["orders"])?;
//! let producer = broker.producer("billing-0").await?;
//! loop {
//!     let ConsumerEvent::Records(orders) = consumer.poll_event(1 << 20).await? else { continue };
//!     // What is made of the orders, and how far they were read: exactly once.
//!     let mut bills = BatchBuilder::new(Compression::None);
//!     for order in orders.records() {
//!         bills.push(order.timestamp, order.key, order.value, &[]);
//!     }
//!     let mut transaction = producer.begin()?;
//!     transaction.append("bills", 0, bills).await?;
//!     let (topic, partition) = (&*orders.partition.topic, orders.partition.partition);
//!     let read = [OffsetCommit::new(topic, partition, orders.next_offset())];
//!     transaction.commit_offsets_of(&consumer.group_metadata(), &read).await?;
//!     transaction.commit().await?;
//!     # break;
//! }
//! assert_eq!(broker.group_lag("billing")[&("orders".to_owned(), 1)].lag, 0);
//! consumer.close().await?;
//! # broker.close().await
//! # }
//! ```
//! [`Broker::metrics`] says what goes on; [`Broker::recovery`] what opening found and repaired.
//!
//! # Cancellation
//! Every future here is `Send`, and may be dropped at any await. What it was doing then is either done or not, never in
//! part; what it is, where that matters:
//! - [`Broker::append`], [`Consumer::commit`] and other commits of offsets: not written while they wait for room among
//!   the bytes in flight; written after that, though nobody is told.
//! - [`PreparedBatch::send`]: the same, and sending it again finds out.
//! - [`Transaction::append`]: not written. The transaction goes on.
//! - [`Transaction::commit`]: goes on to its end by itself.
//! - [`Reader::next`], [`ReaderSet::next`], [`Consumer::poll`]: no record is lost, nor an event.
//! - Creating, altering, growing and deleting topics: goes on to its end once its turn has come.
//! - [`Broker::close`]: takes no more writes; what is left of closing happens when the last handle is dropped.
//!
//! # Map
//! - `broker`, `opening`, `options`, `environment`, `error`: the public handle, how it is opened and closed, on which
//!   disk and clock
//! - `topic`, `topic_catalog`, `topic_settings/`: topics, what can be set for them, and changing them; `topic_partition`,
//!   `partitioner`: which partition a key belongs to
//! - `batch/`: `builder`, `record`, `varint`, `header`, `compression/`, `snappy`: records become a batch; `fetched`: and
//!   a batch, records again; `buffer_pool`
//! - `log/`: a partition. `segment`, `index`, `active_file`, `checkpoint`: its files; `sync`, `flusher`, `work_queue`,
//!   `progress`, `in_flight`: making it durable and acknowledging; `visibility`, `ready_queue`: what readers may see, and
//!   who is woken; `read`, `time`: finding it; `producers`: the check that no numbered batch is written twice;
//!   `transactions`, `transaction_state`: what it knows of transactions; `recovery`, `recovery_budget`: what a crash
//!   leaves, and how much of it has to be read back
//! - `log/compaction/`: the last record of each key stays; `key_offsets` notes which that is, `rewrite` makes a batch
//!   without the others, `output` the segment
//! - `reader`: one partition from the file to the records; `reader_set`: many partitions, one waiter
//! - `idempotent_producer`: batches that are numbered
//! - `transaction/`: `producer`, `producer_state`: transactional producers; `commit`: committing, with the argument why
//!   one round of syncs is enough; `log`, `record`: what is durable about it; `recovery`, `expiry`, `description`
//! - `group/`: consumer groups. `consumer/`, `membership`: reading as a member; `coordinator/`, `assignor`,
//!   `subscription`, `registry`: who the members are and what each gets; `offsets`, `offset_record`: what groups have
//!   committed; `administration`, `offset_expiry`, `description`: looking it up, resetting and deleting it
//! - `housekeeping`: the threads for work that is due at a time, on the time of `clock`; `cleaner`: when which log is
//!   compacted
//! - `disk/`: the traits all files are used through, the real one, and what it is measured and locked by
//! - `metrics/`, `recovery_report`: what is told about all this
//! - `fault_tests/`: disks that fail, lie, and lose power
//!
//! What is on disk, byte by byte, is in [`layout`].
//!
//! # Memory
//! Bounded (invariant 6): bytes written and not synced by [`BrokerOptions::in_flight_bytes`], what a reader holds by
//! the caller's `max_bytes`, idle buffers by a constant. Open files: those with
//! writes under way, one a reader, and [`BrokerOptions::open_files`] others. A partition takes a few KB.

mod batch;
mod broker;
mod cleaner;
mod clock;
mod disk;
mod environment;
mod error;
#[cfg(any(test, fuzzing))]
mod fault_tests;
mod group;
mod housekeeping;
mod idempotent_producer;
pub mod layout;
mod log;
mod metrics;
mod opening;
mod options;
mod partitioner;
mod reader;
mod reader_set;
mod recovery_report;
mod sync;
mod topic;
mod topic_catalog;
mod topic_partition;
mod topic_settings;
mod transaction;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use fault_tests::fuzz_targets as fuzzing;

pub use batch::builder::BatchBuilder;
pub use batch::compression::Compression;
pub use batch::fetched::Fetched;
pub use batch::record::{Headers, RecordView};
pub use broker::{Broker, Offsets};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, Result};
pub use group::administration::OffsetReset;
pub use group::assignor::Assignor;
pub use group::consumer::Consumer;
pub use group::consumer::event::{ConsumerEvent, ConsumerRecords};
pub use group::consumer::options::{AutoOffsetReset, ConsumerOptions};
pub use group::description::{GroupDescription, GroupLag, GroupState, MemberDescription};
pub use group::group_metadata::ConsumerGroupMetadata;
pub use group::offset_record::{CommittedOffset, OffsetCommit};
pub use idempotent_producer::{Appended, IdempotentProducer, PreparedBatch, Sequence};
pub use metrics::{BrokerMetrics, GroupMetrics, Histogram, Metrics, PartitionMetrics, TopicMetrics};
pub use options::{BrokerOptions, TopicConfig};
pub use partitioner::partition_for_key;
pub use reader::{Isolation, Reader, Start};
pub use reader_set::{PartitionError, ReaderSet};
pub use recovery_report::{PartitionRecovery, RecoveryAction, RecoveryReport};
pub use topic::{GROUP_OFFSETS_TOPIC, TopicInfo};
pub use topic_catalog::TopicDescription;
pub use topic_partition::TopicPartition;
pub use topic_settings::{Durability, Setting, SettingSource, check_topic_setting};
pub use transaction::commit::{Committed, CommittedPartition};
pub use transaction::description::{TransactionInfo, TransactionState};
pub use transaction::producer::{Producer, ProducerOptions, Transaction};
