//! A panic of a plugin is the answer of the operation it happened in, with its place; it poisons its own instance and
//! nothing else (invariant 7).

mod support;

use support::{PATIENCE, config, frame, identity, in_time, load};
use tidewater_plugin_api::{ConfigMap, ErrorKind, SourcePosition, TopicPartition};
use tidewater_plugin_host::PluginError;

#[track_caller]
fn assert_panic(error: &PluginError, parts: &[&str]) {
    assert_eq!(error.kind, ErrorKind::Panic, "{error}");
    for part in parts {
        assert!(
            error.message.contains(part),
            "{:?} should say {part:?}",
            error.message
        );
    }
}

/// The place every panic of the puppet's orders comes from.
const PLACE: &str = "puppet.rs:";

#[tokio::test]
async fn in_start_poll_commit_and_metrics_of_a_source() {
    let loaded = load(&["puppet"]);

    let task = loaded.source(&[("at", "start"), ("do", "panic")]);
    let error = in_time(task.start()).await.expect_err("told to panic");
    assert_panic(&error, &["panicked in start", "told to panic in start", PLACE]);
    assert_eq!(
        (&*error.plugin, &*error.class),
        ("tidewater-puppet", "puppet-source")
    );
    in_time(task.stop(PATIENCE))
        .await
        .expect("a poisoned instance goes quietly");

    let task = loaded.source(&[("at", "poll"), ("do", "panic")]);
    in_time(task.start()).await.expect("it starts");
    assert_panic(
        &in_time(task.poll()).await.expect_err("told to panic"),
        &["panicked in poll", PLACE],
    );
    // Poisoned: nothing of the author's runs again, but each operation is answered.
    for _ in 0..3 {
        let error = in_time(task.poll()).await.expect_err("poisoned");
        assert_panic(&error, &["poisoned since", "told to panic in poll", PLACE]);
    }
    assert_panic(
        &in_time(task.commit(&[])).await.expect_err("poisoned"),
        &["cannot commit"],
    );
    in_time(task.stop(PATIENCE)).await.expect("it goes quietly");

    let task = loaded.source(&[("at", "commit"), ("do", "panic")]);
    in_time(task.start()).await.expect("it starts");
    // The poll that waits meanwhile is answered too.
    in_time(task.poll()).await.expect("a frame");
    let positions: [SourcePosition; 0] = [];
    let (polled, committed) = in_time(async { tokio::join!(task.poll(), task.commit(&positions)) }).await;
    assert_panic(&committed.expect_err("told to panic"), &["panicked in commit"]);
    assert_panic(&polled.expect_err("poisoned"), &["poisoned since", "commit"]);
    in_time(task.stop(PATIENCE)).await.expect("it goes quietly");

    let task = loaded.source(&[("at", "metrics")]);
    in_time(task.start()).await.expect("it starts");
    assert_panic(
        &in_time(task.metrics()).await.expect_err("told to panic"),
        &["in metrics", PLACE],
    );
    in_time(task.stop(PATIENCE)).await.expect("it goes quietly");

    // Only stops that were owed were called, and everything was dropped.
    assert_eq!(
        loaded.counted("stops"),
        0,
        "a poisoned instance is not asked to stop"
    );
    assert_eq!(loaded.counted("made_tasks"), loaded.counted("dropped_tasks"));
    assert_eq!(loaded.registry.abandoned(), 0);
}

#[tokio::test]
async fn in_every_call_of_a_sink() {
    let loaded = load(&["puppet"]);
    let partitions = [TopicPartition {
        topic: "t".into(),
        partition: 0,
    }];
    for call in ["start", "open", "put", "flush", "close", "stop"] {
        let task = loaded.sink(&[("at", call), ("do", "panic")]);
        let all = async {
            task.start().await?;
            task.open(&partitions.clone().map(|partition| partition.assigned("1")))
                .await?;
            task.put(frame(2, 2)).await?;
            task.flush().await?;
            task.close(&partitions).await?;
            task.stop(PATIENCE).await
        };
        let error = in_time(all).await.expect_err("told to panic");
        assert_panic(
            &error,
            &[
                &format!("panicked in {call}"),
                &format!("told to panic in {call}"),
                PLACE,
            ],
        );
        in_time(task.stop(PATIENCE))
            .await
            .expect("stopping again is harmless");
    }
    assert_eq!(loaded.counted("dropped_tasks"), 6);
}

