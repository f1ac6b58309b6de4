//! States of connectors and tasks, in the topic `connect-status` and Kafka Connect's format: keys `status-connector-NAME` and
//! `status-task-NAME-N`, values with `state`, `trace`, `worker_id` and `generation`, and more beside them that Connect passes
//! over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::broker::Broker;
use crate::error::Result;
use crate::state_topic::{StateTopic, unix_millis};

/// The topic's name.
pub const TOPIC: &str = "connect-status";

/// Where a connector or task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// It is being started, or its worker ends.
    Unassigned,
    /// It works.
    Running,
    /// It rests, as somebody asked; its plugin stays.
    Paused,
    /// It has failed, and nothing will restart it but somebody's word.
    Failed,
    /// It has failed, or was asked to begin anew, and will be started by itself.
    Restarting,
    /// Connectors only: it was stopped, and no task of it is there.
    Stopped,
}

/// Why a life failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// When, the last time, in milliseconds since 1970.
    pub at: i64,
    /// What failed, without secrets (invariant 8).
    pub message: String,
    /// How many times in a row.
    pub times: u32,
}

/// What a connector or task says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where it stands.
    pub state: State,
    /// The last failure, where it does not run.
    #[serde(default)]
    pub trace: Option<String>,
    /// Why it is in this state, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Failures since the last life that lasted.
    #[serde(default)]
    pub retries: u32,
    /// When it will be started again, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<i64>,
    /// Why it failed since somebody started it, the oldest first; bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

impl From<State> for Standing {
    fn from(state: State) -> Self {
        Self {
            state,
            trace: None,
            reason: None,
            retries: 0,
            next_attempt: None,
            causes: Vec::new(),
        }
    }
}

/// The state of a connector or task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it says of itself.
    #[serde(flatten)]
    pub standing: Standing,
    /// Since when it is in its state, in milliseconds since 1970.
    #[serde(default)]
    pub since: i64,
    /// The worker that runs it.
    pub worker_id: String,
    /// The life of the task this speaks of; each is greater than all before (invariant 9).
    pub generation: u64,
}

/// A connector, or one of its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The connector of this name.
    Connector(String),
    /// A task, by connector and number.
    Task(String, u32),
}

impl Subject {
    /// The connector's name.
    pub fn connector(&self) -> &str {
        match self {
            Subject::Connector(name) | Subject::Task(name, _) => name,
        }
    }

    /// `connector` or `task`.
    pub fn noun(&self) -> &'static str {
        match self {
            Subject::Connector(_) => "connector",
            Subject::Task(..) => "task",
        }
    }

    fn key(&self) -> Vec<u8> {
        match self {
            Subject::Connector(name) => format!("status-connector-{name}").into_bytes(),
            Subject::Task(name, task) => format!("status-task-{name}-{task}").into_bytes(),
        }
    }
}

/// All states.
pub struct StatusStore {
    topic: StateTopic,
    worker_id: String,
    /// The greatest generation of each subject, by its key.
    generations: Mutex<HashMap<Vec<u8>, u64>>,
    current: Mutex<BTreeMap<Subject, Status>>,
    changes: watch::Sender<u64>,
}

impl StatusStore {
    /// Reads what is stored.
    pub async fn open(broker: Arc<dyn Broker>, worker_id: String) -> Result<Self> {
        let (topic, state) = StateTopic::open(broker, TOPIC).await?;
        let mut stored = HashMap::new();
        for (key, value) in state {
            // What another worker writes may have states of its own; what matters here is the generation.
            #[derive(Deserialize)]
            struct Generation {
                generation: u64,
            }
            if let Some(Ok(Generation { generation })) = value.as_deref().map(serde_json::from_slice) {
                let highest: &mut u64 = stored.entry(key).or_default();
                *highest = generation.max(*highest);
            }
        }
        Ok(Self {
            topic,
            worker_id,
            generations: Mutex::new(stored),
            current: Mutex::default(),
            changes: watch::channel(0).0,
        })
    }

    /// Changes whenever a state does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The states of this process's connectors and tasks.
    pub fn current(&self) -> BTreeMap<Subject, Status> {
        self.current.lock().clone()
    }

    /// The state of `subject`; none where it has none in this process.
    pub fn get(&self, subject: &Subject) -> Option<Status> {
        self.current.lock().get(subject).cloned()
    }

    /// Begins a life of `subject` and gives its generation: greater than every one before, in this log by what is
    /// stored, and beside another log that writes to the same target by the clock.
    pub async fn begin(&self, subject: &Subject, standing: Standing) -> Result<u64> {
        // Of all subjects, since a partition that moves to another task must not meet a greater one in its target.
        let before = self.generations.lock().values().copied().max().unwrap_or(0);
        let generation = (before + 1).max(unix_millis().unsigned_abs());
        self.set(subject, standing, generation).await?;
        Ok(generation)
    }

    /// Records a state, durably. A generation never falls behind one that is stored.
    pub async fn set(&self, subject: &Subject, standing: Standing, generation: u64) -> Result<()> {
        let generation = {
            let mut generations = self.generations.lock();
            let highest = generations.entry(subject.key()).or_default();
            *highest = generation.max(*highest);
            *highest
        };
        let status = {
            let mut current = self.current.lock();
            let same = current
                .get(subject)
                .filter(|before| before.standing.state == standing.state && before.generation == generation);
            let status = Status {
                since: same.map_or_else(unix_millis, |before| before.since),
                standing,
                worker_id: self.worker_id.clone(),
                generation,
            };
            current.insert(subject.clone(), status.clone());
            status
        };
        self.changes.send_modify(|count| *count += 1);
        // A status of strings and numbers always serialises.
        let value = serde_json::to_vec(&status).unwrap_or_default();
        self.topic.put(subject.key(), Some(value)).await
    }

    /// Forgets a connector that was deleted or a task that there is no more.
    pub async fn forget(&self, subject: &Subject) -> Result<()> {
        self.current.lock().remove(subject);
        self.changes.send_modify(|count| *count += 1);
        self.topic.put(subject.key(), None).await
    }
}
