//! The frame: a batch in one buffer, without pointers, that crosses the plugin boundary as it is.
//!
//! # Layout
//! All integers are little-endian; offsets count from the start of the frame, but those in descriptors from the
//! start of the arena.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `TWFRAME1` |
//! | 8..10, 10..12 | `u16` version (1), `u16` size of a descriptor |
//! | 12..16 | `u32` records |
//! | 16..24 | `u32` offset and length of the arena |
//! | 24..28 | `u32` offset of the descriptors |
//! | 28..36 | `u32` offset and count of the schema table: Connect's JSON schemas |
//! | 36..44 | `u32` offset and count of the topic table |
//! | 44..52 | `u32` offset and count of the position table: [`SourcePosition`]s as JSON |
//! | 52..64 | zero |
//!
//! An entry of a table is a `u32` length and that many bytes. A descriptor is [`DESCRIPTOR_SIZE`] bytes, or more from
//! a later version, whose additions stand at the end:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8, 8..16, 16..24 | `u32` offset and length of the key, the value and the headers; length `u32::MAX` is null |
//! | 24..32 | `i64` timestamp in milliseconds since 1970, `i64::MIN` is none |
//! | 32..40 | `i64` offset in the partition, -1 is none |
//! | 40..46 | `u16` topic, key schema, value schema: entries of the tables; `u16::MAX` is no schema |
//! | 46..48 | zero |
//! | 48..52 | `i32` partition, -1 is none |
//! | 52..56 | zero |
//!
//! Headers are a `u32` count, then for each a `u32` length and the name, a `u16` schema, a `u32` length (`u32::MAX` is
//! null) and the value. Values are encoded as [`crate::value`] says.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::schema::{Schema, SchemaRef};
use crate::source::SourcePosition;
use crate::value::{DecodeError, Value, ValueRef, ValueWriter};

const MAGIC: &[u8; 8] = b"TWFRAME1";
const HEADER_SIZE: usize = 64;
/// The size of a descriptor in bytes.
pub const DESCRIPTOR_SIZE: usize = 56;
const NONE: u32 = u32::MAX;
const NO_SCHEMA: u16 = u16::MAX;

/// A topic within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(u16);

/// A schema within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchemaId(u16);

impl SchemaId {
    /// No schema: values carry tags.
    pub const NONE: SchemaId = SchemaId(NO_SCHEMA);
}

#[derive(Clone, Copy)]
struct Descriptor {
    key: (u32, u32),
    value: (u32, u32),
    headers: (u32, u32),
    timestamp: i64,
    offset: i64,
    topic: u16,
    key_schema: u16,
    value_schema: u16,
    partition: i32,
}

impl Descriptor {
    fn write(&self, out: &mut Vec<u8>) {
        for (start, length) in [self.key, self.value, self.headers] {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(&self.timestamp.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        for id in [self.topic, self.key_schema, self.value_schema, 0] {
            out.extend_from_slice(&id.to_le_bytes());
        }
        out.extend_from_slice(&self.partition.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    fn read(bytes: &[u8]) -> Self {
        let pair = |at| (u32_at(bytes, at), u32_at(bytes, at + 4));
        Self {
            key: pair(0),
            value: pair(8),
            headers: pair(16),
            timestamp: i64::from_le_bytes(array_at(bytes, 24)),
            offset: i64::from_le_bytes(array_at(bytes, 32)),
            topic: u16::from_le_bytes(array_at(bytes, 40)),
            key_schema: u16::from_le_bytes(array_at(bytes, 42)),
            value_schema: u16::from_le_bytes(array_at(bytes, 44)),
            partition: i32::from_le_bytes(array_at(bytes, 48)),
        }
    }
}

/// The `N` bytes at `at`; callers have checked that they are there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Builds a frame. Records are pushed one after the other; the buffer is the frame itself, so nothing is copied at
/// the end but the descriptors.
///
/// ```
/// use std::sync::Arc;
/// use tidewater_plugin_api::{Frame, FrameBuilder, Schema, Type, Value};
///
/// let schema = Arc::new(Schema::new(Type::String));
/// let mut batch = FrameBuilder::new();
/// batch.push("greetings", None, (&schema, &Value::String("hello".into())))?;
/// let frame = Frame::parse(batch.finish(), &mut Default::default())?;
/// assert_eq!(frame.records().next().unwrap().value()?.as_str(), Some("hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct FrameBuilder {
    /// The header's room, then the arena.
    buffer: Vec<u8>,
    descriptors: Vec<Descriptor>,
    topics: Vec<Arc<str>>,
    topic_ids: HashMap<Arc<str>, u16>,
    schemas: Vec<SchemaRef>,
    positions: Vec<SourcePosition>,
}

impl std::fmt::Debug for FrameBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameBuilder")
            .field("records", &self.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl FrameBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of records so far.
    pub fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether there is nothing to send: no record and no position.
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty() && self.positions.is_empty()
    }

    /// About how large the frame is so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.descriptors.len() * DESCRIPTOR_SIZE
    }

    /// The id of the topic called `name`, for [`record`](Self::record).
    pub fn topic(&mut self, name: &str) -> Result<TopicId> {
        if let Some(&id) = self.topic_ids.get(name) {
            return Ok(TopicId(id));
        }
        let id = u16::try_from(self.topics.len())
            .map_err(|_| Error::fatal("a batch holds at most 65,536 topics"))?;
        let name: Arc<str> = name.into();
        self.topics.push(name.clone());
        self.topic_ids.insert(name, id);
        Ok(TopicId(id))
    }

    /// The id of `schema`, for [`RecordBuilder`].
    pub fn schema(&mut self, schema: &SchemaRef) -> Result<SchemaId> {
        let known = self
            .schemas
            .iter()
            .position(|known| Arc::ptr_eq(known, schema))
            .or_else(|| {
                self.schemas
                    .iter()
                    .position(|known| known.json() == schema.json())
            });
        if let Some(index) = known {
            return Ok(SchemaId(index as u16));
        }
        if self.schemas.len() >= usize::from(NO_SCHEMA) {
            return Err(Error::fatal("a batch holds at most 65,535 schemas"));
        }
        self.schemas.push(schema.clone());
        Ok(SchemaId((self.schemas.len() - 1) as u16))
    }

    /// Begins a record for `topic`. It has no key and no value until they are given, and joins the batch with
    /// [`RecordBuilder::push`]; dropped before, it leaves no trace.
    pub fn record(&mut self, topic: TopicId) -> RecordBuilder<'_> {
        if self.buffer.is_empty() {
            self.buffer.resize(HEADER_SIZE, 0);
        }
        let start = self.buffer.len();
        let descriptor = Descriptor {
            key: (0, NONE),
            value: (0, NONE),
            headers: (0, NONE),
            timestamp: i64::MIN,
            offset: -1,
            topic: topic.0,
            key_schema: NO_SCHEMA,
            value_schema: NO_SCHEMA,
            partition: -1,
        };
        RecordBuilder {
            batch: self,
            descriptor,
            start,
            header_count: 0,
            pushed: false,
        }
    }

