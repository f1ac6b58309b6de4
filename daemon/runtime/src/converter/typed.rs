//! The typed converter: values as they are in frames, with the number of their schema. Nothing is parsed or printed on the
//! way, so it costs a tenth of JSON with schemas, and a record carries five bytes of schema and not thousands.
//!
//! A record is a zero byte, the schema's number in [`SchemaStore`] (`u32`, big-endian; `u32::MAX` for a value without
//! schema) and the value in the encoding of [`tidewater_plugin_api::value`].

use std::sync::Arc;

use async_trait::async_trait;
use tidewater_plugin_api::SchemaRef;

use super::{ConvertError, Converted, Converter, Encoded};
use crate::error::Result;
use crate::schema_store::SchemaStore;

const MAGIC: u8 = 0;
const NO_SCHEMA: u32 = u32::MAX;

/// Values as they are.
pub struct TypedConverter {
    store: Arc<SchemaStore>,
    /// Schemas met so far, the one met last at `latest`.
    met: Vec<(SchemaRef, u32)>,
    latest: usize,
}

impl TypedConverter {
    /// A converter that keeps its schemas in `store`.
    pub fn new(store: Arc<SchemaStore>) -> Self {
        Self {
            store,
            met: Vec::new(),
            latest: 0,
        }
    }

    /// Bounds what is remembered; beyond it the memory starts anew.
    const REMEMBERED: usize = 4096;

    fn find(&mut self, is: impl Fn(&(SchemaRef, u32)) -> bool) -> Option<(SchemaRef, u32)> {
        if !self.met.get(self.latest).is_some_and(&is) {
            self.latest = self.met.iter().position(is)?;
        }
        Some(self.met[self.latest].clone())
    }

    fn remember(&mut self, schema: SchemaRef, id: u32) {
        if self.met.len() >= Self::REMEMBERED {
            self.met.clear();
        }
        self.met.push((schema, id));
    }
}

#[async_trait]
impl Converter for TypedConverter {
    fn class(&self) -> &'static str {
        "typed"
    }

    fn knows(&mut self, schema: &SchemaRef) -> bool {
        self.find(|(met, _)| Arc::ptr_eq(met, schema)).is_some()
    }

    async fn prepare(&mut self, schemas: &[SchemaRef]) -> Result<()> {
        for schema in schemas {
            if self.find(|(met, _)| Arc::ptr_eq(met, schema)).is_none() {
                let id = self.store.number(schema).await?;
                self.remember(schema.clone(), id);
            }
        }
        Ok(())
    }

    fn to_topic<'a>(
        &mut self,
        schema: Option<&'a SchemaRef>,
        value: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ConvertError> {
        let Some(value) = value else { return Ok(None) };
        let id = match schema {
            None => NO_SCHEMA,
            Some(schema) => {
                let met = self.find(|(met, _)| Arc::ptr_eq(met, schema));
                met.ok_or_else(|| ConvertError("its schema has no number yet".into()))?
                    .1
            }
        };
        scratch.push(MAGIC);
        scratch.extend_from_slice(&id.to_be_bytes());
        scratch.extend_from_slice(value);
        Ok(Some(scratch))
    }

    fn to_frame<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        _scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        let Some(bytes) = bytes else {
            return Ok(Converted::NULL);
        };
        let Some((&[MAGIC, a, b, c, d], value)) = bytes.split_first_chunk() else {
            return Err(ConvertError(
                "the typed converter takes records that it has written, and this is none; if the topic holds JSON or text, \
                 give this connector that converter"
                    .into(),
            ));
        };
        let id = u32::from_be_bytes([a, b, c, d]);
        let schema = match id {
            NO_SCHEMA => None,
            id => Some(self.schema(id)?),
        };
        Ok(Converted {
            schema,
            value: Some(Encoded::Whole(value)),
        })
    }
}

