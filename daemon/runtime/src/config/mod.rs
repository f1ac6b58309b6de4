//! Connector files and worker settings: from text to something that can run, with every fault named at once.
//!
//! The map, in the order a file meets it:
//!
//! - [`document`]: TOML, YAML, JSON and `.properties` into flat keys with their lines;
//! - [`connector_file`]: which files there are, and the name and the keys of each;
//! - [`provider`]: `${env:…}`, `${file:…}` and `${directory:…}`, resolved after parsing; [`redactor`] keeps what they
//!   gave out of messages (invariant 8);
//! - [`connector_keys`]: the keys of every connector, whatever its class;
//! - [`connector_check`]: the check of a whole file; [`connector_config`]: its typed result;
//! - [`error_settings`]: what is done about what fails;
//! - [`worker_config`]: the settings of the worker;
//! - [`topic_creation`], [`overrides`]: the keys of a connector that come in families;
//! - [`problem`], [`nearest`]: what is wrong, where, and which name was probably meant.

pub mod connector_check;
pub mod connector_config;
pub mod connector_file;
pub mod connector_keys;
pub mod document;
pub mod error_settings;
pub mod nearest;
pub mod overrides;
pub mod problem;
pub mod provider;
pub mod redactor;
pub mod topic_creation;
pub mod worker_config;

pub(crate) use connector_check::is_topic_name;
pub use connector_check::{Checked, Checker};
pub use connector_config::{ConnectorConfig, ConverterConfig};
pub use connector_file::{ConnectorFile, Found};
pub use error_settings::ErrorSettings;
pub use problem::{Problem, Severity};
pub use provider::Providers;
pub use redactor::Redactor;
pub use worker_config::WorkerConfig;
