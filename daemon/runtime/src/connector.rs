//! The life of a connector: an actor that takes requests, has the connector's instance and its tasks run, and restarts
//! what a request or a change of configuration touches, and nothing else.
//!
//! The instance ([`connector_life`](crate::connector_life)) and each task ([`task_life`](crate::task_life)) run by
//! themselves, and fail and are restarted by themselves (invariant 7). The actor waits for none of them, but for the end of what it
//! has told to stop, which is bounded. So a plugin that hangs keeps no request waiting.
//!
//! Order: the instance starts first and says how the work is split; the tasks follow. At the end the tasks stop first. Where
//! tasks change, all that must go have ended before the first of the new ones begins, so that no partition has two owners.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tidewater_plugin_api::{ConfigMap, ConnectorKind};
use tidewater_plugin_host::ConnectorClass;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::broker::Broker;
use crate::config::ConnectorConfig;
use crate::config_store::{ConfigStore, Origin, TargetState};
use crate::connector_life::{Instance, Plan};
use crate::control::{ControlError, OffsetChange, OffsetsChanged, Reply, Request};
use crate::ledger::Ledger;
use crate::offset_change::OffsetsOf;
use crate::offsets::OffsetStore;
use crate::pause::{PauseSwitch, pause};
use crate::rate_limit::RateLimit;
use crate::restart_policy::RestartPolicy;
use crate::schema_store::SchemaStore;
use crate::status::{Standing, State, StatusStore, Subject};
use crate::supervision::Ended;
use crate::task_life::{Deadline, Task};

/// What all connectors of a worker share.
pub struct Shared {
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// Configurations and what is wanted.
    pub configs: Arc<ConfigStore>,
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

/// The ledgers of a connector's tasks; they outlive the tasks' lives.
pub type Ledgers = Arc<Mutex<Vec<Arc<Ledger>>>>;

/// What can be told of a connector without asking it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its configuration.
    pub config: Arc<ConnectorConfig>,
    /// What is wanted of it.
    pub target: TargetState,
    /// What its connector has given each task to do, laid over the configuration.
    pub tasks: Vec<ConfigMap>,
}

/// How an actor ended.
pub(crate) enum End {
    /// Its worker ends.
    Shutdown,
    /// It was deleted, which is to be answered once its name is free.
    Deleted(Reply<()>),
}

/// What runs by itself and can be stopped. Dropped, it is told to stop.
struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Ended>,
}

impl Running {
    /// Stops it and waits for its end, which is bounded.
    async fn end(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.ended).await {
            tracing::error!(%error, "a supervision panicked; please report this");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct RunningTask {
    running: Running,
    pause: PauseSwitch,
    overlay: ConfigMap,
    config: Arc<ConnectorConfig>,
    class: Arc<ConnectorClass>,
    count: u32,
}

/// The actor.
pub(crate) struct Connector {
    name: String,
    shared: Arc<Shared>,
    config: Arc<ConnectorConfig>,
    class: Arc<ConnectorClass>,
    target: TargetState,
    policy: watch::Sender<RestartPolicy>,
    facts: Arc<RwLock<Facts>>,
    ledgers: Ledgers,
    /// Shared by its tasks.
    limit: Arc<RateLimit>,
    requests: mpsc::Receiver<Request>,
    shutdown: CancellationToken,
    instance: Option<Running>,
    instances: u64,
    paused: watch::Sender<bool>,
    plans: (mpsc::Sender<Plan>, mpsc::Receiver<Plan>),
    tasks: Vec<RunningTask>,
}

impl Connector {
    /// A connector of which `target` is wanted; it ends with `shutdown`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        config: ConnectorConfig,
        class: Arc<ConnectorClass>,
        target: TargetState,
        requests: mpsc::Receiver<Request>,
        shutdown: CancellationToken,
    ) -> Self {
        let config = Arc::new(config);
        let facts = Facts {
            config: config.clone(),
            target,
            tasks: Vec::new(),
        };
        Self {
            name: config.name.clone(),
            shared,
            policy: watch::channel(config.restart.clone()).0,
            class,
            target,
            facts: Arc::new(RwLock::new(facts)),
            ledgers: Ledgers::default(),
            limit: limit_of(&config),
            requests,
            shutdown,
            instance: None,
            instances: 0,
            paused: watch::channel(target == TargetState::Paused).0,
            plans: mpsc::channel(1),
            tasks: Vec::new(),
            config,
        }
    }

    /// The ledgers of its tasks, by number.
    pub(crate) fn ledgers(&self) -> Ledgers {
        self.ledgers.clone()
    }

    /// What can be told without asking.
    pub(crate) fn facts(&self) -> Arc<RwLock<Facts>> {
        self.facts.clone()
    }

    /// Runs until it is deleted or its worker ends.
    pub(crate) async fn run(mut self) -> End {
        match self.target {
            TargetState::Stopped => self.tell(State::Stopped.into()).await,
            TargetState::Running | TargetState::Paused => self.start_instance(),
        }
        loop {
            let request = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some(plan) = self.plans.1.recv() => {
                    self.deal(plan).await;
                    continue;
                }
                request = self.requests.recv() => match request {
                    Some(request) => request,
                    None => break,
                },
            };
            match request {
                Request::Reconfigure(config, class, reply) => self.reconfigure(*config, class, reply).await,
                Request::Target(target, reply) => self.aim(target, reply).await,
                Request::Restart {
                    include_tasks,
                    only_failed,
                    reply,
                } => self.restart(include_tasks, only_failed, reply).await,
                Request::RestartTask(task, reply) => self.restart_one(task, reply).await,
                Request::ChangeOffsets(change, reply) => {
                    tokio::select! {
                        changed = self.change_offsets(change) => answer(reply, changed),
                        () = self.shutdown.cancelled() => break,
                    }
                }
                Request::Delete(reply) => match self.shared.configs.delete(&self.name).await {
                    Ok(()) => {
                        self.stop_all().await;
                        self.forget(0).await;
                        let subject = Subject::Connector(self.name.clone());
                        if let Err(error) = self.shared.statuses.forget(&subject).await {
                            tracing::warn!(%error, "the connector is deleted, but its state could not be");
                        }
                        tracing::info!("connector deleted");
                        return End::Deleted(reply);
                    }
                    Err(error) => answer(reply, Err(error.into())),
                },
            }
        }
        let tasks = self.tasks.len() as u32;
        self.stop_all().await;
        for task in 0..tasks {
            self.tell_of(&Subject::Task(self.name.clone(), task), State::Unassigned.into())
                .await;
        }
        if self.target != TargetState::Stopped {
            self.tell(State::Unassigned.into()).await;
        }
        End::Shutdown
    }

