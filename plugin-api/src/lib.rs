//! The SDK for authors of Tidewater connectors.
//!
//! A connector is a library with two kinds of parts: a *connector*, which checks its configuration and says how its
//! work splits into tasks, and *tasks*, which move records. Authors write the [`async_trait`] traits below,
//! describe the configuration in a [`ConfigDef`], and end with `export_plugin!`.
//!
//! The map, in the order a record meets it:
//!
//! - [`schema`], [`value`], [`logical`]: typed values and their schemas, Kafka Connect's data model;
//! - [`frame`]: the batch, one buffer that crosses the plugin boundary as it is;
//! - [`source`], [`sink`]: what an author implements;
//! - [`config_def`], [`config`]: what can be configured, and what was;
//! - [`plugin`]: the description of a plugin and its connectors;
//! - [`error`]: errors that say whether a retry can help;
//! - [`json`]: values as JSON, for converters and for sinks that write JSON.

pub mod abi;
pub mod config;
pub mod config_def;
pub mod error;
pub mod export;
pub mod frame;
pub mod json;
pub mod logical;
pub mod metric;
pub mod payload;
pub mod plugin;
pub mod schema;
pub mod sink;
pub mod source;
pub mod value;

pub use async_trait::async_trait;
pub use config::{Config, ConfigMap, Secret};
pub use config_def::{ConfigDef, ConfigKey, ConfigProblem, Importance, Validator};
pub use error::{Error, ErrorKind, Result};
pub use frame::{Frame, FrameBuilder, Headers, Record};
pub use plugin::{ConnectorKind, ConnectorSpec};
pub use schema::{Field, Schema, SchemaRef, Type};
pub use sink::{PutReport, SinkConnector, SinkTask, SinkTaskContext, TopicPartition, TopicPartitionOffset};
pub use source::{SourceConnector, SourcePosition, SourceTask, SourceTaskContext};
pub use value::{Value, ValueRef, ValueWriter};
