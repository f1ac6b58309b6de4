//! Which plugins there are, and the connector classes they bring.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use parking_lot::Mutex;
use tidewater_plugin_api::ConnectorSpec;

use crate::class::ConnectorClass;
use crate::inspect::inspect;
use crate::library::Plugin;
use crate::load_error::LoadError;
use crate::metric::PluginMetric;
use crate::private_copy::{content_hash, private_copy, prune};

/// Where plugins are.
#[derive(Clone, Debug)]
pub struct PluginDirs {
    /// Folders in which every `*.so` is looked at, and files. Earlier ones win.
    pub search: Vec<PathBuf>,
    /// Where the copies are kept that are opened. Its file system must allow execution.
    pub cache_dir: PathBuf,
}

/// A loaded plugin.
#[derive(Clone, Debug)]
pub struct PluginInfo {
    /// Its file, as it was found.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the SDK it was built with.
    pub sdk_version: String,
    /// Its connector classes, those included that another plugin had before it.
    pub connectors: Vec<ConnectorSpec>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// All plugins that are loaded now, in the order found.
    pub loaded: Vec<PluginInfo>,
    /// What could not be loaded, and why. A plugin whose class is taken stands here and among the loaded.
    pub refused: Vec<(PathBuf, LoadError)>,
}

/// No installed class has this name.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no installed plugin has the connector class {class:?}{}; installed are: {}", hint(.nearest), list(.installed))]
pub struct UnknownClass {
    /// What was asked for.
    pub class: String,
    /// Installed names that look like it, the likeliest first.
    pub nearest: Vec<String>,
    /// The short names of all installed classes.
    pub installed: Vec<String>,
}

fn hint(nearest: &[String]) -> String {
    nearest
        .first()
        .map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

fn list(installed: &[String]) -> String {
    if installed.is_empty() {
        "none (check --plugin-path)".to_owned()
    } else {
        installed.join(", ")
    }
}

/// The plugins of a process. A plugin once loaded stays so.
pub struct PluginRegistry {
    dirs: PluginDirs,
    abandoned: Arc<AtomicU64>,
    state: Mutex<State>,
}

impl std::fmt::Debug for PluginRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginRegistry")
            .field("dirs", &self.dirs)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// The content hashes of what is loaded.
    loaded: HashSet<String>,
    plugins: Vec<(Arc<Plugin>, PluginInfo)>,
    classes: Vec<Arc<ConnectorClass>>,
    /// Every name of a class, to its place among the classes.
    names: HashMap<String, usize>,
}

