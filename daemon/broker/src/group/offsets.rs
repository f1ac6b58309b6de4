//! The offsets of consumer groups: kept in memory, and as records of the topic `__consumer_offsets` in Kafka's own
//! format, from which they are read back when the broker opens.
//!
//! The topic has one partition; for each group and partition the record with the highest offset holds. The bytes are
//! described in [`layout`](crate::layout#group-offsets).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::batch::builder::BatchBuilder;
use crate::batch::compression::Compression;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::log::transactions::now_ms;
use crate::reader::{Isolation, Reader, Start};

/// The offsets of one group: the next offset to read by topic and partition.
pub(crate) type Offsets = BTreeMap<(String, u32), u64>;

/// A change of a group's offset: `None` deletes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetChange {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) next: Option<u64>,
}

pub(crate) struct GroupOffsets {
    pub(crate) log: Arc<Log>,
    groups: RwLock<HashMap<String, Group>>,
}

/// By topic and partition.
type Group = BTreeMap<(String, u32), Held>;

struct Held {
    next: Option<u64>,
    /// The offset of the record that says so.
    at: u64,
}

impl GroupOffsets {
    /// Reads the offsets back from their topic.
    pub(crate) fn open(log: Arc<Log>) -> Result<Self> {
        let offsets = Self {
            log,
            groups: RwLock::default(),
        };
        let log = Arc::clone(&offsets.log);
        let mut reader = Reader::new(log, Start::Earliest, Isolation::ReadCommitted)?;
        while let Some(fetched) = reader.try_next(1 << 20)? {
            for record in fetched.records() {
                // Other versions of key are other kinds of record, which this broker does not write.
                if let Some(change) = decode(record.key.unwrap_or_default(), record.value) {
                    offsets.apply(&[change], record.offset);
                }
            }
        }
        Ok(offsets)
    }

    /// Takes over durable, committed changes whose records begin at offset `at`.
    pub(crate) fn apply(&self, changes: &[OffsetChange], at: u64) {
        let mut groups = self.groups.write();
        for (change, at) in changes.iter().zip(at..) {
            let group = groups.entry(change.group.clone()).or_default();
            let place = (change.topic.clone(), change.partition);
            let held = group.entry(place).or_insert(Held { next: None, at });
            if at >= held.at {
                *held = Held {
                    next: change.next,
                    at,
                };
            }
        }
    }

    pub(crate) fn of(&self, group: &str) -> Offsets {
        let groups = self.groups.read();
        let held = groups.get(group).into_iter().flatten();
        held.filter_map(|(place, held)| Some((place.clone(), held.next?)))
            .collect()
    }

    pub(crate) fn groups(&self) -> Vec<String> {
        let groups = self.groups.read();
        let live = groups
            .iter()
            .filter(|(_, group)| group.values().any(|held| held.next.is_some()));
        let mut names: Vec<_> = live.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }
}

pub(crate) fn changes(group: &str, offsets: &[(&str, u32, u64)]) -> Vec<OffsetChange> {
    let change = |&(topic, partition, next): &(&str, u32, u64)| OffsetChange {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
        next: Some(next),
    };
    offsets.iter().map(change).collect()
}

/// The batch of records for some changes.
pub(crate) fn encode(changes: &[OffsetChange]) -> Result<BatchBuilder> {
    let mut batch = BatchBuilder::new(Compression::None);
    let now = now_ms();
    for change in changes {
        let mut key = vec![0, 1];
        put_string(&mut key, &change.group)?;
        put_string(&mut key, &change.topic)?;
        key.extend_from_slice(&(change.partition as i32).to_be_bytes());
        let value = change.next.map(|next| {
            let mut value = vec![0, 3];
            value.extend_from_slice(&next.to_be_bytes());
            value.extend_from_slice(&(-1_i32).to_be_bytes());
            value.extend_from_slice(&0_i16.to_be_bytes());
            value.extend_from_slice(&now.to_be_bytes());
            value
        });
        batch.push(now, Some(&key), value.as_deref(), &[]);
    }
    Ok(batch)
}

fn put_string(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let len = i16::try_from(text.len()).map_err(|_| Error::InvalidOption {
        name: "group",
        value: text.to_owned(),
        allowed: "a name of at most 32767 bytes",
    })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn decode(mut key: &[u8], value: Option<&[u8]>) -> Option<OffsetChange> {
    let key = &mut key;
    let (0 | 1) = take_i16(key)? else { return None };
    let group = take_string(key)?;
    let topic = take_string(key)?;
    let partition = u32::from_be_bytes(*key.first_chunk::<4>()?);
    let next = match value {
        None => None,
        Some(mut value) => {
            let value = &mut value;
            let _version = take_i16(value)?;
            Some(u64::from_be_bytes(*value.first_chunk::<8>()?))
        }
    };
    Some(OffsetChange {
        group,
        topic,
        partition,
        next,
    })
}

fn take_i16(bytes: &mut &[u8]) -> Option<i16> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(i16::from_be_bytes(*number))
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
        let change = OffsetChange {
            group: "connect-pg".to_owned(),
            topic: "shop.orders".to_owned(),
            partition: 3,
            next: Some(1 << 40),
        };
        let deleted = OffsetChange {
            next: None,
            ..change.clone()
        };
        let batch = encode(&[change.clone(), deleted.clone()])
            .unwrap()
            .seal(None)
            .unwrap();
        let records: Vec<_> = Records::new(&batch.bytes()[HEADER_BYTES..], 2, 0, 0, None).collect();
        let key = records[0].key.unwrap();
        assert_eq!(key, b"\0\x01\0\x0aconnect-pg\0\x0bshop.orders\0\0\0\x03");
        let value = records[0].value.unwrap();
        assert_eq!(
            value[..16],
            [0, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]
        );
        assert_eq!(value.len(), 24);
        assert_eq!(decode(key, Some(value)), Some(change));
        assert_eq!(decode(records[1].key.unwrap(), records[1].value), Some(deleted));
        assert_eq!(decode(b"\0\x02\0\x01g", None), None);
    }
}
