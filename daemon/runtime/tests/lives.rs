//! Faults of plugins, each in its phase: the one that has them is restarted or replaced, and its neighbours go on as if
//! nothing had happened (invariant 7).

mod support;

use std::time::Duration;

use support::{Stand, complete_and_in_order, lines, until};
use tidewater_runtime::status::State;

/// A pipeline beside the one with the fault, which must not notice anything.
async fn neighbours(worker: &support::Running<'_>) {
    worker.source("healthy", &[]).await;
    worker.sink("healthy-sink", "healthy", &[]).await;
    worker.writes("healthy-sink", 50).await;
}

/// They have gone on, with no failure, no repetition and nothing missing.
async fn never_noticed(worker: &support::Running<'_>) {
    worker.writes("healthy-sink", 50).await;
    for name in ["healthy", "healthy-sink"] {
        let status = worker.task(name, 0).expect("it has a state");
        assert_eq!(
            (status.standing.state, status.standing.retries),
            (State::Running, 0),
            "{status:?}"
        );
    }
    let written = lines(&worker.stand.path("healthy-sink"));
    assert_eq!(complete_and_in_order(&written), 0, "something was repeated");
    worker.balanced();
}

/// A source that has this fault is restarted until the fault is gone, and then every number is there once.
async fn source_outlives(fault: &str, more: &[(&str, &str)], said: &str) {
    let stand = Stand::new();
    let worker = stand.worker().await;
    neighbours(&worker).await;
    worker.source("faulty", more).await;
    worker.sink("faulty-sink", "faulty", &[]).await;
    worker.writes("faulty-sink", 20).await;
    stand.order("faulty.faults", Some(fault));
    if fault.starts_with("start ") || fault.starts_with("stop ") {
        worker
            .worker
            .restart_task("faulty", 0)
            .await
            .expect("there is a task");
    }
    if !said.is_empty() {
        let status = worker
            .task_is("faulty", 0, State::Restarting, |status| {
                status.standing.retries >= 2
            })
            .await;
        let trace = status.standing.trace.expect("it says why");
        assert!(trace.contains(said), "{trace}");
        assert!(status.standing.next_attempt.is_some() && !status.standing.causes.is_empty());
    }
    never_noticed(&worker).await;
    stand.order("faulty.faults", None);
    worker
        .task_is("faulty", 0, State::Running, |status| {
            status.standing.next_attempt.is_none()
        })
        .await;
    worker.writes("faulty-sink", 50).await;
    never_noticed(&worker).await;
    worker.worker.shutdown().await;
    let written = lines(&stand.path("faulty-sink"));
    complete_and_in_order(&written);
    let numbers: Vec<i64> = written.iter().map(|line| line.number).collect();
    let expected: Vec<i64> = (0..numbers.len() as i64).collect();
    assert_eq!(
        numbers, expected,
        "positions and records commit together (invariant 2)"
    );
}

/// A sink that has this fault is restarted until the fault is gone, and then no record is missing.
async fn sink_outlives(fault: &str, more: &[(&str, &str)], said: &str) {
    let stand = Stand::new();
    let worker = stand.worker().await;
    neighbours(&worker).await;
    worker.source("numbers", &[]).await;
    worker.sink("faulty", "numbers", more).await;
    worker.writes("faulty", 20).await;
    stand.order("faulty.faults", Some(fault));
    if !(fault.starts_with("put ") || fault.starts_with("flush ")) {
        worker
            .worker
            .restart_task("faulty", 0)
            .await
            .expect("there is a task");
    }
    if !said.is_empty() {
        let status = worker
            .task_is("faulty", 0, State::Restarting, |status| {
                status.standing.retries >= 2
            })
            .await;
        let trace = status.standing.trace.expect("it says why");
        assert!(trace.contains(said), "{trace}");
    }
    never_noticed(&worker).await;
    stand.order("faulty.faults", None);
    worker.writes("faulty", 50).await;
    worker.task_is("faulty", 0, State::Running, |_| true).await;
    never_noticed(&worker).await;
    worker.worker.shutdown().await;
    complete_and_in_order(&lines(&stand.path("faulty")));
}

const HURRY: [(&str, &str); 1] = [("task.call.timeout.ms", "200")];

#[tokio::test]
async fn sources_outlive_errors() {
    source_outlives("start fatal", &[], "told to fail in start").await;
    source_outlives("poll config", &[], "told to fail in poll").await;
    source_outlives("commit fatal", &[], "told to fail in commit").await;
    source_outlives("poll retriable", &[], "").await;
    source_outlives("stop fatal", &[], "").await;
}

#[tokio::test]
async fn sources_outlive_panics() {
    source_outlives("start panic", &[], "told to panic in start").await;
    source_outlives("poll panic", &[], "told to panic in poll").await;
    source_outlives("commit panic", &[], "told to panic in commit").await;
    source_outlives("stop panic", &[], "").await;
}

#[tokio::test]
async fn sources_outlive_hangs() {
    source_outlives("start hang", &HURRY, "task.call.timeout.ms").await;
    source_outlives("commit hang", &HURRY, "task.call.timeout.ms").await;
    source_outlives("poll block", &HURRY, "task.call.timeout.ms").await;
    source_outlives("stop hang", &[], "").await;
}

#[tokio::test]
async fn sources_outlive_values_that_are_not_of_their_schema() {
    source_outlives("poll malformed", &[], "value of a record for topic faulty").await;
}

#[tokio::test]
async fn sources_may_flood_and_trickle() {
    source_outlives("poll flood", &[], "").await;
    source_outlives("poll trickle", &[], "").await;
}