impl PluginRegistry {
    /// A registry of what is in `dirs`; nothing is loaded before [`scan`](Self::scan).
    pub fn new(dirs: PluginDirs) -> Self {
        Self {
            dirs,
            abandoned: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// Loads what is there and not loaded yet. What cannot be loaded keeps nothing else from being so (invariant 7).
    ///
    /// In a folder, libraries that are no plugins are passed over in silence unless their name claims to be one; a file
    /// that is named is always told about. Reads and copies files: call it where blocking is allowed.
    pub fn scan(&self) -> ScanReport {
        let mut state = self.state.lock();
        let mut refused = Vec::new();
        for path in &self.dirs.search {
            match fs::metadata(path) {
                Ok(meta) if meta.is_dir() => match libraries(path) {
                    Ok(files) => {
                        for file in files {
                            let claims = file
                                .file_name()
                                .is_some_and(|name| name.to_string_lossy().contains("tidewater"));
                            self.load(&file, claims, &mut state, &mut refused);
                        }
                    }
                    Err(error) => refused.push((path.clone(), LoadError::Read(error))),
                },
                Ok(_) => self.load(path, true, &mut state, &mut refused),
                Err(error) => refused.push((path.clone(), unreadable(error))),
            }
        }
        prune(&self.dirs.cache_dir);
        ScanReport {
            loaded: state.plugins.iter().map(|(_, info)| info.clone()).collect(),
            refused,
        }
    }

    fn load(&self, path: &Path, claims: bool, state: &mut State, refused: &mut Vec<(PathBuf, LoadError)>) {
        match self.try_load(path, state) {
            Ok(None) => {}
            Ok(Some((plugin, info))) => {
                tracing::debug!(path = %path.display(), plugin = info.name, version = info.version, "plugin loaded");
                for (class, kept) in state.add(plugin, info) {
                    refused.push((path.to_owned(), LoadError::DuplicateClass { class, kept }));
                }
            }
            Err(LoadError::NoPlugin) if !claims => {}
            Err(error) => refused.push((path.to_owned(), error)),
        }
    }

    /// The plugin in the file; none where the same content is loaded already.
    fn try_load(
        &self,
        path: &Path,
        state: &mut State,
    ) -> Result<Option<(Arc<Plugin>, PluginInfo)>, LoadError> {
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            return Err(LoadError::Directory);
        }
        let content = fs::read(path).map_err(unreadable)?;
        let inspected = inspect(&content)?;
        let hash = content_hash(&content);
        if state.loaded.contains(&hash) {
            return Ok(None);
        }
        let copy = private_copy(&self.dirs.cache_dir, &hash, &content)?;
        let (plugin, description) = Plugin::load(path, &copy, &inspected, self.abandoned.clone())?;
        state.loaded.insert(hash);
        let info = PluginInfo {
            path: path.to_owned(),
            name: description.name,
            version: description.version,
            sdk_version: description.sdk_version,
            connectors: description.connectors,
        };
        Ok(Some((Arc::new(plugin), info)))
    }

    /// All classes, by name.
    pub fn classes(&self) -> Vec<ConnectorSpec> {
        let mut specs: Vec<_> = self
            .state
            .lock()
            .classes
            .iter()
            .map(|class| class.spec().clone())
            .collect();
        specs.sort_by(|a, b| a.class.cmp(&b.class));
        specs
    }

    /// The class called `name`, by its short name or an alias.
    pub fn find(&self, name: &str) -> Result<Arc<ConnectorClass>, UnknownClass> {
        let state = self.state.lock();
        if let Some(&index) = state.names.get(name) {
            return Ok(state.classes[index].clone());
        }
        Err(state.unknown(name))
    }

    /// Metrics that plugins have recorded.
    pub fn metrics(&self) -> Vec<PluginMetric> {
        let state = self.state.lock();
        state
            .plugins
            .iter()
            .flat_map(|(plugin, _)| plugin.context.metrics.read(&plugin.name))
            .collect()
    }

    /// How many instances did not end within their deadline and were left behind.
    pub fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed)
    }
}

impl State {
    /// Adds a plugin's classes; answers the names that are taken, each with the file that has it.
    fn add(&mut self, plugin: Arc<Plugin>, info: PluginInfo) -> Vec<(String, PathBuf)> {
        let mut taken = Vec::new();
        for spec in &info.connectors {
            if let Some(&index) = self.names.get(&spec.class) {
                taken.push((spec.class.clone(), self.classes[index].path().to_owned()));
                continue;
            }
            let index = self.classes.len();
            self.classes
                .push(Arc::new(ConnectorClass::new(plugin.clone(), spec.clone())));
            self.names.insert(spec.class.clone(), index);
            for alias in &spec.aliases {
                match self.names.get(alias) {
                    Some(&other) if other != index => {
                        taken.push((alias.clone(), self.classes[other].path().to_owned()));
                    }
                    _ => drop(self.names.insert(alias.clone(), index)),
                }
            }
        }
        self.plugins.push((plugin, info));
        taken
    }

    fn unknown(&self, name: &str) -> UnknownClass {
        // Java class names share long prefixes: what tells them apart is the last part.
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
        let wanted = last(name);
        let mut scored: Vec<(f64, &String)> = self
            .names
            .keys()
            .map(|known| (strsim::jaro_winkler(&wanted, &last(known)), known))
            .filter(|(score, _)| *score > 0.8)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let mut installed: Vec<_> = self
            .classes
            .iter()
            .map(|class| class.spec().class.clone())
            .collect();
        installed.sort();
        UnknownClass {
            class: name.to_owned(),
            nearest: scored.into_iter().take(3).map(|(_, name)| name.clone()).collect(),
            installed,
        }
    }
}

fn unreadable(error: io::Error) -> LoadError {
    match error.kind() {
        io::ErrorKind::NotFound => LoadError::NotFound,
        _ => LoadError::Read(error),
    }
}

/// The files in `folder` that are named as libraries are, in the order of their names.
fn libraries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "so") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
