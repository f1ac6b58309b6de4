//! One task: its lives, one after another, and what each is made of.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_plugin_api::{ConfigMap, ConnectorKind};
use tidewater_plugin_host::{ConnectorClass, PluginError, TaskIdentity};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::backoff::Backoff;
use crate::config::{ConnectorConfig, ConverterConfig};
use crate::connector::Shared;
use crate::converter::{self, Converters, Role};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::pause::Pause;
use crate::rate_limit::RateLimit;
use crate::record_decoder::RecordDecoder;
use crate::record_encoder::RecordEncoder;
use crate::record_errors::RecordErrors;
use crate::restart_policy::RestartPolicy;
use crate::retry::Retry;
use crate::sink_task::{SinkTask, Subscription};
use crate::sink_way::SinkWay;
use crate::source_task::SourceTask;
use crate::source_way::SourceWay;
use crate::status::{State, Subject};
use crate::supervision::{Ended, Life, StatusWitness, Supervision, Witness};

/// What a plugin gets to stop at the least, even where draining has used up the time.
const LEAST_STOP: Duration = Duration::from_millis(500);

/// A task and what it runs with.
pub(crate) struct Task {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Arc<ConnectorConfig>,
    pub(crate) class: Arc<ConnectorClass>,
    /// Its number, from 0.
    pub(crate) number: u32,
    /// How many tasks the connector has.
    pub(crate) count: u32,
    /// What its connector has given it to do.
    pub(crate) overlay: ConfigMap,
    pub(crate) ledger: Arc<Ledger>,
    /// Shared with the connector's other tasks.
    pub(crate) limit: Arc<RateLimit>,
    pub(crate) stop: Deadline,
}

/// When to stop, and how much time that leaves (`task.shutdown.graceful.timeout.ms`).
#[derive(Debug)]
pub(crate) struct Deadline {
    stop: CancellationToken,
    graceful: Duration,
    /// When the stop was seen.
    seen: Mutex<Option<Instant>>,
}

impl Deadline {
    pub(crate) fn new(stop: CancellationToken, graceful: Duration) -> Self {
        Self {
            stop,
            graceful,
            seen: Mutex::new(None),
        }
    }

    /// Runs `life` to its end, which comes at the latest so long after the stop (invariant 7: a plugin that hangs holds
    /// up nobody).
    pub(crate) async fn at_rest_in_time<T>(&self, life: impl Future<Output = Result<T>>) -> Result<T> {
        let late = async {
            self.stop.cancelled().await;
            let seen = *self.seen.lock().get_or_insert_with(Instant::now);
            tokio::time::sleep_until(seen + self.graceful).await;
        };
        tokio::select! {
            // First, so that the time of the stop is seen even where the life ends with it.
            biased;
            () = late => Err(Error::State(format!(
                "still busy {} ms after the stop (task.shutdown.graceful.timeout.ms), so it is left behind",
                self.graceful.as_millis()
            ))),
            outcome = life => outcome,
        }
    }

    /// What is left for the plugin's own stop.
    pub(crate) fn left(&self) -> Duration {
        let used = self.seen.lock().map_or(Duration::ZERO, |seen| seen.elapsed());
        self.graceful.saturating_sub(used).max(LEAST_STOP)
    }
}

impl Task {
    /// Lives until it is stopped or the policy gives up.
    pub(crate) async fn run(self: Arc<Self>, policy: watch::Receiver<RestartPolicy>, pause: Pause) -> Ended {
        let witness = Arc::new(StatusWitness {
            statuses: self.shared.statuses.clone(),
            subject: Subject::Task(self.config.name.clone(), self.number),
        });
        let supervision = Supervision {
            witness: witness.clone(),
            noun: "task",
            policy,
            redactor: self.config.redactor.clone(),
            stop: self.stop.stop.clone(),
        };
        let life = |life| {
            let (task, pause, witness) = (self.clone(), pause.clone(), witness.clone());
            async move {
                let ledger = task.ledger.clone();
                let life = tokio::spawn(task.live(life, pause, witness).in_current_span());
                let outcome = caught(life).await;
                ledger.hand_back();
                outcome
            }
        };
        supervision.run(life).await
    }

