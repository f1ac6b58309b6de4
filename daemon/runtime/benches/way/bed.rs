//! What all measurements share: the plugin, configurations, and the processor's clock.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tidewater_plugin_host::{PluginDirs, PluginRegistry};
use tidewater_runtime::config::{Checker, ConnectorConfig, ConnectorFile, Providers, WorkerConfig};

/// Loads the plugin, which stands among the examples of the same build.
pub fn registry(folder: &Path) -> Arc<PluginRegistry> {
    let this = std::env::current_exe().expect("this program");
    let built = this.parent().and_then(Path::parent).expect("cargo's folder");
    let plugin = built.join("examples/libnoop.so");
    assert!(
        plugin.exists(),
        "{} is not there: cargo build --release --example noop -p tidewater-runtime",
        plugin.display()
    );
    let registry = PluginRegistry::new(PluginDirs {
        search: vec![plugin],
        cache_dir: folder.join("plugins"),
    });
    let refused = registry.scan().refused;
    assert!(refused.is_empty(), "{refused:?}");
    Arc::new(registry)
}

/// A connector of these keys.
pub fn connector(
    registry: &PluginRegistry,
    folder: &Path,
    keys: &BTreeMap<String, String>,
) -> ConnectorConfig {
    let path = folder.join(format!("{}.json", keys["name"]));
    std::fs::write(&path, serde_json::json!(keys).to_string()).expect("a file");
    let file = ConnectorFile::read(&path).expect("JSON");
    let checked = Checker {
        classes: &registry.classes(),
        worker: &WorkerConfig::default(),
        providers: &Providers::system(),
    }
    .check(&file);
    assert!(checked.config.is_some(), "{:?}", checked.problems);
    checked.config.expect("checked")
}

/// Keys and values as a map.
pub fn keys<const N: usize>(keys: [(&str, String); N]) -> BTreeMap<String, String> {
    keys.map(|(key, value)| (key.to_owned(), value)).into()
}

/// The converter's keys for keys and values. What is of no converter's type is rows.
pub fn converters(converter: &str) -> (&str, &str) {
    match converter {
        "bytes" => ("bytes", "bytes"),
        other => (other, "row"),
    }
}

/// Processor seconds of this process so far, all threads.
pub fn cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
