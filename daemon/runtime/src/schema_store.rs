//! Schemas by number, in the topic `connect-schemas`: key the number (`u32`, big-endian), value the schema as the JSON
//! converter writes it. A schema is durable here before any record that names its number (invariant 2).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tidewater_plugin_api::SchemaRef;
use tidewater_plugin_api::frame::SchemaCache;

use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::state_topic::StateTopic;

/// The topic's name.
pub const TOPIC: &str = "connect-schemas";

/// All schemas that have a number.
pub struct SchemaStore {
    topic: StateTopic,
    known: RwLock<Known>,
    /// Held while a schema gets its number, so that none gets two.
    numbering: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    by_id: Vec<Option<SchemaRef>>,
    by_json: HashMap<Bytes, u32>,
}

impl Known {
    fn insert(&mut self, id: u32, schema: SchemaRef) {
        let index = id as usize;
        if self.by_id.len() <= index {
            self.by_id.resize(index + 1, None);
        }
        self.by_json.insert(schema.json().clone(), id);
        self.by_id[index] = Some(schema);
    }
}

impl SchemaStore {
    /// More schemas than any database brings; a number beyond is no number of ours.
    const MOST: u32 = 1 << 20;

    /// Reads what is stored.
    pub async fn open(broker: Arc<dyn Broker>) -> Result<Self> {
        let (topic, entries) = StateTopic::open(broker, TOPIC).await?;
        let (mut known, mut parsed) = (Known::default(), SchemaCache::default());
        for (key, value) in entries {
            let id = key
                .try_into()
                .ok()
                .map(u32::from_be_bytes)
                .filter(|&id| id < Self::MOST);
            let (Some(id), Some(json)) = (id, value) else {
                continue;
            };
            let fault = |error| Error::State(format!("schema {id} of {TOPIC} cannot be read: {error}"));
            known.insert(id, parsed.get(&json).map_err(fault)?);
        }
        Ok(Self {
            topic,
            known: RwLock::new(known),
            numbering: tokio::sync::Mutex::default(),
        })
    }

    /// The schema of this number.
    pub fn get(&self, id: u32) -> Option<SchemaRef> {
        self.known.read().by_id.get(id as usize)?.clone()
    }

    /// The number of `schema`, which gets one where it has none.
    pub async fn number(&self, schema: &SchemaRef) -> Result<u32> {
        if let Some(&id) = self.known.read().by_json.get(schema.json()) {
            return Ok(id);
        }
        let _one_at_a_time = self.numbering.lock().await;
        let next = {
            let known = self.known.read();
            if let Some(&id) = known.by_json.get(schema.json()) {
                return Ok(id);
            }
            known.by_id.len() as u32
        };
        if next >= Self::MOST {
            return Err(Error::State(format!(
                "{TOPIC} holds {next} schemas, the most there can be; use value.converter=json for sources whose schemas never rest"
            )));
        }
        self.topic
            .put(next.to_be_bytes().to_vec(), Some(schema.json().to_vec()))
            .await?;
        self.known.write().insert(next, schema.clone());
        Ok(next)
    }
}
