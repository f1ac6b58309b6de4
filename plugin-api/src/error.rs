//! Errors of connectors and tasks. The kind decides what the runtime does; the message is what a person reads at
//! night, so it says what was being done, to what, and what to do next.

use serde::{Deserialize, Serialize};

/// `Result` with the SDK's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the runtime should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The same call may succeed later: the runtime repeats it with the same batch, after a back-off.
    Retriable,
    /// The task cannot go on as it is: it is stopped, and restarted by policy.
    Fatal,
    /// The target refuses single records of a batch, which [`Error::records`] names, and nothing of the batch was written:
    /// the runtime puts those records aside, durably, and the same batch comes again without them. Only from a `put`.
    Refused,
    /// The configuration is wrong: a restart cannot help until somebody changes it.
    Config,
    /// Another instance of this task has taken over (invariant 9): this one must stop and stay stopped.
    Fenced,
    /// The call was cancelled by the runtime.
    Cancelled,
    /// The plugin panicked: its instance is poisoned and is replaced.
    Panic,
    /// A side of the plugin boundary sent what the other does not understand (invariant 7).
    Malformed,
    /// The plugin did not finish within its deadline and was left behind; its thread may still run.
    Abandoned,
}

/// An error of a connector or task.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the runtime should do.
    pub kind: ErrorKind,
    /// What was being done, to what, why it failed, and what to do next.
    pub message: String,
    /// With [`ErrorKind::Refused`]: which records, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RecordFailure>,
}

/// A record of a batch that the target does not take, whatever is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFailure {
    /// Its place in the batch, from 0.
    pub index: u32,
    /// Why, and what to do.
    pub message: String,
}

impl Error {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            records: Vec::new(),
        }
    }

    /// An error of single records of a batch, of which nothing was written.
    pub fn refused(message: impl Into<String>, records: Vec<RecordFailure>) -> Self {
        Self {
            records,
            ..Self::new(ErrorKind::Refused, message)
        }
    }

    /// An error that a later attempt may not meet.
    pub fn retriable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Retriable, message)
    }

    /// An error that ends the task.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fatal, message)
    }

    /// An error in the configuration.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn context(mut self, doing: impl std::fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// An error of `kind` from a foreign error, with every cause in its chain.
    pub fn from_source(
        kind: ErrorKind,
        doing: impl std::fmt::Display,
        error: &dyn std::error::Error,
    ) -> Self {
        let mut message = format!("{doing}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        Self::new(kind, message)
    }
}
