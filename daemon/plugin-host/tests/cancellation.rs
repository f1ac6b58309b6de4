//! Operations that nobody waits for any more, instances that do not let go, and completions that come late.

mod support;

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use support::{PATIENCE, config, frame, in_time, load, until};
use tidewater_plugin_api::{ErrorKind, SourcePosition, TopicPartition};
use tidewater_plugin_host::operations_in_flight;

fn partitions() -> [TopicPartition; 1] {
    [TopicPartition {
        topic: "t".into(),
        partition: 0,
    }]
}

/// Runs `call` until it waits within the plugin, drops it, and sees the plugin drop it too.
macro_rules! dropped {
    ($loaded:ident, $call:expr) => {{
        let (waits, dropped) = ($loaded.counted("waits"), $loaded.counted("dropped_futures"));
        tokio::select! {
            _ = $call => unreachable!("it hangs"),
            () = $loaded.until("waits", waits + 1) => {}
        }
        $loaded.until("dropped_futures", dropped + 1).await;
    }};
}

#[tokio::test]
async fn dropping_a_call_drops_it_in_the_plugin() {
    let partitions = partitions();
    let assigned = partitions.clone().map(|partition| partition.assigned("1"));
    let loaded = load(&["puppet"]);
    for call in ["start", "open", "put", "flush", "close"] {
        let task = loaded.sink(&[("at", call), ("do", "hang")]);
        if call != "start" {
            in_time(task.start()).await.expect("it starts");
        }
        match call {
            "start" => dropped!(loaded, task.start()),
            "open" => dropped!(loaded, task.open(&assigned)),
            "put" => dropped!(loaded, task.put(frame(3, 3))),
            "flush" => dropped!(loaded, task.flush()),
            _ => dropped!(loaded, task.close(&partitions)),
        }
        if call != "start" {
            // The instance is as good as before.
            in_time(task.metrics()).await.expect("it answers");
        }
        in_time(task.stop(PATIENCE)).await.expect("it stops");
    }
    for call in ["start", "poll", "commit"] {
        let task = loaded.source(&[("at", call), ("do", "hang")]);
        if call != "start" {
            in_time(task.start()).await.expect("it starts");
        }
        match call {
            "start" => dropped!(loaded, task.start()),
            "poll" => dropped!(loaded, task.poll()),
            _ => dropped!(loaded, task.commit(&[])),
        }
        in_time(task.stop(PATIENCE)).await.expect("it stops");
    }
    let class = loaded.registry.find("puppet-source").expect("it is there");
    dropped!(
        loaded,
        class.validate(config(&[("at", "validate"), ("do", "hang")]))
    );
    dropped!(
        loaded,
        class.start_connector("c", config(&[("at", "connector-start"), ("do", "hang")]))
    );
    let connector = class
        .start_connector("c", config(&[("at", "task_configs"), ("do", "hang")]))
        .await;
    let connector = connector.expect("it starts");
    dropped!(loaded, connector.task_configs(1));
    in_time(connector.stop(PATIENCE)).await.expect("it stops");
    assert_eq!(loaded.registry.abandoned(), 0);
    until("the tasks are dropped", || {
        loaded.counted("made_tasks") == loaded.counted("dropped_tasks")
    })
    .await;
}

#[tokio::test]
async fn a_call_that_still_waits_its_turn_is_cancelled_too() {
    let loaded = load(&["puppet"]);
    let task = loaded.sink(&[("at", "put"), ("do", "hang")]);
    in_time(task.start()).await.expect("it starts");
    let mut put = Box::pin(task.put(frame(1, 1)));
    tokio::select! {
        _ = &mut put => unreachable!("it hangs"),
        () = loaded.until("waits", 1) => {}
    }
    // Behind the put, which hangs, stand a flush that is dropped and one that is not.
    let mut flush = Box::pin(task.flush());
    assert!(poll_once(&mut flush).await.is_none());
    let mut second = Box::pin(task.flush());
    assert!(poll_once(&mut second).await.is_none());
    drop(flush);
    drop(put);
    in_time(second).await.expect("it is its turn");
    let metrics = in_time(task.metrics()).await.expect("metrics");
    assert!(
        (metrics["flushes"] - 1.0).abs() < f64::EPSILON,
        "the first one never ran"
    );
    in_time(task.stop(PATIENCE)).await.expect("it stops");
}

/// Polls `future` once; its output, where it does not wait.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_poll_makes_way_and_keeps_what_it_has_read() {
    let loaded = load(&["puppet"]);
    let task = loaded.source(&[("do", "one-at-a-time")]);
    in_time(task.start()).await.expect("it starts");
    let frame = in_time(async {
        let commits = async {
            // Each commit interrupts the poll, which has read one more record each time.
            for count in 1..3 {
                loaded.until("waits", count).await;
                task.commit(&[]).await.expect("it is committed");
            }
        };
        tokio::join!(task.poll(), commits).0
    })
    .await
    .expect("a frame");
    let texts: Vec<_> = frame
        .records()
        .map(|record| {
            record
                .value()
                .expect("a value")
                .as_str()
                .expect("a text")
                .to_owned()
        })
        .collect();
    assert_eq!(texts, ["0", "1", "2"], "each once, in order (invariant 5)");
    assert_eq!(
        frame.positions()[0].offset.as_ref().expect("an offset")["read"],
        3
    );
    assert_eq!(loaded.counted("polls"), 3);
    in_time(task.stop(PATIENCE)).await.expect("it stops");
}