    async fn live(self: Arc<Self>, life: Life, mut pause: Pause, witness: Arc<StatusWitness>) -> Result<()> {
        pause.resting(false);
        if pause.is_wanted() {
            let paused = life.standing(State::Paused);
            witness.tell(paused, life.generation).await?;
            tokio::select! {
                () = pause.over() => {}
                () = self.stop.stop.cancelled() => return Ok(()),
            }
        }
        let seen = pause.seen();
        let identity = TaskIdentity {
            connector: self.config.name.clone(),
            task: self.number,
            generation: life.generation,
        };
        let mut config = self.config.resolved.clone();
        config.extend(self.overlay.clone());
        let stop = &self.stop.stop;
        match self.class.spec().kind {
            ConnectorKind::Source => {
                let id = producer_id(&self.config.name, self.number);
                // The producer first: it ends what an earlier instance had under way, and then positions hold still.
                let producer = self
                    .stop
                    .at_rest_in_time(self.shared.broker.producer(&id))
                    .await?;
                let positions = self.shared.offsets.positions(&self.config.name);
                let plugin = self.class.create_source_task(identity, config, positions)?;
                let plugin = Arc::new(plugin.with_call_timeout(self.config.call_timeout));
                let task = SourceTask {
                    connector: self.config.name.clone(),
                    plugin: plugin.clone(),
                    offsets: self.shared.offsets.clone(),
                    ledger: self.ledger.clone(),
                    way: SourceWay::new(
                        self.shared.broker.clone(),
                        self.config.chain()?,
                        RecordEncoder::new(self.converters()?, self.config.encoder.clone()),
                        RecordErrors::new(&self.config, self.number),
                    ),
                    limit: self.limit.clone(),
                    linger: self.config.linger,
                    retry: self.retry(),
                    pause,
                };
                let work = async {
                    plugin.start().await?;
                    self.told(&witness, &life, seen, task.run(producer, stop)).await
                };
                let outcome = Box::pin(self.stop.at_rest_in_time(work)).await;
                self.end(outcome, plugin.stop(self.stop.left()).await)
            }
            ConnectorKind::Sink => {
                let plugin = self.class.create_sink_task(identity, config)?;
                let plugin = Arc::new(plugin.with_call_timeout(self.config.call_timeout));
                let task = SinkTask {
                    group: group(&self.config.name),
                    plugin: plugin.clone(),
                    broker: self.shared.broker.clone(),
                    subscription: Subscription {
                        topics: self.config.topics.clone(),
                        task: self.number,
                        tasks: self.count,
                    },
                    ledger: self.ledger.clone(),
                    way: SinkWay::new(
                        self.config.chain()?,
                        RecordDecoder::new(self.converters()?),
                        RecordErrors::new(&self.config, self.number),
                    ),
                    limit: self.limit.clone(),
                    retry: self.retry(),
                    max_records: self.config.max_poll_records,
                    commit_interval: self.shared.offset_flush_interval,
                    reset: self.config.offset_reset,
                    pause,
                };
                let work = async {
                    plugin.start().await?;
                    self.told(&witness, &life, seen, task.run(stop)).await
                };
                let outcome = Box::pin(self.stop.at_rest_in_time(work)).await;
                self.end(outcome, plugin.stop(self.stop.left()).await)
            }
        }
    }

    /// Does the task's work and tells meanwhile whether it runs or rests.
    async fn told(
        &self,
        witness: &StatusWitness,
        life: &Life,
        mut resting: watch::Receiver<bool>,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let running = life.standing(State::Running);
        witness.tell(running, life.generation).await?;
        let follow = async {
            loop {
                if resting.changed().await.is_err() {
                    return std::future::pending::<Infallible>().await;
                }
                let state = if *resting.borrow_and_update() {
                    State::Paused
                } else {
                    State::Running
                };
                if let Err(error) = witness.tell(life.standing(state), life.generation).await {
                    tracing::warn!(%error, ?state, "the state of the task could not be stored");
                }
            }
        };
        tokio::select! {
            outcome = work => outcome,
            never = follow => match never {},
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
        let backoff = Backoff::new(Duration::from_millis(300), self.config.retry_delay_max);
        Retry::new(
            backoff,
            self.config.errors.retry_timeout,
            self.config.redactor.clone(),
        )
    }
}

/// The producer of a source task.
pub(crate) fn producer_id(connector: &str, task: u32) -> String {
    format!("tidewater-{connector}-{task}")
}

/// The consumer group of a sink.
pub(crate) fn group(connector: &str) -> String {
    format!("connect-{connector}")
}

/// The outcome of a task's life; a panic in it is an error like others (invariant 7).
async fn caught(life: tokio::task::JoinHandle<Result<()>>) -> Result<()> {
    life.await.unwrap_or_else(|error| {
        Err(Error::State(format!(
            "the task's host panicked; please report this: {error}"
        )))
    })
}
