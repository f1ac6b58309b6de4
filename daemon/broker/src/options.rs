//! What can be set when a broker is opened or a topic is created.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::batch::header::MAX_BATCH_BYTES;
use crate::error::{Error, Result};
use crate::topic_settings::{Durability, TopicSettings};

/// The largest segment: positions in an index have 32 bits.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 2 << 30;

/// Settings of a [`Broker`](crate::Broker). `BrokerOptions::new(dir)` gives the defaults; set single fields with
/// `BrokerOptions { segment_bytes: 1 << 20, ..BrokerOptions::new(dir) }`, which goes on compiling when there are more.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The directory everything is kept in; created if missing, locked while open.
    pub data_dir: PathBuf,
    /// When writes are acknowledged (default [`Durability::Fsync`]). A topic's setting `durability` goes before it.
    pub durability: Durability,
    /// Size in bytes at which a segment is closed and the next begun (default 128 MiB, at most 2 GiB). A topic's
    /// setting `segment.bytes` goes before it.
    pub segment_bytes: u64,
    /// Bytes between two entries of the offset index (default 16 KiB). A topic's setting `index.interval.bytes` goes
    /// before it.
    pub index_interval_bytes: u64,
    /// Bytes a partition takes between two checkpoints, and so about what is read again of it after a crash (default
    /// 16 MiB).
    pub checkpoint_bytes: u64,
    /// Bytes all partitions together take behind their checkpoints, and so about what is read again after a crash
    /// (default 256 MiB); beyond it those with most of them write one.
    pub recovery_bytes: u64,
    /// Segments being written that are kept open while nothing is being written to them (default 512). Partitions
    /// with writes under way and readers have theirs open besides.
    pub open_files: usize,
    /// Most bytes written and not yet synced, over all partitions; beyond it appends wait (default 64 MiB).
    pub in_flight_bytes: usize,
    /// Most bytes of metadata beside a committed offset (default 4096): Kafka's `offset.metadata.max.bytes`. At most
    /// 32767.
    pub offset_metadata_max_bytes: usize,
    /// The largest batch a topic takes, in bytes as it is stored (default 256 MiB, which is the most there can be). A
    /// topic's setting `max.message.bytes` goes before it.
    pub max_message_bytes: usize,
    /// Settings under Kafka's names for the topics that have none of that name themselves (default none); they go
    /// before the other options here.
    pub topic_defaults: BTreeMap<String, String>,
    /// How long partitions remember a producer that is silent (default 1 day, Kafka's `producer.id.expiration.ms`): for
    /// that long a batch sent again is recognised. While it has a transaction open it is remembered in any case.
    pub producer_id_expiration: Duration,
    /// How long a transactional id is remembered that nobody uses (default `None`, for ever), counted from the last
    /// start of the broker at the earliest. Kafka's `transactional.id.expiration.ms` has 7 days; an id costs a few
    /// bytes, and a producer that was paused for months is fenced by its epoch as ever if it is kept.
    pub transactional_id_expiration: Option<Duration>,
    /// The longest [`ProducerOptions::transaction_timeout`](crate::ProducerOptions::transaction_timeout) a producer may
    /// ask for (default 15 minutes, Kafka's `transaction.max.timeout.ms`).
    pub transaction_max_timeout: Duration,
    /// How often it is looked whether topics with `cleanup.policy=compact` are to be compacted (default 15 seconds,
    /// Kafka's `log.cleaner.backoff.ms`).
    pub compaction_interval: Duration,
    /// Bytes in which compaction notes keys (default 32 MiB, for a million of them; Kafka's
    /// `log.cleaner.dedupe.buffer.size`). They are held while a topic is compacted; a topic with more keys is compacted
    /// in several passes.
    pub compaction_key_bytes: usize,
    /// How long committed offsets are kept in a group without members, from the commit or from when the last member left:
    /// Kafka's `offsets.retention.minutes`. Default `None`, for ever (Kafka's is 7 days): who reads may be paused for
    /// months, and nobody has to tell. It counts from when the broker was opened at the earliest, as groups may have had
    /// members until it closed.
    pub offsets_retention: Option<Duration>,
    /// Threads that sync files (default 4); more than one, so that the files of one transaction sync at once.
    pub flush_threads: usize,
}

