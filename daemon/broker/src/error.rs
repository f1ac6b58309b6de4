//! What can go wrong, what it was about, and what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::batch::compression::Compression;
use crate::disk::Disk;
use crate::group::assignor::Assignor;
use crate::topic_partition::TopicPartition;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the broker. Cloneable, since one failed sync answers every append that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process (or another handle of this one) has the directory open.
    #[error(
        "the data directory {} is in use by {}; stop it, or choose another directory",
        dir.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("the process with pid {pid}"))
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The process that wrote the lock file, if it could be read.
        pid: Option<u32>,
    },

    /// The directory was written by a newer version.
    #[error(
        "the data directory {} has format {found:?}, this version reads up to {supported}; use the version that wrote it or a newer one",
        dir.display()
    )]
    Format {
        /// The data directory.
        dir: PathBuf,
        /// What its format file says.
        found: String,
        /// The newest format this version reads.
        supported: u32,
    },

    /// What the broker keeps about itself is damaged or missing, and it cannot do without.
    #[error("{} is damaged: {reason}; {advice}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        advice: &'static str,
    },

    /// An input or output error outside the cases below.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: Arc<io::Error>,
    },

    /// No space to write to. Nothing of the rejected write stays; reads go on, and writes work again once there is
    /// space.
    #[error(
        "no space left to write {} ({free} bytes free): free or add space; the write was rejected and nothing else is affected",
        path.display()
    )]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// Bytes free to this process on that file system.
        free: u64,
    },

    /// A log stopped taking writes, because the system could not say whether earlier ones are on disk.
    #[error("the log {} takes no writes since it failed: {reason}; check the disk, then restart", path.display())]
    LogFailed {
        /// The directory of the log.
        path: PathBuf,
        /// The first failure.
        reason: Arc<str>,
    },

    /// Stored bytes that were durable are damaged or missing.
    #[error(
        "{} is damaged at byte {position} (offset {offset} of {topic}-{partition}): {reason}; restore the file from a copy or seek past the segment",
        path.display()
    )]
    Corrupt {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: u32,
        /// The damaged file.
        path: PathBuf,
        /// Byte position in the file.
        position: u64,
        /// The offset that was being read.
        offset: u64,
        /// What is wrong.
        reason: Arc<str>,
    },

    /// No such topic.
    #[error("there is no topic {topic:?}; create it first")]
    UnknownTopic {
        /// The name asked for.
        topic: String,
    },

    /// The topic has fewer partitions.
    #[error("topic {topic:?} has partitions 0 to {}, not {partition}", partitions - 1)]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many it has.
        partitions: u32,
    },

    /// The partition is none of those a reader set or a consumer reads.
    #[error("{partition} is not read here; add it first")]
    NotAssigned {
        /// The partition asked for.
        partition: TopicPartition,
    },

    /// The topic was deleted while in use.
    #[error("topic {topic:?} was deleted")]
    TopicDeleted {
        /// The topic.
        topic: String,
    },

    /// A topic of that name is there already.
    #[error("topic {topic:?} exists already")]
    TopicExists {
        /// The topic.
        topic: String,
    },

    /// A topic cannot be created as asked.
    #[error("cannot create topic {topic:?}: {reason}")]
    InvalidTopic {
        /// The name asked for.
        topic: String,
        /// What is wrong with the request.
        reason: String,
    },

    /// The topic holds the broker's own state and is written by it alone.
    #[error("topic {topic:?} is kept by the broker itself and can only be read")]
    InternalTopic {
        /// The topic.
        topic: String,
    },

    /// The offset is not in the log.
    #[error("offset {offset} is not in {topic}-{partition}, which holds {log_start} to {end} (exclusive)")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The first offset kept.
        log_start: u64,
        /// The offset the next durable record will follow.
        end: u64,
    },

    /// The records of a compacted topic go when later ones of their key come, and not otherwise.
    #[error(
        "records of topic {topic:?} cannot be deleted, since its cleanup.policy has no delete; set cleanup.policy=compact,delete, or write tombstones"
    )]
    PolicyViolation {
        /// The topic.
        topic: String,
    },

    /// The metadata beside an offset is too long.
    #[error(
        "the metadata committed with the offset of {topic}-{partition} has {bytes} bytes, over the limit of {limit}; shorten it, or raise offset.metadata.max.bytes"
    )]
    OffsetMetadataTooLarge {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Its length.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },

    /// A group has committed nothing for a partition.
    #[error(
        "group {group:?} has no committed offset for {topic}-{partition}; commit, seek or reset to a position first"
    )]
    NoCommittedOffset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },

    /// The member is not in its group any more: it was expelled, or it left.
    #[error(
        "{member_id:?} is no member of group {group:?}: {reason}; what it read since its last commit is read by others, so drop it and poll again, which joins anew"
    )]
    UnknownMember {
        /// The group.
        group: String,
        /// The member that called.
        member_id: String,
        /// Why it is none.
        reason: String,
    },

    /// Another consumer joined with the same `group.instance.id` (invariant 9).
    #[error(
        "member {member_id:?} of group {group:?} was fenced by another with group.instance.id {instance_id:?}; stop this one"
    )]
    FencedInstance {
        /// The group.
        group: String,
        /// The id both have.
        instance_id: String,
        /// The member that called.
        member_id: String,
    },

    /// The member does not own the partition, or not since the generation it names.
    #[error(
        "member {member_id:?} of group {group:?} may not commit{} under generation {generation} (its own is {current}): what it read there is read by others; poll, and go on with what is assigned",
        partition.as_ref().map_or_else(String::new, |partition| format!(" {partition}"))
    )]
    IllegalGeneration {
        /// The group.
        group: String,
        /// The member that called.
        member_id: String,
        /// The generation it named.
        generation: i32,
        /// The generation it was last told of.
        current: i32,
        /// The partition it does not own, if it is about one.
        partition: Option<TopicPartition>,
    },

    /// The group shares out partitions in another way.
    #[error("group {group:?} uses the assignor {current}, not {assignor}; use the same in all its members")]
    InconsistentAssignor {
        /// The group.
        group: String,
        /// What the new member asked for.
        assignor: Assignor,
        /// What its members use.
        current: Assignor,
    },

    /// The group has members, who alone commit its offsets.
    #[error(
        "group {group:?} has {members} members; close its consumers, or wait until they are expelled, before its offsets are changed from outside"
    )]
    GroupNotEmpty {
        /// The group.
        group: String,
        /// How many it has.
        members: usize,
    },

    /// The consumer reads nothing.
    #[error(
        "the consumer of group {group:?} has no partitions to read; subscribe to topics or assign partitions first"
    )]
    NotSubscribed {
        /// Its group.
        group: String,
    },

    /// A member of a group sends heartbeats, by a task.
    #[error("a consumer of group {group:?} needs a tokio runtime to subscribe; call it within one")]
    NoRuntime {
        /// Its group.
        group: String,
    },

    /// A newer instance of this producer took over (invariant 9).
    #[error(
        "producer {transactional_id:?} with epoch {epoch} was fenced by a newer instance (epoch {current}); stop this one"
    )]
    Fenced {
        /// The producer's transactional id.
        transactional_id: Arc<str>,
        /// The epoch of the instance that called.
        epoch: i16,
        /// The epoch of the live instance.
        current: i16,
    },

    /// A newer epoch of this producer id wrote to the partition.
    #[error("producer id {producer_id} with epoch {epoch} was fenced by epoch {current}; stop this instance")]
    InvalidProducerEpoch {
        /// The producer id.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The newest epoch the partition knows.
        current: i16,
    },

    /// A batch was written before, too long ago to say at which offset.
    #[error(
        "the batch at sequence {sequence} of producer id {producer_id} was written before and is none of its last five (the next is {expected}); drop it"
    )]
    DuplicateSequence {
        /// The producer id.
        producer_id: i64,
        /// The sequence of the first record.
        sequence: i32,
        /// The sequence the next batch must have.
        expected: i32,
    },

    /// A batch of a producer does not follow the one before.
    #[error(
        "the batch of producer id {producer_id} (epoch {epoch}) begins at sequence {got}, and {expected} comes next: send the batches in between first, or begin anew with a new producer"
    )]
    OutOfOrderSequence {
        /// The producer id.
        producer_id: i64,
        /// The epoch of the batch.
        epoch: i16,
        /// The sequence the next batch must have.
        expected: i32,
        /// The sequence of its first record.
        got: i32,
    },

    /// A producer has one transaction at a time.
    #[error("producer {transactional_id:?} has a transaction under way; finish it before beginning another")]
    TransactionOpen {
        /// The producer's transactional id.
        transactional_id: Arc<str>,
    },

    /// A transaction was aborted because it was open for longer than it may be.
    #[error(
        "the transaction of producer {transactional_id:?} was open for longer than {timeout:?} and was aborted: begin it again, with fewer records or a longer transaction_timeout"
    )]
    TransactionTimedOut {
        /// The producer's transactional id.
        transactional_id: Arc<str>,
        /// How long it had.
        timeout: Duration,
    },

    /// A transaction was used after it ended.
    #[error("the transaction of producer {transactional_id:?} has ended already")]
    TransactionEnded {
        /// The producer's transactional id.
        transactional_id: Arc<str>,
    },

    /// The disk failed while committing and could not be told to forget it: the next start decides.
    #[error(
        "whether the transaction of producer {transactional_id:?} is committed is unknown until the broker is opened again: {reason}"
    )]
    CommitUnknown {
        /// The producer's transactional id.
        transactional_id: Arc<str>,
        /// The failure that prevented the decision.
        reason: Arc<str>,
    },

    /// A batch without records cannot be stored.
    #[error("a batch needs at least one record")]
    EmptyBatch,

    /// A codec failed on a batch, which is not written.
    #[error("cannot compress a batch with {codec}: {reason}; send it with another codec")]
    Compress {
        /// The codec.
        codec: Compression,
        /// What it says.
        reason: Arc<str>,
    },

    /// A compacted topic keeps the last record of each key: a record without one has no place in it.
    #[error(
        "topic {topic:?} is compacted and takes no record without a key; give each record a key, or set cleanup.policy=delete"
    )]
    KeyRequired {
        /// The topic.
        topic: String,
    },

    /// The batch is larger than its topic takes (`max.message.bytes`), or than any does.
    #[error(
        "a batch of {bytes} bytes is over the limit of {limit}; split it, or raise max.message.bytes of the topic"
    )]
    BatchTooLarge {
        /// Its size: as it is stored, or uncompressed where that is too large for any topic.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },

    /// An option or a topic setting is out of range.
    #[error("{name} = {value:?} is not valid: {allowed}")]
    InvalidOption {
        /// The option's name.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },

    /// No setting of a topic has this name.
    #[error("there is no topic setting {name:?}; near it are {near}")]
    UnknownSetting {
        /// The name given.
        name: String,
        /// The names nearest to it, with commas between.
        near: String,
    },

    /// The broker was closed.
    #[error("the broker is closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// The error of a failed write: [`Error::DiskFull`] where space (or quota, or file size) ran out.
    pub(crate) fn write(disk: &dyn Disk, action: &'static str, path: &Path, source: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            let dir = path.parent().unwrap_or(path);
            let free = disk.free_bytes(dir);
            Self::DiskFull {
                path: path.to_owned(),
                free,
            }
        } else {
            Self::io(action, path, source)
        }
    }
}