impl TypedConverter {
    fn schema(&mut self, id: u32) -> Result<SchemaRef, ConvertError> {
        if let Some((schema, _)) = self.find(|(_, met)| *met == id) {
            return Ok(schema);
        }
        let stored = self.store.get(id).ok_or_else(|| {
            ConvertError(format!(
                "its schema, number {id}, is not in {}; was that topic lost?",
                crate::schema_store::TOPIC
            ))
        })?;
        self.remember(stored.clone(), id);
        self.latest = self.met.len() - 1;
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;
    use crate::embedded::EmbeddedBroker;
    use tidewater_broker::BrokerOptions;
    use tidewater_plugin_api::{Field, Schema, Type, Value};

    async fn store(folder: &tempfile::TempDir) -> (Arc<dyn Broker>, Arc<SchemaStore>) {
        let log = tidewater_broker::Broker::open(BrokerOptions::new(folder.path())).unwrap();
        let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::new(log));
        let store = SchemaStore::open(broker.clone()).await.unwrap();
        (broker, Arc::new(store))
    }

    #[tokio::test]
    async fn values_and_numbers_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let number = Arc::new(Schema::new(Type::Int32));
        let row: SchemaRef =
            Arc::new(Schema::structure(vec![Field::new("id", number.clone())]).named("shop.Row"));
        let mut value = Vec::new();
        Value::Struct(vec![Value::Int32(7)])
            .encode(Some(&row), &mut value)
            .unwrap();
        let mut record;
        {
            let (broker, store) = store(&folder).await;
            let mut converter = TypedConverter::new(store);
            converter.prepare(&[number.clone(), row.clone()]).await.unwrap();
            record = Vec::new();
            converter
                .to_topic(Some(&row), Some(&value), &mut record)
                .unwrap()
                .unwrap();
            assert_eq!(record[..5], [0, 0, 0, 0, 1]);
            assert!(converter.knows(&row) && !converter.knows(&Arc::new(Schema::clone(&row))));
            let tombstone = converter
                .to_topic(Some(&row), None, &mut Vec::new())
                .unwrap()
                .is_none();
            assert!(tombstone);
            broker.close().await;
        }
        let (_broker, store) = store(&folder).await;
        assert_eq!(store.number(&row).await.unwrap(), 1, "known already");
        let mut converter = TypedConverter::new(store);
        for _ in 0..2 {
            let mut scratch = Vec::new();
            let read = converter.to_frame(Some(&record), &mut scratch).unwrap();
            assert_eq!(read.value, Some(Encoded::Whole(&value)));
            assert_eq!(read.schema, Some(row.clone()));
        }
        let mut scratch = Vec::new();
        assert!(converter.to_frame(None, &mut scratch).unwrap().value.is_none());
    }

    #[tokio::test]
    async fn what_it_did_not_write_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let (_broker, store) = store(&folder).await;
        let mut converter = TypedConverter::new(store);
        let error = converter
            .to_frame(Some(b"{\"id\":1}"), &mut Vec::new())
            .unwrap_err();
        assert!(error.0.contains("JSON or text"), "{error}");
        let error = converter
            .to_frame(Some(&[0, 0, 0, 0, 9, 1]), &mut Vec::new())
            .unwrap_err();
        assert!(
            error.0.contains("number 9") && error.0.contains("connect-schemas"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn values_without_a_schema_pass_too() {
        let folder = tempfile::tempdir().unwrap();
        let (_broker, store) = store(&folder).await;
        let mut converter = TypedConverter::new(store);
        let (mut value, mut record, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        Value::Array(vec![Value::Bool(true)])
            .encode(None, &mut value)
            .unwrap();
        converter
            .to_topic(None, Some(&value), &mut record)
            .unwrap()
            .unwrap();
        let read = converter.to_frame(Some(&record), &mut scratch).unwrap();
        assert!(read.schema.is_none());
        assert_eq!(read.value, Some(Encoded::Whole(&value)));
    }
}
