//! What the tests of this crate share: the plugins that `cargo test` has built beside them, and ways to look into them.

#![allow(dead_code)] // each test takes what it needs

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidewater_plugin_api::abi::PluginHeader;
use tidewater_plugin_api::{ConfigMap, FrameBuilder, Schema, Type, Value};
use tidewater_plugin_host::{PluginDirs, PluginRegistry, SinkTaskHandle, SourceTaskHandle, TaskIdentity};

/// Long enough for anything that works, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The library of the example `name`.
pub fn plugin(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().nth(2).expect("it is in target/<profile>/deps");
    let path = folder.join("examples").join(format!("lib{name}.so"));
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --examples -p tidewater-plugin-host`",
        path.display()
    );
    path
}

/// A registry of its own, and so copies of the plugins of its own: what they count is this test's.
pub struct Loaded {
    pub registry: PluginRegistry,
    pub folder: tempfile::TempDir,
}

pub fn load(plugins: &[&str]) -> Loaded {
    let loaded = registry(plugins.iter().map(|name| plugin(name)).collect());
    let report = loaded.registry.scan();
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    loaded
}

pub fn registry(search: Vec<PathBuf>) -> Loaded {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache_dir = folder.path().join("cache");
    Loaded {
        registry: PluginRegistry::new(PluginDirs { search, cache_dir }),
        folder,
    }
}

impl Loaded {
    pub fn source(&self, orders: &[(&str, &str)]) -> SourceTaskHandle {
        let class = self.registry.find("puppet-source").expect("the puppet is loaded");
        class
            .create_source_task(identity("test"), config(orders), Vec::new())
            .expect("a task")
    }

    pub fn sink(&self, orders: &[(&str, &str)]) -> SinkTaskHandle {
        let class = self.registry.find("puppet-sink").expect("the puppet is loaded");
        class
            .create_sink_task(identity("test"), config(orders))
            .expect("a task")
    }

    /// A task of the plugin that breaks the rules.
    pub fn handmade(&self, conduct: &str) -> SourceTaskHandle {
        let class = self.registry.find("handmade-source").expect("it is loaded");
        class
            .create_source_task(identity(conduct), ConfigMap::new(), Vec::new())
            .expect("a task")
    }

    /// A file at which the puppet blocks until it is removed.
    pub fn barrier(&self) -> PathBuf {
        let file = self.folder.path().join(format!("barrier-{}", fastrand::u64(..)));
        std::fs::write(&file, "").expect("it can be written");
        file
    }

    /// What the plugin has counted.
    pub fn counted(&self, name: &str) -> u64 {
        let metrics = self.registry.metrics();
        metrics
            .iter()
            .find(|metric| metric.name == name)
            .map_or(0, |metric| metric.value as u64)
    }

    /// Waits until the plugin has counted as many.
    pub async fn until(&self, name: &str, count: u64) {
        until(&format!("{name} = {count}"), || self.counted(name) >= count).await;
    }
}

/// Waits for what has no event to await: the other side of the boundary counts it.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Fails loudly instead of hanging.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}

pub fn identity(connector: &str) -> TaskIdentity {
    TaskIdentity {
        connector: connector.to_owned(),
        task: 0,
        generation: 3,
    }
}

pub fn config(entries: &[(&str, &str)]) -> ConfigMap {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A frame of `records` texts of `length` bytes.
pub fn frame(records: usize, length: usize) -> bytes::Bytes {
    let schema = std::sync::Arc::new(Schema::new(Type::String));
    let text = Value::String("x".repeat(length));
    let mut batch = FrameBuilder::new();
    for _ in 0..records {
        batch
            .push("puppets", None, (&schema, &text))
            .expect("a text fits its schema");
    }
    batch.finish()
}

/// A copy of a plugin with bytes of its header changed.
pub fn patched(folder: &Path, plugin_name: &str, patches: &[(usize, &[u8])]) -> PathBuf {
    let mut content = std::fs::read(plugin(plugin_name)).expect("the plugin can be read");
    let header = header_offset(&content);
    for (offset, bytes) in patches {
        content[header + offset..header + offset + bytes.len()].copy_from_slice(bytes);
    }
    let path = folder.join(format!("libpatched_{}.so", fastrand::u64(..)));
    std::fs::write(&path, content).expect("the copy can be written");
    path
}

/// A copy of the handmade plugin that conducts itself so while it is loaded.
pub fn handmade(folder: &Path, conduct: &str) -> PathBuf {
    let mut name = [0; 64];
    name[..conduct.len()].copy_from_slice(conduct.as_bytes());
    patched(
        folder,
        "handmade",
        &[(std::mem::offset_of!(PluginHeader, name), &name)],
    )
}

fn header_offset(content: &[u8]) -> usize {
    // The header's size stands behind its magic, which tells it from the place where the SDK compares with it.
    let mut needle = b"TWPLUGIN".to_vec();
    needle.extend_from_slice(&(size_of::<PluginHeader>() as u32).to_ne_bytes());
    let mut found = memchr::memmem::find_iter(content, &needle);
    let offset = found.next().expect("a plugin has a header");
    assert!(found.next().is_none(), "the header is there once");
    offset
}
