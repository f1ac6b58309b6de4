//! The life of a connector, and the supervision of its tasks.
//!
//! Whatever fails is started again after a back-off: the connector's own start, and each task by itself, so that one
//! task's trouble is its own (invariant 7). What a restart cannot mend is said as such and stays FAILED: a task that another
//! instance has fenced off (invariant 9).

use std::sync::Arc;
use std::time::Duration;

use tidewater_plugin_api::{ConfigMap, ConnectorKind};
use tidewater_plugin_host::{ConnectorClass, PluginError, TaskIdentity};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::backoff::Backoff;
use crate::broker::Broker;
use crate::config::{ConnectorConfig, ConverterConfig};
use crate::converter::{self, Converters, Role};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::offsets::OffsetStore;
use crate::rate_limit::RateLimit;
use crate::record_decoder::RecordDecoder;
use crate::record_encoder::RecordEncoder;
use crate::record_errors::RecordErrors;
use crate::retry::Retry;
use crate::schema_store::SchemaStore;
use crate::sink_task::{SinkTask, Subscription};
use crate::sink_way::SinkWay;
use crate::source_task::SourceTask;
use crate::source_way::SourceWay;
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
    /// Schemas of the typed converter.
    pub schemas: Arc<SchemaStore>,
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
    /// Shared by its tasks.
    limit: Arc<RateLimit>,
    stop: CancellationToken,
}

/// The ledgers of a connector's tasks; they outlive the tasks' lives.
pub type Ledgers = Arc<parking_lot::Mutex<Vec<Arc<Ledger>>>>;

impl Connector {
    /// A connector that runs until `stop`.
    pub fn new(
        shared: Arc<Shared>,
        config: ConnectorConfig,
        class: Arc<ConnectorClass>,
        stop: CancellationToken,
    ) -> Self {
        let limit = RateLimit::new(config.rate_limit_records, config.rate_limit_bytes);
        Self {
            shared,
            config,
            class,
            ledgers: Ledgers::default(),
            limit: Arc::new(limit),
            stop,
        }
    }

    /// The ledgers of its tasks, by number.
    pub fn ledgers(&self) -> Ledgers {
        self.ledgers.clone()
    }

    /// Runs the connector: started, its tasks supervised, and all of it stopped at the end.
    pub async fn run(self) {
        let this = Arc::new(self);
        let subject = Subject::Connector(this.config.name.clone());
        let mut backoff = this.backoff();
        while !this.stop.is_cancelled() {
            let Err(error) = this.clone().life(&subject).await else {
                break;
            };
            if !this.wait_after(&subject, &error, 0, &mut backoff).await {
                break;
            }
        }
    }

    async fn life(self: Arc<Self>, subject: &Subject) -> Result<()> {
        let generation = self.shared.statuses.begin(subject).await?;
        let start = async {
            let instance = self
                .class
                .start_connector(&self.config.name, self.config.resolved.clone())
                .await?;
            let task_configs = instance.task_configs(self.config.tasks_max as usize).await?;
            Ok((instance, task_configs))
        };
        let (instance, task_configs) = self.at_rest_in_time(start).await?;
        self.shared
            .statuses
            .set(subject, State::Running, None, generation)
            .await?;
        tracing::info!(tasks = task_configs.len(), "connector started");

        if task_configs.is_empty() {
            tracing::warn!("the connector has no work for any task");
            self.stop.cancelled().await;
        }
        let count = task_configs.len() as u32;
        self.ledgers.lock().resize_with(task_configs.len(), Arc::default);
        let tasks = task_configs.into_iter().enumerate().map(|(task, overlay)| {
            let task = task as u32;
            let span = tracing::info_span!("task", connector = self.config.name, task);
            tokio::spawn(self.clone().supervise_task(task, count, overlay).instrument(span))
        });
        for ended in futures::future::join_all(tasks).await {
            if let Err(error) = ended {
                tracing::error!(%error, "the supervision of a task panicked; please report this");
            }
        }

        if let Err(error) = instance.stop(self.shared.graceful_stop).await {
            tracing::warn!(error = %self.config.redactor.redact(&error.to_string()), "the connector did not stop cleanly");
        }
        self.shared
            .statuses
            .set(subject, State::Stopped, None, generation)
            .await?;
        tracing::info!("connector stopped");
        Ok(())
    }

