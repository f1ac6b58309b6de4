//! The connector's own half of the plugin: its lives, one after another. What it says of its tasks' work goes to the
//! [actor](crate::connector).

use std::sync::Arc;

use tidewater_plugin_api::ConfigMap;
use tidewater_plugin_host::ConnectorClass;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::ConnectorConfig;
use crate::connector::Shared;
use crate::error::{Error, Result};
use crate::restart_policy::RestartPolicy;
use crate::status::{State, Subject};
use crate::supervision::{Ended, Life, StatusWitness, Supervision, Witness};
use crate::task_life::Deadline;

/// The work of a connector's tasks, one configuration each, as its instance number so and so has split it.
pub(crate) struct Plan {
    pub(crate) instance: u64,
    pub(crate) tasks: Vec<ConfigMap>,
}

/// A connector's instance and what it runs with.
pub(crate) struct Instance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Arc<ConnectorConfig>,
    pub(crate) class: Arc<ConnectorClass>,
    /// Tells this instance's plans from those of others.
    pub(crate) number: u64,
    pub(crate) plans: mpsc::Sender<Plan>,
    /// Whether the connector is to rest, which its instance only says.
    pub(crate) paused: watch::Receiver<bool>,
    pub(crate) stop: CancellationToken,
}

impl Instance {
    /// Lives until it is stopped or the policy gives up.
    pub(crate) async fn run(self, policy: watch::Receiver<RestartPolicy>) -> Ended {
        let witness = Arc::new(StatusWitness {
            statuses: self.shared.statuses.clone(),
            subject: Subject::Connector(self.config.name.clone()),
        });
        let supervision = Supervision {
            witness: witness.clone(),
            noun: "connector",
            policy,
            redactor: self.config.redactor.clone(),
            stop: self.stop.clone(),
        };
        supervision.run(|life| self.live(life, witness.clone())).await
    }

    async fn live(&self, life: Life, witness: Arc<StatusWitness>) -> Result<()> {
        let deadline = Deadline::new(self.stop.clone(), self.shared.graceful_stop);
        let start = async {
            let starting = async {
                let instance = self
                    .class
                    .start_connector(&self.config.name, self.config.resolved.clone())
                    .await?;
                let tasks = instance.task_configs(self.config.tasks_max as usize).await?;
                Ok((instance, tasks))
            };
            // Dropped out of time, the instance is destroyed in the background.
            tokio::time::timeout(self.config.call_timeout, starting)
                .await
                .unwrap_or_else(|_| {
                    Err(Error::State(format!(
                        "{}: start and task_configs have not been answered within {} ms (task.call.timeout.ms); the \
                         instance is given up",
                        self.config.name,
                        self.config.call_timeout.as_millis()
                    )))
                })
        };
        let (instance, tasks) = deadline.at_rest_in_time(start).await?;
        tracing::info!(tasks = tasks.len(), "connector started");
        if tasks.is_empty() {
            tracing::warn!("the connector has no work for any task");
        }
        let plan = Plan {
            instance: self.number,
            tasks,
        };
        // The actor outlives its instances, but for the end of the process.
        let _ = self.plans.send(plan).await;

        let mut paused = self.paused.clone();
        loop {
            let state = if *paused.borrow_and_update() {
                State::Paused
            } else {
                State::Running
            };
            witness.tell(life.standing(state), life.generation).await?;
            tokio::select! {
                () = self.stop.cancelled() => break,
                Ok(()) = paused.changed() => {}
            }
        }
        if let Err(error) = instance.stop(self.shared.graceful_stop).await {
            let error = self.config.redactor.redact(&error.to_string());
            tracing::warn!(error, "the connector did not stop cleanly");
        }
        tracing::info!("connector stopped");
        Ok(())
    }
}
