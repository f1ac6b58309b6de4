//! A record on its way through a chain: owned, its key and value decoded only once something looks into them.

use std::sync::Arc;

use bytes::Bytes;
use tidewater_plugin_api::value::{DecodeError, EncodeError};
use tidewater_plugin_api::{SchemaRef, Value, ValueRef};

/// Which half of a record a transform works on: its variant, `$Key` or `$Value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl Side {
    /// `key` or `value`.
    pub fn name(self) -> &'static str {
        match self {
            Side::Key => "key",
            Side::Value => "value",
        }
    }
}

/// A record: what a source has polled, or what a sink is about to put.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The topic it goes to or came from. Shared: most records of a batch have the same.
    pub topic: Arc<str>,
    /// The topic it was read from; only a sink's records have one, and transforms leave it as it is.
    pub original_topic: Option<Arc<str>>,
    /// The partition, where one is stated.
    pub partition: Option<u32>,
    /// The offset in its partition; only a sink's records have one.
    pub offset: Option<u64>,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Datum,
    /// The value; null is a tombstone.
    pub value: Datum,
    /// The headers in order; several may share a name.
    pub headers: Vec<Header>,
}

impl Record {
    /// A record for `topic` with this value and nothing else.
    pub fn new(topic: impl Into<Arc<str>>, value: Datum) -> Self {
        Self {
            topic: topic.into(),
            original_topic: None,
            partition: None,
            offset: None,
            timestamp: None,
            key: Datum::null(),
            value,
            headers: Vec::new(),
        }
    }

    /// The half of the record that `side` names.
    pub fn side(&self, side: Side) -> &Datum {
        match side {
            Side::Key => &self.key,
            Side::Value => &self.value,
        }
    }

    /// The half of the record that `side` names, to change it.
    pub fn side_mut(&mut self, side: Side) -> &mut Datum {
        match side {
            Side::Key => &mut self.key,
            Side::Value => &mut self.value,
        }
    }
}

/// A header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The name.
    pub name: Arc<str>,
    /// The value.
    pub value: Datum,
}

impl Header {
    /// A header called `name`.
    pub fn new(name: impl Into<Arc<str>>, value: Datum) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }
}

/// A key, a value or a header's value with its schema. It stays in the frame's encoding until it is looked into, so what no
/// transform touches is neither decoded nor copied.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    schema: Option<SchemaRef>,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Encoded(Bytes),
    Decoded(Value),
}

impl Datum {
    /// Nothing, without a schema.
    pub fn null() -> Self {
        Self::new(None, Value::Null)
    }

    /// An owned value.
    pub fn new(schema: Option<SchemaRef>, value: Value) -> Self {
        Self {
            schema,
            content: Content::Decoded(value),
        }
    }

    /// A value in the encoding of [`tidewater_plugin_api::value`]; shared, not copied.
    pub fn encoded(schema: Option<SchemaRef>, bytes: Bytes) -> Self {
        // A zero is the whole encoding of a null: the absent optional, or the tag.
        let may_be_null = schema.as_ref().is_none_or(|schema| schema.optional);
        let content = if may_be_null && *bytes == [0] {
            Content::Decoded(Value::Null)
        } else {
            Content::Encoded(bytes)
        };
        Self { schema, content }
    }

    /// The schema; none where the value has none.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Decoded(Value::Null))
    }

    /// The encoded value, where nothing has looked into it.
    pub fn as_encoded(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Encoded(bytes) => Some(bytes),
            Content::Decoded(_) => None,
        }
    }

    /// The value, where something has looked into it.
    pub(crate) fn decoded(&self) -> Option<&Value> {
        match &self.content {
            Content::Encoded(_) => None,
            Content::Decoded(value) => Some(value),
        }
    }

    /// The value, decoded now at the latest.
    pub fn value(&mut self) -> Result<&Value, DecodeError> {
        self.value_mut().map(|value| &*value)
    }

    /// The value, decoded now at the latest, to change it within its schema.
    pub fn value_mut(&mut self) -> Result<&mut Value, DecodeError> {
        if let Content::Encoded(bytes) = &self.content {
            self.content = Content::Decoded(decode(self.schema.as_ref(), bytes)?);
        }
        match &mut self.content {
            Content::Decoded(value) => Ok(value),
            Content::Encoded(_) => Err(DecodeError("it did not decode".into())),
        }
    }

    /// Takes the value out; null stays.
    pub fn take(&mut self) -> Result<Value, DecodeError> {
        match std::mem::replace(&mut self.content, Content::Decoded(Value::Null)) {
            Content::Decoded(value) => Ok(value),
            Content::Encoded(bytes) => decode(self.schema.as_ref(), &bytes),
        }
    }

    /// Puts another value of another schema in.
    pub fn set(&mut self, schema: Option<SchemaRef>, value: Value) {
        self.schema = schema;
        self.content = Content::Decoded(value);
    }

    /// Gives the value another schema of the same types: what is encoded stays so, since an encoding has no names in it.
    pub(crate) fn set_schema(&mut self, schema: SchemaRef) {
        self.schema = Some(schema);
    }

    /// Appends the value's encoding; false where it is null and nothing was appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        match &self.content {
            Content::Encoded(bytes) => out.extend_from_slice(bytes),
            Content::Decoded(Value::Null) => return Ok(false),
            Content::Decoded(value) => value.encode(self.schema.as_deref(), out)?,
        }
        Ok(true)
    }
}

fn decode(schema: Option<&SchemaRef>, bytes: &Bytes) -> Result<Value, DecodeError> {
    ValueRef::decode(schema.map(|schema| &**schema), bytes)?.to_value()
}
