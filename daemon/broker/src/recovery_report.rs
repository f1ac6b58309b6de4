//! What opening a broker found and did: nothing is cut, aborted or completed in silence.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What opening found and did. Empty lists after a clean stop.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The partitions that were not just as they were left.
    pub partitions: Vec<PartitionRecovery>,
    /// Bytes of log that were read and checked again.
    pub scanned_bytes: u64,
    /// How long opening took.
    pub elapsed: Duration,
}

impl RecoveryReport {
    /// Whether there was nothing to repair.
    pub fn is_clean(&self) -> bool {
        self.partitions.is_empty()
    }

    /// All that was done, with where.
    pub fn actions(&self) -> impl Iterator<Item = (&PartitionRecovery, &RecoveryAction)> {
        self.partitions
            .iter()
            .flat_map(|p| p.actions.iter().map(move |action| (p, action)))
    }
}

/// What was done to one partition.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PartitionRecovery {
    /// The topic; `__transaction_state` is the broker's own log of transactions.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// In the order they were done.
    pub actions: Vec<RecoveryAction>,
}

/// One repair.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryAction {
    /// The end of the log was not whole and was cut. Nothing of it had been acknowledged.
    TailCut {
        /// The file.
        file: PathBuf,
        /// Its size now.
        position: u64,
        /// How many bytes were cut.
        bytes: u64,
        /// The offset the next record gets.
        offset: u64,
        /// Why the batch at that place is not whole.
        reason: String,
    },
    /// A segment that came after the cut was removed.
    SegmentRemoved {
        /// The file.
        file: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A segment that was durable is damaged or missing; it stays as it is, and reading it answers an error.
    SegmentQuarantined {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory of the partition was missing. It was made again, and the partition begins anew without records.
    PartitionLost {
        /// The directory.
        dir: PathBuf,
    },
    /// The checkpoint did not read; the whole log was read instead.
    CheckpointLost {
        /// What is wrong with it.
        reason: String,
    },
    /// A transaction whose commit was durable got the marker it lacked.
    TransactionCommitted {
        /// The producer.
        producer_id: i64,
        /// The transaction's first offset in this partition.
        first_offset: u64,
    },
    /// A transaction that had not committed was aborted.
    TransactionAborted {
        /// The producer.
        producer_id: i64,
        /// The transaction's first offset in this partition.
        first_offset: u64,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for RecoveryAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TailCut {
                file,
                position,
                bytes,
                offset,
                reason,
            } => write!(
                f,
                "cut {bytes} bytes that were not whole from {} at byte {position} (next offset {offset}): {reason}",
                file.display()
            ),
            Self::SegmentRemoved { file, bytes } => {
                write!(
                    f,
                    "removed {} ({bytes} bytes), which came after the cut",
                    file.display()
                )
            }
            Self::SegmentQuarantined { file, reason } => {
                write!(
                    f,
                    "set {} apart: {reason}; restore it from a copy",
                    file.display()
                )
            }
            Self::PartitionLost { dir } => {
                write!(
                    f,
                    "made {} anew without records: it was missing; restore it from a copy",
                    dir.display()
                )
            }
            Self::CheckpointLost { reason } => {
                write!(f, "read the whole log, the checkpoint is lost: {reason}")
            }
            Self::TransactionCommitted {
                producer_id,
                first_offset,
            } => {
                write!(
                    f,
                    "completed the committed transaction of producer {producer_id} at offset {first_offset}"
                )
            }
            Self::TransactionAborted {
                producer_id,
                first_offset,
                reason,
            } => {
                write!(
                    f,
                    "aborted the transaction of producer {producer_id} at offset {first_offset}: {reason}"
                )
            }
        }
    }
}
