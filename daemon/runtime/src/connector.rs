//! The life of a connector, and the supervision of its tasks.
//!
//! Whatever fails is started again after a back-off: the connector's own start, and each task by itself, so that one
//! task's trouble is its own (invariant 7). What a restart cannot mend is said as such and stays FAILED: a task that another
//! instance has fenced off (invariant 9).

use std::sync::Arc;
use std::time::Duration;

use tidewater_broker::Compression;
use tidewater_plugin_api::{ConfigMap, ConnectorKind};
use tidewater_plugin_host::{ConnectorClass, TaskIdentity};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::backoff::Backoff;
use crate::broker::Broker;
use crate::config::{ConnectorConfig, ConverterConfig};
use crate::converter::{self, Converter};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::offsets::OffsetStore;
use crate::sink_task::{RecordDecoder, SinkTask, Subscription};
use crate::source_task::{NewTopic, RecordEncoder, SourceTask};
use crate::status::{State, StatusStore, Subject};

/// A life that lasted this long was a success: the next failure starts the back-off anew.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// What all connectors of a worker share.
pub struct Shared {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// Positions of sources.
    pub offsets: Arc<OffsetStore>,
    /// States.
    pub statuses: Arc<StatusStore>,
    /// How often sinks commit their offsets.
    pub offset_flush_interval: Duration,
    /// How long a plugin may take to stop.
    pub graceful_stop: Duration,
}

/// A connector that is being run.
pub struct Connector {
    shared: Arc<Shared>,
    config: ConnectorConfig,
    class: Arc<ConnectorClass>,
    ledgers: Ledgers,
    stop: CancellationToken,
}

/// The ledgers of a connector's tasks; they outlive the tasks' lives.
pub type Ledgers = Arc<parking_lot::Mutex<Vec<Arc<Ledger>>>>;

impl Connector {
    /// A connector that runs until `stop`.
    pub fn new(shared: Arc<Shared>, config: ConnectorConfig, class: Arc<ConnectorClass>, stop: CancellationToken) -> Self {
        Self { shared, config, class, ledgers: Ledgers::default(), stop }
    }

    /// The ledgers of its tasks, by number.
    pub fn ledgers(&self) -> Ledgers {
        self.ledgers.clone()
    }

    /// Runs the connector: started, its tasks supervised, and all of it stopped at the end.
    pub async fn run(self) {
        let subject = Subject::Connector(self.config.name.clone());
        let mut backoff = self.backoff();
        while !self.stop.is_cancelled() {
            match self.life(&subject, &mut backoff).await {
                Ok(()) => break,
                Err(error) => {
                    if !self.wait_after(&subject, &error, 0, &mut backoff).await {
                        break;
                    }
                }
            }
        }
    }

    async fn life(&self, subject: &Subject, backoff: &mut Backoff) -> Result<()> {
        let generation = self.shared.statuses.begin(subject).await?;
        let instance = self.class.start_connector(&self.config.name, self.config.resolved.clone()).await?;
        let mut task_configs = instance.task_configs(self.config.tasks_max as usize).await?;
        if self.class.spec().kind == ConnectorKind::Sink && task_configs.is_empty() {
            task_configs.push(ConfigMap::new());
        }
        self.shared.statuses.set(subject, State::Running, None, generation).await?;
        tracing::info!(tasks = task_configs.len(), "connector started");
        backoff.reset();

        let count = task_configs.len() as u32;
        self.ledgers.lock().resize_with(task_configs.len(), Arc::default);
        let tasks = task_configs.into_iter().enumerate().map(|(task, overlay)| {
            let task = task as u32;
            let span = tracing::info_span!("task", connector = self.config.name, task);
            self.supervise_task(task, count, overlay).instrument(span)
        });
        futures::future::join_all(tasks).await;

        instance.stop(self.shared.graceful_stop).await?;
        self.shared.statuses.set(subject, State::Stopped, None, generation).await?;
        tracing::info!("connector stopped");
        Ok(())
    }

