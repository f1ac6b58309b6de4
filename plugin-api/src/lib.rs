//! The SDK for authors of Tidewater connectors.
//!
//! A connector is a library with two kinds of parts: a *connector*, which checks its configuration and says how its
//! work splits into tasks, and *tasks*, which move records. Authors write the [`macro@async_trait`] traits below,
//! describe the configuration in a [`ConfigDef`], and end with [`export_plugin!`].
//!
//! The map, in the order a record meets it:
//!
//! - [`schema`], [`value`], [`logical`]: typed values and their schemas, Kafka Connect's data model;
//! - [`frame`]: the batch, one buffer that crosses the plugin boundary as it is;
//! - [`source`], [`sink`]: what an author implements;
//! - [`config_def`], [`config`]: what can be configured, and what was;
//! - [`plugin`]: the description of a plugin and its connectors;
//! - [`error`]: errors that say whether a retry can help;
//! - [`metric`]: counters and gauges of a whole plugin;
//! - [`json`]: values as JSON, for converters and for sinks that write JSON;
//! - [`abi`], [`payload`]: what crosses the boundary, for those who do without this SDK;
//! - [`export`]: the plugin's side of it, which [`export_plugin!`] sets in motion.
//!
//! # A whole plugin
//! Its `Cargo.toml` says `crate-type = ["cdylib"]`, and depends on this crate; this one uses `serde_json`, `tokio` and
//! `tracing` too. Panics must unwind, which is the default. The library goes into a folder of `--plugin-path`, and its classes are there.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use tidewater_plugin_api::config_def::ConfigType;
//! use tidewater_plugin_api::*;
//!
//! export_plugin! { name: "tidewater-ticks", sources: [Ticks], sinks: [Printer] }
//!
//! /// Writes a number that grows to a topic, once a second or so.
//! struct Ticks;
//!
//! #[async_trait]
//! impl SourceConnector for Ticks {
//!     fn spec() -> ConnectorSpec {
//!         ConnectorSpec {
//!             class: "ticks-source".into(),
//!             aliases: vec![],
//!             kind: ConnectorKind::Source,
//!             version: env!("CARGO_PKG_VERSION").into(),
//!             documentation: "Writes a number that grows.".into(),
//!             config: ConfigDef::new()
//!                 .required("topic", ConfigType::String, Importance::High, "The topic to write to.")
//!                 .optional("interval.ms", ConfigType::Long, "1000", Importance::Medium, "The time between two.")
//!                 .validate(Validator::Range { min: Some(1), max: None }),
//!             exactly_once: true, // each record comes with its position
//!         }
//!     }
//!     fn create() -> Box<dyn SourceConnector> {
//!         Box::new(Ticks)
//!     }
//!     fn create_task() -> Box<dyn SourceTask> {
//!         Box::new(TicksTask::default())
//!     }
//! }
//!
//! #[derive(Default)]
//! struct TicksTask {
//!     topic: String,
//!     interval: Duration,
//!     next: i64,
//! }
//!
//! /// Which part of the outside a position belongs to: here, there is one.
//! fn partition() -> serde_json::Map<String, serde_json::Value> {
//!     serde_json::Map::from_iter([("clock".to_owned(), "wall".into())])
//! }
//!
//! #[async_trait]
//! impl SourceTask for TicksTask {
//!     async fn start(&mut self, context: SourceTaskContext) -> Result<()> {
//!         self.topic = context.config.str("topic").to_owned();
//!         self.interval = context.config.millis("interval.ms");
//!         // Where the last life of this task had got to, durably.
//!         let stored = context.offset(&partition());
//!         self.next = stored.and_then(|offset| offset.get("next")?.as_i64()).unwrap_or(0);
//!         Ok(())
//!     }
//!
//!     async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()> {
//!         // Safe to drop here: nothing has been pushed, nothing has been counted.
//!         tokio::time::sleep(self.interval).await;
//!         let schema = Arc::new(Schema::new(Type::Int64));
//!         batch.push(&self.topic, None, (&schema, &Value::Int64(self.next)))?;
//!         self.next += 1;
//!         batch.position(SourcePosition {
//!             partition: partition(),
//!             offset: Some(serde_json::Map::from_iter([("next".to_owned(), self.next.into())])),
//!         });
//!         Ok(())
//!     }
//! }
//!
//! /// Prints what it is given.
//! struct Printer;
//!
//! #[async_trait]
//! impl SinkConnector for Printer {
//!     fn spec() -> ConnectorSpec {
//!         ConnectorSpec {
//!             class: "print-sink".into(),
//!             aliases: vec![],
//!             kind: ConnectorKind::Sink,
//!             version: env!("CARGO_PKG_VERSION").into(),
//!             documentation: "Prints records.".into(),
//!             config: ConfigDef::new(),
//!             exactly_once: false, // paper keeps no offsets
//!         }
//!     }
//!     fn create() -> Box<dyn SinkConnector> {
//!         Box::new(Printer)
//!     }
//!     fn create_task() -> Box<dyn SinkTask> {
//!         Box::new(PrinterTask)
//!     }
//! }
//!
//! struct PrinterTask;
//!
//! #[async_trait]
//! impl SinkTask for PrinterTask {
//!     async fn start(&mut self, context: SinkTaskContext) -> Result<()> {
//!         // To the daemon's log, in the name of this task.
//!         tracing::info!(generation = context.generation, "printing");
//!         Ok(())
//!     }
//!     async fn open(&mut self, _: &[AssignedPartition]) -> Result<Vec<TopicPartitionOffset>> {
//!         Ok(vec![]) // the host goes on from the committed offsets
//!     }
//!     async fn put(&mut self, batch: &Frame) -> Result<PutReport> {
//!         for record in batch.records() {
//!             let value = record.value().map_err(|error| Error::fatal(error.to_string()))?;
//!             println!("{} {:?}", record.topic(), value);
//!         }
//!         Ok(PutReport::default())
//!     }
//!     async fn flush(&mut self) -> Result<()> {
//!         use std::io::Write as _;
//!         let flushed = std::io::stdout().flush();
//!         flushed.map_err(|error| Error::from_source(ErrorKind::Retriable, "cannot flush the output", &error))
//!     }
//! }
//! ```
//!
//! # What an author can rely on
//! - Every instance has a thread and a `current_thread` tokio runtime of its own, in which constructors, calls and `Drop`
//!   run: what blocks, blocks only itself, but it cannot be interrupted either, neither for a commit nor for a stop.
//! - A panic is caught, becomes the task's error with its place, and costs the instance: it is replaced. The exception is
//!   a panic in a `Drop` that runs because of another panic, which Rust answers with the end of the process.
//! - Events of `tracing` go to the daemon's log, with the connector's name and the task's number.
//! - `stop` is called once where `start` has succeeded, and may take until the host's deadline; then everything is dropped.

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
pub use error::{Error, ErrorKind, RecordFailure, Result};
pub use frame::{Frame, FrameBuilder, Headers, Record};
pub use plugin::{ConnectorKind, ConnectorSpec};
pub use schema::{Field, Schema, SchemaRef, Type};
pub use sink::{
    AlteredOffset, AssignedPartition, PutReport, SinkConnector, SinkTask, SinkTaskContext, TopicPartition,
    TopicPartitionOffset,
};
pub use source::{SourceConnector, SourcePosition, SourceTask, SourceTaskContext};
pub use value::{Value, ValueRef, ValueWriter};