    // ---- what is asked

    /// Takes a new configuration. Tasks go on with the one they have until the connector has started with the new one and
    /// said how the work is split now: a configuration it cannot start with interrupts nothing.
    async fn reconfigure(&mut self, config: ConnectorConfig, class: Arc<ConnectorClass>, reply: Reply<()>) {
        let stored = self
            .shared
            .configs
            .put_connector(&self.name, &config.raw, Origin::Request)
            .await;
        if let Err(error) = stored {
            return answer(reply, Err(error.into()));
        }
        let before = std::mem::replace(&mut self.config, Arc::new(config));
        self.class = class;
        self.limit = limit_of(&self.config);
        self.policy.send_replace(self.config.restart.clone());
        self.facts.write().config = self.config.clone();
        answer(reply, Ok(()));
        if self.target == TargetState::Stopped {
            return;
        }
        let changed = changed_keys(&before, &self.config);
        tracing::info!(keys = ?changed, "the configuration has changed");
        if changed.iter().any(|key| !is_of_supervision(key)) {
            self.end_instance().await;
            self.start_instance();
        } else if !changed.is_empty() {
            // A new policy gives what has failed by the old one another chance.
            self.restart_failed(true).await;
        }
    }

    /// Runs, pauses or stops the connector from now on.
    async fn aim(&mut self, target: TargetState, reply: Reply<()>) {
        if let Err(error) = self.shared.configs.put_target(&self.name, target).await {
            return answer(reply, Err(error.into()));
        }
        let before = std::mem::replace(&mut self.target, target);
        self.facts.write().target = target;
        answer(reply, Ok(()));
        if before != target {
            tracing::info!(?target, "asked to change its state");
        }
        match target {
            TargetState::Stopped if before != TargetState::Stopped => {
                self.stop_all().await;
                self.forget(0).await;
                self.tell(State::Stopped.into()).await;
            }
            TargetState::Stopped => {}
            TargetState::Running | TargetState::Paused => {
                let rest = target == TargetState::Paused;
                self.paused.send_replace(rest);
                for task in &self.tasks {
                    task.pause.set(rest);
                }
                if self.instance.is_none() {
                    self.start_instance();
                }
            }
        }
    }

