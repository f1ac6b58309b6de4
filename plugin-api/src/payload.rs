//! The JSON that crosses the plugin boundary beside frames: what is asked, and what is answered. Members are only ever
//! added, with a default, so that either side may be the older one.

use serde::{Deserialize, Serialize};

use crate::config::ConfigMap;
use crate::plugin::{ConnectorKind, ConnectorSpec};
use crate::source::SourcePosition;

/// What a plugin is and what it brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// The version of the SDK it was built with.
    pub sdk_version: String,
    /// Its connector classes.
    pub connectors: Vec<ConnectorSpec>,
}

/// Which half of a connector class an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The connector itself.
    Connector,
    /// One of its tasks.
    Task,
}

/// Which instance to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// The class's short name.
    pub class: String,
    /// Which way it moves records.
    pub kind: ConnectorKind,
    /// Connector or task.
    pub role: Role,
    /// The connector's name.
    pub connector: String,
    /// The task's number; none for a connector.
    pub task: Option<u32>,
}

/// What a source task starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStart {
    /// The task's generation (invariant 9).
    pub generation: u64,
    /// The connector's configuration with the task's laid over it.
    pub config: ConfigMap,
    /// All positions stored for the connector.
    pub positions: Vec<SourcePosition>,
}

/// What a sink task starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStart {
    /// The task's generation (invariant 9).
    pub generation: u64,
    /// The connector's configuration with the task's laid over it.
    pub config: ConfigMap,
}

/// Offsets that are to be changed, each a [`SourcePosition`] or an [`AlteredOffset`](crate::AlteredOffset).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterOffsets<T> {
    /// The connector's configuration.
    pub config: ConfigMap,
    /// What is to change, and to what.
    pub offsets: Vec<T>,
}
