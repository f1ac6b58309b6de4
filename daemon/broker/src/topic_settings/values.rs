//! What settings say that are no numbers, and how that is written.

use crate::batch::compression::Compression;

/// `cleanup.policy`: what becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CleanupPolicy {
    /// They go by time and size.
    pub(crate) delete: bool,
    /// The last of each key stays.
    pub(crate) compact: bool,
}

/// `compression.type`: how batches are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompressionType {
    /// As the producer chose.
    Producer,
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl CompressionType {
    /// The codec of all batches; `None` leaves each as its producer made it.
    pub(crate) fn codec(self) -> Option<Compression> {
        match self {
            Self::Producer => None,
            Self::None => Some(Compression::None),
            Self::Gzip => Some(Compression::Gzip),
            Self::Snappy => Some(Compression::Snappy),
            Self::Lz4 => Some(Compression::Lz4),
            Self::Zstd => Some(Compression::Zstd),
        }
    }
}

/// `message.timestamp.type`: what the timestamp of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    /// What the producer gave.
    CreateTime,
    /// When its batch was appended.
    LogAppendTime,
}

/// `durability`: when a write is acknowledged, and visible to readers (invariant 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Once it is on disk (`fdatasync`, one for all that wait): it survives a power failure.
    Fsync,
    /// Once the operating system has it: it survives the end of the process, not that of the machine, which may take
    /// up to [`checkpoint_bytes`](crate::BrokerOptions::checkpoint_bytes) of each partition with it, also the part
    /// of a committed transaction that is there.
    Os,
}

impl CompressionType {
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("producer", Self::Producer),
        ("none", Self::None),
        ("gzip", Self::Gzip),
        ("snappy", Self::Snappy),
        ("lz4", Self::Lz4),
        ("zstd", Self::Zstd),
    ];
}

impl TimestampType {
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("CreateTime", Self::CreateTime),
        ("LogAppendTime", Self::LogAppendTime),
    ];
}

impl Durability {
    pub(super) const NAMES: &[(&str, Self)] = &[("fsync", Self::Fsync), ("os", Self::Os)];
}

impl CleanupPolicy {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut policy = Self {
            delete: false,
            compact: false,
        };
        for part in text.split(',') {
            match part.trim() {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => return None,
            }
        }
        Some(policy)
    }

    pub(super) fn text(self) -> &'static str {
        match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, true) => "delete",
            (false, false) => "",
        }
    }
}