    /// Restarts the connector's instance, and its tasks where they are included; of all that only what has failed, where
    /// that is asked for. Answers what restarts, before it does.
    async fn restart(&mut self, include_tasks: bool, only_failed: bool, reply: Reply<Vec<Subject>>) {
        if self.target == TargetState::Stopped {
            return answer(reply, Ok(Vec::new()));
        }
        let connector = !only_failed || self.has_failed(&Subject::Connector(self.name.clone()));
        let tasks: Vec<u32> = (0..self.tasks.len() as u32)
            .filter(|&task| {
                include_tasks && (!only_failed || self.has_failed(&Subject::Task(self.name.clone(), task)))
            })
            .collect();
        let mut subjects: Vec<_> = tasks
            .iter()
            .map(|&task| Subject::Task(self.name.clone(), task))
            .collect();
        if connector {
            subjects.insert(0, Subject::Connector(self.name.clone()));
        }
        for subject in &subjects {
            self.tell_of(subject, asked_to_restart()).await;
        }
        answer(reply, Ok(subjects));
        if connector {
            self.end_instance().await;
            self.start_instance();
        }
        self.restart_tasks(&tasks).await;
    }

    async fn restart_one(&mut self, task: u32, reply: Reply<()>) {
        if task as usize >= self.tasks.len() {
            return answer(reply, Err(ControlError::NoTask(self.name.clone(), task)));
        }
        self.tell_of(&Subject::Task(self.name.clone(), task), asked_to_restart())
            .await;
        answer(reply, Ok(()));
        self.restart_tasks(&[task]).await;
    }

    /// Changes where the connector goes on. Its tasks have ended, since a stop is done before the next request is looked at.
    async fn change_offsets(&self, change: OffsetChange) -> Result<OffsetsChanged, ControlError> {
        let state = match self.target {
            TargetState::Stopped => {
                let changing = OffsetsOf {
                    shared: &self.shared,
                    config: &self.config,
                    class: &self.class,
                    tasks: self.ledgers.lock().len() as u32,
                };
                return changing.change(change).await;
            }
            TargetState::Running => "RUNNING",
            TargetState::Paused => "PAUSED",
        };
        Err(ControlError::NotStopped(self.name.clone(), state))
    }

    async fn restart_failed(&mut self, include_connector: bool) {
        if include_connector && self.has_failed(&Subject::Connector(self.name.clone())) {
            self.end_instance().await;
            self.start_instance();
        }
        let failed: Vec<u32> = (0..self.tasks.len() as u32)
            .filter(|&task| self.has_failed(&Subject::Task(self.name.clone(), task)))
            .collect();
        self.restart_tasks(&failed).await;
    }

    /// Whether it has failed, be it for good or until it is tried again.
    fn has_failed(&self, subject: &Subject) -> bool {
        let status = self.shared.statuses.get(subject);
        status.is_some_and(|status| matches!(status.standing.state, State::Failed | State::Restarting))
    }

    // ---- what runs

    fn start_instance(&mut self) {
        self.instances += 1;
        // Not the worker's own: the instance stops after its tasks.
        let stop = CancellationToken::new();
        let instance = Instance {
            shared: self.shared.clone(),
            config: self.config.clone(),
            class: self.class.clone(),
            number: self.instances,
            plans: self.plans.0.clone(),
            paused: self.paused.subscribe(),
            stop: stop.clone(),
        };
        let ended = tokio::spawn(instance.run(self.policy.subscribe()).in_current_span());
        self.instance = Some(Running { stop, ended });
    }

