//! What the records of topics become on their way to a sink: converted, in frames or, where transforms follow, one by one.

use std::sync::Arc;

use bytes::Bytes;
use tidewater_broker::RecordView;
use tidewater_plugin_api::frame::SchemaId;
use tidewater_plugin_api::{FrameBuilder, SchemaRef, TopicPartition, Value};
use tidewater_transforms::{self as transforms, Datum};

use crate::converter::{Converted, Converter, Converters, Encoded};
use crate::record_fault::{Part, RecordFault};

/// Turns records of topics into records of frames.
pub struct RecordDecoder {
    converters: Converters,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
    header_bytes: Vec<u8>,
}

impl RecordDecoder {
    /// A decoder with these converters.
    pub fn new(converters: Converters) -> Self {
        Self {
            converters,
            key_bytes: Vec::new(),
            value_bytes: Vec::new(),
            header_bytes: Vec::new(),
        }
    }

    /// Appends a record of a topic to `batch`, which is unchanged where it cannot be converted.
    pub fn push(
        &mut self,
        from: &TopicPartition,
        record: &RecordView<'_>,
        batch: &mut FrameBuilder,
    ) -> Result<(), RecordFault> {
        let full = |error: tidewater_plugin_api::Error| RecordFault::found(Part::Whole, error.message);
        let Self {
            converters,
            key_bytes,
            value_bytes,
            header_bytes,
        } = self;
        key_bytes.clear();
        value_bytes.clear();
        let key = convert(&mut *converters.key, Part::Key, record.key, key_bytes)?;
        let value = convert(&mut *converters.value, Part::Value, record.value, value_bytes)?;
        let mut headers = Vec::new();
        for (name, bytes) in record.headers() {
            header_bytes.clear();
            let part = Part::Header(name.to_owned());
            let converted = convert(&mut *converters.header, part, bytes, header_bytes)?;
            let id = schema_id(batch, converted.schema.as_ref()).map_err(full)?;
            headers.push((name, id, converted.value.map(Encoded::to_vec)));
        }
        let topic = batch.topic(&from.topic).map_err(full)?;
        let key_schema = schema_id(batch, key.schema.as_ref()).map_err(full)?;
        let value_schema = schema_id(batch, value.schema.as_ref()).map_err(full)?;

        let mut out = batch.record(topic);
        out.partition(from.partition);
        out.offset(record.offset);
        out.timestamp(record.timestamp);
        if let Some(encoded) = key.value {
            out.key(key_schema, |writer| encoded.write(writer));
        }
        match value.value {
            Some(encoded) => out.value(value_schema, |writer| encoded.write(writer)),
            None => out.null_value(value_schema),
        }
        for (name, id, value) in &headers {
            out.header_encoded(name, *id, value.as_deref());
        }
        out.push().map_err(full)
    }

    /// A record of the topic `topic`, for a chain of transforms.
    pub fn record(
        &mut self,
        topic: &Arc<str>,
        partition: u32,
        record: &RecordView<'_>,
    ) -> Result<transforms::Record, RecordFault> {
        let Converters { key, value, header } = &mut self.converters;
        let key = datum(&mut **key, Part::Key, record.key)?;
        let value = datum(&mut **value, Part::Value, record.value)?;
        let mut made = transforms::Record::new(topic.clone(), value);
        made.key = key;
        made.partition = Some(partition);
        made.offset = Some(record.offset);
        made.timestamp = Some(record.timestamp);
        for (name, bytes) in record.headers() {
            let value = datum(&mut **header, Part::Header(name.to_owned()), bytes)?;
            made.headers.push(transforms::Header::new(name, value));
        }
        Ok(made)
    }
}

fn convert<'a>(
    converter: &mut dyn Converter,
    part: Part,
    bytes: Option<&'a [u8]>,
    scratch: &'a mut Vec<u8>,
) -> Result<Converted<'a>, RecordFault> {
    converter
        .to_frame(bytes, scratch)
        .map_err(|source| RecordFault::of(part, converter, source))
}

fn datum(converter: &mut dyn Converter, part: Part, bytes: Option<&[u8]>) -> Result<Datum, RecordFault> {
    let mut scratch = Vec::new();
    let Converted { schema, value } = convert(converter, part, bytes, &mut scratch)?;
    Ok(match value {
        Some(encoded) => Datum::encoded(schema, Bytes::from(encoded.to_vec())),
        None => Datum::new(schema, Value::Null),
    })
}

fn schema_id(
    batch: &mut FrameBuilder,
    schema: Option<&SchemaRef>,
) -> Result<SchemaId, tidewater_plugin_api::Error> {
    schema.map_or(Ok(SchemaId::NONE), |schema| batch.schema(schema))
}

#[cfg(test)]
mod tests;
