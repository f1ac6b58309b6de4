//! What can be set when a broker is opened or a topic is created.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Settings of a [`Broker`](crate::Broker). `BrokerOptions::new(dir)` gives the defaults.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The directory everything is kept in; created if missing, locked while open.
    pub data_dir: PathBuf,
    /// Whether writes are acknowledged only after `fdatasync` (default `true`). With `false` they survive a crash of
    /// the process, not one of the machine.
    pub fsync: bool,
    /// Size in bytes at which a segment is closed and the next begun (default 128 MiB, at most 2 GiB). A topic's
    /// setting `segment.bytes` goes before it.
    pub segment_bytes: u64,
    /// Bytes between two entries of the offset index (default 16 KiB). A topic's setting `index.interval.bytes` goes
    /// before it.
    pub index_interval_bytes: u64,
    /// Bytes a partition takes between two checkpoints, and so about what is read again after a crash (default
    /// 16 MiB).
    pub checkpoint_bytes: u64,
    /// Most bytes written and not yet synced, over all partitions; beyond it appends wait (default 64 MiB).
    pub in_flight_bytes: usize,
    /// Most bytes of metadata beside a committed offset (default 4096): Kafka's `offset.metadata.max.bytes`. At most
    /// 32767.
    pub offset_metadata_max_bytes: usize,
    /// Threads that sync files (default 4); more than one, so that the files of one transaction sync at once.
    pub flush_threads: usize,
}

impl BrokerOptions {
    /// The defaults, for a broker in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            fsync: true,
            segment_bytes: 128 << 20,
            index_interval_bytes: 16 << 10,
            checkpoint_bytes: 16 << 20,
            in_flight_bytes: 64 << 20,
            offset_metadata_max_bytes: 4096,
            flush_threads: 4,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        segment_bytes(self.segment_bytes, || self.segment_bytes.to_string())?;
        let positive = [
            ("index_interval_bytes", self.index_interval_bytes),
            ("checkpoint_bytes", self.checkpoint_bytes),
            ("in_flight_bytes", self.in_flight_bytes as u64),
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
    /// Settings under Kafka's names, stored as given. `segment.bytes` and `index.interval.bytes` are in force.
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
}

fn segment_bytes(value: u64, text: impl Fn() -> String) -> Result<u64> {
    if value == 0 || value > 2 << 30 {
        let allowed = "a number of bytes from 1 to 2147483648";
        return Err(Error::InvalidOption {
            name: "segment.bytes",
            value: text(),
            allowed,
        });
    }
    Ok(value)
}

/// The sizes in force for one log.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the names are those of the options")]
pub(crate) struct LogSizes {
    pub(crate) segment_bytes: u64,
    pub(crate) index_interval_bytes: u64,
    pub(crate) checkpoint_bytes: u64,
}

impl LogSizes {
    pub(crate) fn new(options: &BrokerOptions, settings: &BTreeMap<String, String>) -> Result<Self> {
        let mut sizes = Self {
            segment_bytes: options.segment_bytes,
            index_interval_bytes: options.index_interval_bytes,
            checkpoint_bytes: options.checkpoint_bytes,
        };
        if let Some(text) = settings.get("segment.bytes") {
            sizes.segment_bytes = segment_bytes(text.trim().parse().unwrap_or(0), || text.clone())?;
        }
        if let Some(text) = settings.get("index.interval.bytes") {
            sizes.index_interval_bytes =
                text.trim()
                    .parse()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or_else(|| Error::InvalidOption {
                        name: "index.interval.bytes",
                        value: text.clone(),
                        allowed: "a positive number of bytes",
                    })?;
        }
        Ok(sizes)
    }
}
