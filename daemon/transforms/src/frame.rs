//! Records out of a frame and into one. Keys and values move as they are encoded: out of a frame they are shared, into one
//! they are copied once.

use tidewater_plugin_api::frame::{Record as FrameRecord, SchemaId};
use tidewater_plugin_api::value::DecodeError;
use tidewater_plugin_api::{Error, Frame, FrameBuilder, Result, SchemaRef};

use crate::record::{Datum, Header, Record};

impl Record {
    /// The record `record` of `frame`, sharing the frame's bytes.
    pub fn from_frame(frame: &Frame, record: &FrameRecord<'_>) -> Result<Self, DecodeError> {
        let datum = |schema: Option<&SchemaRef>, bytes: Option<&[u8]>| match bytes {
            Some(bytes) => Datum::encoded(schema.cloned(), frame.bytes().slice_ref(bytes)),
            None => Datum::new(schema.cloned(), tidewater_plugin_api::Value::Null),
        };
        let header = |header: Result<tidewater_plugin_api::frame::Header<'_>, DecodeError>| {
            let header = header?;
            let value = Datum::new(header.schema.cloned(), header.value.to_value()?);
            Ok::<_, DecodeError>(Header::new(header.name, value))
        };
        Ok(Self {
            topic: frame.topics()[record.topic_index()].clone(),
            original_topic: record
                .offset()
                .map(|_| frame.topics()[record.original_topic_index()].clone()),
            partition: record.partition(),
            offset: record.offset(),
            timestamp: record.timestamp(),
            key: datum(record.key_schema(), record.key_bytes()),
            value: datum(record.value_schema(), record.value_bytes()),
            headers: record.headers().map(header).collect::<Result<_, _>>()?,
        })
    }

    /// Adds the record to `batch`. The error says which part does not fit its schema, or that the batch is full.
    pub fn push_to(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let schema_id = |batch: &mut FrameBuilder, datum: &Datum| match datum.schema() {
            Some(schema) => batch.schema(schema),
            None => Ok(SchemaId::NONE),
        };
        let topic = batch.topic(&self.topic)?;
        let original_topic = match &self.original_topic {
            Some(original) if **original != *self.topic => Some(batch.topic(original)?),
            _ => None,
        };
        let key_schema = schema_id(batch, &self.key)?;
        let value_schema = schema_id(batch, &self.value)?;
        let header_schemas = self
            .headers
            .iter()
            .map(|header| schema_id(batch, &header.value))
            .collect::<Result<Vec<_>>>()?;
        let mut built = batch.record(topic);
        match (self.key.as_encoded(), self.key.decoded()) {
            (Some(bytes), _) => built.key(key_schema, |writer| writer.raw(bytes)),
            (None, Some(value)) if !self.key.is_null() => {
                built.key_value(key_schema, self.key.schema().map(|schema| &**schema), value)?;
            }
            _ => {}
        }
        match (self.value.as_encoded(), self.value.decoded()) {
            (Some(bytes), _) => built.value(value_schema, |writer| writer.raw(bytes)),
            (None, Some(value)) if !self.value.is_null() => {
                built.value_value(value_schema, self.value.schema().map(|schema| &**schema), value)?;
            }
            _ if value_schema != SchemaId::NONE => built.null_value(value_schema),
            _ => {}
        }
        for (header, id) in self.headers.iter_mut().zip(header_schemas) {
            let schema = header.value.schema().cloned();
            let value = header
                .value
                .value()
                .map_err(|error| Error::fatal(format!("header {}: {error}", header.name)))?;
            let value = (*value != tidewater_plugin_api::Value::Null).then_some(value);
            built.header(&header.name, id, schema.as_deref(), value)?;
        }
        if let Some(original) = original_topic {
            built.original_topic(original);
        }
        if let Some(timestamp) = self.timestamp {
            built.timestamp(timestamp);
        }
        if let Some(partition) = self.partition {
            built.partition(partition);
        }
        if let Some(offset) = self.offset {
            built.offset(offset);
        }
        built.push()
    }
}
