//! Reading a frame in place.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{DESCRIPTOR_SIZE, Descriptor, HEADER_SIZE, MAGIC, NO_SCHEMA, NONE, array_at, u32_at};
use crate::error::Result;
use crate::schema::SchemaRef;
use crate::source::SourcePosition;
use crate::value::{DecodeError, ValueRef};

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame: {0}")]
pub struct FrameError(pub String);

/// Schemas already read, by their bytes, so that a schema is parsed once and not with every batch.
#[derive(Debug, Default)]
pub struct SchemaCache(HashMap<Bytes, SchemaRef>);

impl SchemaCache {
    /// More than any table set in practice; beyond it the cache starts anew, so it cannot grow without bound.
    const CAPACITY: usize = 4096;

    /// The schema whose JSON is `json`.
    pub fn get(&mut self, json: &[u8]) -> Result<SchemaRef, FrameError> {
        if let Some(schema) = self.0.get(json) {
            return Ok(schema.clone());
        }
        let parsed = serde_json::from_slice(json)
            .map_err(|error| FrameError(format!("schema is not JSON: {error}")))?;
        let schema = crate::json::schema_from_json(&parsed).map_err(|error| FrameError(error.0))?;
        let schema = SchemaRef::new(schema);
        if self.0.len() >= Self::CAPACITY {
            self.0.clear();
        }
        self.0.insert(Bytes::copy_from_slice(json), schema.clone());
        Ok(schema)
    }
}

/// A batch of records, checked once and then read in place.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    count: usize,
    descriptor_size: usize,
    descriptors: usize,
    arena: std::ops::Range<usize>,
    schemas: Vec<SchemaRef>,
    topics: Vec<Arc<str>>,
    positions: Vec<SourcePosition>,
}

