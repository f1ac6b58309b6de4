//! What connectors can be asked while they run.

mod support;

use std::time::Duration;

use support::{Line, Stand, complete_and_in_order, lines};
use tidewater_runtime::ControlError;
use tidewater_runtime::config_store::{Origin, TargetState};
use tidewater_runtime::status::{State, Subject};

#[tokio::test]
async fn paused_tasks_keep_their_plugins_and_read_and_write_nothing() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[]).await;
    worker.sink("sink", "numbers", &[]).await;
    worker.writes("sink", 50).await;
    for name in ["numbers", "sink"] {
        worker.worker.pause(name).await.expect("it is there");
        worker.connector_is(name, State::Paused).await;
        worker.task_is(name, 0, State::Paused, |_| true).await;
    }
    let generation = worker.task("numbers", 0).expect("a task").generation;
    let before = (worker.written("numbers"), lines(&stand.path("sink")).len());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (worker.written("numbers"), lines(&stand.path("sink")).len()),
        before
    );

    for name in ["numbers", "sink"] {
        worker.worker.resume(name).await.expect("it is there");
        worker.task_is(name, 0, State::Running, |_| true).await;
    }
    worker.writes("sink", 50).await;
    assert_eq!(
        worker.task("numbers", 0).expect("a task").generation,
        generation,
        "it is the same life"
    );
    worker.worker.shutdown().await;
    assert_eq!(
        complete_and_in_order(&lines(&stand.path("sink"))),
        0,
        "a pause repeats nothing"
    );
}

#[tokio::test]
async fn a_sink_rests_at_once_even_if_its_target_is_down() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[]).await;
    stand.order("sink.faults", Some("put retriable"));
    worker
        .sink("sink", "numbers", &[("errors.retry.delay.max.ms", "3600000")])
        .await;
    worker.task_is("sink", 0, State::Running, |_| true).await;
    worker.writes("numbers", 20).await;
    worker.worker.pause("sink").await.expect("it is there");
    worker.task_is("sink", 0, State::Paused, |_| true).await;
    stand.order("sink.faults", None);
    worker.worker.resume("sink").await.expect("it is there");
    worker.writes("sink", 20).await;
    worker.worker.shutdown().await;
    assert_eq!(complete_and_in_order(&lines(&stand.path("sink"))), 0);
}

#[tokio::test]
async fn stopped_connectors_have_no_tasks_and_go_on_where_they_were() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[]).await;
    worker.sink("sink", "numbers", &[]).await;
    worker.writes("sink", 50).await;
    for name in ["numbers", "sink"] {
        worker.worker.stop(name).await.expect("it is there");
        worker.connector_is(name, State::Stopped).await;
        let status = worker.worker.status(name).expect("it is there");
        assert!(status.tasks.is_empty(), "{status:?}");
        assert!(worker.worker.info(name).expect("it is there").tasks.is_empty());
        // Nothing of it can be restarted, and no task is there.
        let restarted = worker.worker.restart(name, true, false).await;
        assert_eq!(restarted.expect("it is there"), []);
        let no_task = worker.worker.restart_task(name, 0).await.expect_err("no task");
        assert_eq!(no_task.http_status(), 404);
    }
    for name in ["numbers", "sink"] {
        worker.worker.resume(name).await.expect("it is there");
    }
    worker.writes("sink", 50).await;
    worker.worker.shutdown().await;
    assert_eq!(
        complete_and_in_order(&lines(&stand.path("sink"))),
        0,
        "what was put was committed"
    );
}

#[tokio::test]
async fn what_is_wanted_survives_the_worker() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("running", &[]).await;
    worker.source("paused", &[]).await;
    worker.source("stopped", &[]).await;
    worker.source("gone", &[]).await;
    worker
        .worker
        .run_from_file(stand.connector(
            "filed",
            &[("connector.class", "fault-source"), ("topic", "filed")],
        ))
        .await
        .expect("it runs");
    worker.worker.pause("paused").await.expect("it is there");
    worker.worker.stop("stopped").await.expect("it is there");
    worker.worker.pause("filed").await.expect("it is there");
    worker.worker.delete("gone").await.expect("it is there");
    worker.writes("running", 20).await;
    let before = worker.worker.shutdown().await["running"][0].written;

    let worker = stand.worker().await;
    let stored = worker.worker.stored_connectors();
    let wanted: Vec<_> = stored
        .iter()
        .map(|stored| (stored.name.as_str(), stored.target, stored.origin))
        .collect();
    assert_eq!(
        wanted,
        [
            ("filed", TargetState::Paused, Origin::File),
            ("paused", TargetState::Paused, Origin::Request),
            ("running", TargetState::Running, Origin::Request),
            ("stopped", TargetState::Stopped, Origin::Request),
        ]
    );
    for stored in stored {
        let config = stand.check(&stored.name, &stored.properties);
        match stored.origin {
            Origin::File => worker.worker.run_from_file(config).await,
            Origin::Request => worker.worker.restore(config).await,
        }
        .expect("it runs");
    }
    worker.connector_is("stopped", State::Stopped).await;
    worker.task_is("paused", 0, State::Paused, |_| true).await;
    worker.task_is("filed", 0, State::Paused, |_| true).await;
    worker.writes("running", 20).await;
    assert_eq!(worker.written("paused"), 0);
    worker.sink("sink", "running", &[]).await;
    worker.writes("sink", before + 20).await;
    worker.worker.shutdown().await;
    let written = lines(&stand.path("sink"));
    let numbers: Vec<i64> = written.iter().map(|line| line.number).collect();
    let expected: Vec<i64> = (0..numbers.len() as i64).collect();
    assert_eq!(numbers, expected, "the source went on where it was");
}

