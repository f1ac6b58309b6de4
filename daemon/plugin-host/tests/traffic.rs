//! What passes over the boundary when all is well, and wrong answers of a plugin when it is not (invariant 7).

mod support;

use support::{PATIENCE, config, frame, identity, in_time, load};
use tidewater_plugin_api::{ConfigMap, ErrorKind, SourcePosition, TopicPartition};
use tidewater_plugin_host::PluginError;

#[tokio::test]
async fn a_source_reads_on_from_where_it_was() {
    let loaded = load(&["puppet"]);
    let class = loaded.registry.find("puppet-source").expect("it is there");
    let partition = serde_json::Map::from_iter([("puppet".to_owned(), "shop".into())]);
    let offset = serde_json::Map::from_iter([("read".to_owned(), 41.into())]);
    let stored = vec![SourcePosition {
        partition: partition.clone(),
        offset: Some(offset),
    }];
    let task = class
        .create_source_task(identity("shop"), config(&[("records", "2")]), stored)
        .expect("a task");
    let early = in_time(task.poll()).await.expect_err("it has not been started");
    assert!(early.message.contains("not been started"), "{early}");
    in_time(task.start()).await.expect("it starts");
    let twice = in_time(task.start()).await.expect_err("once only");
    assert!(twice.message.contains("started once"), "{twice}");
    assert_eq!(loaded.counted("generation"), 3);

    let frame = in_time(task.poll()).await.expect("a frame");
    let texts: Vec<_> = frame
        .records()
        .map(|record| record.value().expect("a value").as_str().map(str::to_owned))
        .collect();
    assert_eq!(texts, [Some("41".to_owned()), Some("42".to_owned())]);
    assert_eq!(frame.topics(), ["puppets".into()]);
    assert_eq!(frame.positions()[0].partition, partition);
    in_time(task.commit(frame.positions()))
        .await
        .expect("it is committed");
    assert!((in_time(task.metrics()).await.expect("metrics")["committed"] - 43.0).abs() < f64::EPSILON);
    in_time(task.stop(PATIENCE)).await.expect("it stops");
    assert_eq!((loaded.counted("stops"), loaded.counted("dropped_tasks")), (1, 1));
}

#[tokio::test]
async fn large_frames_come_in_buffers_that_are_used_again() {
    let loaded = load(&["puppet"]);
    let task = loaded.source(&[("polls", "50"), ("records", "100"), ("bytes", "4000")]);
    in_time(task.start()).await.expect("it starts");
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    for number in 0..50 {
        let frame = in_time(task.poll()).await.expect("a frame");
        let first = frame.record(0).value().expect("a value");
        assert!(
            first
                .as_str()
                .expect("a text")
                .starts_with(&format!("{}x", number * 100)),
            "its own content"
        );
        seen.insert(frame.bytes().as_ptr());
        if number % 10 == 0 {
            kept.push((number, frame)); // a frame that is kept keeps its buffer
        }
    }
    assert!(seen.len() < 20, "{} buffers for 50 frames", seen.len());
    in_time(task.stop(PATIENCE)).await.expect("it stops");
    // Frames outlive their task.
    for (number, frame) in kept {
        let last = frame.record(99).value().expect("a value");
        assert!(
            last.as_str()
                .expect("a text")
                .starts_with(&format!("{}x", number * 100 + 99))
        );
    }
}

#[tokio::test]
async fn empty_polls_are_not_answers() {
    let loaded = load(&["puppet"]);
    let task = loaded.source(&[("do", "empty"), ("polls", "6")]);
    in_time(task.start()).await.expect("it starts");
    assert_eq!(in_time(task.poll()).await.expect("a frame").len(), 3);
    assert_eq!(loaded.counted("polls"), 6, "five were empty");
    in_time(task.stop(PATIENCE)).await.expect("it stops");
}

#[tokio::test]
async fn a_sink_writes_what_it_is_given() {
    let loaded = load(&["puppet"]);
    let task = loaded.sink(&[]);
    in_time(task.start()).await.expect("it starts");
    let partitions: Vec<_> = (0..3)
        .map(|partition| TopicPartition {
            topic: "puppets".into(),
            partition,
        })
        .collect();
    let assigned: Vec<_> = partitions
        .iter()
        .map(|partition| partition.clone().assigned("1"))
        .collect();
    let offsets = in_time(task.open(&assigned)).await.expect("it is opened");
    assert_eq!(offsets.len(), 3);
    assert_eq!((&offsets[2].partition, offsets[2].offset), (&partitions[2], 7));
    for _ in 0..10 {
        let report = in_time(task.put(frame(100, 7))).await.expect("it is put");
        assert!(!report.durable);
    }
    in_time(task.flush()).await.expect("it is flushed");
    in_time(task.close(&partitions[..1])).await.expect("it is closed");
    let metrics = in_time(task.metrics()).await.expect("metrics");
    let expected = [
        ("bytes", 7000.0),
        ("flushes", 1.0),
        ("open", 2.0),
        ("records", 1000.0),
    ];
    assert_eq!(
        metrics.into_iter().collect::<Vec<_>>(),
        expected.map(|(name, value)| (name.to_owned(), value))
    );
    in_time(task.stop(PATIENCE)).await.expect("it stops");
}

