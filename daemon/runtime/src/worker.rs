//! The worker: one log, one set of plugins, and the connectors that run on them. Its methods are what Kafka Connect's REST
//! API asks for, one each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tidewater_broker::{BrokerOptions, Durability};
use tidewater_plugin_api::{ConfigMap, ConnectorKind, SourcePosition};
use tidewater_plugin_host::{ConnectorClass, PluginRegistry};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::broker::Broker;
use crate::config::{ConnectorConfig, WorkerConfig};
use crate::config_store::{ConfigStore, Origin, StoredConnector, TargetState};
use crate::connector::{Connector, End, Facts, Ledgers, Shared};
use crate::control::{
    ControlError, NewConnector, OffsetChange, OffsetsChanged, REQUEST_TIMEOUT, Reply, Request,
};
use crate::embedded::EmbeddedBroker;
use crate::error::{Error, Result};
use crate::ledger::LedgerSnapshot;
use crate::offset_change;
use crate::offsets::OffsetStore;
use crate::schema_store::SchemaStore;
use crate::status::{Status, StatusStore, Subject};

/// Requests that wait for one connector; more are refused until it has caught up.
const REQUESTS: usize = 64;

type Connectors = Arc<Mutex<BTreeMap<String, Running>>>;

/// A running worker.
pub struct Worker {
    shared: Arc<Shared>,
    registry: Arc<PluginRegistry>,
    connectors: Connectors,
    /// Held while a connector is created, so that no two get the same name.
    creating: tokio::sync::Mutex<()>,
    shutdown: CancellationToken,
    ledger_log: JoinHandle<()>,
}

struct Running {
    requests: mpsc::Sender<Request>,
    ledgers: Ledgers,
    facts: Arc<RwLock<Facts>>,
    /// Taken by the one who waits for it.
    done: Option<JoinHandle<()>>,
}

/// A connector's tasks and what became of their records.
pub type Report = BTreeMap<String, Vec<LedgerSnapshot>>;

/// A connector as it is configured.
#[derive(Clone, Debug)]
pub struct ConnectorInfo {
    /// Its name.
    pub name: String,
    /// Its keys as written, references to secrets unresolved.
    pub config: ConfigMap,
    /// The numbers of its tasks; none while it is STOPPED or starting.
    pub tasks: Vec<u32>,
    /// Which way it moves records.
    pub kind: ConnectorKind,
}

/// Where a connector and its tasks stand.
#[derive(Clone, Debug)]
pub struct ConnectorStatus {
    /// The connector's own state; none before it has one.
    pub connector: Option<Status>,
    /// Its tasks', by number.
    pub tasks: BTreeMap<u32, Status>,
    /// Which way it moves records.
    pub kind: ConnectorKind,
}

impl Worker {
    /// Opens the log, which recovers it where needed, and reads the state kept in it.
    pub async fn start(config: &WorkerConfig, registry: Arc<PluginRegistry>) -> Result<Self> {
        let mut options = BrokerOptions::new(&config.data_dir);
        options.durability = if config.fsync {
            Durability::Fsync
        } else {
            Durability::Os
        };
        options.segment_bytes = config.segment_bytes;
        let log = tokio::task::spawn_blocking(move || tidewater_broker::Broker::open(options)).await;
        let log = log.map_err(|error| Error::State(format!("opening the log panicked: {error}")))?;
        let log = log.map_err(Error::broker(format!(
            "opening the log in {}",
            config.data_dir.display()
        )))?;
        let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::new(log));

