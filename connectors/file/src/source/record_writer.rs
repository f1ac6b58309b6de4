//! From the bytes of a line to a record.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use tidewater_plugin_api::frame::{SchemaId, TopicId};
use tidewater_plugin_api::json;
use tidewater_plugin_api::{FrameBuilder, Result, Schema, SchemaRef, Type};

use super::settings::{Encoding, Format, Settings};

/// Writes lines as records.
#[derive(Debug)]
pub struct RecordWriter {
    topic: String,
    encoding: Encoding,
    format: Format,
    schema: Option<SchemaRef>,
    /// A JSON value on its way into the batch; kept, so that no line allocates.
    scratch: Vec<u8>,
}

/// What a batch calls the topic and the schema, and the time its records bear.
#[derive(Clone, Copy, Debug)]
pub struct BatchIds {
    topic: TopicId,
    schema: SchemaId,
    timestamp: i64,
}

impl RecordWriter {
    /// Writes as `settings` say.
    pub fn new(settings: &Settings) -> Self {
        let ty = match (settings.format, settings.encoding) {
            (Format::Json, _) => None,
            (Format::Line, Encoding::Binary) => Some(Type::Bytes),
            (Format::Line, _) => Some(Type::String),
        };
        Self {
            topic: settings.topic.clone(),
            encoding: settings.encoding,
            format: settings.format,
            schema: ty.map(|ty| Schema::new(ty).into()),
            scratch: Vec::new(),
        }
    }

    /// Prepares `batch`.
    pub fn ids(&self, batch: &mut FrameBuilder) -> Result<BatchIds> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(BatchIds {
            topic: batch.topic(&self.topic)?,
            schema: match &self.schema {
                Some(schema) => batch.schema(schema)?,
                None => SchemaId::NONE,
            },
            timestamp: now.as_millis() as i64,
        })
    }

    /// Pushes `line`; where it cannot be a record, the inner error says why.
    pub fn push(
        &mut self,
        batch: &mut FrameBuilder,
        ids: BatchIds,
        line: &[u8],
    ) -> Result<Result<(), String>> {
        let text = match self.encoding {
            Encoding::Binary => Cow::Borrowed(line),
            Encoding::Utf8 => match std::str::from_utf8(line) {
                Ok(_) => Cow::Borrowed(line),
                Err(error) => {
                    return Ok(Err(format!(
                        "it is not UTF-8 from byte {} of the line on (encoding=iso-8859-1, utf-8-lossy or binary would take it)",
                        error.valid_up_to()
                    )));
                }
            },
            Encoding::Utf8Lossy => match String::from_utf8_lossy(line) {
                Cow::Borrowed(_) => Cow::Borrowed(line),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
            Encoding::Latin1 if line.is_ascii() => Cow::Borrowed(line),
            Encoding::Latin1 => Cow::Owned(
                line.iter()
                    .map(|&byte| char::from(byte))
                    .collect::<String>()
                    .into_bytes(),
            ),
        };
        if self.format == Format::Json {
            self.scratch.clear();
            if let Err(error) = json::read_value(&text, None, &mut self.scratch) {
                return Ok(Err(format!(
                    "it is not JSON: {error} (format=line would take it)"
                )));
            }
        }
        let mut record = batch.record(ids.topic);
        record.timestamp(ids.timestamp);
        match self.format {
            Format::Json => record.value(ids.schema, |value| value.raw(&self.scratch)),
            Format::Line => record.value(ids.schema, |value| value.bytes(&text)),
        }
        record.push()?;
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tidewater_plugin_api::config::ConfigMap;
    use tidewater_plugin_api::{Config, Frame, Value};

    use tidewater_plugin_api::frame::SchemaCache;

    use super::super::settings::config_def;
    use super::*;

    fn convert(pairs: &[(&str, &str)], line: &[u8]) -> Result<Value, String> {
        let map: ConfigMap = [("file", "f"), ("topic", "t")]
            .iter()
            .chain(pairs)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let settings = Settings::read(&Config::new(config_def(), map).unwrap()).unwrap();
        let mut writer = RecordWriter::new(&settings);
        let mut batch = FrameBuilder::new();
        let ids = writer.ids(&mut batch).unwrap();
        writer.push(&mut batch, ids, line).unwrap()?;
        let frame = Frame::parse(batch.finish(), &mut SchemaCache::default()).unwrap();
        let record = frame.record(0);
        assert_eq!((record.topic(), record.key_bytes()), ("t", None));
        Ok(record.value().unwrap().to_value().unwrap())
    }

    #[test]
    fn encodings() {
        let text = |text: &str| Ok(Value::String(text.into()));
        assert_eq!(convert(&[], "häuser".as_bytes()), text("häuser"));
        assert!(
            convert(&[], b"h\xe4user")
                .unwrap_err()
                .contains("byte 1 of the line")
        );
        assert_eq!(
            convert(&[("encoding", "utf-8-lossy")], b"h\xe4user"),
            text("h\u{fffd}user")
        );
        assert_eq!(
            convert(&[("encoding", "iso-8859-1")], b"h\xe4user"),
            text("häuser")
        );
        assert_eq!(
            convert(&[("encoding", "binary")], b"h\xe4"),
            Ok(Value::Bytes(b"h\xe4"[..].into()))
        );
    }

    #[test]
    fn json_lines() {
        let json = [("format", "json")];
        let expected = Value::Map(vec![(
            Value::String("a".into()),
            Value::Array(vec![Value::Int64(1), Value::Null]),
        )]);
        assert_eq!(convert(&json, br#"{"a": [1, null]}"#), Ok(expected));
        let error = convert(&json, br#"{"a": "#).unwrap_err();
        assert!(error.starts_with("it is not JSON"), "{error}");
        convert(&json, b"").unwrap_err();
    }
}