    /// Pushes a record of owned values: the simple way.
    pub fn push(
        &mut self,
        topic: &str,
        key: Option<(&SchemaRef, &Value)>,
        value: (&SchemaRef, &Value),
    ) -> Result<()> {
        let topic = self.topic(topic)?;
        let key_schema = key.map(|(schema, _)| self.schema(schema)).transpose()?;
        let value_schema = self.schema(value.0)?;
        let mut record = self.record(topic);
        if let (Some(id), Some((schema, key))) = (key_schema, key) {
            record.key_value(id, Some(schema), key)?;
        }
        record.value_value(value_schema, Some(value.0), value.1)?;
        record.push()
    }

    /// States how far the records pushed so far reach: when they are durable, so is this (invariant 2). A later
    /// position of the same partition replaces an earlier one.
    pub fn position(&mut self, position: SourcePosition) {
        match self
            .positions
            .iter_mut()
            .find(|known| known.partition == position.partition)
        {
            Some(known) => known.offset = position.offset,
            None => self.positions.push(position),
        }
    }

    /// The finished frame. The builder is empty afterwards and keeps nothing.
    pub fn finish(&mut self) -> Bytes {
        let mut built = std::mem::take(self);
        let buffer = &mut built.buffer;
        if buffer.is_empty() {
            buffer.resize(HEADER_SIZE, 0);
        }
        let arena = (HEADER_SIZE as u32, (buffer.len() - HEADER_SIZE) as u32);
        let descriptors = buffer.len() as u32;
        buffer.reserve(built.descriptors.len() * DESCRIPTOR_SIZE);
        for descriptor in &built.descriptors {
            descriptor.write(buffer);
        }
        let schemas = write_table(buffer, built.schemas.iter().map(|schema| schema.json().clone()));
        let topics = write_table(
            buffer,
            built
                .topics
                .iter()
                .map(|topic| Bytes::copy_from_slice(topic.as_bytes())),
        );
        // A map of strings and JSON values always serialises.
        let positions = built
            .positions
            .iter()
            .map(|position| serde_json::to_vec(position).unwrap_or_default().into());
        let positions = write_table(buffer, positions);

        buffer[..8].copy_from_slice(MAGIC);
        buffer[8..10].copy_from_slice(&1u16.to_le_bytes());
        buffer[10..12].copy_from_slice(&(DESCRIPTOR_SIZE as u16).to_le_bytes());
        let words = [
            built.descriptors.len() as u32,
            arena.0,
            arena.1,
            descriptors,
            schemas.0,
            schemas.1,
            topics.0,
            topics.1,
            positions.0,
            positions.1,
        ];
        for (index, word) in words.into_iter().enumerate() {
            buffer[12 + index * 4..16 + index * 4].copy_from_slice(&word.to_le_bytes());
        }
        Bytes::from(built.buffer)
    }
}

