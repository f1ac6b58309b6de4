//! Loads Tidewater plugins and speaks to them over their C ABI ([`tidewater_plugin_api::abi`]).
//!
//! A plugin's fault is its own (invariant 7): its errors, panics, hangs and wrong answers all arrive here as a
//! [`PluginError`] of one operation. What this crate cannot keep from the daemon is memory that a plugin corrupts.
//!
//! The map, in the order a plugin meets it:
//!
//! - [`registry`]: which plugins there are, and the classes they bring;
//! - [`inspect`]: reads a file's header, before any of its code runs;
//! - [`load_error`]: why a file is no plugin of this daemon, and what to do about it;
//! - `private_copy`: the copy that is opened, named by its content;
//! - `library`: opens it, once and for good, and asks what it is;
//! - `host_table`, `log`, [`metric`]: what a plugin may call;
//! - [`class`]: a connector class, of which instances are made;
//! - `instance`, `operation`: one instance, what is in flight for it, and the completions;
//! - [`connector`], [`source_task`], [`sink_task`]: the instances as the runtime sees them;
//! - [`error`]: what an operation fails with.

pub mod class;
pub mod connector;
pub mod error;
mod host_table;
pub mod inspect;
mod instance;
mod library;
pub mod load_error;
mod log;
pub mod metric;
mod operation;
mod private_copy;
pub mod registry;
pub mod sink_task;
pub mod source_task;

pub use class::{ConnectorClass, TaskIdentity};
pub use connector::ConnectorInstance;
pub use error::PluginError;
pub use load_error::LoadError;
pub use metric::PluginMetric;
pub use operation::operations_in_flight;
pub use registry::{PluginDirs, PluginInfo, PluginRegistry, ScanReport, UnknownClass};
pub use sink_task::SinkTaskHandle;
pub use source_task::SourceTaskHandle;
