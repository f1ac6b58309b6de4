//! A change of a group's committed offset, and its record in the topic `__consumer_offsets`: Kafka's own format
//! (`OffsetCommitKey` version 1, `OffsetCommitValue` version 3).
//!
//! The bytes are described in [`layout`](crate::layout#group-offsets).

use crate::batch::builder::BatchBuilder;
use crate::batch::compression::Compression;
use crate::error::{Error, Result};

/// A committed offset, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: u64,
    /// What the committer wrote beside it; empty if nothing.
    pub metadata: String,
    /// When it was committed, in milliseconds since 1970.
    pub commit_time: i64,
}

/// An offset to commit: the next one to read of a partition.
///
/// ```
/// # use tidewater_broker::OffsetCommit;
/// let plain = OffsetCommit::new("orders", 0, 42);
/// let with_note = OffsetCommit { metadata: "after file-7", ..plain };
/// assert_eq!(with_note.offset, 42);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetCommit<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub offset: u64,
    /// Kept beside the offset for the committer; at most
    /// [`offset_metadata_max_bytes`](crate::BrokerOptions::offset_metadata_max_bytes).
    pub metadata: &'a str,
}

impl<'a> OffsetCommit<'a> {
    /// An offset without metadata.
    pub fn new(topic: &'a str, partition: u32, offset: u64) -> Self {
        Self {
            topic,
            partition,
            offset,
            metadata: "",
        }
    }
}

/// A change of a group's offset: a `value` of `None` deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetChange {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) value: Option<CommittedOffset>,
}

impl OffsetChange {
    pub(crate) fn delete(group: &str, topic: &str, partition: u32) -> Self {
        Self {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition,
            value: None,
        }
    }
}

/// The changes that commit `offsets` at the time `now`.
pub(crate) fn changes(
    group: &str,
    offsets: &[OffsetCommit<'_>],
    now: i64,
    metadata_max_bytes: usize,
) -> Result<Vec<OffsetChange>> {
    let change = |commit: &OffsetCommit<'_>| {
        if commit.metadata.len() > metadata_max_bytes {
            return Err(Error::OffsetMetadataTooLarge {
                topic: commit.topic.to_owned(),
                partition: commit.partition,
                bytes: commit.metadata.len(),
                limit: metadata_max_bytes,
            });
        }
        Ok(OffsetChange {
            group: group.to_owned(),
            topic: commit.topic.to_owned(),
            partition: commit.partition,
            value: Some(CommittedOffset {
                offset: commit.offset,
                metadata: commit.metadata.to_owned(),
                commit_time: now,
            }),
        })
    };
    offsets.iter().map(change).collect()
}

/// The batch of records for some changes.
pub(crate) fn encode(changes: &[OffsetChange], now: i64) -> Result<BatchBuilder> {
    let mut batch = BatchBuilder::new(Compression::None);
    for change in changes {
        let mut key = vec![0, 1];
        put_string(&mut key, "group", &change.group)?;
        put_string(&mut key, "topic", &change.topic)?;
        key.extend_from_slice(&(change.partition as i32).to_be_bytes());
        let value = match &change.value {
            None => None,
            Some(committed) => {
                let mut value = vec![0, 3];
                value.extend_from_slice(&committed.offset.to_be_bytes());
                value.extend_from_slice(&(-1_i32).to_be_bytes());
                put_string(&mut value, "metadata", &committed.metadata)?;
                value.extend_from_slice(&committed.commit_time.to_be_bytes());
                Some(value)
            }
        };
        batch.push(now, Some(&key), value.as_deref(), &[]);
    }
    Ok(batch)
}

/// `None` for other kinds and versions of record, which this broker does not write.
pub(crate) fn decode(key: &[u8], value: Option<&[u8]>) -> Option<OffsetChange> {
    let mut key = key;
    let (0 | 1) = take_i16(&mut key)? else { return None };
    let group = take_string(&mut key)?;
    let topic = take_string(&mut key)?;
    let partition = u32::from_be_bytes(take(&mut key)?);
    let value = match value {
        None => None,
        Some(value) => Some(decode_value(value)?),
    };
    Some(OffsetChange {
        group,
        topic,
        partition,
        value,
    })
}

fn decode_value(mut value: &[u8]) -> Option<CommittedOffset> {
    let rest = &mut value;
    let version @ 0..=3 = take_i16(rest)? else {
        return None;
    };
    let offset = u64::from_be_bytes(take(rest)?);
    if version == 3 {
        let _leader_epoch: [u8; 4] = take(rest)?;
    }
    let metadata = take_string(rest)?;
    let commit_time = i64::from_be_bytes(take(rest)?);
    Some(CommittedOffset {
        offset,
        metadata,
        commit_time,
    })
}

fn put_string(out: &mut Vec<u8>, name: &'static str, text: &str) -> Result<()> {
    let len = i16::try_from(text.len()).map_err(|_| Error::InvalidOption {
        name,
        value: text.to_owned(),
        allowed: "a text of at most 32767 bytes",
    })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn take_i16(bytes: &mut &[u8]) -> Option<i16> {
    take(bytes).map(i16::from_be_bytes)
}

fn take_string(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::try_from(take_i16(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::header::HEADER_BYTES;
    use crate::batch::record::Records;

    #[test]
    fn keys_and_values_are_kafkas() {
        let commit = OffsetCommit {
            metadata: "né",
            ..OffsetCommit::new("shop.orders", 3, 1 << 40)
        };
        let set = changes("connect-pg", &[commit], 7, 4096).unwrap().remove(0);
        let deleted = OffsetChange::delete("connect-pg", "shop.orders", 3);
        let batch = encode(&[set.clone(), deleted.clone()], 9)
            .unwrap()
            .seal(None)
            .unwrap();
        let records: Vec<_> = Records::new(&batch.bytes()[HEADER_BYTES..], 2, 0, 0, None).collect();
        let key = records[0].key.unwrap();
        assert_eq!(key, b"\0\x01\0\x0aconnect-pg\0\x0bshop.orders\0\0\0\x03");
        let value = records[0].value.unwrap();
        assert_eq!(
            value,
            b"\0\x03\0\0\x01\0\0\0\0\0\xff\xff\xff\xff\0\x03n\xc3\xa9\0\0\0\0\0\0\0\x07"
        );
        assert_eq!(decode(key, Some(value)), Some(set));
        assert_eq!(decode(records[1].key.unwrap(), records[1].value), Some(deleted));
        assert_eq!(decode(b"\0\x02\0\x01g", None), None);
        for len in 0..value.len() {
            assert_eq!(decode(key, Some(&value[..len])), None, "cut at {len}");
        }
    }

    #[test]
    fn older_versions_are_read() {
        let value = b"\0\x01\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08";
        let decoded = decode(b"\0\0\0\x01g\0\x01t\0\0\0\0", Some(value)).unwrap();
        let value = decoded.value.unwrap();
        assert_eq!(
            (value.offset, value.metadata.as_str(), value.commit_time),
            (5, "m", 7)
        );
    }

    #[test]
    fn long_metadata_is_refused() {
        let commit = OffsetCommit {
            metadata: "12345",
            ..OffsetCommit::new("t", 0, 0)
        };
        let refused = changes("g", &[commit], 0, 4);
        assert!(matches!(
            refused,
            Err(Error::OffsetMetadataTooLarge {
                bytes: 5,
                limit: 4,
                ..
            })
        ));
    }
}
