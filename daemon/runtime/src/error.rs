//! Errors of the runtime.

use tidewater_plugin_api::ErrorKind;
use tidewater_plugin_host::PluginError;

use crate::converter::ConvertError;
use crate::failure::Failure;

/// `Result` with the runtime's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something in the runtime failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log refused or failed.
    #[error("{doing}: {source}")]
    Broker {
        /// What was being done.
        doing: String,
        /// The log's own words.
        source: tidewater_broker::Error,
    },
    /// A plugin answered with an error, panicked, hung, or sent something that is none of the protocol.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A record cannot be taken further, and that is not tolerated (`errors.tolerance`).
    #[error(transparent)]
    Record(#[from] Failure),
    /// Something could not be converted, or not be prepared for it.
    #[error("{place}: {source}")]
    Convert {
        /// What.
        place: String,
        /// Why.
        source: ConvertError,
    },
    /// The runtime's own finding.
    #[error("{0}")]
    State(String),
}

impl Error {
    /// Wraps what the log said with what was being done.
    pub fn broker(doing: impl Into<String>) -> impl FnOnce(tidewater_broker::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Broker { doing, source }
    }

    /// Whether the same call may succeed later, with nothing restarted.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Plugin(error) => error.kind == ErrorKind::Retriable,
            // A full disk rejects a write whole and heals when space returns.
            Error::Broker {
                source: tidewater_broker::Error::DiskFull { .. },
                ..
            } => true,
            Error::Broker { .. } | Error::Record(_) | Error::Convert { .. } | Error::State(_) => false,
        }
    }

    /// Whether another instance has taken over (invariant 9): then this one must not try again.
    pub fn is_fenced(&self) -> bool {
        match self {
            Error::Plugin(error) => error.kind == ErrorKind::Fenced,
            Error::Broker { source, .. } => matches!(source, tidewater_broker::Error::Fenced { .. }),
            Error::Record(_) | Error::Convert { .. } | Error::State(_) => false,
        }
    }
}
