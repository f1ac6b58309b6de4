//! Where connectors and tasks stand, in Kafka Connect's form with more beside it.

use std::collections::BTreeMap;

use serde::Serialize;
use tidewater_plugin_api::ConnectorKind;
use tidewater_runtime::Worker;
use tidewater_runtime::status::{State, Status, Subject};
use utoipa::ToSchema;

use crate::connectors::kind;

/// A connector and its tasks.
#[derive(Serialize, ToSchema)]
pub(crate) struct StatusView {
    name: String,
    connector: StateView,
    tasks: Vec<TaskStateView>,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// The state of a connector or task.
#[derive(Serialize, ToSchema)]
pub(crate) struct StateView {
    /// UNASSIGNED, RUNNING, PAUSED, FAILED, RESTARTING or STOPPED.
    #[schema(example = "RUNNING")]
    state: String,
    worker_id: String,
    /// What failed last, where it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    /// Why it is in this state, where that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Since when, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    /// Failures since the last life that lasted.
    retries: u32,
    /// When it will be started again, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<i64>,
    /// Why it failed since somebody started it, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<CauseView>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TaskStateView {
    id: u32,
    #[serde(flatten)]
    state: StateView,
}

#[derive(Serialize, ToSchema)]
struct CauseView {
    /// The last time, in milliseconds since 1970.
    at: i64,
    message: String,
    /// How many times in a row.
    times: u32,
}

/// The statuses of one connector.
#[derive(Default)]
pub(crate) struct Statuses {
    connector: Option<Status>,
    tasks: BTreeMap<u32, Status>,
}

impl From<(Option<Status>, BTreeMap<u32, Status>)> for Statuses {
    fn from((connector, tasks): (Option<Status>, BTreeMap<u32, Status>)) -> Self {
        Self { connector, tasks }
    }
}

impl Statuses {
    /// What stands otherwise, such as `task 0 FAILED`.
    pub(crate) fn others_than(&self, state: State) -> impl Iterator<Item = String> {
        let connector = match &self.connector {
            Some(status) => status.standing.state,
            None => State::Unassigned,
        };
        let connector = (connector != state).then(|| format!("connector {}", name(connector)));
        let tasks = self
            .tasks
            .iter()
            .filter(move |(_, status)| status.standing.state != state);
        connector
            .into_iter()
            .chain(tasks.map(|(task, status)| format!("task {task} {}", name(status.standing.state))))
    }
}

/// The statuses of all connectors by name, in one look.
pub(crate) fn all(worker: &Worker) -> BTreeMap<String, Statuses> {
    let mut all: BTreeMap<String, Statuses> = BTreeMap::new();
    for (subject, status) in worker.statuses() {
        let of = all.entry(subject.connector().to_owned()).or_default();
        match subject {
            Subject::Connector(_) => of.connector = Some(status),
            Subject::Task(_, task) => drop(of.tasks.insert(task, status)),
        }
    }
    all
}

pub(crate) fn view(name: &str, statuses: Statuses, of_kind: ConnectorKind) -> StatusView {
    let task = |(id, status): (u32, Status)| TaskStateView {
        id,
        state: state_view(Some(status)),
    };
    StatusView {
        name: name.to_owned(),
        connector: state_view(statuses.connector),
        tasks: statuses.tasks.into_iter().map(task).collect(),
        kind: kind(of_kind),
    }
}

pub(crate) fn task_view(id: u32, status: Status) -> TaskStateView {
    TaskStateView {
        id,
        state: state_view(Some(status)),
    }
}

impl StatusView {
    /// Shows what is about to restart as Kafka Connect does.
    pub(crate) fn restarting(&mut self, subjects: &[Subject]) {
        for subject in subjects {
            let state = match subject {
                Subject::Connector(_) => Some(&mut self.connector),
                Subject::Task(_, task) => {
                    let found = self.tasks.iter_mut().find(|view| view.id == *task);
                    found.map(|view| &mut view.state)
                }
            };
            if let Some(state) = state {
                "RESTARTING".clone_into(&mut state.state);
            }
        }
    }
}

fn state_view(status: Option<Status>) -> StateView {
    let Some(status) = status else {
        return StateView {
            state: name(State::Unassigned),
            worker_id: String::new(),
            trace: None,
            reason: None,
            since: None,
            retries: 0,
            next_attempt: None,
            causes: Vec::new(),
        };
    };
    let standing = status.standing;
    let cause = |cause: tidewater_runtime::status::Cause| CauseView {
        at: cause.at,
        message: cause.message,
        times: cause.times,
    };
    StateView {
        state: name(standing.state),
        worker_id: status.worker_id,
        trace: standing.trace,
        reason: standing.reason,
        since: Some(status.since),
        retries: standing.retries,
        next_attempt: standing.next_attempt,
        causes: standing.causes.into_iter().map(cause).collect(),
    }
}

/// The name of a state, which is how it serialises.
fn name(state: State) -> String {
    serde_json::to_value(state)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}
