//! What can be asked of a connector while it runs, and why it may be refused. Each request goes to the connector's own
//! [actor](crate::connector) and waits for no other connector.

use std::sync::Arc;
use std::time::Duration;

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
            Self::Invalid(_) => 400,
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
    Delete(Reply<()>),
}