    /// Starts a task again and again until the connector stops or the task is fenced off.
    async fn supervise_task(self: Arc<Self>, task: u32, tasks: u32, overlay: ConfigMap) {
        let subject = Subject::Task(self.config.name.clone(), task);
        let ledger = self.ledgers.lock()[task as usize].clone();
        let mut backoff = self.backoff();
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            let (generation, outcome) = match self.shared.statuses.begin(&subject).await {
                Ok(generation) => {
                    let life =
                        self.clone()
                            .task_life(task, tasks, overlay.clone(), generation, ledger.clone());
                    (generation, caught(tokio::spawn(life.in_current_span())).await)
                }
                Err(error) => (0, Err(error)),
            };
            ledger.hand_back();
            let Err(error) = outcome else {
                if let Err(error) = self
                    .shared
                    .statuses
                    .set(&subject, State::Unassigned, None, generation)
                    .await
                {
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
    async fn wait_after(
        &self,
        subject: &Subject,
        error: &Error,
        generation: u64,
        backoff: &mut Backoff,
    ) -> bool {
        let text = self.config.redactor.redact(&error.to_string()); // invariant 8
        let what = if matches!(subject, Subject::Connector(_)) {
            "connector"
        } else {
            "task"
        };
        if let Err(unstored) = self
            .shared
            .statuses
            .set(subject, State::Failed, Some(text.clone()), generation)
            .await
        {
            tracing::warn!(error = %unstored, "the status below could not be stored");
        }
        if error.is_fenced() {
            tracing::error!(error = %text, "{what} failed and stays so: another instance has taken over; stop one of the two");
            return false;
        }
        if self.stop.is_cancelled() {
            tracing::warn!(error = %text, "{what} did not end cleanly; what was acknowledged is safe");
            return false;
        }
        let delay = backoff.next_delay();
        let attempt = backoff.attempts();
        tracing::error!(error = %text, attempt, restart_in_ms = delay.as_millis() as u64, "{what} failed; it will be restarted");
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = self.stop.cancelled() => false,
        }
    }

    async fn task_life(
        self: Arc<Self>,
        task: u32,
        tasks: u32,
        overlay: ConfigMap,
        generation: u64,
        ledger: Arc<Ledger>,
    ) -> Result<()> {
        let identity = TaskIdentity {
            connector: self.config.name.clone(),
            task,
            generation,
        };
        let mut config = self.config.resolved.clone();
        config.extend(overlay);
        let subject = Subject::Task(self.config.name.clone(), task);
        let running = self
            .shared
            .statuses
            .set(&subject, State::Running, None, generation);
        match self.class.spec().kind {
            ConnectorKind::Source => {
                let id = format!("tidewater-{}-{task}", self.config.name);
                // The producer first: it ends what an earlier instance had under way, and then positions hold still.
                let producer = self.at_rest_in_time(self.shared.broker.producer(&id)).await?;
                let positions = self.shared.offsets.positions(&self.config.name);
                let plugin = Arc::new(self.class.create_source_task(identity, config, positions)?);
                let task = SourceTask {
                    connector: self.config.name.clone(),
                    plugin: plugin.clone(),
                    offsets: self.shared.offsets.clone(),
                    ledger,
                    way: SourceWay::new(
                        self.shared.broker.clone(),
                        self.config.chain()?,
                        RecordEncoder::new(self.converters()?, self.config.encoder.clone()),
                        RecordErrors::new(&self.config, task),
                    ),
                    limit: self.limit.clone(),
                    linger: self.config.linger,
                    retry: self.retry(),
                };
                let life = async {
                    plugin.start().await?;
                    running.await?;
                    task.run(producer, &self.stop).await
                };
                let outcome = self.at_rest_in_time(life).await;
                self.end(outcome, plugin.stop(self.shared.graceful_stop).await)
            }
            ConnectorKind::Sink => {
                let plugin = Arc::new(self.class.create_sink_task(identity, config)?);
                let task = SinkTask {
                    group: format!("connect-{}", self.config.name),
                    plugin: plugin.clone(),
                    broker: self.shared.broker.clone(),
                    subscription: Subscription {
                        topics: self.config.topics.clone(),
                        task,
                        tasks,
                    },
                    ledger,
                    way: SinkWay::new(
                        self.config.chain()?,
                        RecordDecoder::new(self.converters()?),
                        RecordErrors::new(&self.config, task),
                    ),
                    limit: self.limit.clone(),
                    retry: self.retry(),
                    max_records: self.config.max_poll_records,
                    commit_interval: self.shared.offset_flush_interval,
                    reset: self.config.offset_reset,
                };
                let life = async {
                    plugin.start().await?;
                    running.await?;
                    task.run(&self.stop).await
                };
                let outcome = self.at_rest_in_time(life).await;
                self.end(outcome, plugin.stop(self.shared.graceful_stop).await)
            }
        }
    }

    /// Runs `life` to its end, which comes at the latest so long after the stop (invariant 7: a plugin that hangs holds
    /// up nobody).
    async fn at_rest_in_time<T>(&self, life: impl Future<Output = Result<T>>) -> Result<T> {
        let late = async {
            self.stop.cancelled().await;
            tokio::time::sleep(self.shared.graceful_stop).await;
        };
        tokio::select! {
            outcome = life => outcome,
            () = late => Err(Error::State(format!(
                "still busy {} ms after the stop (task.shutdown.graceful.timeout.ms), so it is left behind",
                self.shared.graceful_stop.as_millis()
            ))),
        }
    }

    /// A task's own failure goes before the trouble of stopping it, which is only said.
    fn end(&self, outcome: Result<()>, stopped: Result<(), PluginError>) -> Result<()> {
        if let Err(error) = stopped {
            let error = self.config.redactor.redact(&error.to_string());
            tracing::warn!(
                error,
                "the task did not stop cleanly; what it had acknowledged is safe"
            );
        }
        outcome
    }

    fn converters(&self) -> Result<Converters> {
        let create = |key: &str, chosen: &ConverterConfig| {
            let created = converter::create(
                &chosen.class,
                Role::of(key),
                &chosen.settings,
                &self.shared.schemas,
            );
            created.map_err(|source| Error::Convert {
                place: key.to_owned(),
                source,
            })
        };
        Ok(Converters {
            key: create("key.converter", &self.config.key_converter)?,
            value: create("value.converter", &self.config.value_converter)?,
            header: create("header.converter", &self.config.header_converter)?,
        })
    }

    fn retry(&self) -> Retry {
        Retry::new(
            self.backoff(),
            self.config.errors.retry_timeout,
            self.config.redactor.clone(),
        )
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_millis(300), self.config.retry_delay_max)
    }
}

/// The outcome of a task's life; a panic in it is an error like others (invariant 7).
async fn caught(life: tokio::task::JoinHandle<Result<()>>) -> Result<()> {
    life.await.unwrap_or_else(|error| {
        Err(Error::State(format!(
            "the task's host panicked; please report this: {error}"
        )))
    })
}
