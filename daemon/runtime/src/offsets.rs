//! Source offsets, in the topic `connect-offsets` and Kafka Connect's format: key `["connector", {partition}]`, value the
//! offset. They are written in the transaction of the records they cover (invariant 2); what is kept here in memory are
//! only offsets that have been committed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value as Json};
use tidewater_plugin_api::SourcePosition;

use crate::broker::{Broker, PartitionBatch};
use crate::error::Result;
use crate::state_topic::StateTopic;

/// The topic's name.
pub const TOPIC: &str = "connect-offsets";

/// All source offsets.
pub struct OffsetStore {
    topic: StateTopic,
    committed: Mutex<HashMap<String, Vec<SourcePosition>>>,
}

impl OffsetStore {
    /// Reads what is stored.
    pub async fn open(broker: Arc<dyn Broker>) -> Result<Self> {
        let (topic, state) = StateTopic::open(broker, TOPIC).await?;
        let store = Self {
            topic,
            committed: Mutex::default(),
        };
        for (key, value) in state {
            let offset = value
                .as_deref()
                .map(serde_json::from_slice::<Map<String, Json>>)
                .transpose();
            let place = serde_json::from_slice::<(String, Map<String, Json>)>(&key);
            if let (Ok((connector, partition)), Ok(offset)) = (place, offset) {
                store.committed(&connector, &[SourcePosition { partition, offset }]);
            } else {
                let key = String::from_utf8_lossy(&key);
                tracing::warn!(%key, "a record of {TOPIC} is no source offset and is passed over");
            }
        }
        Ok(store)
    }

    /// The committed positions of a connector.
    pub fn positions(&self, connector: &str) -> Vec<SourcePosition> {
        self.committed.lock().get(connector).cloned().unwrap_or_default()
    }

    /// The batch that stores `positions`, to be committed with the records they cover; none for no positions.
    pub fn batch(&self, connector: &str, positions: &[SourcePosition]) -> Option<PartitionBatch> {
        let entry = |position: &SourcePosition| {
            let key = Json::from(vec![Json::from(connector), sorted(&position.partition)]);
            let offset = position
                .offset
                .as_ref()
                .map(|offset| Json::Object(offset.clone()).to_string().into_bytes());
            (key.to_string().into_bytes(), offset)
        };
        (!positions.is_empty()).then(|| self.topic.batch(positions.iter().map(entry)))
    }

    /// Stores `positions`, durably, on behalf of nobody's records: a hand has changed them.
    pub async fn store(&self, connector: &str, positions: &[SourcePosition]) -> Result<()> {
        if let Some(batch) = self.batch(connector, positions) {
            self.topic.append(batch).await?;
            self.committed(connector, positions);
        }
        Ok(())
    }

    /// Takes note that the batch of `positions` has been committed.
    pub fn committed(&self, connector: &str, positions: &[SourcePosition]) {
        let mut committed = self.committed.lock();
        let known = committed.entry(connector.to_owned()).or_default();
        for position in positions {
            known.retain(|other| other.partition != position.partition);
            if position.offset.is_some() {
                known.push(position.clone());
            }
        }
    }
}

/// The partition with its members in order, so that it has one key however a plugin wrote it.
fn sorted(partition: &Map<String, Json>) -> Json {
    let mut members: Vec<_> = partition.iter().collect();
    members.sort_by_key(|(name, _)| *name);
    members
        .into_iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}
