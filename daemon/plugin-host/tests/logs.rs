//! What plugins log and count arrives at the host: level, module, fields, and whose it is. One test, since the log is the
//! process's.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use support::{PATIENCE, in_time, load, until};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, reload};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("nobody panics with it")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The events so far whose message contains `text`.
    fn with(&self, text: &str) -> Vec<Json> {
        let bytes = self.0.lock().expect("nobody panics with it").clone();
        let lines = String::from_utf8(bytes).expect("UTF-8");
        lines
            .lines()
            .map(|line| serde_json::from_str::<Json>(line).expect("JSON"))
            .filter(|event| {
                event["fields"]["message"]
                    .as_str()
                    .is_some_and(|message| message.contains(text))
            })
            .collect()
    }
}

#[tokio::test]
async fn events_and_panics_of_spawned_tasks_reach_the_hosts_log() {
    let lines = Lines::default();
    let (filter, handle) = reload::Layer::new(Targets::new().with_default(LevelFilter::INFO));
    let writer = lines.clone();
    let format = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(format.with_filter(filter)))
        .expect("the first in this process");
    let loaded = load(&["puppet"]);

    let task = loaded.sink(&[("at", "put"), ("do", "log")]);
    in_time(task.start()).await.expect("it starts");
    in_time(task.put(support::frame(1, 1))).await.expect("it is put");
    let events = lines.with("told to log");
    assert_eq!(events.len(), 1);
    let (event, fields) = (&events[0], &events[0]["fields"]);
    assert_eq!(
        (&event["level"], &event["target"]),
        (&Json::from("ERROR"), &Json::from("puppet"))
    );
    for (name, value) in [
        ("message", Json::from("told to log")),
        ("plugin", "tidewater-puppet".into()),
        ("connector", "test".into()),
        ("task", 0.into()),
        ("rows", 3.into()),
        ("table", "orders".into()),
        ("ready", true.into()),
        ("ratio", 0.5.into()),
        ("plugin.task", "own".into()), // a field of the plugin's that has the name of one of the host's
    ] {
        assert_eq!(fields[name], value, "{name} in {event}");
    }
    // A thread that tokio made for the plugin is known to be the task's.
    let from_pool = &lines.with("from the pool")[0];
    assert_eq!(
        (&from_pool["level"], &from_pool["fields"]["connector"]),
        (&Json::from("WARN"), &Json::from("test"))
    );

    // A level that is not wanted does not cross; wanted later, it does, without anything started anew.
    assert!(lines.with("told to trace").is_empty());
    handle
        .reload(
            Targets::new()
                .with_default(LevelFilter::INFO)
                .with_target("puppet", LevelFilter::TRACE),
        )
        .expect("the log is there");
    in_time(task.put(support::frame(1, 1))).await.expect("it is put");
    assert_eq!(lines.with("told to trace").len(), 1);
    assert_eq!(lines.with("told to trace")[0]["level"], "TRACE");
    in_time(task.stop(PATIENCE)).await.expect("it stops");

    // Panics that no operation answers for are logged with their place, and poison nothing.
    for (does, says) in [
        ("panic-in-spawn", "in a spawned task"),
        ("panic-in-pool", "in the blocking pool"),
    ] {
        let task = loaded.sink(&[("at", "put"), ("do", does)]);
        in_time(task.start()).await.expect("it starts");
        in_time(task.put(support::frame(1, 1)))
            .await
            .expect("the task has caught it");
        until(says, || !lines.with(says).is_empty()).await;
        let event = &lines.with(says)[0];
        let message = event["fields"]["message"].as_str().expect("a text");
        assert!(
            message.contains("that the plugin spawned panicked") && message.contains("puppet.rs:"),
            "{message}"
        );
        assert_eq!(
            (&event["level"], &event["fields"]["connector"]),
            (&Json::from("ERROR"), &Json::from("test"))
        );
        in_time(task.flush()).await.expect("it is not poisoned");
        in_time(task.stop(PATIENCE)).await.expect("it stops");
    }

    // An instance that is left behind is told of.
    let file = loaded.barrier();
    let task = loaded.sink(&[
        ("at", "drop"),
        ("do", "block"),
        ("block.file", file.to_str().expect("UTF-8")),
    ]);
    in_time(task.start()).await.expect("it starts");
    task.stop(std::time::Duration::from_millis(10))
        .await
        .expect_err("it blocks");
    assert!(
        lines.with("did not end as it should")[0]["fields"]["error"]
            .as_str()
            .expect("a text")
            .contains("left behind")
    );

    std::fs::remove_file(&file).expect("it is there");

    let metrics = loaded.registry.metrics();
    let made = metrics
        .iter()
        .find(|metric| metric.name == "made_tasks")
        .expect("it was counted");
    assert_eq!(
        (made.plugin.as_str(), made.is_counter, made.value),
        ("tidewater-puppet", true, 4.0)
    );
    let generation = metrics
        .iter()
        .find(|metric| metric.name == "generation")
        .expect("it was set");
    assert_eq!((generation.is_counter, generation.value), (false, 3.0));
}
