//! States of connectors and tasks, in the topic `connect-status` and Kafka Connect's format: keys `status-connector-NAME` and
//! `status-task-NAME-N`, values with `state`, `trace`, `worker_id` and `generation`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::error::Result;
use crate::state_topic::{StateTopic, unix_millis};

/// The topic's name.
pub const TOPIC: &str = "connect-status";

/// Where a connector or task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum State {
    Unassigned,
    Running,
    Failed,
    Restarting,
    Stopped,
}

/// The state of a connector or task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// Why, where it does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
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
        })
    }

    /// The states of this process's connectors and tasks.
    pub fn current(&self) -> BTreeMap<Subject, Status> {
        self.current.lock().clone()
    }

    /// Begins a life of `subject` and gives its generation: greater than every one before, in this log by what is
    /// stored, and beside another log that writes to the same target by the clock.
    pub async fn begin(&self, subject: &Subject) -> Result<u64> {
        // Of all subjects, since a partition that moves to another task must not meet a greater one in its target.
        let before = self.generations.lock().values().copied().max().unwrap_or(0);
        let generation = (before + 1).max(unix_millis().unsigned_abs());
        self.set(subject, State::Unassigned, None, generation).await?;
        Ok(generation)
    }

    /// Records a state, durably. A generation never falls behind one that is stored.
    pub async fn set(
        &self,
        subject: &Subject,
        state: State,
        trace: Option<String>,
        generation: u64,
    ) -> Result<()> {
        let generation = {
            let mut generations = self.generations.lock();
            let highest = generations.entry(subject.key()).or_default();
            *highest = generation.max(*highest);
            *highest
        };
        let status = Status {
            state,
            trace,
            worker_id: self.worker_id.clone(),
            generation,
        };
        // A status of strings and numbers always serialises.
        let value = serde_json::to_vec(&status).unwrap_or_default();
        self.current.lock().insert(subject.clone(), status);
        self.topic.put(subject.key(), Some(value)).await
    }
}