impl Frame {
    /// Checks the header, the tables and every descriptor. What values hold is checked as they are read.
    pub fn parse(bytes: Bytes, cache: &mut SchemaCache) -> Result<Self, FrameError> {
        let fault = |what: &str| FrameError(what.to_owned());
        if bytes.len() < HEADER_SIZE {
            return Err(FrameError(format!(
                "{} bytes are less than a header",
                bytes.len()
            )));
        }
        if &bytes[..8] != MAGIC {
            return Err(fault("it does not begin with TWFRAME1"));
        }
        let word = |index: usize| u32_at(&bytes, 12 + index * 4) as usize;
        let version = u16::from_le_bytes(array_at(&bytes, 8));
        let descriptor_size = usize::from(u16::from_le_bytes(array_at(&bytes, 10)));
        if version != 1 || descriptor_size < DESCRIPTOR_SIZE {
            return Err(FrameError(format!(
                "version {version} with descriptors of {descriptor_size} bytes is not known"
            )));
        }
        let (count, arena_start, arena_length, descriptors) = (word(0), word(1), word(2), word(3));
        let arena = arena_start..arena_start.saturating_add(arena_length);
        if arena.end > bytes.len() {
            return Err(fault("the arena reaches beyond the end"));
        }
        let descriptors_end = count
            .checked_mul(descriptor_size)
            .and_then(|size| size.checked_add(descriptors));
        if descriptors_end.is_none_or(|end| end > bytes.len()) {
            return Err(fault("the descriptors reach beyond the end"));
        }
        let schemas = table(&bytes, word(4), word(5))?
            .into_iter()
            .map(|json| cache.get(json))
            .collect::<Result<Vec<_>, _>>()?;
        let topics = table(&bytes, word(6), word(7))?
            .into_iter()
            .map(|name| {
                std::str::from_utf8(name)
                    .map(Arc::from)
                    .map_err(|_| fault("a topic's name is not UTF-8"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let positions = table(&bytes, word(8), word(9))?
            .into_iter()
            .map(|json| {
                serde_json::from_slice(json)
                    .map_err(|error| FrameError(format!("a position is not what it should be: {error}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let frame = Self {
            bytes,
            count,
            descriptor_size,
            descriptors,
            arena,
            schemas,
            topics,
            positions,
        };
        frame.check_descriptors()?;
        Ok(frame)
    }

    fn check_descriptors(&self) -> Result<(), FrameError> {
        let arena = self.arena.len();
        for index in 0..self.count {
            let descriptor = self.descriptor(index);
            for (start, length) in [descriptor.key, descriptor.value, descriptor.headers] {
                if length != NONE && (start as usize).saturating_add(length as usize) > arena {
                    return Err(FrameError(format!("record {index} reaches beyond the arena")));
                }
            }
            if usize::from(descriptor.topic) >= self.topics.len() {
                return Err(FrameError(format!(
                    "record {index} names topic {} of {}",
                    descriptor.topic,
                    self.topics.len()
                )));
            }
            if usize::from(descriptor.original_topic) > self.topics.len() {
                return Err(FrameError(format!(
                    "record {index} was read from topic {} of {}",
                    descriptor.original_topic - 1,
                    self.topics.len()
                )));
            }
            for schema in [descriptor.key_schema, descriptor.value_schema] {
                if schema != NO_SCHEMA && usize::from(schema) >= self.schemas.len() {
                    return Err(FrameError(format!(
                        "record {index} names schema {schema} of {}",
                        self.schemas.len()
                    )));
                }
            }
        }
        Ok(())
    }

    fn descriptor(&self, index: usize) -> Descriptor {
        let start = self.descriptors + index * self.descriptor_size;
        Descriptor::read(&self.bytes[start..start + DESCRIPTOR_SIZE])
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The frame itself.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.count).map(|index| self.record(index))
    }

    /// The record at `index`, which must be less than [`len`](Self::len).
    pub fn record(&self, index: usize) -> Record<'_> {
        Record {
            frame: self,
            descriptor: self.descriptor(index),
        }
    }

    /// The topics that records may name, by [`Record::topic_index`].
    pub fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    /// The schemas that records may name, by [`Record::value_schema_index`].
    pub fn schemas(&self) -> &[SchemaRef] {
        &self.schemas
    }

    /// How far the records reach, where a source made the frame.
    pub fn positions(&self) -> &[SourcePosition] {
        &self.positions
    }
}

fn table(bytes: &[u8], start: usize, count: usize) -> Result<Vec<&[u8]>, FrameError> {
    let fault = || FrameError("a table reaches beyond the end".to_owned());
    let mut rest = bytes.get(start..).ok_or_else(fault)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let length = u32::from_le_bytes(*rest.first_chunk::<4>().ok_or_else(fault)?) as usize;
        entries.push(rest.get(4..4 + length).ok_or_else(fault)?);
        rest = &rest[4 + length..];
    }
    Ok(entries)
}

/// A record within a frame.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    frame: &'a Frame,
    descriptor: Descriptor,
}

impl<'a> Record<'a> {
    /// The topic it goes to or came from.
    pub fn topic(&self) -> &'a str {
        &self.frame.topics[self.topic_index()]
    }

    /// The topic it was read from: another than [`topic`](Self::topic) where a transform has changed that. With the partition
    /// and the offset it is the record's place in the log, which a target that keeps offsets goes by.
    pub fn original_topic(&self) -> &'a str {
        &self.frame.topics[self.original_topic_index()]
    }

    /// The place of the topic it was read from in [`Frame::topics`].
    pub fn original_topic_index(&self) -> usize {
        match self.descriptor.original_topic {
            0 => self.topic_index(),
            plus_one => usize::from(plus_one) - 1,
        }
    }

    /// The topic's place in [`Frame::topics`].
    pub fn topic_index(&self) -> usize {
        usize::from(self.descriptor.topic)
    }

    /// The partition, where one is stated.
    pub fn partition(&self) -> Option<u32> {
        u32::try_from(self.descriptor.partition).ok()
    }

    /// The offset in the partition, where the record came from a topic.
    pub fn offset(&self) -> Option<u64> {
        u64::try_from(self.descriptor.offset).ok()
    }

    /// Milliseconds since 1970.
    pub fn timestamp(&self) -> Option<i64> {
        (self.descriptor.timestamp != i64::MIN).then_some(self.descriptor.timestamp)
    }

    /// The key's schema.
    pub fn key_schema(&self) -> Option<&'a SchemaRef> {
        self.frame.schemas.get(usize::from(self.descriptor.key_schema))
    }

    /// The value's schema.
    pub fn value_schema(&self) -> Option<&'a SchemaRef> {
        self.frame.schemas.get(usize::from(self.descriptor.value_schema))
    }