#[tokio::test]
async fn metrics_and_commits_reach_a_source_that_waits() {
    let loaded = load(&["puppet"]);
    let task = loaded.source(&[]);
    in_time(task.start()).await.expect("it starts");
    let polled = in_time(task.poll()).await.expect("a frame");
    let mut waiting = Box::pin(task.poll());
    tokio::select! {
        _ = &mut waiting => unreachable!("there is nothing more"),
        () = loaded.until("waits", 1) => {}
    }
    let positions: Vec<SourcePosition> = polled.positions().to_vec();
    in_time(task.commit(&positions)).await.expect("it is committed");
    let metrics = in_time(task.metrics()).await.expect("metrics");
    assert!((metrics["committed"] - 3.0).abs() < f64::EPSILON);
    // The poll waits on, and ends with the task.
    loaded.until("waits", 2).await;
    let (polled, stopped) = in_time(async { tokio::join!(waiting, task.stop(PATIENCE)) }).await;
    stopped.expect("it stops");
    assert_eq!(polled.expect_err("it was stopped").kind, ErrorKind::Cancelled);
    assert_eq!(loaded.counted("stops"), 1);
    let error = in_time(task.poll()).await.expect_err("it has been stopped");
    assert!(error.message.contains("has been stopped"), "{error}");
}

#[tokio::test]
async fn no_frame_is_lost_with_the_poll_that_brought_it() {
    let loaded = load(&["puppet"]);
    let task = loaded.source(&[("polls", "400"), ("records", "1")]);
    in_time(task.start()).await.expect("it starts");
    let mut read = Vec::new();
    let mut dropped = 0;
    while read.len() < 400 {
        let mut poll = Box::pin(task.poll());
        let mut answer = poll_once(&mut poll).await;
        if answer.is_none() && fastrand::bool() {
            // Dropped with its frame ready, on the way, or not begun.
            for _ in 0..fastrand::u32(0..20) {
                tokio::task::yield_now().await;
            }
            drop(poll);
            dropped += 1;
            continue;
        }
        if answer.is_none() {
            answer = Some(in_time(poll).await);
        }
        for record in answer.expect("an answer").expect("a frame").records() {
            read.push(
                record
                    .value()
                    .expect("a value")
                    .as_str()
                    .expect("a text")
                    .to_owned(),
            );
        }
    }
    let expected: Vec<_> = (0..400).map(|number: u32| number.to_string()).collect();
    assert_eq!(
        read, expected,
        "none lost, none doubled, in order (invariants 2 and 5)"
    );
    assert!(dropped > 0, "polls were dropped");
    in_time(task.stop(PATIENCE)).await.expect("it stops");
}

#[tokio::test]
async fn operations_outlive_their_instance_harmlessly() {
    let loaded = load(&["puppet"]);
    let task = loaded.sink(&[("at", "put"), ("do", "hang")]);
    in_time(task.start()).await.expect("it starts");
    let mut put = Box::pin(task.put(frame(1, 1)));
    tokio::select! {
        _ = &mut put => unreachable!("it hangs"),
        () = loaded.until("waits", 1) => {}
    }
    in_time(task.stop(Duration::from_millis(20)))
        .await
        .expect("what hangs at an await is dropped");
    // Dropped after the instance was destroyed: there is nothing left to cancel.
    drop(put);
    let error = in_time(task.put(frame(1, 1))).await.expect_err("it is gone");
    assert_eq!(error.kind, ErrorKind::Cancelled);
    in_time(task.stop(PATIENCE))
        .await
        .expect("stopping again is harmless");

    // And one that is answered as its instance is destroyed.
    let task = loaded.sink(&[("at", "put"), ("do", "hang")]);
    in_time(task.start()).await.expect("it starts");
    let (put, stopped) = in_time(async {
        tokio::join!(task.put(frame(1, 1)), async {
            loaded.until("waits", 2).await;
            task.stop(Duration::from_millis(20)).await
        })
    })
    .await;
    assert_eq!(put.expect_err("cancelled").kind, ErrorKind::Cancelled);
    stopped.expect("it stops");
}

#[tokio::test]
async fn a_handle_that_is_dropped_stops_its_task() {
    let loaded = load(&["puppet"]);
    let task = loaded.source(&[]);
    in_time(task.start()).await.expect("it starts");
    drop(task);
    loaded.until("stops", 1).await;
    loaded.until("dropped_tasks", 1).await;
}

