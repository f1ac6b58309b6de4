//! What the tests of whole workers share: a worker on a folder of its own, with the plugin that fails on command.

#![allow(dead_code)] // each test takes what it needs

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewater_plugin_api::ConfigMap;
use tidewater_plugin_host::{PluginDirs, PluginRegistry};
use tidewater_runtime::config::{Checker, ConnectorConfig, ConnectorFile, Providers, WorkerConfig};
use tidewater_runtime::config_store::TargetState;
use tidewater_runtime::control::NewConnector;
use tidewater_runtime::status::{State, Status, Subject};
use tidewater_runtime::{ControlError, Worker};

/// Long enough for anything that works, however busy the machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A folder with a log, and the plugins for it.
pub struct Stand {
    pub folder: tempfile::TempDir,
    registry: Arc<PluginRegistry>,
    pub config: WorkerConfig,
}

impl Stand {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let registry = PluginRegistry::new(PluginDirs {
            search: vec![plugin()],
            cache_dir: folder.path().join("plugins"),
        });
        let report = registry.scan();
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        let settings = [
            ("data.dir", folder.path().join("data").display().to_string()),
            ("offset.flush.interval.ms", "50".to_owned()),
            ("task.shutdown.graceful.timeout.ms", "1000".to_owned()),
            ("broker.fsync", "false".to_owned()),
            ("value.converter", "string".to_owned()),
        ];
        let map: ConfigMap = settings
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Self {
            folder,
            registry: Arc::new(registry),
            config: WorkerConfig::from_map(&map).expect("valid settings"),
        }
    }

    pub async fn worker(&self) -> Running<'_> {
        let worker = Worker::start(&self.config, self.registry.clone()).await;
        Running {
            stand: self,
            worker: worker.expect("the worker starts"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many instances were left behind.
    pub fn abandoned(&self) -> u64 {
        self.registry.abandoned()
    }

    /// A connector of these keys, checked as a file's would be.
    pub fn connector(&self, name: &str, keys: &[(&str, &str)]) -> ConnectorConfig {
        let map = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        self.check(name, &map)
    }

    pub fn check(&self, name: &str, map: &ConfigMap) -> ConnectorConfig {
        let classes = self.registry.classes();
        let providers = Providers::system();
        let checker = Checker {
            classes: &classes,
            worker: &self.config,
            providers: &providers,
        };
        let checked = checker.check(&ConnectorFile::from_map("the test", name, map));
        checked.config.unwrap_or_else(|| panic!("{:?}", checked.problems))
    }

    /// Orders a fault; none heals.
    pub fn order(&self, file: &str, order: Option<&str>) {
        let path = self.path(file);
        match order {
            Some(order) => {
                // Whole at once, since it is read at any time.
                let new = path.with_extension("new");
                std::fs::write(&new, format!("{order}\n")).expect("it can be written");
                std::fs::rename(new, path).expect("it can be renamed");
            }
            None => std::fs::remove_file(path).expect("there was an order"),
        }
    }
}

/// A running worker.
pub struct Running<'a> {
    pub stand: &'a Stand,
    pub worker: Worker,
}

