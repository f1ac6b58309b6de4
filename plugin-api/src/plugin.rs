//! The description of a plugin: what the host learns without running any of its connectors.

use serde::{Deserialize, Serialize};

use crate::config_def::ConfigDef;

/// Which way a connector moves records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectorKind {
    /// From the outside into topics.
    Source,
    /// From topics to the outside.
    Sink,
}

/// A connector class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectorSpec {
    /// The short name, as `connector.class` gives it: `postgres-source`.
    pub class: String,
    /// Other names of the class, among them Java class names of its counterparts.
    pub aliases: Vec<String>,
    /// Which way it moves records.
    pub kind: ConnectorKind,
    /// The class's version.
    pub version: String,
    /// A sentence or two: what it does.
    pub documentation: String,
    /// What can be configured.
    pub config: ConfigDef,
    /// Sources: whether positions and records commit together, so that nothing is lost or doubled.
    /// Sinks: whether the target keeps offsets in its own transactions ([`crate::SinkTask::open`] gives them back).
    pub exactly_once: bool,
}