#[tokio::test]
async fn sinks_outlive_errors() {
    sink_outlives("start fatal", &[], "told to fail in start").await;
    sink_outlives("open fatal", &[], "told to fail in open").await;
    sink_outlives("put config", &[], "told to fail in put").await;
    sink_outlives("put retriable", &[], "").await;
    sink_outlives("flush fatal", &[], "told to fail in flush").await;
    sink_outlives("close fatal", &[], "").await;
}

#[tokio::test]
async fn sinks_outlive_panics() {
    sink_outlives("open panic", &[], "told to panic in open").await;
    sink_outlives("put panic", &[], "told to panic in put").await;
    sink_outlives("flush panic", &[], "told to panic in flush").await;
    sink_outlives("close panic", &[], "").await;
}

#[tokio::test]
async fn sinks_outlive_hangs() {
    sink_outlives("put hang", &HURRY, "task.call.timeout.ms").await;
    sink_outlives("put block", &HURRY, "task.call.timeout.ms").await;
    sink_outlives("flush hang", &HURRY, "task.call.timeout.ms").await;
    sink_outlives("open hang", &HURRY, "task.call.timeout.ms").await;
}

#[tokio::test]
async fn a_thread_that_is_blocked_is_left_behind_and_counted() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[]).await;
    worker.sink("faulty", "numbers", &HURRY).await;
    stand.order("faulty.faults", Some("put block"));
    until("an instance is left behind", || stand.abandoned() > 0).await;
    stand.order("faulty.faults", None);
    worker.writes("faulty", 50).await;
    worker.worker.shutdown().await;
    complete_and_in_order(&lines(&stand.path("faulty")));
}

#[tokio::test]
async fn a_connector_that_cannot_start_is_tried_again_until_it_can() {
    for fault in [
        "connector-start fatal",
        "connector-start panic",
        "connector-start hang",
        "task-configs block",
        "task-configs panic",
    ] {
        let stand = Stand::new();
        let worker = stand.worker().await;
        neighbours(&worker).await;
        stand.order("faulty.faults", Some(fault));
        worker.source("faulty", &HURRY).await;
        let status = worker.connector_is("faulty", State::Restarting).await;
        assert!(status.standing.next_attempt.is_some(), "{fault}: {status:?}");
        assert!(worker.task("faulty", 0).is_none());
        never_noticed(&worker).await;
        stand.order("faulty.faults", None);
        worker.writes("faulty", 20).await;
        worker.worker.shutdown().await;
    }
}

#[tokio::test]
async fn a_spent_budget_leaves_it_failed_with_its_history_until_somebody_restarts_it() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    stand.order("faulty.faults", Some("poll fatal"));
    worker.source("faulty", &[("restart.max.attempts", "2")]).await;
    let status = worker.task_is("faulty", 0, State::Failed, |_| true).await;
    assert_eq!(status.standing.retries, 3);
    assert_eq!(
        status
            .standing
            .causes
            .iter()
            .map(|cause| cause.times)
            .sum::<u32>(),
        3
    );
    let reason = status.standing.reason.expect("it says why");
    assert!(reason.contains("restart.max.attempts"), "{reason}");

    stand.order("faulty.faults", None);
    let restarted = worker.worker.restart("faulty", true, true).await;
    assert_eq!(
        restarted.expect("it is there").len(),
        1,
        "the task alone has failed"
    );
    worker.writes("faulty", 20).await;
    let status = worker.task_is("faulty", 0, State::Running, |_| true).await;
    assert_eq!((status.standing.retries, status.standing.causes.len()), (0, 0));
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn the_policy_never_is_kafka_connects() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    stand.order("faulty.faults", Some("poll fatal"));
    worker.source("faulty", &[("restart.policy", "never")]).await;
    let status = worker.task_is("faulty", 0, State::Failed, |_| true).await;
    assert_eq!(status.standing.reason.as_deref(), Some("restart.policy is never"));
    // The fault is gone, and nobody has said so: it stays as it is.
    stand.order("faulty.faults", None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(worker.task("faulty", 0), Some(status));
    worker
        .worker
        .restart_task("faulty", 0)
        .await
        .expect("there is a task");
    worker.writes("faulty", 20).await;
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn fenced_stays_failed() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    stand.order("faulty.faults", Some("poll fenced"));
    worker.source("faulty", &[]).await;
    let status = worker.task_is("faulty", 0, State::Failed, |_| true).await;
    assert!(
        status
            .standing
            .reason
            .expect("it says why")
            .contains("another instance")
    );
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn a_worker_ends_in_time_whatever_its_plugins_do() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    for (name, fault) in [
        ("a", "poll hang"),
        ("b", "poll block"),
        ("c", "stop hang"),
        ("d", "connector-stop hang"),
        ("e", "connector-start block"),
    ] {
        stand.order(&format!("{name}.faults"), Some(fault));
        worker.source(name, &[]).await;
    }
    worker.source("numbers", &[]).await;
    for (name, fault) in [
        ("f", "put hang"),
        ("g", "put block"),
        ("h", "flush hang"),
        ("i", "close hang"),
    ] {
        stand.order(&format!("{name}.faults"), Some(fault));
        worker.sink(name, "numbers", &[]).await;
    }
    worker.writes("numbers", 100).await;
    let ended = tokio::time::timeout(support::PATIENCE, worker.worker.shutdown()).await;
    let report = ended.expect("it ends");
    for (connector, tasks) in report {
        assert!(
            tasks
                .iter()
                .all(tidewater_runtime::ledger::LedgerSnapshot::balances),
            "{connector}: {tasks:?}"
        );
    }
    // The threads that are blocked may go.
    for name in ["b", "e", "g"] {
        stand.order(&format!("{name}.faults"), None);
    }
}
