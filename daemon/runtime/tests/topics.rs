//! Topics that come, grow and go while connectors run: sources and sinks follow them, and nothing is lost.

#![allow(clippy::unwrap_used)] // tests may panic

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidewater_plugin_host::{PluginDirs, PluginRegistry};
use tidewater_runtime::Worker;
use tidewater_runtime::config::{Checker, ConnectorFile, Providers, WorkerConfig};

/// A worker with the plugin of the benchmark, whose sources make a number of records and whose sinks count them.
struct Stand {
    worker: Worker,
    registry: Arc<PluginRegistry>,
    folder: tempfile::TempDir,
}

impl Stand {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = PluginRegistry::new(PluginDirs {
            search: vec![plugin()],
            cache_dir: folder.path().join("plugins"),
        });
        let refused = registry.scan().refused;
        assert!(
            refused.is_empty(),
            "{refused:?}; cargo build -p tidewater-runtime --example noop"
        );
        let registry = Arc::new(registry);
        let config = WorkerConfig {
            data_dir: folder.path().join("data"),
            offset_flush_interval: Duration::from_millis(20),
            ..WorkerConfig::default()
        };
        let worker = Worker::start(&config, registry.clone()).await.unwrap();
        Self {
            worker,
            registry,
            folder,
        }
    }

    async fn connector(&self, name: &str, class: &str, keys: &[(&str, &str)]) {
        let mut all = BTreeMap::from([("name", name), ("connector.class", class)]);
        all.extend(keys.iter().copied());
        all.extend([("key.converter", "bytes"), ("value.converter", "bytes")]);
        let path = self.folder.path().join(format!("{name}.json"));
        std::fs::write(&path, serde_json::json!(all).to_string()).unwrap();
        let checked = Checker {
            classes: &self.registry.classes(),
            worker: &WorkerConfig::default(),
            providers: &Providers::system(),
        }
        .check(&ConnectorFile::read(&path).unwrap());
        assert_eq!(checked.problems, []);
        self.worker.run_from_file(checked.config.unwrap()).await.unwrap();
    }

    /// A source that writes so many records to a topic, to its partitions in turn.
    async fn source(&self, name: &str, topic: &str, records: &str) {
        let keys = [
            ("topic", topic),
            ("records", records),
            ("batch", "7"),
            ("producer.override.partitioner.class", "round-robin"),
        ];
        self.connector(name, "noop-source", &keys).await;
    }

    /// Waits until the connector's tasks have written so many records together.
    async fn written(&self, connector: &str, records: u64) {
        let written = || -> u64 {
            let report = self.worker.report();
            let tasks = report.get(connector).into_iter().flatten();
            tasks.map(|ledger| ledger.written).sum()
        };
        let patience = tokio::time::Instant::now() + Duration::from_mins(2);
        while written() < records {
            assert!(
                tokio::time::Instant::now() < patience,
                "{connector} has written {} of {records}",
                written()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(written(), records, "{connector}");
    }
}

/// The plugin, which cargo builds with the tests.
fn plugin() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let built = this.parent().and_then(Path::parent).unwrap();
    built.join("examples/libnoop.so")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_follows_new_topics_and_added_partitions_without_loss() {
    let stand = Stand::new().await;
    let tasks = [("topics.regex", "grow-.*"), ("tasks.max", "2")];
    stand.connector("sink", "noop-sink", &tasks).await;
    stand.source("one", "grow-1", "100").await;
    stand.written("sink", 100).await;
    // Another topic, and one that the pattern does not match whole.
    stand.source("two", "grow-2", "50").await;
    stand.source("other", "not-grow-1", "50").await;
    stand.written("other", 50).await;
    stand.written("sink", 150).await;

    let broker = stand.worker.broker().clone();
    broker.add_partitions("grow-1", 5).await.unwrap();
    stand.source("three", "grow-1", "100").await;
    stand.written("three", 100).await;
    stand.written("sink", 250).await;
    let grown = broker.topic("grow-1").map(|topic| topic.partitions);
    assert_eq!(grown, Some(5));
    stand.worker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_goes_on_with_the_other_topics_when_one_is_deleted() {
    let stand = Stand::new().await;
    stand
        .connector("sink", "noop-sink", &[("topics", "stays,goes")])
        .await;
    stand.source("goes", "goes", "40").await;
    stand.source("stays", "stays", "60").await;
    stand.written("sink", 100).await;
    stand.worker.broker().delete_topic("goes").await.unwrap();
    stand.source("more", "stays", "30").await;
    stand.written("sink", 130).await;
    // Made anew, it is read from its beginning.
    stand.source("again", "goes", "25").await;
    stand.written("sink", 155).await;
    stand.worker.shutdown().await;
}
