//! A connector class, of which instances are made.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_plugin_api::abi::Opcode;
use tidewater_plugin_api::payload::{AlterOffsets, Create, Role, SinkStart, SourceStart};
use tidewater_plugin_api::{
    ConfigMap, ConfigProblem, ConnectorKind, ConnectorSpec, ErrorKind, SourcePosition,
};
use tokio::time::timeout;

use crate::connector::ConnectorInstance;
use crate::error::{Origin, PluginError};
use crate::instance::Instance;
use crate::library::Plugin;
use crate::sink_task::SinkTaskHandle;
use crate::source_task::SourceTaskHandle;

/// How long a plugin may take to check a configuration against the outside.
pub const VALIDATE_TIMEOUT: Duration = Duration::from_secs(30);
/// What an instance gets to end that was made for one question.
const SHORT_DEADLINE: Duration = Duration::from_secs(1);

/// Which life of which task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskIdentity {
    /// The connector's name.
    pub connector: String,
    /// The task's number, from 0.
    pub task: u32,
    /// Counts the lives of this task (invariant 9).
    pub generation: u64,
}

/// A connector class of a loaded plugin.
pub struct ConnectorClass {
    plugin: Arc<Plugin>,
    spec: ConnectorSpec,
}

impl std::fmt::Debug for ConnectorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectorClass")
            .field("class", &self.spec.class)
            .field("plugin", &self.plugin.name)
            .finish_non_exhaustive()
    }
}

impl ConnectorClass {
    pub(crate) fn new(plugin: Arc<Plugin>, spec: ConnectorSpec) -> Self {
        Self { plugin, spec }
    }

    /// What the class is and what can be configured.
    pub fn spec(&self) -> &ConnectorSpec {
        &self.spec
    }

    /// The name of the plugin that brings it.
    pub fn plugin(&self) -> &str {
        &self.plugin.name
    }

    /// The plugin's file, as it was found.
    pub fn path(&self) -> &std::path::Path {
        &self.plugin.path
    }

    fn origin(&self) -> Origin {
        Origin {
            plugin: self.plugin.name.clone(),
            class: self.spec.class.as_str().into(),
        }
    }

    /// Every fault of `config`: those its definition tells, or else those only the outside can tell, which the plugin
    /// finds within [`VALIDATE_TIMEOUT`].
    pub async fn validate(&self, config: ConfigMap) -> Result<Vec<ConfigProblem>, PluginError> {
        let problems = self.spec.config.check(&config);
        if !problems.is_empty() {
            return Ok(problems);
        }
        let name = config.get("name").map_or("validate", String::as_str);
        let instance = self.instance(name, Role::Connector, None)?;
        let payload = self.encode(&config)?;
        let answer = timeout(VALIDATE_TIMEOUT, instance.ask(Opcode::Validate, payload)).await;
        // Its end is watched and logged; the answer does not depend on it.
        let ending = instance.clone();
        tokio::spawn(async move { ending.stop(None, SHORT_DEADLINE).await });
        answer.unwrap_or_else(|_| {
            Err(self.origin().error(
                ErrorKind::Retriable,
                format!(
                    "checking the configuration took longer than {} s; is the server it names reachable?",
                    VALIDATE_TIMEOUT.as_secs()
                ),
            ))
        })
    }

    /// Starts a connector. Dropped before it is done, or failing, it leaves nothing behind.
    pub async fn start_connector(
        &self,
        name: &str,
        config: ConfigMap,
    ) -> Result<ConnectorInstance, PluginError> {
        let instance = self.instance(name, Role::Connector, None)?;
        let payload = self.encode(&config)?;
        instance.tell(Opcode::ConnectorStart, payload).await?;
        Ok(ConnectorInstance { instance })
    }

    /// Asks the class about offsets that are to be changed, each a [`SourcePosition`] or an
    /// [`AlteredOffset`](tidewater_plugin_api::AlteredOffset): whether it agrees, false where it has no say in it. An answer that
    /// takes longer than `limit` is an error.
    pub async fn alter_offsets<T: serde::Serialize>(
        &self,
        name: &str,
        config: ConfigMap,
        offsets: Vec<T>,
        limit: Duration,
    ) -> Result<bool, PluginError> {
        if self.plugin.functions.abi_minor < 1 {
            return Ok(false);
        }
        let instance = self.instance(name, Role::Connector, None)?;
        instance.set_call_timeout(limit);
        let payload = self.encode(&AlterOffsets { config, offsets })?;
        let answer = instance.ask(Opcode::AlterOffsets, payload).await;
        // Its end is watched and logged; the answer does not depend on it.
        tokio::spawn(async move { instance.stop(None, SHORT_DEADLINE).await });
        answer
    }

    /// Makes a source task, to be started next. `config` is the connector's with the task's laid over it; `positions` are
    /// all that is stored for the connector.
    #[allow(clippy::needless_pass_by_value)] // it names one life, which is this task's
    pub fn create_source_task(
        &self,
        identity: TaskIdentity,
        config: ConfigMap,
        positions: Vec<SourcePosition>,
    ) -> Result<SourceTaskHandle, PluginError> {
        self.expect_kind(ConnectorKind::Source)?;
        let payload = self.encode(&SourceStart {
            generation: identity.generation,
            config,
            positions,
        })?;
        Ok(SourceTaskHandle {
            instance: self.instance(&identity.connector, Role::Task, Some(identity.task))?,
            start: Mutex::new(Some(payload)),
            started: AtomicBool::new(false),
            kept_poll: Mutex::new(None),
            schemas: Mutex::default(),
        })
    }

    /// Makes a sink task, to be started next. `config` is the connector's with the task's laid over it.
    #[allow(clippy::needless_pass_by_value)] // it names one life, which is this task's
    pub fn create_sink_task(
        &self,
        identity: TaskIdentity,
        config: ConfigMap,
    ) -> Result<SinkTaskHandle, PluginError> {
        self.expect_kind(ConnectorKind::Sink)?;
        let payload = self.encode(&SinkStart {
            generation: identity.generation,
            config,
        })?;
        Ok(SinkTaskHandle {
            instance: self.instance(&identity.connector, Role::Task, Some(identity.task))?,
            start: Mutex::new(Some(payload)),
            started: AtomicBool::new(false),
        })
    }

    fn expect_kind(&self, wanted: ConnectorKind) -> Result<(), PluginError> {
        if self.spec.kind == wanted {
            return Ok(());
        }
        Err(self.origin().error(
            ErrorKind::Config,
            format!("it is no {wanted:?} connector; choose another connector.class"),
        ))
    }

    fn instance(&self, connector: &str, role: Role, task: Option<u32>) -> Result<Arc<Instance>, PluginError> {
        Instance::create(
            &self.plugin,
            &Create {
                class: self.spec.class.clone(),
                kind: self.spec.kind,
                role,
                connector: connector.to_owned(),
                task,
            },
        )
    }

    fn encode(&self, payload: &impl serde::Serialize) -> Result<Vec<u8>, PluginError> {
        serde_json::to_vec(payload).map_err(|error| {
            self.origin()
                .error(ErrorKind::Fatal, format!("cannot send to the plugin: {error}"))
        })
    }
}