fn write_table(buffer: &mut Vec<u8>, entries: impl Iterator<Item = Bytes>) -> (u32, u32) {
    let start = buffer.len() as u32;
    let mut count = 0;
    for entry in entries {
        buffer.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&entry);
        count += 1;
    }
    (start, count)
}

/// A record that is being built.
#[must_use = "a record joins its batch with push()"]
pub struct RecordBuilder<'a> {
    batch: &'a mut FrameBuilder,
    descriptor: Descriptor,
    start: usize,
    header_count: u32,
    pushed: bool,
}

impl RecordBuilder<'_> {
    /// Writes the key with `write`, as the schema says.
    pub fn key(&mut self, schema: SchemaId, write: impl FnOnce(&mut ValueWriter<'_>)) {
        self.descriptor.key = self.written(write);
        self.descriptor.key_schema = schema.0;
    }

    /// Writes the value with `write`, as the schema says.
    pub fn value(&mut self, schema: SchemaId, write: impl FnOnce(&mut ValueWriter<'_>)) {
        self.descriptor.value = self.written(write);
        self.descriptor.value_schema = schema.0;
    }

    /// Writes the key from an owned value.
    pub fn key_value(&mut self, id: SchemaId, schema: Option<&Schema>, key: &Value) -> Result<()> {
        self.descriptor.key = self.encoded(schema, key)?;
        self.descriptor.key_schema = id.0;
        Ok(())
    }

    /// Writes the value from an owned value.
    pub fn value_value(&mut self, id: SchemaId, schema: Option<&Schema>, value: &Value) -> Result<()> {
        self.descriptor.value = self.encoded(schema, value)?;
        self.descriptor.value_schema = id.0;
        Ok(())
    }

    /// Gives a key or value that is null a schema all the same.
    pub fn null_value(&mut self, schema: SchemaId) {
        self.descriptor.value = (0, NONE);
        self.descriptor.value_schema = schema.0;
    }

    /// Gives the record a timestamp in milliseconds since 1970.
    pub fn timestamp(&mut self, millis: i64) {
        self.descriptor.timestamp = millis;
    }

    /// Sends the record to this partition, instead of the one its key hashes to.
    pub fn partition(&mut self, partition: u32) {
        self.descriptor.partition = partition as i32;
    }

    /// States the record's offset in its partition; only the host does.
    pub fn offset(&mut self, offset: u64) {
        self.descriptor.offset = offset as i64;
    }

    /// Adds a header. Headers come after key and value.
    pub fn header(
        &mut self,
        name: &str,
        id: SchemaId,
        schema: Option<&Schema>,
        value: Option<&Value>,
    ) -> Result<()> {
        let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
        let buffer = &mut self.batch.buffer;
        if self.header_count == 0 {
            self.descriptor.headers.0 = (buffer.len() - HEADER_SIZE) as u32;
            buffer.extend_from_slice(&[0; 4]);
        }
        buffer.extend_from_slice(&length(name.as_bytes()));
        buffer.extend_from_slice(name.as_bytes());
        buffer.extend_from_slice(&id.0.to_le_bytes());
        match value {
            None => buffer.extend_from_slice(&NONE.to_le_bytes()),
            Some(value) => {
                let mut encoded = Vec::new();
                value
                    .encode(schema, &mut encoded)
                    .map_err(|error| Error::fatal(format!("header {name}: {error}")))?;
                buffer.extend_from_slice(&length(&encoded));
                buffer.extend_from_slice(&encoded);
            }
        }
        self.header_count += 1;
        let start = self.descriptor.headers.0 as usize;
        self.descriptor.headers.1 = (buffer.len() - HEADER_SIZE - start) as u32;
        let at = HEADER_SIZE + start;
        buffer[at..at + 4].copy_from_slice(&self.header_count.to_le_bytes());
        Ok(())
    }

    /// Adds the record to its batch.
    pub fn push(mut self) -> Result<()> {
        if self.batch.bytes() > NONE as usize / 2 {
            return Err(Error::fatal(
                "a batch holds at most 2 GiB; return from poll with fewer records",
            ));
        }
        self.pushed = true;
        self.batch.descriptors.push(self.descriptor);
        Ok(())
    }

    fn written(&mut self, write: impl FnOnce(&mut ValueWriter<'_>)) -> (u32, u32) {
        let start = self.batch.buffer.len();
        write(&mut ValueWriter::new(&mut self.batch.buffer));
        (
            (start - HEADER_SIZE) as u32,
            (self.batch.buffer.len() - start) as u32,
        )
    }

    fn encoded(&mut self, schema: Option<&Schema>, value: &Value) -> Result<(u32, u32)> {
        let start = self.batch.buffer.len();
        value
            .encode(schema, &mut self.batch.buffer)
            .map_err(|error| Error::fatal(error.to_string()))?;
        Ok((
            (start - HEADER_SIZE) as u32,
            (self.batch.buffer.len() - start) as u32,
        ))
    }
}

impl Drop for RecordBuilder<'_> {
    fn drop(&mut self) {
        if !self.pushed {
            self.batch.buffer.truncate(self.start);
        }
    }
}

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