#[tokio::test]
async fn a_deleted_connector_is_gone_and_its_name_is_free() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[]).await;
    worker.writes("numbers", 20).await;
    let taken = worker
        .try_create(
            "numbers",
            &[("connector.class", "fault-source")],
            TargetState::Running,
        )
        .await;
    assert!(matches!(taken, Err(ControlError::Exists(_))), "{taken:?}");
    worker.worker.delete("numbers").await.expect("it is there");
    assert!(worker.worker.connectors().is_empty());
    assert!(
        worker.worker.statuses().is_empty(),
        "{:?}",
        worker.worker.statuses()
    );
    assert!(worker.worker.stored_connectors().is_empty());
    let gone = worker.worker.pause("numbers").await.expect_err("it is gone");
    assert_eq!(gone.http_status(), 404);
    // Its offsets have stayed, as Kafka Connect's do.
    worker.source("numbers", &[]).await;
    worker.writes("numbers", 20).await;
    worker.sink("sink", "numbers", &[]).await;
    worker.writes("sink", 40).await;
    worker.worker.shutdown().await;
    let numbers: Vec<i64> = lines(&stand.path("sink"))
        .iter()
        .map(|line| line.number)
        .collect();
    let expected: Vec<i64> = (0..numbers.len() as i64).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn a_connector_may_begin_paused_or_stopped() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    let keys = [("connector.class", "fault-source"), ("topic", "t")];
    for (name, target) in [("paused", TargetState::Paused), ("stopped", TargetState::Stopped)] {
        worker
            .try_create(name, &keys, target)
            .await
            .expect("it is created");
    }
    worker.connector_is("stopped", State::Stopped).await;
    worker.task_is("paused", 0, State::Paused, |_| true).await;
    assert!(worker.task("stopped", 0).is_none());
    for name in ["paused", "stopped"] {
        assert_eq!(worker.written(name), 0);
        worker.worker.resume(name).await.expect("it is there");
        worker.writes(name, 20).await;
    }
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn only_what_a_change_touches_restarts() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    let keys = [
        ("connector.class", "fault-source"),
        ("topic", "numbers"),
        ("topic.creation.default.partitions", "4"),
        ("tasks.max", "3"),
        ("parts", "2"),
    ];
    worker.create("numbers", &keys).await;
    let generations = || -> Vec<u64> {
        let status = worker.worker.status("numbers").expect("it is there");
        let tasks = status.tasks.values().map(|task| task.generation);
        tasks
            .chain(status.connector.map(|connector| connector.generation))
            .collect()
    };
    for task in 0..2 {
        worker.task_is("numbers", task, State::Running, |_| true).await;
    }
    worker.connector_is("numbers", State::Running).await;
    let first = generations();

    // A key that is for the supervision alone: nothing restarts.
    let mut changed = keys.to_vec();
    changed.push(("restart.max.attempts", "7"));
    let reconfigure = async |keys: &[(&str, &str)]| {
        let config = stand.connector("numbers", keys);
        worker.worker.reconfigure(config).await.expect("it is there");
    };
    reconfigure(&changed).await;
    // A request is done before the next one is looked at.
    worker.worker.resume("numbers").await.expect("it is there");
    assert_eq!(generations(), first);
    let info = worker.worker.info("numbers").expect("it is there");
    assert_eq!(
        info.config.get("restart.max.attempts").map(String::as_str),
        Some("7")
    );
    assert_eq!(info.tasks, [0, 1]);

    // The connector alone: its tasks' work stays as it was split.
    let restarted = worker
        .worker
        .restart("numbers", false, false)
        .await
        .expect("it is there");
    assert_eq!(restarted, [Subject::Connector("numbers".into())]);
    worker.connector_is("numbers", State::Running).await;
    let second = generations();
    assert_eq!(second[..2], first[..2]);
    assert!(second[2] > first[2]);

    // A key of the plugin: its tasks begin anew with it.
    changed.push(("batch", "3"));
    reconfigure(&changed).await;
    for task in 0..2 {
        worker
            .task_is("numbers", task, State::Running, |status| {
                status.generation > second[task as usize]
            })
            .await;
    }
    worker.writes("numbers", 50).await;
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn a_configuration_it_cannot_start_with_interrupts_nothing() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[]).await;
    worker.writes("numbers", 20).await;
    let generation = worker.task("numbers", 0).expect("a task").generation;
    let bad = [
        ("connector.class", "fault-source"),
        ("topic", "numbers"),
        ("fault", "connector-start config"),
    ];
    worker
        .worker
        .reconfigure(stand.connector("numbers", &bad))
        .await
        .expect("it is taken");
    worker.connector_is("numbers", State::Restarting).await;
    worker.writes("numbers", 50).await;
    assert_eq!(worker.task("numbers", 0).expect("a task").generation, generation);
    worker
        .worker
        .reconfigure(stand.connector("numbers", &bad[..2]))
        .await
        .expect("it is taken");
    worker.connector_is("numbers", State::Running).await;
    worker.writes("numbers", 50).await;
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn partitions_are_handed_over_cleanly_when_the_number_of_tasks_changes() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    let source = [
        ("connector.class", "fault-source"),
        ("topic", "numbers"),
        ("topic.creation.default.partitions", "6"),
    ];
    worker.create("numbers", &source).await;
    let file = stand.path("sink").display().to_string();
    let sink = |tasks: &'static str| {
        stand.connector(
            "sink",
            &[
                ("connector.class", "fault-sink"),
                ("topics", "numbers"),
                ("file", &file),
                ("tasks.max", tasks),
            ],
        )
    };
    worker.worker.run_from_file(sink("1")).await.expect("it runs");
    for tasks in ["1", "4", "2", "6", "3"] {
        worker.worker.reconfigure(sink(tasks)).await.expect("it is there");
        let count: u32 = tasks.parse().expect("a number");
        worker.task_is("sink", count - 1, State::Running, |_| true).await;
        worker.writes("sink", 100).await;
        let status = worker.worker.status("sink").expect("it is there");
        assert!(status.tasks.len() <= 6);
    }
    let status = worker.worker.status("sink").expect("it is there");
    assert_eq!(status.tasks.len(), 3, "{status:?}");
    worker.worker.stop("numbers").await.expect("it is there");
    worker.connector_is("numbers", State::Stopped).await;
    let total = worker.written("numbers");
    support::until("all is written", || {
        lines(&stand.path("sink")).len() as u64 >= total
    })
    .await;
    worker.balanced();
    worker.worker.shutdown().await;
    let written = lines(&stand.path("sink"));
    assert_eq!(complete_and_in_order(&written), 0, "a hand-over repeats nothing");
    assert_eq!(written.len() as u64, total);
    let tasks: std::collections::BTreeSet<u32> = written.iter().map(|line: &Line| line.task).collect();
    assert!(tasks.len() > 3, "the work was shared: {tasks:?}");
}

