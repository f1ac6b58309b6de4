//! Where connectors go on, read and changed by hand.

mod support;

use serde_json::{Map, Value as Json, json};
use support::{Running, Stand, lines};
use tidewater_plugin_api::SourcePosition;
use tidewater_runtime::ControlError;
use tidewater_runtime::config_store::TargetState;
use tidewater_runtime::control::{NewConnector, OffsetsChanged};
use tidewater_runtime::status::State;

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn at(partition: Json, offset: Json) -> SourcePosition {
    SourcePosition {
        partition: object(partition),
        offset: (!offset.is_null()).then(|| object(offset)),
    }
}

async fn stopped(worker: &Running<'_>, name: &str) {
    worker.worker.stop(name).await.expect("it is there");
    worker.connector_is(name, State::Stopped).await;
}

async fn resumed(worker: &Running<'_>, name: &str) {
    worker.worker.resume(name).await.expect("it is there");
    worker.task_is(name, 0, State::Running, |_| true).await;
}

fn numbers(stand: &Stand, sink: &str) -> Vec<i64> {
    lines(&stand.path(sink)).iter().map(|line| line.number).collect()
}

/// Ten numbers from `first` on.
fn ten(first: i64) -> Vec<i64> {
    (first..first + 10).collect()
}

#[tokio::test]
async fn a_source_goes_on_where_it_is_told() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[("records", "10")]).await;
    worker.writes("numbers", 10).await;
    support::until("its position is stored", || {
        worker.worker.offsets("numbers").expect("it is there")
            == [at(json!({"part": 0}), json!({"next": 10}))]
    })
    .await;
    let to = |next: Json| vec![at(json!({"part": 0}), json!({ "next": next }))];

    let running = worker.worker.alter_offsets("numbers", to(json!(5))).await;
    assert!(
        matches!(&running, Err(ControlError::NotStopped(_, "RUNNING"))),
        "{running:?}"
    );
    worker.worker.pause("numbers").await.expect("it is there");
    let paused = worker
        .worker
        .reset_offsets("numbers")
        .await
        .expect_err("it is not stopped");
    assert!(
        paused.http_status() == 400 && paused.to_string().contains("STOPPED"),
        "{paused}"
    );

    stopped(&worker, "numbers").await;
    // The class has its say.
    let refused = worker.worker.alter_offsets("numbers", to(json!("five"))).await;
    let refused = refused.expect_err("it is no number");
    assert!(
        refused.http_status() == 400 && refused.to_string().contains("five"),
        "{refused}"
    );
    let nothing = worker.worker.alter_offsets("numbers", Vec::new()).await;
    assert_eq!(nothing.expect_err("there is nothing to do").http_status(), 400);
    assert_eq!(
        worker.worker.offsets("numbers").expect("it is there"),
        to(json!(10)),
        "nothing has changed"
    );

    let altered = worker.worker.alter_offsets("numbers", to(json!(5))).await;
    assert_eq!(altered.expect("it is stopped"), OffsetsChanged::Agreed);
    assert_eq!(
        worker.worker.offsets("numbers").expect("it is there"),
        to(json!(5))
    );
    resumed(&worker, "numbers").await;
    worker.writes("numbers", 5).await;

    stopped(&worker, "numbers").await;
    worker
        .worker
        .reset_offsets("numbers")
        .await
        .expect("it is stopped");
    assert_eq!(worker.worker.offsets("numbers").expect("it is there"), []);
    resumed(&worker, "numbers").await;
    worker.writes("numbers", 10).await;
    worker.sink("sink", "numbers", &[]).await;
    worker.writes("sink", 25).await;
    worker.worker.shutdown().await;
    let expected: Vec<i64> = (0..10).chain(5..10).chain(0..10).collect();
    assert_eq!(numbers(&stand, "sink"), expected);
}

#[tokio::test]
async fn changed_positions_survive_the_worker() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[("records", "10")]).await;
    worker.writes("numbers", 10).await;
    stopped(&worker, "numbers").await;
    let to = vec![at(json!({"part": 0}), json!({"next": 7}))];
    worker
        .worker
        .alter_offsets("numbers", to.clone())
        .await
        .expect("it is stopped");
    worker.worker.shutdown().await;
    let worker = stand.worker().await;
    let stored = &worker.worker.stored_connectors()[0];
    let config = stand.check(&stored.name, &stored.properties);
    worker.worker.restore(config).await.expect("it is restored");
    assert_eq!(worker.worker.offsets("numbers").expect("it is there"), to);
    resumed(&worker, "numbers").await;
    worker.writes("numbers", 3).await;
    worker.worker.shutdown().await;
}

