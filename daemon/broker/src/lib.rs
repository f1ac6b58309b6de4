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
//! # Map
//! The way of a record:
//! - `batch_builder`, `varint`, `compression`, `snappy`, `buffer_pool`: records become a batch
//! - `broker`: the public handle; `producer`, `producer_state`: transactional producers
//! - `idempotent_producer`, `log/producers`: batches that are numbered, and the check that none is written twice
//! - `log`: a partition; `log_sync`, `flusher`: syncing it and acknowledging; `checkpoint`, `offset_index`, `segment`,
//!   `active_file`: its files; `recovery_budget`: how much of all of them a crash would have to be read back
//! - `commit`: committing a transaction, with the argument why one round of syncs is enough; `transaction_log`,
//!   `transaction_record`: what is durable about it; `expiry`: time-outs; `description`: what is under way;
//!   `log_transactions`, `transaction_state`: what a partition knows
//! - `cleaner`, `log::compaction`: the last record of each key stays; `key_offsets` notes which that is, `rewrite` makes
//!   a batch without the others, `output` the segment
//! - `group`: consumer groups; `offsets`, `offset_record`: what they have committed; `administration`, `offset_expiry`:
//!   looking it up, resetting and deleting it; `consumer`, `membership`: reading as a member; `coordinator`, `assignor`,
//!   `registry`: who the members are and what each gets
//! - `visibility`, `progress`: what readers may see, and who waits for it; `reader_set`: many partitions, one waiter
//! - `reader`, `log_read`, `fetched`, `record`, `batch`: from the file to the records
//!
//! Beside it: `topic_catalog`, `topic_settings`: creating, altering, growing, deleting topics; `housekeeping`, `clock`:
//! what is due later; `metrics`.
//!
//! Beginning and end: `opening`, `data_dir`, `topic`, `log_recovery`, `transaction_recovery`, `recovery_report`.
//! In the background: `housekeeping` (the threads for work that is due at a time), on the time of `clock`.
//! Also `topic_settings` (what can be set for a topic), `partitioner` (which partition a key belongs to), `options`,
//! `error`, `durable_file`, `environment` (the disk and the clock).
//!
//! What is on disk, byte by byte, is in [`layout`].
//!
//! # Memory
//! Bounded (invariant 6): bytes written and not synced by [`BrokerOptions::in_flight_bytes`], what a reader holds by
//! the caller's `max_bytes`, idle buffers by a constant. Open files: those with
//! writes under way, one a reader, and [`BrokerOptions::open_files`] others. A partition takes 3 to 4 KB, and the index
//! entries since its last checkpoint. What that comes to, and how fast it all is: `BENCHMARKS.md` beside the sources.

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
pub use topic_settings::{Durability, Setting, SettingSource};
pub use transaction::commit::{Committed, CommittedPartition};
pub use transaction::description::{TransactionInfo, TransactionState};
pub use transaction::producer::{Producer, ProducerOptions, Transaction};
