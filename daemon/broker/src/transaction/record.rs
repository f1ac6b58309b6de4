//! The records of the transaction log, as bytes.
//!
//! The bytes are described in [`layout`](crate::layout#the-transaction-log).

use uuid::Uuid;

/// A transaction, for ever: an epoch has one instance of a producer, which numbers its transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionKey {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListedBatch {
    pub(crate) base: u64,
    pub(crate) last: u64,
    pub(crate) crc: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedPartition {
    pub(crate) topic_id: Uuid,
    pub(crate) partition: u32,
    pub(crate) first_offset: u64,
    pub(crate) batches: Vec<ListedBatch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransactionRecord {
    Reset {
        next_producer_id: i64,
    },
    Producer {
        transactional_id: String,
        producer_id: i64,
        epoch: i16,
    },
    Commit {
        key: TransactionKey,
        partitions: Vec<ListedPartition>,
    },
    Abort {
        key: TransactionKey,
    },
    Ids {
        next_producer_id: i64,
    },
    Forget {
        transactional_id: String,
    },
}

impl TransactionRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Reset { next_producer_id } => {
                out.push(0);
                out.extend_from_slice(&next_producer_id.to_be_bytes());
            }
            Self::Producer {
                transactional_id,
                producer_id,
                epoch,
            } => {
                out.push(1);
                out.extend_from_slice(&producer_id.to_be_bytes());
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(transactional_id.as_bytes());
            }
            Self::Commit { key, partitions } => {
                out.push(2);
                put_key(&mut out, key);
                out.extend_from_slice(&(partitions.len() as u32).to_be_bytes());
                for part in partitions {
                    out.extend_from_slice(part.topic_id.as_bytes());
                    out.extend_from_slice(&part.partition.to_be_bytes());
                    out.extend_from_slice(&part.first_offset.to_be_bytes());
                    out.extend_from_slice(&(part.batches.len() as u32).to_be_bytes());
                    for batch in &part.batches {
                        out.extend_from_slice(&batch.base.to_be_bytes());
                        out.extend_from_slice(&batch.last.to_be_bytes());
                        out.extend_from_slice(&batch.crc.to_be_bytes());
                    }
                }
            }
            Self::Abort { key } => {
                out.push(3);
                put_key(&mut out, key);
            }
            Self::Forget { transactional_id } => {
                out.push(5);
                out.extend_from_slice(transactional_id.as_bytes());
            }
            Self::Ids { next_producer_id } => {
                out.push(4);
                out.extend_from_slice(&next_producer_id.to_be_bytes());
            }
        }
        out
    }

    /// `None` if the bytes are no such record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let rest = &mut rest;
        let record = match kind {
            0 => Self::Reset {
                next_producer_id: i64::from_be_bytes(take(rest)?),
            },
            1 => {
                let producer_id = i64::from_be_bytes(take(rest)?);
                let epoch = i16::from_be_bytes(take(rest)?);
                let transactional_id = std::str::from_utf8(std::mem::take(rest)).ok()?.to_owned();
                Self::Producer {
                    transactional_id,
                    producer_id,
                    epoch,
                }
            }
            2 => {
                let key = take_key(rest)?;
                let count = u32::from_be_bytes(take(rest)?);
                let mut partitions = Vec::new();
                for _ in 0..count {
                    partitions.push(take_partition(rest)?);
                }
                Self::Commit { key, partitions }
            }
            3 => Self::Abort { key: take_key(rest)? },
            4 => Self::Ids {
                next_producer_id: i64::from_be_bytes(take(rest)?),
            },
            5 => Self::Forget {
                transactional_id: std::str::from_utf8(std::mem::take(rest)).ok()?.to_owned(),
            },
            _ => return None,
        };
        rest.is_empty().then_some(record)
    }
}

fn put_key(out: &mut Vec<u8>, key: &TransactionKey) {
    out.extend_from_slice(&key.producer_id.to_be_bytes());
    out.extend_from_slice(&key.epoch.to_be_bytes());
    out.extend_from_slice(&key.number.to_be_bytes());
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

fn take_key(rest: &mut &[u8]) -> Option<TransactionKey> {
    Some(TransactionKey {
        producer_id: i64::from_be_bytes(take(rest)?),
        epoch: i16::from_be_bytes(take(rest)?),
        number: u64::from_be_bytes(take(rest)?),
    })
}

fn take_partition(rest: &mut &[u8]) -> Option<ListedPartition> {
    let topic_id = Uuid::from_bytes(take(rest)?);
    let partition = u32::from_be_bytes(take(rest)?);
    let first_offset = u64::from_be_bytes(take(rest)?);
    let count = u32::from_be_bytes(take(rest)?);
    let mut batches = Vec::new();
    for _ in 0..count {
        batches.push(ListedBatch {
            base: u64::from_be_bytes(take(rest)?),
            last: u64::from_be_bytes(take(rest)?),
            crc: u32::from_be_bytes(take(rest)?),
        });
    }
    Some(ListedPartition {
        topic_id,
        partition,
        first_offset,
        batches,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_cut_ones_are_refused() {
        let key = TransactionKey {
            producer_id: 5,
            epoch: 2,
            number: 77,
        };
        let batch = ListedBatch {
            base: 10,
            last: 19,
            crc: 0xdead_beef,
        };
        let part = |partition, batches| ListedPartition {
            topic_id: Uuid::from_u128(42),
            partition,
            first_offset: 9,
            batches,
        };
        for record in [
            TransactionRecord::Reset { next_producer_id: 12 },
            TransactionRecord::Ids {
                next_producer_id: 2_000,
            },
            TransactionRecord::Producer {
                transactional_id: "connect-α".to_owned(),
                producer_id: 1,
                epoch: 3,
            },
            TransactionRecord::Commit {
                key,
                partitions: vec![part(0, vec![batch; 2]), part(1, vec![])],
            },
            TransactionRecord::Abort { key },
            TransactionRecord::Forget {
                transactional_id: "connect-α".to_owned(),
            },
        ] {
            let bytes = record.encode();
            assert_eq!(TransactionRecord::decode(&bytes).as_ref(), Some(&record));
            let open_ended = matches!(
                record,
                TransactionRecord::Producer { .. } | TransactionRecord::Forget { .. }
            );
            if !open_ended {
                assert_eq!(TransactionRecord::decode(&bytes[..bytes.len() - 1]), None);
            }
        }
        assert_eq!(TransactionRecord::decode(&[9]), None);
    }
}
