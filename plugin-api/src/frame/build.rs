//! Building a frame: records are written where they stay.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{DESCRIPTOR_SIZE, Descriptor, HEADER_SIZE, MAGIC, NO_SCHEMA, NONE, SchemaId, TopicId};
use crate::error::{Error, Result};
use crate::schema::{Schema, SchemaRef};
use crate::source::SourcePosition;
use crate::value::{Value, ValueWriter};

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
            .ok()
            .filter(|&id| id < u16::MAX)
            .ok_or_else(|| Error::fatal("a batch holds at most 65,535 topics"))?;
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
            original_topic: 0,
            partition: -1,
        };
        RecordBuilder {
            batch: self,
            descriptor,
            start,
            headers: Vec::new(),
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

    /// Builds the next frame in `buffer`, to spare an allocation; what it holds is cleared. Does nothing where the frame
    /// has been begun.
    pub fn reuse(&mut self, mut buffer: Vec<u8>) {
        if self.buffer.is_empty() {
            buffer.clear();
            self.buffer = buffer;
        }
    }

    /// The finished frame. The builder is empty afterwards and keeps nothing.
    pub fn finish(&mut self) -> Bytes {
        Bytes::from(self.finish_vec())
    }

    /// [`finish`](Self::finish), as a buffer that can be [reused](Self::reuse).
    pub fn finish_vec(&mut self) -> Vec<u8> {
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
        built.buffer
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
    /// Kept aside until the record is whole, as they may come before its key or value.
    headers: Vec<u8>,
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

    /// States the topic the record was read from, where a transform has given it another; only the host does.
    pub fn original_topic(&mut self, topic: TopicId) {
        self.descriptor.original_topic = if topic.0 == self.descriptor.topic {
            0
        } else {
            topic.0 + 1
        };
    }

    /// Adds a header.
    pub fn header(
        &mut self,
        name: &str,
        id: SchemaId,
        schema: Option<&Schema>,
        value: Option<&Value>,
    ) -> Result<()> {
        let mut encoded = Vec::new();
        if let Some(value) = value {
            value
                .encode(schema, &mut encoded)
                .map_err(|error| Error::fatal(format!("header {name}: {error}")))?;
        }
        self.header_encoded(name, id, value.map(|_| &*encoded));
        Ok(())
    }

    /// Adds a header whose value is encoded already, as the schema says.
    pub fn header_encoded(&mut self, name: &str, id: SchemaId, value: Option<&[u8]>) {
        let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
        self.headers.extend_from_slice(&length(name.as_bytes()));
        self.headers.extend_from_slice(name.as_bytes());
        self.headers.extend_from_slice(&id.0.to_le_bytes());
        if let Some(value) = value {
            self.headers.extend_from_slice(&length(value));
            self.headers.extend_from_slice(value);
        } else {
            self.headers.extend_from_slice(&NONE.to_le_bytes());
        }
        self.header_count += 1;
    }

    /// Adds the record to its batch.
    pub fn push(mut self) -> Result<()> {
        if self.batch.bytes() > NONE as usize / 2 {
            return Err(Error::fatal(
                "a batch holds at most 2 GiB; return from poll with fewer records",
            ));
        }
        if self.header_count > 0 {
            let (count, headers) = (self.header_count, std::mem::take(&mut self.headers));
            self.descriptor.headers = self.written(|writer| {
                writer.raw(&count.to_le_bytes());
                writer.raw(&headers);
            });
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
