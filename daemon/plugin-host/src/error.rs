//! What an operation of a plugin fails with.

use std::sync::Arc;

use tidewater_plugin_api::{Error, ErrorKind, RecordFailure};

/// An operation of a plugin that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{class}: {message} (plugin {plugin})")]
pub struct PluginError {
    /// What to do about it. [`ErrorKind::Panic`], [`ErrorKind::Malformed`] and [`ErrorKind::Abandoned`] are faults of
    /// the plugin's code: the instance is of no further use.
    pub kind: ErrorKind,
    /// What was being done, to what, why it failed, and what to do next.
    pub message: String,
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The connector class.
    pub class: Arc<str>,
    /// With [`ErrorKind::Refused`]: the records of the batch that the target refuses.
    pub records: Vec<RecordFailure>,
}

/// Which plugin and class an operation belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) plugin: Arc<str>,
    pub(crate) class: Arc<str>,
}

impl Origin {
    pub(crate) fn error(&self, kind: ErrorKind, message: impl Into<String>) -> PluginError {
        PluginError {
            kind,
            message: message.into(),
            plugin: self.plugin.clone(),
            class: self.class.clone(),
            records: Vec::new(),
        }
    }

    /// An error as the plugin sent it. One of a kind that only a later SDK knows still ends the task with its message.
    pub(crate) fn sent_error(&self, doing: &str, payload: &[u8]) -> PluginError {
        #[derive(serde::Deserialize)]
        struct Unknown {
            message: String,
        }
        match serde_json::from_slice::<Error>(payload) {
            Ok(error) => PluginError {
                records: error.records,
                ..self.error(error.kind, error.message)
            },
            Err(malformed) => match serde_json::from_slice::<Unknown>(payload) {
                Ok(error) => self.error(ErrorKind::Fatal, error.message),
                Err(_) => self.error(
                    ErrorKind::Malformed,
                    format!("{doing} failed, and the plugin's error is not understood: {malformed}"),
                ),
            },
        }
    }
}