        let shared = Arc::new(Shared {
            configs: Arc::new(ConfigStore::open(broker.clone()).await?),
            offsets: Arc::new(OffsetStore::open(broker.clone()).await?),
            schemas: Arc::new(SchemaStore::open(broker.clone()).await?),
            statuses: Arc::new(StatusStore::open(broker.clone(), config.worker_id.clone()).await?),
            offset_flush_interval: config.offset_flush_interval,
            graceful_stop: config.graceful_stop,
            broker,
        });
        let connectors = Connectors::default();
        let ledger_log = tokio::spawn(log_ledgers(Arc::clone(&connectors), config.ledger_interval));
        Ok(Self {
            shared,
            registry,
            connectors,
            creating: tokio::sync::Mutex::new(()),
            shutdown: CancellationToken::new(),
            ledger_log,
        })
    }

    // ---- connectors come and go

    /// Runs a connector whose configuration comes from a file. What was wanted of it before, PAUSED or STOPPED, holds. Its
    /// trouble in starting is its own: it is told in its status and tried again.
    pub async fn run_from_file(&self, config: ConnectorConfig) -> Result<(), ControlError> {
        let class = self.class(&config)?;
        let _one_at_a_time = self.creating.lock().await;
        self.expect_free(&config.name)?;
        let stored = self
            .shared
            .configs
            .put_connector(&config.name, &config.raw, Origin::File)
            .await;
        if let Err(error) = stored {
            tracing::warn!(connector = config.name, %error, "the configuration is in force, but could not be stored");
        }
        let target = self.shared.configs.target(&config.name);
        self.launch(config, class, target);
        Ok(())
    }

    /// Creates a connector (`POST /connectors`): 409 where the name is taken, 400 where its offsets are refused. It runs again
    /// when the worker starts next.
    pub async fn create_connector(&self, new: NewConnector) -> Result<(), ControlError> {
        let NewConnector {
            config,
            initial_state,
            offsets,
        } = new;
        let name = config.name.clone();
        let class = self.class(&config)?;
        // It stays STOPPED until its offsets are set.
        let first = if offsets.is_empty() {
            initial_state
        } else {
            TargetState::Stopped
        };
        {
            let _one_at_a_time = self.creating.lock().await;
            self.expect_free(&name)?;
            let configs = &self.shared.configs;
            // First what is wanted: a connector that is to be STOPPED must not run because a crash came between the two.
            configs.put_target(&name, first).await?;
            configs.put_connector(&name, &config.raw, Origin::Request).await?;
            self.launch(config, class, first);
        }
        if offsets.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.alter_offsets(&name, offsets).await {
            self.delete(&name).await?;
            return Err(error);
        }
        self.ask(&name, |reply| Request::Target(initial_state, reply))
            .await
    }

    /// The connectors that were created by request in an earlier life of the worker, to be checked and given to
    /// [`restore`](Self::restore). Those that came from files run when they are given again.
    pub fn stored_connectors(&self) -> Vec<StoredConnector> {
        self.shared.configs.connectors()
    }

    /// Runs a connector that is stored, with what is wanted of it.
    pub async fn restore(&self, config: ConnectorConfig) -> Result<(), ControlError> {
        let class = self.class(&config)?;
        let _one_at_a_time = self.creating.lock().await;
        self.expect_free(&config.name)?;
        let target = self.shared.configs.target(&config.name);
        self.launch(config, class, target);
        Ok(())
    }

    fn class(&self, config: &ConnectorConfig) -> Result<Arc<ConnectorClass>, ControlError> {
        self.registry
            .find(&config.class)
            .map_err(|error| ControlError::Invalid(error.to_string()))
    }

    fn expect_free(&self, name: &str) -> Result<(), ControlError> {
        if self.connectors.lock().contains_key(name) {
            return Err(ControlError::Exists(name.to_owned()));
        }
        Ok(())
    }

    fn launch(&self, config: ConnectorConfig, class: Arc<ConnectorClass>, target: TargetState) {
        let name = config.name.clone();
        if target != TargetState::Running {
            tracing::info!(
                connector = name,
                ?target,
                "the connector does not work, as was asked; resume it to change that"
            );
        }
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let connector = Connector::new(
            self.shared.clone(),
            config,
            class,
            target,
            inbox,
            self.shutdown.clone(),
        );
        let (ledgers, facts) = (connector.ledgers(), connector.facts());
        let span = tracing::info_span!("connector", connector = name);
        // Held until the connector is among the others, so that it cannot be gone from there before.
        let mut connectors = self.connectors.lock();
        let done = {
            let (all, name) = (self.connectors.clone(), name.clone());
            let life = async move {
                if let End::Deleted(reply) = connector.run().await {
                    all.lock().remove(&name);
                    // Who asked may have gone.
                    let _ = reply.send(Ok(()));
                }
            };
            tokio::spawn(life.instrument(span))
        };
        connectors.insert(
            name,
            Running {
                requests,
                ledgers,
                facts,
                done: Some(done),
            },
        );
    }

    // ---- what a connector is asked

    /// Asks the actor of a connector, which answers in time or not at all.
    async fn ask<T>(&self, name: &str, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ControlError> {
        let requests = match self.connectors.lock().get(name) {
            Some(running) => running.requests.clone(),
            None => return Err(ControlError::NoConnector(name.to_owned())),
        };
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let gone = || ControlError::Ending(name.to_owned());
            requests.send(request(reply)).await.map_err(|_| gone())?;
            answer.await.unwrap_or_else(|_| Err(gone()))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(ControlError::Timeout(name.to_owned())))
    }

    /// Gives a connector another configuration (`PUT /connectors/{c}/config` of one that is there): only what it touches
    /// restarts. 404 where there is no such connector.
    pub async fn reconfigure(&self, config: ConnectorConfig) -> Result<(), ControlError> {
        let class = self.class(&config)?;
        let name = config.name.clone();
        self.ask(&name, |reply| {
            Request::Reconfigure(Box::new(config), class, reply)
        })
        .await
    }

    /// Pauses a connector (`PUT …/pause`): its tasks keep their plugins, and read and write nothing. Answers once that is
    /// stored; the states tell when each task rests.
    pub async fn pause(&self, name: &str) -> Result<(), ControlError> {
        self.ask(name, |reply| Request::Target(TargetState::Paused, reply))
            .await
    }

    /// Has a connector go on (`PUT …/resume`) that is PAUSED or STOPPED.
    pub async fn resume(&self, name: &str) -> Result<(), ControlError> {
        self.ask(name, |reply| Request::Target(TargetState::Running, reply))
            .await
    }

    /// Stops a connector (`PUT …/stop`): its tasks are released. Answers once that is stored; what is asked of the
    /// connector afterwards waits for the end of its tasks.
    pub async fn stop(&self, name: &str) -> Result<(), ControlError> {
        self.ask(name, |reply| Request::Target(TargetState::Stopped, reply))
            .await
    }

    /// Restarts a connector's instance, and its tasks with `include_tasks`, of all that only what has failed with
    /// `only_failed` (`POST …/restart`); answers what restarts. Nothing of a STOPPED connector does.
    pub async fn restart(
        &self,
        name: &str,
        include_tasks: bool,
        only_failed: bool,
    ) -> Result<Vec<Subject>, ControlError> {
        self.ask(name, |reply| Request::Restart {
            include_tasks,
            only_failed,
            reply,
        })
        .await
    }

    /// Restarts one task (`POST …/tasks/{n}/restart`); 404 where there is no such task.
    pub async fn restart_task(&self, name: &str, task: u32) -> Result<(), ControlError> {
        self.ask(name, |reply| Request::RestartTask(task, reply)).await
    }

    /// Changes where a STOPPED connector goes on (`PATCH …/offsets`): each partition to its offset, or with none to its
    /// beginning. 400 where it is not STOPPED, and where the offsets make no sense to the log or to the connector class. Of sinks
    /// the partitions are `{"kafka_topic": …, "kafka_partition": …}` and the offsets `{"kafka_offset": …}`.
    pub async fn alter_offsets(
        &self,
        name: &str,
        offsets: Vec<SourcePosition>,
    ) -> Result<OffsetsChanged, ControlError> {
        self.ask(name, |reply| {
            Request::ChangeOffsets(OffsetChange::Alter(offsets), reply)
        })
        .await
    }

    /// Has a STOPPED connector go on from its beginning (`DELETE …/offsets`).
    pub async fn reset_offsets(&self, name: &str) -> Result<OffsetsChanged, ControlError> {
        self.ask(name, |reply| Request::ChangeOffsets(OffsetChange::Reset, reply))
            .await
    }

    /// Deletes a connector (`DELETE /connectors/{c}`); answers once it has ended. Its offsets stay, and one of the same
    /// name goes on from them.
    pub async fn delete(&self, name: &str) -> Result<(), ControlError> {
        self.ask(name, Request::Delete).await
    }

    // ---- what can be told

    /// The names of all connectors (`GET /connectors`).
    pub fn connectors(&self) -> Vec<String> {
        self.connectors.lock().keys().cloned().collect()
    }

    /// A connector (`GET /connectors/{c}`).
    pub fn info(&self, name: &str) -> Result<ConnectorInfo, ControlError> {
        let facts = self.facts(name)?;
        Ok(ConnectorInfo {
            name: name.to_owned(),
            config: facts.config.raw.clone(),
            tasks: (0..facts.tasks.len() as u32).collect(),
            kind: facts.config.kind,
        })
    }

    /// What each task of a connector runs with (`GET …/tasks`), without secrets (invariant 8).
    pub fn task_configs(&self, name: &str) -> Result<Vec<ConfigMap>, ControlError> {
        let facts = self.facts(name)?;
        let with = |overlay: &ConfigMap| {
            let mut config = facts.config.raw.clone();
            for (key, value) in overlay {
                config.insert(key.clone(), facts.config.redactor.redact(value));
            }
            config
        };
        Ok(facts.tasks.iter().map(with).collect())
    }

    /// What is wanted of a connector.
    pub fn target(&self, name: &str) -> Result<TargetState, ControlError> {
        self.facts(name).map(|facts| facts.target)
    }

    /// How far a connector has come (`GET …/offsets`), in whatever state.
    pub fn offsets(&self, name: &str) -> Result<Vec<SourcePosition>, ControlError> {
        let facts = self.facts(name)?;
        Ok(offset_change::read(&self.shared, &facts.config))
    }

    /// Where a connector and its tasks stand (`GET …/status`).
    pub fn status(&self, name: &str) -> Result<ConnectorStatus, ControlError> {
        let mut status = ConnectorStatus {
            connector: None,
            tasks: BTreeMap::new(),
            kind: self.facts(name)?.config.kind,
        };
        for (subject, of) in self.statuses() {
            match subject {
                Subject::Connector(connector) if connector == name => status.connector = Some(of),
                Subject::Task(connector, task) if connector == name => {
                    status.tasks.insert(task, of);
                }
                _ => {}
            }
        }
        Ok(status)
    }

    fn facts(&self, name: &str) -> Result<Facts, ControlError> {
        let connectors = self.connectors.lock();
        let running = connectors
            .get(name)
            .ok_or_else(|| ControlError::NoConnector(name.to_owned()))?;
        Ok(running.facts.read().clone())
    }

    /// The log.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.shared.broker
    }

    /// Where all connectors and tasks stand.
    pub fn statuses(&self) -> BTreeMap<Subject, Status> {
        self.shared.statuses.current()
    }

    /// Changes whenever the state of a connector or task does.
    pub fn status_changes(&self) -> watch::Receiver<u64> {
        self.shared.statuses.changes()
    }

    /// What became of every record, task by task.
    pub fn report(&self) -> Report {
        report(&self.connectors.lock())
    }

    /// Stops all connectors, each as gracefully as its plugin lets it, then closes the log.
    pub async fn shutdown(&self) -> Report {
        self.ledger_log.abort();
        self.shutdown.cancel();
        let done: Vec<_> = self
            .connectors
            .lock()
            .values_mut()
            .filter_map(|running| running.done.take())
            .collect();
        for ended in futures::future::join_all(done).await {
            if let Err(error) = ended {
                tracing::error!(%error, "a connector's supervision panicked");
            }
        }
        let report = report(&self.connectors.lock());
        log_report(&report);
        self.shared.broker.close().await;
        report
    }
}
fn report(connectors: &BTreeMap<String, Running>) -> Report {
    let tasks = |running: &Running| {
        running
            .ledgers
            .lock()
            .iter()
            .map(|ledger| ledger.snapshot())
            .collect()
    };
    connectors
        .iter()
        .map(|(name, running)| (name.clone(), tasks(running)))
        .collect()
}

async fn log_ledgers(connectors: Arc<Mutex<BTreeMap<String, Running>>>, interval: Duration) {
    let mut due = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    let mut before = Report::new();
    loop {
        due.tick().await;
        let now = report(&connectors.lock());
        // No noise when idle.
        if now != before {
            log_report(&now);
            before = now;
        }
    }
}

fn log_report(report: &Report) {
    for (connector, tasks) in report {
        for (task, ledger) in tasks.iter().enumerate() {
            let LedgerSnapshot {
                read,
                written,
                filtered,
                dead_lettered,
                dropped,
                in_flight,
                retried,
            } = *ledger;
            tracing::info!(
                connector,
                task,
                read,
                written,
                filtered,
                dead_lettered,
                dropped,
                in_flight,
                retried,
                "ledger"
            );
        }
    }
}