#[tokio::test]
async fn a_sink_goes_on_where_it_is_told() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker.source("numbers", &[("records", "10")]).await;
    worker.sink("sink", "numbers", &[]).await;
    worker.writes("sink", 10).await;
    stopped(&worker, "sink").await;
    let read = worker.worker.offsets("sink").expect("it is there");
    assert_eq!(read.len(), 1);
    assert_eq!(
        read[0].partition,
        object(json!({"kafka_topic": "numbers", "kafka_partition": 0}))
    );

    let partition = |number: Json| json!({"kafka_topic": "numbers", "kafka_partition": number});
    for (of, to) in [
        (partition(json!(9)), json!({"kafka_offset": 3})),
        (partition(json!(0)), json!({"kafka_offset": 3000})),
        (partition(json!(0)), json!({"offset": 3})),
        (
            json!({"kafka_topic": "nowhere", "kafka_partition": 0}),
            json!({"kafka_offset": 0}),
        ),
        (json!({"topic": "numbers"}), json!({"kafka_offset": 0})),
    ] {
        let refused = worker.worker.alter_offsets("sink", vec![at(of, to)]).await;
        assert_eq!(refused.expect_err("it makes no sense").http_status(), 400);
    }
    assert_eq!(
        worker.worker.offsets("sink").expect("it is there"),
        read,
        "nothing has changed"
    );

    // Numbers as texts are taken, as Kafka Connect takes them.
    let to = vec![at(partition(json!("0")), json!({"kafka_offset": "4"}))];
    let altered = worker
        .worker
        .alter_offsets("sink", to)
        .await
        .expect("it is stopped");
    assert_eq!(altered, OffsetsChanged::Stored, "the class has no say in it");
    resumed(&worker, "sink").await;
    worker.writes("sink", 6).await;
    stopped(&worker, "sink").await;
    worker.worker.reset_offsets("sink").await.expect("it is stopped");
    assert_eq!(worker.worker.offsets("sink").expect("it is there"), []);
    resumed(&worker, "sink").await;
    worker.writes("sink", 10).await;
    worker.worker.shutdown().await;
    let expected: Vec<i64> = (0..10).chain(4..10).chain(0..10).collect();
    assert_eq!(numbers(&stand, "sink"), expected);
}

#[tokio::test]
async fn a_connector_may_be_created_with_its_offsets() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    let keys = [
        ("connector.class", "fault-source"),
        ("topic", "numbers"),
        ("records", "50"),
    ];
    let create = async |next: Json| {
        worker
            .worker
            .create_connector(NewConnector {
                config: stand.connector("numbers", &keys),
                initial_state: TargetState::Running,
                offsets: vec![at(json!({"part": 0}), json!({ "next": next }))],
            })
            .await
    };
    let refused = create(json!("forty")).await.expect_err("it is no number");
    assert_eq!(refused.http_status(), 400);
    assert!(worker.worker.connectors().is_empty() && worker.worker.stored_connectors().is_empty());

    create(json!(40)).await.expect("it is created");
    worker.sink("sink", "numbers", &[]).await;
    worker.writes("sink", 10).await;
    worker.worker.shutdown().await;
    assert_eq!(numbers(&stand, "sink"), ten(40));
}

#[tokio::test]
async fn a_class_that_hangs_or_fails_changes_nothing() {
    let stand = Stand::new();
    let worker = stand.worker().await;
    worker
        .source("numbers", &[("records", "10"), ("task.call.timeout.ms", "300")])
        .await;
    worker.writes("numbers", 10).await;
    stopped(&worker, "numbers").await;
    let before = worker.worker.offsets("numbers").expect("it is there");
    for (fault, status) in [
        ("hang", 500),
        ("block", 500),
        ("panic", 500),
        ("config", 400),
        ("retriable", 500),
    ] {
        stand.order("numbers.faults", Some(&format!("alter-offsets {fault}")));
        let failed = worker
            .worker
            .reset_offsets("numbers")
            .await
            .expect_err("told to fail");
        assert_eq!(failed.http_status(), status, "{fault}: {failed}");
        stand.order("numbers.faults", None);
        assert_eq!(
            worker.worker.offsets("numbers").expect("it is there"),
            before,
            "{fault}"
        );
    }
    worker.worker.shutdown().await;
}