#[tokio::test]
async fn a_task_that_blocks_past_its_deadline_is_left_behind() {
    let loaded = load(&["puppet"]);
    let file = loaded.barrier();
    let blocked = loaded.sink(&[("at", "put"), ("do", "block"), ("block.file", path(&file))]);
    let other = loaded.sink(&[]);
    in_time(blocked.start()).await.expect("it starts");
    in_time(other.start()).await.expect("it starts");
    let mut put = Box::pin(blocked.put(frame(1, 1)));
    tokio::select! {
        _ = &mut put => unreachable!("it blocks"),
        () = loaded.until("waits", 1) => {}
    }
    let error = in_time(blocked.stop(Duration::from_millis(50)))
        .await
        .expect_err("it blocks");
    assert_eq!(error.kind, ErrorKind::Abandoned);
    assert!(
        error.message.contains("task 0 of test") && error.message.contains("left behind"),
        "{error}"
    );
    assert_eq!(loaded.registry.abandoned(), 1);
    // Others go on meanwhile.
    in_time(other.put(frame(1, 1))).await.expect("it is put");
    in_time(other.stop(PATIENCE)).await.expect("it stops");
    assert!(poll_once(&mut put).await.is_none(), "it still blocks");
    // The late answers do no harm: the put was done in the end, and so is the destruction.
    std::fs::remove_file(&file).expect("it is there");
    assert!(in_time(put).await.is_ok(), "the call is answered in the end");
    loaded.until("dropped_tasks", 2).await;
}

fn path(file: &std::path::Path) -> &str {
    file.to_str().expect("UTF-8")
}

#[tokio::test]
async fn blocking_in_drop_or_in_the_pool_is_bounded() {
    let loaded = load(&["puppet"]);
    let file = loaded.barrier();
    let task = loaded.sink(&[("at", "drop"), ("do", "block"), ("block.file", path(&file))]);
    in_time(task.start()).await.expect("it starts");
    let error = in_time(task.stop(Duration::from_millis(50)))
        .await
        .expect_err("it blocks");
    assert_eq!(error.kind, ErrorKind::Abandoned);

    let task = loaded.sink(&[
        ("at", "flush"),
        ("do", "block-in-pool"),
        ("block.file", path(&file)),
    ]);
    in_time(task.start()).await.expect("it starts");
    in_time(task.flush()).await.expect("it is spawned");
    let error = in_time(task.stop(Duration::from_millis(50)))
        .await
        .expect_err("the pool blocks");
    assert!(error.message.contains("blocking calls"), "{error}");
    assert_eq!(loaded.registry.abandoned(), 1, "the instance itself ended");
    std::fs::remove_file(&file).expect("it is there");
    loaded.until("dropped_tasks", 2).await;
}

#[tokio::test]
async fn a_stop_that_hangs_is_dropped_at_the_deadline() {
    let loaded = load(&["puppet"]);
    let task = loaded.source(&[("at", "stop"), ("do", "hang")]);
    in_time(task.start()).await.expect("it starts");
    in_time(task.stop(Duration::from_millis(50)))
        .await
        .expect("dropped");
    assert_eq!(loaded.counted("dropped_futures"), 1);
    assert_eq!(loaded.counted("dropped_tasks"), 1);
    // Its own error is told.
    let task = loaded.source(&[("at", "stop"), ("do", "fatal")]);
    in_time(task.start()).await.expect("it starts");
    let error = in_time(task.stop(PATIENCE)).await.expect_err("told to fail");
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Fatal, "told to fail in stop")
    );
    assert_eq!(loaded.counted("dropped_tasks"), 2);
}

#[tokio::test]
async fn an_answer_that_comes_late_or_twice_does_no_harm() {
    let loaded = load(&["handmade"]);
    let late = loaded.handmade("late");
    in_time(late.start()).await.expect("it starts");
    let others = operations_in_flight();
    assert!(
        tokio::time::timeout(Duration::from_millis(10), late.commit(&[]))
            .await
            .is_err(),
        "it is late"
    );
    in_time(late.stop(PATIENCE))
        .await
        .expect("it is gone before the answer comes");
    until("the late answer", || operations_in_flight() <= others).await;

    let twice = loaded.handmade("twice");
    in_time(twice.start()).await.expect("it starts");
    for _ in 0..100 {
        in_time(twice.commit(&[])).await.expect("the first answer counts");
    }
    in_time(twice.stop(PATIENCE)).await.expect("it stops");

    // One that never cancels and never answers, but for its end.
    let silent = loaded.handmade("silent");
    in_time(silent.start()).await.expect("it starts");
    assert!(
        tokio::time::timeout(Duration::from_millis(10), silent.poll())
            .await
            .is_err(),
        "it is silent"
    );
    in_time(silent.stop(PATIENCE)).await.expect("it ends");

    let never = loaded.handmade("never-ends");
    in_time(never.start()).await.expect("it starts");
    let error = in_time(never.stop(Duration::from_millis(10)))
        .await
        .expect_err("it never ends");
    assert_eq!(error.kind, ErrorKind::Abandoned);
}