impl BrokerOptions {
    /// The defaults, for a broker in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::Fsync,
            segment_bytes: 128 << 20,
            index_interval_bytes: 16 << 10,
            checkpoint_bytes: 16 << 20,
            recovery_bytes: 256 << 20,
            open_files: 512,
            in_flight_bytes: 64 << 20,
            offset_metadata_max_bytes: 4096,
            offsets_retention: None,
            max_message_bytes: MAX_BATCH_BYTES,
            topic_defaults: BTreeMap::new(),
            producer_id_expiration: Duration::from_hours(24),
            transactional_id_expiration: None,
            transaction_max_timeout: Duration::from_mins(15),
            compaction_interval: Duration::from_secs(15),
            compaction_key_bytes: 32 << 20,
            flush_threads: 4,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.segment_bytes == 0 || self.segment_bytes > MAX_SEGMENT_BYTES {
            return Err(Error::InvalidOption {
                name: "segment_bytes",
                value: self.segment_bytes.to_string(),
                allowed: "a number of bytes from 1 to 2147483648",
            });
        }
        if self.max_message_bytes == 0 || self.max_message_bytes > MAX_BATCH_BYTES {
            return Err(Error::InvalidOption {
                name: "max_message_bytes",
                value: self.max_message_bytes.to_string(),
                allowed: "a number of bytes from 1 to 268435456",
            });
        }
        let never_zero = [
            ("producer_id_expiration", Some(self.producer_id_expiration)),
            ("transactional_id_expiration", self.transactional_id_expiration),
            ("transaction_max_timeout", Some(self.transaction_max_timeout)),
        ];
        let zero = never_zero
            .into_iter()
            .find(|(_, time)| *time == Some(Duration::ZERO));
        if let Some((name, _)) = zero {
            return Err(Error::InvalidOption {
                name,
                value: "0".to_owned(),
                allowed: "a time above zero",
            });
        }
        if self.transaction_max_timeout.as_millis() > i32::MAX.unsigned_abs().into() {
            return Err(Error::InvalidOption {
                name: "transaction_max_timeout",
                value: format!("{:?}", self.transaction_max_timeout),
                allowed: "a time of at most 2147483647 milliseconds",
            });
        }
        if self.compaction_interval.is_zero() {
            return Err(Error::InvalidOption {
                name: "compaction_interval",
                value: "0".to_owned(),
                allowed: "a time above zero",
            });
        }
        TopicSettings::of_broker(self)?;
        let positive = [
            ("index_interval_bytes", self.index_interval_bytes),
            ("checkpoint_bytes", self.checkpoint_bytes),
            ("recovery_bytes", self.recovery_bytes),
            ("open_files", self.open_files as u64),
            ("in_flight_bytes", self.in_flight_bytes as u64),
            ("compaction_key_bytes", self.compaction_key_bytes as u64),
            ("flush_threads", self.flush_threads as u64),
        ];
        for (name, value) in positive {
            if value == 0 || value > u64::from(u32::MAX) {
                let allowed = "a number from 1 to 4294967295";
                return Err(Error::InvalidOption {
                    name,
                    value: value.to_string(),
                    allowed,
                });
            }
        }
        Ok(())
    }
}

/// What a topic is created with.
#[derive(Debug, Clone)]
pub struct TopicConfig {
    /// Number of partitions, 1 to 10,000.
    pub partitions: u32,
    /// Settings under Kafka's names: `cleanup.policy`, `compression.type`, `delete.retention.ms`,
    /// `index.interval.bytes`, `max.compaction.lag.ms`, `max.message.bytes`, `message.timestamp.type`,
    /// `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`,
    /// `retention.bytes`, `retention.ms`, `segment.bytes`, `segment.ms`; and `durability`, which Kafka has not: `fsync`
    /// (acknowledged once on disk) or `os` (once the operating system has it).
    pub settings: BTreeMap<String, String>,
}

impl TopicConfig {
    /// A topic of `partitions` partitions without settings of its own.
    pub fn new(partitions: u32) -> Self {
        Self {
            partitions,
            settings: BTreeMap::new(),
        }
    }

    /// With this value for a setting, which is checked when the topic is created.
    ///
    /// ```
    /// # use tidewater_broker::TopicConfig;
    /// let daily = TopicConfig::new(3).set("retention.ms", "86400000").set("durability", "os");
    /// assert_eq!(daily.settings["retention.ms"], "86400000");
    /// ```
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }
}
