//! The header of a stored batch: Kafka's record batch, magic 2, byte for byte.
//!
//! The bytes are described in [`layout`](crate::layout#batches). What the CRC leaves out is checked against what is
//! known: the offset must follow the one before, the epoch must be 0, and a wrong length moves the bytes under the
//! CRC. So a flipped bit anywhere is found.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes before the records.
pub(crate) const HEADER_BYTES: usize = 61;
/// Where the bytes under the CRC begin.
pub(crate) const CRC_START: usize = 21;
/// Bytes of the fields the batch length does not count.
pub(crate) const LENGTH_END: usize = 12;
/// The largest batch, compressed or not.
pub(crate) const MAX_BATCH_BYTES: usize = 256 << 20;

pub(crate) const COMPRESSION_MASK: i16 = 0x07;
pub(crate) const LOG_APPEND_TIME: i16 = 0x08;
pub(crate) const TRANSACTIONAL: i16 = 0x10;
pub(crate) const CONTROL: i16 = 0x20;
/// The base timestamp is the time until which the tombstones of the batch stay.
pub(crate) const DELETE_HORIZON: i16 = 0x40;

/// The producer id of batches outside transactions.
pub(crate) const NO_PRODUCER: i64 = -1;

/// The fields of a batch header that the log uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: u64,
    /// Bytes of the whole batch.
    pub(crate) length: usize,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: u32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) count: u32,
}

/// Why bytes are not the batch that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Defect {
    #[error("the batch is cut short: {have} of {need} bytes")]
    Short { need: usize, have: usize },
    #[error("the length field says {0}")]
    Length(i32),
    #[error("the format byte is {0}, not 2")]
    Magic(u8),
    #[error("the leader epoch is {0}, not 0")]
    LeaderEpoch(i32),
    #[error("the base offset is {found}, not {expected}")]
    Offset { expected: u64, found: u64 },
    #[error("the checksum is {found:08x}, the bytes give {computed:08x}")]
    Crc { found: u32, computed: u32 },
    #[error("the record count {count} does not fit the last offset delta {delta} and the batch length")]
    Count { count: i32, delta: i32 },
    #[error("there is no codec with number {0}")]
    Compression(i16),
    #[error("the compressed records do not decompress")]
    Decompress,
    #[error("the compressed records are more than {MAX_BATCH_BYTES} bytes")]
    TooLarge,
    #[error("record {0} does not parse")]
    Record(u32),
}

/// The bytes of a field.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which may end before the batch does. Checks what can be checked
    /// without the CRC; `expected` is the offset the batch must have.
    pub(crate) fn parse(bytes: &[u8], expected: Option<u64>) -> Result<Self, Defect> {
        if bytes.len() < HEADER_BYTES {
            return Err(Defect::Short {
                need: HEADER_BYTES,
                have: bytes.len(),
            });
        }
        let length = i32::from_be_bytes(field(bytes, 8));
        let plausible = usize::try_from(length).ok().map(|n| n + LENGTH_END);
        let Some(length) = plausible.filter(|n| (HEADER_BYTES..=MAX_BATCH_BYTES).contains(n)) else {
            return Err(Defect::Length(length));
        };
        if bytes[16] != 2 {
            return Err(Defect::Magic(bytes[16]));
        }
        let leader_epoch = i32::from_be_bytes(field(bytes, 12));
        if leader_epoch != 0 {
            return Err(Defect::LeaderEpoch(leader_epoch));
        }
        let base_offset = u64::from_be_bytes(field(bytes, 0));
        if let Some(expected) = expected.filter(|expected| *expected != base_offset) {
            return Err(Defect::Offset {
                expected,
                found: base_offset,
            });
        }
        let delta = i32::from_be_bytes(field(bytes, 23));
        let count = i32::from_be_bytes(field(bytes, 57));
        // Compaction leaves batches with fewer records than offsets, and some without any.
        let fits = (0..=i64::from(delta) + 1).contains(&i64::from(count));
        if delta < 0 || !fits || (count == 0 && length != HEADER_BYTES) {
            return Err(Defect::Count { count, delta });
        }
        Ok(Self {
            base_offset,
            length,
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: delta as u32,
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            count: count as u32,
        })
    }

    /// Reads the header of the whole batch at the front of `bytes` and checks its CRC.
    pub(crate) fn check(bytes: &[u8], expected: Option<u64>) -> Result<Self, Defect> {
        let header = Self::parse(bytes, expected)?;
        if bytes.len() < header.length {
            return Err(Defect::Short {
                need: header.length,
                have: bytes.len(),
            });
        }
        let computed = crc32c(&bytes[CRC_START..header.length]);
        if computed != header.crc {
            return Err(Defect::Crc {
                found: header.crc,
                computed,
            });
        }
        Ok(header)
    }

    pub(crate) fn last_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_offset_delta)
    }

    pub(crate) fn next_offset(&self) -> u64 {
        self.last_offset() + 1
    }

    /// Until when the tombstones of the batch stay, milliseconds since 1970, if that was noted.
    pub(crate) fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }
}

/// CRC-32C (Castagnoli), the checksum of Kafka's batches.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// How a transaction ended, as its marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Commit,
    Abort,
}

impl Outcome {
    /// The type of the control record.
    pub(crate) fn control_type(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
        }
    }

    /// Reads the outcome from the bytes of a control batch; `None` for other control records.
    pub(crate) fn of_marker(batch: &[u8]) -> Option<Self> {
        let view = crate::batch::record::Records::new(&batch[HEADER_BYTES..], 1, 0, 0, None).next()?;
        match view.key? {
            [0, 0, 0, 0] => Some(Self::Abort),
            [0, 0, 0, 1] => Some(Self::Commit),
            _ => None,
        }
    }
}