    /// Starts a task again and again until the connector stops or the task is fenced off.
    async fn supervise_task(&self, task: u32, tasks: u32, overlay: ConfigMap) {
        let subject = Subject::Task(self.config.name.clone(), task);
        let ledger = self.ledgers.lock()[task as usize].clone();
        let mut backoff = self.backoff();
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            let (generation, outcome) = match self.shared.statuses.begin(&subject).await {
                Ok(generation) => (generation, self.task_life(task, tasks, &overlay, generation, &ledger).await),
                Err(error) => (0, Err(error)),
            };
            ledger.hand_back();
            let Err(error) = outcome else {
                if let Err(error) = self.shared.statuses.set(&subject, State::Unassigned, None, generation).await {
                    tracing::warn!(%error, "the task has stopped, but its status could not be stored");
                }
                return;
            };
            if started.elapsed() > STABLE_AFTER {
                backoff.reset();
            }
            if !self.wait_after(&subject, &error, generation, &mut backoff).await {
                return;
            }
        }
    }

    /// Says what failed and waits until it is time to start again; false where there is no next time.
    async fn wait_after(&self, subject: &Subject, error: &Error, generation: u64, backoff: &mut Backoff) -> bool {
        let error_text = self.config.redactor.redact(&error.to_string()); // invariant 8
        let what = if matches!(subject, Subject::Connector(_)) { "connector" } else { "task" };
        if let Err(unstored) = self.shared.statuses.set(subject, State::Failed, Some(error_text.clone()), generation).await {
            tracing::warn!(error = %unstored, "the status below could not be stored");
        }
        if error.is_fenced() {
            tracing::error!(error = %error_text, "{what} failed and stays so: another instance has taken over; stop one of the two");
            return false;
        }
        let delay = backoff.next_delay();
        let attempt = backoff.attempts();
        tracing::error!(error = %error_text, attempt, restart_in_ms = delay.as_millis() as u64, "{what} failed; it will be restarted");
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = self.stop.cancelled() => false,
        }
    }

    async fn task_life(&self, task: u32, tasks: u32, overlay: &ConfigMap, generation: u64, ledger: &Arc<Ledger>) -> Result<()> {
        let identity = TaskIdentity { connector: self.config.name.clone(), task, generation };
        let mut config = self.config.resolved.clone();
        config.extend(overlay.clone());
        let (running, graceful) = (self.running(task, generation), self.shared.graceful_stop);
        match self.class.spec().kind {
            ConnectorKind::Source => {
                let id = format!("tidewater-{}-{task}", self.config.name);
                let producer = self.shared.broker.producer(&id).await?;
                let positions = self.shared.offsets.positions(&self.config.name);
                let plugin = Arc::new(self.class.create_source_task(identity, config, positions)?);
                let life = SourceTask {
                    connector: self.config.name.clone(),
                    plugin: plugin.clone(),
                    broker: self.shared.broker.clone(),
                    producer,
                    offsets: self.shared.offsets.clone(),
                    ledger: ledger.clone(),
                    encoder: RecordEncoder::new(self.key()?, self.value()?, self.compression(), self.new_topic()),
                    backoff: self.backoff(),
                };
                running.await?;
                let outcome = life.run(&self.stop).await;
                end(outcome, plugin.stop(graceful).await.map_err(Error::from))
            }
            ConnectorKind::Sink => {
                let plugin = Arc::new(self.class.create_sink_task(identity, config)?);
                let life = SinkTask {
                    group: format!("connect-{}", self.config.name),
                    plugin: plugin.clone(),
                    broker: self.shared.broker.clone(),
                    subscription: Subscription { topics: self.config.topics.clone(), task, tasks },
                    ledger: ledger.clone(),
                    decoder: RecordDecoder::new(self.key()?, self.value()?),
                    backoff: self.backoff(),
                    max_records: self.config.max_poll_records,
                    commit_interval: self.shared.offset_flush_interval,
                };
                running.await?;
                let outcome = life.run(&self.stop).await;
                end(outcome, plugin.stop(graceful).await.map_err(Error::from))
            }
        }
    }

    async fn running(&self, task: u32, generation: u64) -> Result<()> {
        let subject = Subject::Task(self.config.name.clone(), task);
        self.shared.statuses.set(&subject, State::Running, None, generation).await
    }

    fn key(&self) -> Result<Box<dyn Converter>> {
        new_converter("key.converter", &self.config.key_converter)
    }

    fn value(&self) -> Result<Box<dyn Converter>> {
        new_converter("value.converter", &self.config.value_converter)
    }

    fn compression(&self) -> Compression {
        self.config.compression
    }

    fn new_topic(&self) -> NewTopic {
        NewTopic { partitions: self.config.new_topic_partitions, settings: self.config.new_topic_settings.clone() }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_millis(300), self.config.retry_delay_max)
    }
}

fn new_converter(key: &str, chosen: &ConverterConfig) -> Result<Box<dyn Converter>> {
    converter::create(&chosen.class, &chosen.settings).map_err(|source| Error::Convert { place: key.to_owned(), source })
}

/// A task's failure goes before the trouble of stopping it, which is only said.
fn end(outcome: Result<()>, stopped: Result<()>) -> Result<()> {
    match (outcome, stopped) {
        (Err(error), stopped) => {
            if let Err(stop_error) = stopped {
                tracing::warn!(error = %stop_error, "the failed task did not stop cleanly");
            }
            Err(error)
        }
        (Ok(()), Err(error)) => {
            tracing::warn!(%error, "the task did not stop cleanly; what it had acknowledged is safe");
            Ok(())
        }
        (Ok(()), Ok(())) => Ok(()),
    }
}