    async fn end_instance(&mut self) {
        let Some(instance) = self.instance.take() else {
            return;
        };
        // It may be waiting to hand over a plan, which nobody wants any more.
        let mut end = std::pin::pin!(instance.end());
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(_unwanted) = self.plans.1.recv() => {}
            }
        }
    }

    async fn stop_all(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        futures::future::join_all(tasks.into_iter().map(|task| task.running.end())).await;
        self.end_instance().await;
        self.facts.write().tasks.clear();
    }

    /// Forgets the states of the tasks from `first` on.
    async fn forget(&self, first: u32) {
        let known = self.shared.statuses.current();
        let gone = known.into_keys().filter(
            |subject| matches!(subject, Subject::Task(name, task) if *name == self.name && *task >= first),
        );
        for subject in gone {
            if let Err(error) = self.shared.statuses.forget(&subject).await {
                tracing::warn!(%error, ?subject, "the state of a task that is no more could not be deleted");
            }
        }
    }

    /// Has the tasks do the work as it is split now: those whose part and configuration are the same go on.
    async fn deal(&mut self, plan: Plan) {
        if plan.instance != self.instances || self.target == TargetState::Stopped {
            return;
        }
        let count = plan.tasks.len() as u32;
        let same = |number: usize, task: &RunningTask| {
            plan.tasks.get(number) == Some(&task.overlay)
                && Arc::ptr_eq(&task.class, &self.class)
                // The share of a sink's task depends on how many there are.
                && (self.class.spec().kind == ConnectorKind::Source || task.count == count)
                && changed_keys(&task.config, &self.config)
                    .iter()
                    .all(|key| is_of_supervision(key))
        };
        let mut kept: Vec<Option<RunningTask>> = Vec::new();
        let mut gone = Vec::new();
        for (number, task) in std::mem::take(&mut self.tasks).into_iter().enumerate() {
            if same(number, &task) {
                kept.push(Some(task));
            } else {
                kept.push(None);
                gone.push(task.running.end());
            }
        }
        if !gone.is_empty() {
            tracing::info!(
                restarting = gone.len(),
                kept = kept.iter().flatten().count(),
                "tasks change"
            );
        }
        futures::future::join_all(gone).await;
        self.forget(count).await;
        {
            let mut ledgers = self.ledgers.lock();
            let tasks = ledgers.len().max(plan.tasks.len());
            ledgers.resize_with(tasks, Arc::default);
        }
        kept.resize_with(plan.tasks.len(), || None);
        self.facts.write().tasks.clone_from(&plan.tasks);
        for ((number, overlay), kept) in plan.tasks.into_iter().enumerate().zip(kept) {
            let task = match kept {
                Some(task) => task,
                None => self.start_task(number as u32, count, overlay),
            };
            self.tasks.push(task);
        }
    }

    /// Ends tasks and begins them anew, with no failures behind them.
    async fn restart_tasks(&mut self, numbers: &[u32]) {
        let numbers: BTreeSet<u32> = numbers.iter().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let mut kept = Vec::new();
        let mut gone = Vec::new();
        for (number, task) in std::mem::take(&mut self.tasks).into_iter().enumerate() {
            if numbers.contains(&(number as u32)) {
                let RunningTask {
                    running,
                    overlay,
                    count,
                    ..
                } = task;
                gone.push(running.end());
                kept.push(Err((count, overlay)));
            } else {
                kept.push(Ok(task));
            }
        }
        futures::future::join_all(gone).await;
        for (number, kept) in kept.into_iter().enumerate() {
            let task = kept.unwrap_or_else(|(count, overlay)| self.start_task(number as u32, count, overlay));
            self.tasks.push(task);
        }
    }

    fn start_task(&self, number: u32, count: u32, overlay: ConfigMap) -> RunningTask {
        let (switch, pause) = pause(self.target == TargetState::Paused);
        let stop = self.shutdown.child_token();
        let task = Task {
            shared: self.shared.clone(),
            config: self.config.clone(),
            class: self.class.clone(),
            number,
            count,
            overlay: overlay.clone(),
            ledger: self.ledgers.lock()[number as usize].clone(),
            limit: self.limit.clone(),
            stop: Deadline::new(stop.clone(), self.shared.graceful_stop),
        };
        let span = tracing::info_span!("task", connector = self.name, task = number);
        let ended = tokio::spawn(
            Arc::new(task)
                .run(self.policy.subscribe(), pause)
                .instrument(span),
        );
        RunningTask {
            running: Running { stop, ended },
            pause: switch,
            overlay,
            config: self.config.clone(),
            class: self.class.clone(),
            count,
        }
    }

    // ---- what is told

    async fn tell(&self, standing: Standing) {
        self.tell_of(&Subject::Connector(self.name.clone()), standing)
            .await;
    }

    async fn tell_of(&self, subject: &Subject, standing: Standing) {
        let generation = self
            .shared
            .statuses
            .get(subject)
            .map_or(0, |status| status.generation);
        if let Err(error) = self.shared.statuses.set(subject, standing, generation).await {
            tracing::warn!(%error, ?subject, "its state could not be stored");
        }
    }
}

fn limit_of(config: &ConnectorConfig) -> Arc<RateLimit> {
    Arc::new(RateLimit::new(config.rate_limit_records, config.rate_limit_bytes))
}

fn asked_to_restart() -> Standing {
    Standing {
        reason: Some("asked to restart".to_owned()),
        ..State::Restarting.into()
    }
}

/// Answers a request, whose asker may have gone.
fn answer<T>(reply: Reply<T>, with: Result<T, ControlError>) {
    let _ = reply.send(with);
}

/// The keys in which two configurations of a connector differ, as the plugin sees them.
fn changed_keys(before: &ConnectorConfig, after: &ConnectorConfig) -> BTreeSet<String> {
    let (before, after) = (&before.resolved, &after.resolved);
    let keys = before.keys().chain(after.keys());
    keys.filter(|key| before.get(*key) != after.get(*key))
        .cloned()
        .collect()
}

/// Whether `key` is only for who supervises the tasks: a change of it restarts nothing that runs.
fn is_of_supervision(key: &str) -> bool {
    key.starts_with("restart.")
}
