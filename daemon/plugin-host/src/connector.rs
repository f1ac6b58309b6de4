//! A connector that has been started.

use std::sync::Arc;
use std::time::Duration;

use tidewater_plugin_api::ConfigMap;
use tidewater_plugin_api::abi::Opcode;

use crate::error::PluginError;
use crate::instance::Instance;

/// A running connector. Dropped without [`stop`](Self::stop), it is stopped in the background.
pub struct ConnectorInstance {
    pub(crate) instance: Arc<Instance>,
}

impl ConnectorInstance {
    /// One configuration per task, at most `max`, each to be laid over the connector's own.
    pub async fn task_configs(&self, max: usize) -> Result<Vec<ConfigMap>, PluginError> {
        let configs: Vec<ConfigMap> = self
            .instance
            .ask(Opcode::TaskConfigs, max.to_string().into_bytes())
            .await?;
        if configs.len() > max {
            return Err(self.instance.malformed(format_args!(
                "task_configs gave {} configurations where at most {max} were asked for",
                configs.len()
            )));
        }
        Ok(configs)
    }

    /// Ends the connector within about `deadline`; further calls fail. A plugin that does not let go in time is left
    /// behind: [`ErrorKind::Abandoned`](tidewater_plugin_api::ErrorKind::Abandoned).
    pub async fn stop(&self, deadline: Duration) -> Result<(), PluginError> {
        self.instance.stop(Some(Opcode::ConnectorStop), deadline).await
    }
}
