//! What can be asked of a connector while it runs, and why it may be refused. Each request goes to the connector's own
//! [actor](crate::connector) and waits for no other connector.

use std::sync::Arc;
use std::time::Duration;

use tidewater_plugin_api::SourcePosition;
use tidewater_plugin_host::ConnectorClass;
use tokio::sync::oneshot;

use crate::config::ConnectorConfig;
use crate::config_store::TargetState;
use crate::error::Error;
use crate::status::Subject;

/// How long a request waits for its answer; Kafka Connect's time for requests. What was begun goes on.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);

/// Why a request failed. [`http_status`](Self::http_status) is what Kafka Connect's REST API answers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is no such connector.
    #[error("there is no connector {0}")]
    NoConnector(String),
    /// The connector has no such task.
    #[error("connector {0} has no task {1}")]
    NoTask(String, u32),
    /// The name is taken.
    #[error("a connector {0} exists already; give this one another name, or change that one's configuration")]
    Exists(String),
    /// What was asked makes no sense as it is.
    #[error("{0}")]
    Invalid(String),
    /// Offsets change only while nothing reads or writes.
    #[error(
        "connector {0} must be STOPPED before its offsets can be changed, and is {1}; stop it first (pausing is not enough)"
    )]
    NotStopped(String, &'static str),
    /// No answer in time.
    #[error("connector {0} has not answered within 90 s; what was asked may still be done")]
    Timeout(String),
    /// The worker ends.
    #[error("connector {0} is being stopped with its worker")]
    Ending(String),
    /// Something failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl ControlError {
    /// The status of HTTP that says so.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::NoConnector(_) | Self::NoTask(..) => 404,
            Self::Exists(_) => 409,
            Self::Invalid(_) | Self::NotStopped(..) => 400,
            Self::Timeout(_) | Self::Failed(_) => 500,
            Self::Ending(_) => 503,
        }
    }
}

/// A connector to create.
#[derive(Debug)]
pub struct NewConnector {
    /// Its configuration, checked.
    pub config: ConnectorConfig,
    /// What is wanted of it at first.
    pub initial_state: TargetState,
    /// Where it begins, as [`Worker::alter_offsets`](crate::Worker::alter_offsets) takes it; empty for its own beginning.
    pub offsets: Vec<SourcePosition>,
}

/// Offsets to change; both only while STOPPED.
#[derive(Clone, Debug)]
pub enum OffsetChange {
    /// These, each to its offset; none resets its partition.
    Alter(Vec<SourcePosition>),
    /// All that are stored are forgotten.
    Reset,
}

/// What became of a change of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetsChanged {
    /// Stored, and the connector class has agreed to them.
    Agreed,
    /// Stored; the class has no say in it.
    Stored,
}

impl OffsetsChanged {
    /// In Kafka Connect's sense.
    pub fn message(self) -> &'static str {
        match self {
            Self::Agreed => "The offsets for this connector have been altered successfully",
            Self::Stored => {
                "The offsets kept for this connector have been altered successfully. If the connector keeps offsets of its \
                 own outside, alter them there"
            }
        }
    }
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// What the actor of a connector is asked.
pub(crate) enum Request {
    Reconfigure(Box<ConnectorConfig>, Arc<ConnectorClass>, Reply<()>),
    Target(TargetState, Reply<()>),
    Restart {
        include_tasks: bool,
        only_failed: bool,
        reply: Reply<Vec<Subject>>,
    },
    RestartTask(u32, Reply<()>),
    ChangeOffsets(OffsetChange, Reply<OffsetsChanged>),
    Delete(Reply<()>),
}