#[tokio::test]
async fn a_connector_validates_and_splits_its_work() {
    let loaded = load(&["puppet"]);
    let class = loaded.registry.find("puppet-source").expect("it is there");
    // What the definition tells needs no plugin.
    let problems = in_time(class.validate(config(&[("records", "many")])))
        .await
        .expect("an answer");
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].to_string().contains("32-bit integer"),
        "{}",
        problems[0]
    );
    // What only the outside tells comes from it.
    let told = config(&[("at", "validate"), ("do", "fatal")]);
    let problems = in_time(class.validate(told)).await.expect("an answer");
    assert_eq!(problems[0].message, "told to fail in validate");
    assert!(
        in_time(class.validate(ConfigMap::new()))
            .await
            .expect("an answer")
            .is_empty()
    );

    let connector = in_time(class.start_connector("c", ConfigMap::new()))
        .await
        .expect("it starts");
    let configs = in_time(connector.task_configs(3)).await.expect("configurations");
    assert_eq!(
        configs,
        (0..3)
            .map(|part: u32| config(&[("part", &part.to_string())]))
            .collect::<Vec<_>>()
    );
    in_time(connector.stop(PATIENCE)).await.expect("it stops");
    assert_eq!(loaded.counted("stops"), 1);

    let greedy = config(&[("do", "too-many-tasks")]);
    let connector = in_time(class.start_connector("c", greedy))
        .await
        .expect("it starts");
    let error = in_time(connector.task_configs(3))
        .await
        .expect_err("more than allowed");
    assert_eq!(error.kind, ErrorKind::Malformed);
    in_time(connector.stop(PATIENCE)).await.expect("it stops");

    // A configuration that does not pass does not start, and all its faults are told.
    let wrong = config(&[("records", "many"), ("polls", "few")]);
    let error = in_time(class.start_connector("c", wrong))
        .await
        .err()
        .expect("it is wrong");
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(
        error.message.contains("records") && error.message.contains("polls"),
        "{error}"
    );
    // Nor is a source a sink.
    let error = class
        .create_sink_task(identity("c"), ConfigMap::new())
        .expect_err("it is a source");
    assert_eq!(error.kind, ErrorKind::Config);
}

#[tokio::test]
async fn the_kind_of_an_error_arrives() {
    let loaded = load(&["puppet"]);
    for (does, kind) in [
        ("retriable", ErrorKind::Retriable),
        ("fatal", ErrorKind::Fatal),
        ("config", ErrorKind::Config),
        ("fenced", ErrorKind::Fenced),
    ] {
        let task = loaded.sink(&[("at", "put"), ("do", does)]);
        in_time(task.start()).await.expect("it starts");
        for _ in 0..3 {
            let error = in_time(task.put(frame(1, 1))).await.expect_err("told to fail");
            assert_eq!(error.kind, kind);
            assert!(
                error.to_string().starts_with("puppet-sink: told to fail"),
                "{error}"
            );
        }
        // An error is no panic: the task goes on.
        in_time(task.flush()).await.expect("it is flushed");
        in_time(task.stop(PATIENCE)).await.expect("it stops");
    }
}

#[tokio::test]
async fn a_frame_that_is_none_is_refused_by_the_plugin() {
    let loaded = load(&["puppet"]);
    let task = loaded.sink(&[]);
    in_time(task.start()).await.expect("it starts");
    let error = in_time(task.put(bytes::Bytes::from_static(b"no frame")))
        .await
        .expect_err("it is none");
    assert!(error.message.contains("malformed frame"), "{error}");
    in_time(task.put(frame(1, 1))).await.expect("it goes on");
    in_time(task.stop(PATIENCE)).await.expect("it stops");
}

#[tokio::test]
async fn wrong_answers_name_the_plugin_and_the_class() {
    let loaded = load(&["handmade"]);
    for (conduct, says) in [
        ("garbage-frame", "does not begin with TWFRAME1"),
        ("cut-frame", "40 bytes are less than a header"),
        ("wild-frame", "descriptors reach beyond the end"),
        ("null-payload", "0 bytes are less than a header"),
        ("unknown-status", "unknown status 77"),
        ("garbage-error", "the plugin's error is not understood"),
    ] {
        let task = loaded.handmade(conduct);
        in_time(task.start()).await.expect("it starts");
        let error: PluginError = in_time(task.poll()).await.expect_err(conduct);
        assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
        assert!(error.message.contains(says), "{conduct}: {error}");
        assert_eq!((&*error.plugin, &*error.class), ("handmade", "handmade-source"));
        in_time(task.stop(PATIENCE)).await.expect("it stops");
    }
    // An error of a kind that only a later SDK knows ends the task with its message.
    let task = loaded.handmade("later-error");
    in_time(task.start()).await.expect("it starts");
    let error = in_time(task.poll()).await.expect_err("told to fail");
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Fatal, "told to fail in a new way")
    );
    in_time(task.stop(PATIENCE)).await.expect("it stops");

    let class = loaded.registry.find("handmade-source").expect("it is there");
    let create = |conduct| class.create_source_task(identity(conduct), ConfigMap::new(), Vec::new());
    let refused = create("refuses").expect_err("told to refuse");
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (ErrorKind::Config, "told to refuse")
    );
    assert_eq!(
        create("null-instance").expect_err("there is none").kind,
        ErrorKind::Malformed
    );
}
