//! Connectors' configurations and what is wanted of them, in the topic `connect-configs` and Kafka Connect's format: key
//! `connector-NAME`, value `{"properties": …}` as written, references to secrets staying references; key
//! `target-state-NAME`, value `{"state": …, "state.v2": …}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidewater_plugin_api::ConfigMap;

use crate::broker::Broker;
use crate::error::Result;
use crate::state_topic::StateTopic;

/// The topic's name.
pub const TOPIC: &str = "connect-configs";

const CONNECTOR: &str = "connector-";
const TARGET: &str = "target-state-";

/// What is wanted of a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TargetState {
    /// It works. Kafka Connect stores this as `STARTED`.
    #[serde(alias = "STARTED")]
    Running,
    /// It rests: its tasks keep their plugins, and read and write nothing.
    Paused,
    /// It has no tasks.
    Stopped,
}

/// Who gave a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A file, which is given again at the next start, or the connector does not run.
    File,
    /// A request: it runs at the next start too.
    Request,
}

/// A connector as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConnector {
    /// Its name.
    pub name: String,
    /// Its keys as written.
    pub properties: ConfigMap,
    /// Who gave them.
    pub origin: Origin,
    /// What is wanted of it.
    pub target: TargetState,
}

#[derive(Serialize, Deserialize)]
struct ConnectorRecord {
    properties: ConfigMap,
    /// What Kafka Connect has written came by a request.
    #[serde(default = "by_request", skip_serializing_if = "is_request")]
    origin: Origin,
}

fn by_request() -> Origin {
    Origin::Request
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_request(origin: &Origin) -> bool {
    *origin == Origin::Request
}

/// A version of Kafka Connect that knows no STOPPED reads the first, in which that is PAUSED.
#[derive(Serialize, Deserialize)]
struct TargetRecord {
    state: String,
    #[serde(rename = "state.v2", default, skip_serializing_if = "Option::is_none")]
    state_v2: Option<String>,
}

impl TargetState {
    fn to_record(self) -> TargetRecord {
        let (state, state_v2) = match self {
            Self::Running => ("STARTED", "STARTED"),
            Self::Paused => ("PAUSED", "PAUSED"),
            Self::Stopped => ("PAUSED", "STOPPED"),
        };
        TargetRecord {
            state: state.to_owned(),
            state_v2: Some(state_v2.to_owned()),
        }
    }

    fn of_record(record: &TargetRecord) -> Option<Self> {
        match record.state_v2.as_deref().unwrap_or(&record.state) {
            "STARTED" => Some(Self::Running),
            "PAUSED" => Some(Self::Paused),
            "STOPPED" => Some(Self::Stopped),
            _ => None,
        }
    }
}

/// All configurations.
pub struct ConfigStore {
    topic: StateTopic,
    stored: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl ConfigStore {
    /// Reads what is stored.
    pub async fn open(broker: Arc<dyn Broker>) -> Result<Self> {
        let (topic, state) = StateTopic::open(broker, TOPIC).await?;
        let stored = state
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        Ok(Self {
            topic,
            stored: Mutex::new(stored),
        })
    }

    /// The connectors that are stored.
    pub fn connectors(&self) -> Vec<StoredConnector> {
        let stored = self.stored.lock();
        let mut connectors = Vec::new();
        for (key, value) in &*stored {
            let Some(name) = std::str::from_utf8(key)
                .ok()
                .and_then(|key| key.strip_prefix(CONNECTOR))
            else {
                continue;
            };
            match serde_json::from_slice::<ConnectorRecord>(value) {
                Ok(record) => connectors.push(StoredConnector {
                    name: name.to_owned(),
                    properties: record.properties,
                    origin: record.origin,
                    target: target_among(&stored, name),
                }),
                Err(error) => {
                    tracing::warn!(connector = name, %error, "its record in {TOPIC} is not understood and is passed over");
                }
            }
        }
        connectors
    }

    /// What is wanted of the connector `name`; that it runs, where nothing else was said.
    pub fn target(&self, name: &str) -> TargetState {
        target_among(&self.stored.lock(), name)
    }

    /// Stores a configuration as written, durably.
    pub async fn put_connector(&self, name: &str, properties: &ConfigMap, origin: Origin) -> Result<()> {
        let record = ConnectorRecord {
            properties: properties.clone(),
            origin,
        };
        // Texts always serialise.
        let value = serde_json::to_vec(&record).unwrap_or_default();
        self.put(key(CONNECTOR, name), value).await
    }

    /// Stores what is wanted, durably.
    pub async fn put_target(&self, name: &str, target: TargetState) -> Result<()> {
        let value = serde_json::to_vec(&target.to_record()).unwrap_or_default();
        self.put(key(TARGET, name), value).await
    }

    /// Forgets a connector, durably.
    pub async fn delete(&self, name: &str) -> Result<()> {
        for key in [key(CONNECTOR, name), key(TARGET, name)] {
            self.topic.put(key.clone(), None).await?;
            self.stored.lock().remove(&key);
        }
        Ok(())
    }

    async fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        if self.stored.lock().get(&key) == Some(&value) {
            return Ok(());
        }
        self.topic.put(key.clone(), Some(value.clone())).await?;
        self.stored.lock().insert(key, value);
        Ok(())
    }
}

fn key(prefix: &str, name: &str) -> Vec<u8> {
    format!("{prefix}{name}").into_bytes()
}

fn target_among(stored: &BTreeMap<Vec<u8>, Vec<u8>>, name: &str) -> TargetState {
    let record = stored
        .get(&key(TARGET, name))
        .and_then(|value| serde_json::from_slice(value).ok());
    record
        .and_then(|record| TargetState::of_record(&record))
        .unwrap_or(TargetState::Running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_states_are_kafka_connects() {
        for target in [TargetState::Running, TargetState::Paused, TargetState::Stopped] {
            assert_eq!(TargetState::of_record(&target.to_record()), Some(target));
        }
        let stopped = serde_json::to_string(&TargetState::Stopped.to_record()).expect("it serialises");
        assert_eq!(stopped, r#"{"state":"PAUSED","state.v2":"STOPPED"}"#);
        let old: TargetRecord =
            serde_json::from_str(r#"{"state":"STARTED"}"#).expect("Connect's first version");
        assert_eq!(TargetState::of_record(&old), Some(TargetState::Running));
    }

    #[test]
    fn a_record_of_kafka_connect_came_by_a_request() {
        let java: ConnectorRecord =
            serde_json::from_str(r#"{"properties":{"name":"a"}}"#).expect("it is one");
        assert_eq!(java.origin, Origin::Request);
        let file = ConnectorRecord {
            origin: Origin::File,
            ..java
        };
        let text = serde_json::to_string(&file).expect("it serialises");
        assert_eq!(text, r#"{"properties":{"name":"a"},"origin":"file"}"#);
    }
}
