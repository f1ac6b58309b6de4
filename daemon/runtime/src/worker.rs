//! The worker: one log, one set of plugins, and the connectors that run on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_broker::{BrokerOptions, Durability};
use tidewater_plugin_host::PluginRegistry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::broker::Broker;
use crate::config::{ConnectorConfig, WorkerConfig};
use crate::connector::{Connector, Ledgers, Shared};
use crate::embedded::EmbeddedBroker;
use crate::error::{Error, Result};
use crate::ledger::LedgerSnapshot;
use crate::offsets::OffsetStore;
use crate::schema_store::SchemaStore;
use crate::state_topic::StateTopic;
use crate::status::{Status, StatusStore, Subject};

/// The topic that keeps connectors' configurations, in Kafka Connect's format: key `connector-NAME`, value
/// `{"properties": …}` as written: references to secrets stay references.
pub const CONFIGS: &str = "connect-configs";

/// A running worker.
pub struct Worker {
    shared: Arc<Shared>,
    registry: Arc<PluginRegistry>,
    configs: StateTopic,
    stored_configs: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    connectors: Arc<Mutex<BTreeMap<String, Running>>>,
    ledger_log: JoinHandle<()>,
}

struct Running {
    stop: CancellationToken,
    ledgers: Ledgers,
    /// Taken by the one who waits for it.
    done: Option<JoinHandle<()>>,
}

/// A connector's tasks and what became of their records.
pub type Report = BTreeMap<String, Vec<LedgerSnapshot>>;

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

        let (configs, stored) = StateTopic::open(broker.clone(), CONFIGS).await?;
        let shared = Arc::new(Shared {
            offsets: Arc::new(OffsetStore::open(broker.clone()).await?),
            schemas: Arc::new(SchemaStore::open(broker.clone()).await?),
            statuses: Arc::new(StatusStore::open(broker.clone(), config.worker_id.clone()).await?),
            offset_flush_interval: config.offset_flush_interval,
            graceful_stop: config.graceful_stop,
            broker,
        });
        let connectors = Arc::default();
        let ledger_log = tokio::spawn(log_ledgers(Arc::clone(&connectors), config.ledger_interval));
        Ok(Self {
            shared,
            registry,
            configs,
            stored_configs: Mutex::new(
                stored
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?)))
                    .collect(),
            ),
            connectors,
            ledger_log,
        })
    }

    /// Runs a connector from now on. Its trouble in starting is its own: it is told in its status and tried again.
    pub async fn create_connector(&self, config: ConnectorConfig) -> Result<()> {
        let name = config.name.clone();
        if self.connectors.lock().contains_key(&name) {
            return Err(Error::State(format!(
                "a connector {name} runs already; give this one another name"
            )));
        }
        let class = self
            .registry
            .find(&config.class)
            .map_err(|error| Error::State(error.to_string()))?;
        if let Err(error) = self.store(&config).await {
            tracing::warn!(connector = name, %error, "the configuration is in force, but could not be stored");
        }
        let stop = CancellationToken::new();
        let connector = Connector::new(self.shared.clone(), config, class, stop.clone());
        let ledgers = connector.ledgers();
        let span = tracing::info_span!("connector", connector = name);
        let done = tokio::spawn(connector.run().instrument(span));
        self.connectors.lock().insert(
            name,
            Running {
                stop,
                ledgers,
                done: Some(done),
            },
        );
        Ok(())
    }

    async fn store(&self, config: &ConnectorConfig) -> Result<()> {
        let key = format!("connector-{}", config.name).into_bytes();
        let value = serde_json::json!({ "properties": config.raw })
            .to_string()
            .into_bytes();
        if self.stored_configs.lock().get(&key) == Some(&value) {
            return Ok(());
        }
        self.configs.put(key.clone(), Some(value.clone())).await?;
        self.stored_configs.lock().insert(key, value);
        Ok(())
    }

    /// Where all connectors and tasks stand.
    pub fn statuses(&self) -> BTreeMap<Subject, Status> {
        self.shared.statuses.current()
    }

    /// What became of every record, task by task.
    pub fn report(&self) -> Report {
        report(&self.connectors.lock())
    }

    /// The log.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.shared.broker
    }

    /// Stops all connectors, each as gracefully as its plugin lets it, then closes the log.
    pub async fn shutdown(self) -> Report {
        self.ledger_log.abort();
        let mut done = Vec::new();
        for running in self.connectors.lock().values_mut() {
            running.stop.cancel();
            done.extend(running.done.take());
        }
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
                in_flight,
                retried,
                "ledger"
            );
        }
    }
}
