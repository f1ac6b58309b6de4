//! A worker for the API to serve.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewater_plugin_host::{PluginDirs, PluginRegistry};
use tidewater_rest::api::Api;
use tidewater_rest::catalog::Catalog;
use tidewater_rest::loggers::{LogLevels, LoggerLevel};
use tidewater_runtime::Worker;
use tidewater_runtime::config::{Providers, WorkerConfig};

/// Nothing is logged here.
struct Silent;

impl LogLevels for Silent {
    fn levels(&self) -> BTreeMap<String, LoggerLevel> {
        BTreeMap::new()
    }

    fn set(&self, logger: &str, _: &str) -> Result<Vec<String>, String> {
        Err(format!("{logger} is silent"))
    }
}

/// A worker without plugins, whose log is in `dir`.
pub async fn api(dir: &tempfile::TempDir) -> Api {
    let config = WorkerConfig {
        data_dir: dir.path().join("data"),
        ..WorkerConfig::default()
    };
    let registry = Arc::new(PluginRegistry::new(PluginDirs {
        search: Vec::new(),
        cache_dir: dir.path().join("plugins"),
    }));
    Api {
        worker: Arc::new(Worker::start(&config, registry.clone()).await.expect("a log")),
        catalog: Arc::new(Catalog {
            registry,
            worker: config,
            providers: Providers::system(),
        }),
        log_levels: Arc::new(Silent),
    }
}