#[tokio::test]
async fn one_that_hangs_keeps_no_request_of_another_waiting() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    stand.order("stuck.faults", Some("connector-start block"));
    worker.source("stuck", &[]).await;
    stand.order("deaf.faults", Some("poll block"));
    worker.source("deaf", &[]).await;
    worker.source("healthy", &[]).await;
    worker.writes("healthy", 20).await;
    // Requests to those that hang are taken too: what they ask for is stored, and done as far as the plugin lets it.
    let all = async {
        for name in ["stuck", "deaf", "healthy"] {
            worker.worker.pause(name).await.expect("it is taken");
            worker
                .worker
                .restart(name, true, false)
                .await
                .expect("it is taken");
            worker.worker.stop(name).await.expect("it is taken");
            worker.connector_is(name, State::Stopped).await;
            worker.worker.delete(name).await.expect("it is taken");
        }
    };
    tokio::time::timeout(support::PATIENCE, all)
        .await
        .expect("in time");
    assert!(worker.worker.connectors().is_empty());
    for name in ["stuck", "deaf"] {
        stand.order(&format!("{name}.faults"), None);
    }
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn no_secret_is_told() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    let secret = stand.path("secret");
    std::fs::write(&secret, "password=swordfish-4711").expect("it can be written");
    let reference = format!("${{file:{}:password}}", secret.display());
    let keys = [
        ("connector.class", "fault-source"),
        ("topic", "t"),
        ("password", reference.as_str()),
    ];
    worker.create("numbers", &keys).await;
    worker.writes("numbers", 10).await;
    let info = worker.worker.info("numbers").expect("it is there");
    let tasks = worker.worker.task_configs("numbers").expect("it is there");
    let stored = worker.worker.stored_connectors();
    let told = format!("{info:?} {tasks:?} {stored:?}");
    assert!(told.contains(&reference) && !told.contains("swordfish"), "{told}");
    worker.worker.shutdown().await;
}
