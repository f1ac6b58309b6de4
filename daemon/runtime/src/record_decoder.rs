//! What the records of topics become on their way to a sink: converted, in frames.

use std::sync::Arc;

use tidewater_broker::RecordView;
use tidewater_plugin_api::{FrameBuilder, Schema, SchemaRef, TopicPartition, Type, Value};

use crate::converter::{ConvertError, Converter};

/// Turns records of topics into records of frames.
pub struct RecordDecoder {
    key: Box<dyn Converter>,
    value: Box<dyn Converter>,
    text: SchemaRef,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl RecordDecoder {
    /// A decoder with these converters.
    pub fn new(key: Box<dyn Converter>, value: Box<dyn Converter>) -> Self {
        let text = Arc::new(Schema::new(Type::String));
        Self {
            key,
            value,
            text,
            key_bytes: Vec::new(),
            value_bytes: Vec::new(),
        }
    }

    /// Appends a record of a topic to `batch`, which is unchanged where it cannot be converted.
    pub fn push(
        &mut self,
        from: &TopicPartition,
        record: &RecordView<'_>,
        batch: &mut FrameBuilder,
    ) -> Result<(), ConvertError> {
        let fault = |error: tidewater_plugin_api::Error| ConvertError(error.message);
        self.key_bytes.clear();
        self.value_bytes.clear();
        let key = self
            .key
            .to_frame(record.key, &mut self.key_bytes)
            .map_err(|error| ConvertError(format!("key: {error}")))?;
        let value = self
            .value
            .to_frame(record.value, &mut self.value_bytes)
            .map_err(|error| ConvertError(format!("value: {error}")))?;
        let none = tidewater_plugin_api::frame::SchemaId::NONE;
        let topic = batch.topic(&from.topic).map_err(fault)?;
        let key_schema = key
            .schema
            .as_ref()
            .map_or(Ok(none), |schema| batch.schema(schema))
            .map_err(fault)?;
        let value_schema = value
            .schema
            .as_ref()
            .map_or(Ok(none), |schema| batch.schema(schema))
            .map_err(fault)?;
        let text = if record.headers().len() == 0 {
            none
        } else {
            batch.schema(&self.text).map_err(fault)?
        };
        let mut out = batch.record(topic);
        out.partition(from.partition);
        out.offset(record.offset);
        out.timestamp(record.timestamp);
        if key.present {
            out.key(key_schema, |writer| writer.raw(&self.key_bytes));
        }
        if value.present {
            out.value(value_schema, |writer| writer.raw(&self.value_bytes));
        } else {
            out.null_value(value_schema);
        }
        for (name, value) in record.headers() {
            let value = value.map(|bytes| Value::String(String::from_utf8_lossy(bytes).into_owned()));
            out.header(name, text, Some(&self.text), value.as_ref())
                .map_err(fault)?;
        }
        out.push().map_err(fault)
    }
}