#[tokio::test]
async fn in_a_connector_and_in_its_validation() {
    let loaded = load(&["puppet"]);
    let class = loaded.registry.find("puppet-source").expect("it is there");

    let orders = config(&[("at", "validate"), ("do", "panic")]);
    assert_panic(
        &in_time(class.validate(orders)).await.expect_err("told to panic"),
        &["panicked in validate", PLACE],
    );

    let orders = config(&[("at", "connector-start"), ("do", "panic")]);
    let error = in_time(class.start_connector("c", orders))
        .await
        .err()
        .expect("told to panic");
    assert_panic(&error, &["panicked in start", PLACE]);

    let orders = config(&[("at", "task_configs"), ("do", "panic")]);
    let connector = in_time(class.start_connector("c", orders))
        .await
        .expect("it starts");
    assert_panic(
        &in_time(connector.task_configs(2))
            .await
            .expect_err("told to panic"),
        &["task_configs"],
    );
    in_time(connector.stop(PATIENCE)).await.expect("it goes quietly");

    let orders = config(&[("at", "connector-stop"), ("do", "panic")]);
    let connector = in_time(class.start_connector("c", orders))
        .await
        .expect("it starts");
    assert_panic(
        &in_time(connector.stop(PATIENCE))
            .await
            .expect_err("told to panic"),
        &["panicked in stop"],
    );
}

#[tokio::test]
async fn in_a_constructor() {
    let loaded = load(&["second"]);
    let class = loaded.registry.find("unmakeable-source").expect("it is there");
    let task = class
        .create_source_task(identity("c"), ConfigMap::new(), Vec::new())
        .expect("made on its thread");
    let error = in_time(task.start()).await.expect_err("told to panic");
    assert_panic(
        &error,
        &[
            "its constructor",
            "told to panic in the constructor",
            "second.rs:",
        ],
    );
    in_time(task.stop(PATIENCE)).await.expect("it goes quietly");
}

#[tokio::test]
async fn in_the_drop_of_a_task_and_of_a_future() {
    let loaded = load(&["puppet"]);

    let task = loaded.sink(&[("at", "drop"), ("do", "panic")]);
    in_time(task.start()).await.expect("it starts");
    let error = in_time(task.stop(PATIENCE)).await.expect_err("told to panic");
    assert_panic(&error, &["panicked in its Drop", "told to panic in Drop", PLACE]);

    // The future of a put is dropped because the host does not want it any more.
    let task = loaded.sink(&[("at", "put"), ("do", "hang-and-panic-on-drop")]);
    in_time(task.start()).await.expect("it starts");
    let waits = loaded.counted("waits");
    tokio::select! {
        _ = task.put(frame(1, 1)) => unreachable!("it hangs"),
        () = loaded.until("waits", waits + 1) => {}
    }
    let error = in_time(task.flush()).await.expect_err("poisoned");
    assert_panic(
        &error,
        &["poisoned since", "as the future of put is dropped", PLACE],
    );
    in_time(task.stop(PATIENCE)).await.expect("it goes quietly");

    // The same as the instance is destroyed around it.
    let task = loaded.sink(&[("at", "put"), ("do", "hang-and-panic-on-drop")]);
    in_time(task.start()).await.expect("it starts");
    let waits = loaded.counted("waits");
    let (put, stopped) = in_time(async {
        tokio::join!(task.put(frame(1, 1)), async {
            loaded.until("waits", waits + 1).await;
            task.stop(std::time::Duration::from_millis(50)).await
        })
    })
    .await;
    assert_panic(
        &put.expect_err("its future panicked"),
        &["as the future of put is dropped"],
    );
    stopped.expect("the instance itself goes quietly");
}

#[tokio::test]
async fn that_carries_no_text() {
    let loaded = load(&["puppet"]);
    let task = loaded.sink(&[("at", "put"), ("do", "panic-with-a-number")]);
    in_time(task.start()).await.expect("it starts");
    assert_panic(
        &in_time(task.put(frame(1, 1))).await.expect_err("told to panic"),
        &["no text", PLACE],
    );
    in_time(task.stop(PATIENCE)).await.expect("it goes quietly");
}

#[tokio::test]
async fn leaves_other_instances_alone() {
    let loaded = load(&["puppet"]);
    let (good, bad) = (loaded.sink(&[]), loaded.sink(&[("at", "put"), ("do", "panic")]));
    in_time(good.start()).await.expect("it starts");
    in_time(bad.start()).await.expect("it starts");
    for _ in 0..20 {
        let (good, bad) = in_time(async { tokio::join!(good.put(frame(5, 1)), bad.put(frame(5, 1))) }).await;
        good.expect("it is put");
        assert_panic(&bad.expect_err("told to panic"), &["put"]);
    }
    assert!((in_time(good.metrics()).await.expect("metrics")["records"] - 100.0).abs() < f64::EPSILON);
    in_time(good.stop(PATIENCE)).await.expect("it stops");
    in_time(bad.stop(PATIENCE)).await.expect("it goes quietly");
}