impl Running<'_> {
    pub async fn create(&self, name: &str, keys: &[(&str, &str)]) {
        self.try_create(name, keys, TargetState::Running)
            .await
            .expect("it is created");
    }

    pub async fn try_create(
        &self,
        name: &str,
        keys: &[(&str, &str)],
        initial_state: TargetState,
    ) -> Result<(), ControlError> {
        let config = self.stand.connector(name, keys);
        self.worker
            .create_connector(NewConnector {
                config,
                initial_state,
                offsets: Vec::new(),
            })
            .await
    }

    /// A source of numbers; `faults` is its file of orders.
    pub async fn source(&self, name: &str, more: &[(&str, &str)]) {
        let faults = self.stand.path(&format!("{name}.faults")).display().to_string();
        let mut keys = vec![
            ("connector.class", "fault-source"),
            ("topic", name),
            ("fault.file", faults.as_str()),
            ("restart.delay.initial.ms", "20"),
            ("errors.retry.delay.max.ms", "100"),
        ];
        keys.extend_from_slice(more);
        self.create(name, &keys).await;
    }

    /// A sink of the topic `topic`, into the file of its own name.
    pub async fn sink(&self, name: &str, topic: &str, more: &[(&str, &str)]) {
        let file = self.stand.path(name).display().to_string();
        let faults = self.stand.path(&format!("{name}.faults")).display().to_string();
        let mut keys = vec![
            ("connector.class", "fault-sink"),
            ("topics", topic),
            ("file", file.as_str()),
            ("fault.file", faults.as_str()),
            ("restart.delay.initial.ms", "20"),
            ("errors.retry.delay.max.ms", "100"),
        ];
        keys.extend_from_slice(more);
        self.create(name, &keys).await;
    }

    pub fn connector(&self, name: &str) -> Option<Status> {
        self.status(&Subject::Connector(name.to_owned()))
    }

    pub fn task(&self, name: &str, task: u32) -> Option<Status> {
        self.status(&Subject::Task(name.to_owned(), task))
    }

    fn status(&self, subject: &Subject) -> Option<Status> {
        self.worker.statuses().get(subject).cloned()
    }

    /// Waits until the task is in `state` and `more` holds of it.
    pub async fn task_is(
        &self,
        name: &str,
        task: u32,
        state: State,
        more: impl Fn(&Status) -> bool,
    ) -> Status {
        self.subject_is(&Subject::Task(name.to_owned(), task), state, more)
            .await
    }

    pub async fn connector_is(&self, name: &str, state: State) -> Status {
        self.subject_is(&Subject::Connector(name.to_owned()), state, |_| true)
            .await
    }

    async fn subject_is(&self, subject: &Subject, state: State, more: impl Fn(&Status) -> bool) -> Status {
        let mut changes = self.worker.status_changes();
        let begun = Instant::now();
        loop {
            let last = self.status(subject);
            if let Some(status) = &last
                && status.standing.state == state
                && more(status)
            {
                return status.clone();
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let changed = tokio::time::timeout(left, changes.changed()).await;
            assert!(changed.is_ok(), "{subject:?} is not {state:?} but {last:?}");
        }
    }

    /// Records that a connector has written so far.
    pub fn written(&self, name: &str) -> u64 {
        let report = self.worker.report();
        report
            .get(name)
            .map_or(0, |tasks| tasks.iter().map(|task| task.written).sum())
    }

    /// Waits until a connector has written `more` records than now.
    pub async fn writes(&self, name: &str, more: u64) {
        let goal = self.written(name) + more;
        until(&format!("{name} to write {more} more"), || {
            self.written(name) >= goal
        })
        .await;
    }

    /// The books of every task balance (invariant 10).
    pub fn balanced(&self) {
        for (connector, tasks) in self.worker.report() {
            for (task, books) in tasks.iter().enumerate() {
                assert!(books.balances(), "{connector} {task}: {books:?}");
            }
        }
    }
}

/// Waits for what has no event to await.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A line of a sink's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub task: u32,
    pub partition: u32,
    pub offset: u64,
    pub part: i64,
    pub number: i64,
}

/// What a sink has written, in order.
pub fn lines(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let (part, number) = fields[4].split_once(':')?;
        Some(Line {
            task: fields[0].parse().ok()?,
            partition: fields[2].parse().ok()?,
            offset: fields[3].parse().ok()?,
            part: part.parse().ok()?,
            number: number.parse().ok()?,
        })
    };
    whole
        .lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("{line:?} is no line of a sink")))
        .collect()
}

/// Nothing is missing, and each partition's records came in order, but for what a restart repeated (invariants 4 and 5).
/// Answers how many lines were repeated.
pub fn complete_and_in_order(lines: &[Line]) -> usize {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    let mut numbers: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    let mut repeated = 0;
    for line in lines {
        // Offsets have gaps: transactions end with a marker.
        let first_time = match last.get_mut(&line.partition) {
            Some(last) if line.offset > *last => {
                *last = line.offset;
                true
            }
            Some(_) => false,
            None => last.insert(line.partition, line.offset).is_none(),
        };
        let new = numbers.entry(line.part).or_default().insert(line.number);
        assert_eq!(new, first_time, "{line:?} came out of order or twice");
        repeated += usize::from(!first_time);
    }
    for (part, numbers) in numbers {
        let missing: Vec<i64> = (0..numbers.len() as i64)
            .filter(|number| !numbers.contains(number))
            .collect();
        assert!(missing.is_empty(), "of part {part} are missing {missing:?}");
    }
    repeated
}

/// The library of the plugin.
fn plugin() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().nth(2).expect("it is in target/<profile>/deps");
    let path = folder.join("examples").join("libfault_plugin.so");
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --examples -p tidewater-runtime`",
        path.display()
    );
    path
}