    /// The place of the value's schema in [`Frame::schemas`].
    pub fn value_schema_index(&self) -> Option<usize> {
        (self.descriptor.value_schema != NO_SCHEMA).then_some(usize::from(self.descriptor.value_schema))
    }

    /// The place of the key's schema in [`Frame::schemas`].
    pub fn key_schema_index(&self) -> Option<usize> {
        (self.descriptor.key_schema != NO_SCHEMA).then_some(usize::from(self.descriptor.key_schema))
    }

    /// The key, encoded; none where it is null.
    pub fn key_bytes(&self) -> Option<&'a [u8]> {
        self.slice(self.descriptor.key)
    }

    /// The value, encoded; none where it is null.
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        self.slice(self.descriptor.value)
    }

    /// The key.
    pub fn key(&self) -> Result<ValueRef<'a>, DecodeError> {
        decode(self.key_schema(), self.key_bytes())
    }

    /// The value; null for a tombstone.
    pub fn value(&self) -> Result<ValueRef<'a>, DecodeError> {
        decode(self.value_schema(), self.value_bytes())
    }

    /// The headers.
    pub fn headers(&self) -> Headers<'a> {
        let mut rest = self.slice(self.descriptor.headers).unwrap_or_default();
        let left = match rest.split_first_chunk::<4>() {
            Some((count, tail)) => {
                rest = tail;
                u32::from_le_bytes(*count)
            }
            None => 0,
        };
        Headers {
            frame: self.frame,
            rest,
            left,
        }
    }

    fn slice(&self, (start, length): (u32, u32)) -> Option<&'a [u8]> {
        let start = self.frame.arena.start + start as usize;
        (length != NONE).then(|| &self.frame.bytes[start..start + length as usize])
    }
}

fn decode<'a>(schema: Option<&'a SchemaRef>, bytes: Option<&'a [u8]>) -> Result<ValueRef<'a>, DecodeError> {
    match bytes {
        None => Ok(ValueRef::Null),
        Some(bytes) => ValueRef::decode(schema.map(|schema| &**schema), bytes),
    }
}

/// A header.
#[derive(Clone, Copy)]
pub struct Header<'a> {
    /// The name; several headers may share one.
    pub name: &'a str,
    /// The value's schema.
    pub schema: Option<&'a SchemaRef>,
    /// The value.
    pub value: ValueRef<'a>,
    /// The value, encoded; none where it is null.
    pub encoded: Option<&'a [u8]>,
}

/// The headers of a record in order. After an error nothing more comes.
pub struct Headers<'a> {
    frame: &'a Frame,
    rest: &'a [u8],
    left: u32,
}

impl<'a> Headers<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        if count > self.rest.len() {
            return Err(DecodeError("a header reaches beyond its record".into()));
        }
        let (head, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(head)
    }

    fn header(&mut self) -> Result<Header<'a>, DecodeError> {
        let length = u32_at(self.take(4)?, 0) as usize;
        let name = std::str::from_utf8(self.take(length)?)
            .map_err(|_| DecodeError("a header's name is not UTF-8".into()))?;
        let schema = u16::from_le_bytes(array_at(self.take(2)?, 0));
        let schema = self.frame.schemas.get(usize::from(schema));
        let length = u32_at(self.take(4)?, 0);
        let bytes = if length == NONE {
            None
        } else {
            Some(self.take(length as usize)?)
        };
        Ok(Header {
            name,
            schema,
            value: decode(schema, bytes)?,
            encoded: bytes,
        })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<Header<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let header = self.header();
        if header.is_err() {
            self.left = 0;
        }
        Some(header)
    }
}
