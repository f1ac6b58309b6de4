//! Finds and loads plugins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewater_plugin_api::ConnectorSpec;
use tidewater_plugin_host::{PluginDirs, PluginRegistry, ScanReport};
use tidewater_runtime::config::WorkerConfig;

use crate::exit::{Failure, Result};

/// Where packages install plugins.
const SYSTEM: [&str; 2] = ["/usr/lib/tidewater/plugins", "/usr/local/lib/tidewater/plugins"];

/// The plugins of this process.
pub struct Plugins {
    /// Makes connectors and tasks.
    pub registry: Arc<PluginRegistry>,
    /// What was loaded, and what was refused and why.
    pub report: ScanReport,
    /// Where they were looked for.
    pub searched: Vec<PathBuf>,
}

impl Plugins {
    /// Loads all plugins of `worker`'s path; copies of them are kept in `copies`, so that an installed file may be replaced
    /// while it is in use.
    pub async fn load(worker: &WorkerConfig, copies: PathBuf) -> Result<Self> {
        let searched = search_path(worker);
        let registry = Arc::new(PluginRegistry::new(PluginDirs {
            search: searched.clone(),
            cache_dir: copies,
        }));
        let scanning = Arc::clone(&registry);
        let report = tokio::task::spawn_blocking(move || scanning.scan())
            .await
            .map_err(|error| Failure::runtime(format!("loading plugins panicked: {error}")))?;
        Ok(Self {
            registry,
            report,
            searched,
        })
    }

    /// The installed classes, by name.
    pub fn classes(&self) -> Vec<ConnectorSpec> {
        let mut classes = self.registry.classes();
        classes.sort_by(|a, b| a.class.cmp(&b.class));
        classes
    }

    /// The plugin file of a class.
    pub fn file_of(&self, class: &str) -> Option<&Path> {
        let has = |plugin: &&tidewater_plugin_host::PluginInfo| {
            plugin.connectors.iter().any(|spec| spec.class == class)
        };
        self.report
            .loaded
            .iter()
            .find(has)
            .map(|plugin| plugin.path.as_path())
    }

    /// Why there is not one class.
    pub fn none_loaded(&self) -> Failure {
        let searched: Vec<String> = self
            .searched
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let refused = match self.report.refused.len() {
            0 => String::new(),
            refused => format!(" ({refused} refused)"),
        };
        Failure::environment(format!(
            "no plugin could be loaded from {}{refused}; put connector libraries (lib*.so) there, or name their folder \
             with --plugin-path or plugin.path",
            searched.join(", ")
        ))
    }
}

fn search_path(worker: &WorkerConfig) -> Vec<PathBuf> {
    if !worker.plugin_path.is_empty() {
        return worker.plugin_path.clone();
    }
    let folder = std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned));
    let own = folder
        .into_iter()
        .flat_map(|folder| [folder.clone(), folder.join("plugins")]);
    own.chain(SYSTEM.map(PathBuf::from))
        .filter(|path| path.is_dir())
        .collect()
}
