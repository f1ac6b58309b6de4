//! `file-source`: follows a growing file, line by line.
//!
//! - [`settings`]: what can be configured;
//! - [`watch`]: when to look;
//! - [`follower`]: what to read next;
//! - [`line_reader`]: one open file, line by line;
//! - [`record_writer`]: from a line to a record;
//! - [`offset`]: how far the file has been read.
//!
//! # What no reader can know
//! - A file is taken to have one writer: once something is written to a later file, what is still written to an earlier one
//!   is not read.
//! - `copytruncate` loses what is written between its copy and its cut, and a copy of which nothing had been read yet is
//!   not told from an older one. Rotation by renaming has neither fault.
//! - A file that was emptied and then written with the same bytes again, before anybody looked, has not changed.

pub mod follower;
pub mod line_reader;
pub mod offset;
pub mod record_writer;
pub mod settings;
pub mod watch;

use std::collections::BTreeMap;

use tidewater_plugin_api::config::ConfigMap;
use tidewater_plugin_api::{
    Config, ConfigProblem, ConnectorKind, ConnectorSpec, Error, FrameBuilder, Result, SourceConnector,
    SourceTask, SourceTaskContext, async_trait,
};

use self::follower::Follower;
use self::settings::Settings;
use self::watch::FolderWatch;
use crate::error::FileError;
use crate::regular_file::{FileId, must_have_folder, open_to_read};

/// The connector `file-source`.
#[derive(Debug, Default)]
pub struct FileSource;

#[async_trait]
impl SourceConnector for FileSource {
    fn spec() -> ConnectorSpec {
        ConnectorSpec {
            class: "file-source".into(),
            aliases: vec![
                "FileStreamSource".into(),
                "FileStreamSourceConnector".into(),
                "org.apache.kafka.connect.file.FileStreamSourceConnector".into(),
            ],
            kind: ConnectorKind::Source,
            version: env!("CARGO_PKG_VERSION").into(),
            documentation: "Follows a growing file line by line, through rotation (renamed, or copied and emptied), \
                            replacement and restarts. A last line becomes a record once it is ended, or its file is rotated away."
                .into(),
            config: settings::config_def(),
            exactly_once: true,
        }
    }

    fn create() -> Box<dyn SourceConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SourceTask> {
        Box::new(FileSourceTask::default())
    }

    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        let settings = match Settings::read(config) {
            Ok(settings) => settings,
            Err(problem) => return vec![problem],
        };
        match check(&settings) {
            Ok(()) => Vec::new(),
            Err(error) => vec![ConfigProblem {
                key: "file".into(),
                value: Some(settings.file.display().to_string()),
                message: error.to_string(),
            }],
        }
    }

    // A file is read by one task, however many are allowed.
    async fn task_configs(&mut self, _max_tasks: usize) -> Result<Vec<ConfigMap>> {
        Ok(vec![ConfigMap::new()])
    }
}

/// Whether the file can be followed: its folder is there, and it can be read if it exists.
fn check(settings: &Settings) -> Result<(), FileError> {
    must_have_folder(&settings.file)?;
    open_to_read(&settings.file).map(|_| ())
}

/// The task of a `file-source`.
#[derive(Debug, Default)]
pub struct FileSourceTask {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    follower: Follower,
    watch: FolderWatch,
    /// The file that was being read when the folders to watch were chosen.
    watched_for: Option<FileId>,
}

#[async_trait]
impl SourceTask for FileSourceTask {
    async fn start(&mut self, context: SourceTaskContext) -> Result<()> {
        let settings =
            Settings::read(&context.config).map_err(|problem| Error::config(problem.to_string()))?;
        check(&settings)?;
        let stored = offset::stored(&settings.file, &context.positions);
        // Watched before the first look: a change between the two is an event.
        self.running = Some(Running {
            watch: FolderWatch::new(&settings.file, settings.rescan),
            follower: Follower::new(settings, stored),
            watched_for: None,
        });
        Ok(())
    }

    async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let running = self.running.as_mut();
        let running = running.ok_or_else(|| Error::fatal("file-source was polled before it was started"))?;
        loop {
            // What was read and what was pushed change together, between two awaits: a poll that is dropped while it
            // waits loses nothing.
            running.follower.fill(batch)?;
            if running.watched_for != running.follower.reading() {
                running.watched_for = running.follower.reading();
                running.watch.refresh();
            }
            if !batch.is_empty() {
                return Ok(());
            }
            running.watch.wait().await;
        }
    }

    async fn stop(&mut self) -> Result<()> {
        self.running = None;
        Ok(())
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let Some(running) = &self.running else {
            return BTreeMap::new();
        };
        let counts = running.follower.counts();
        [
            ("lines", counts.lines),
            ("bad_lines", counts.bad_lines),
            ("rotations", counts.rotations),
            ("truncations", counts.truncations),
            ("lag_bytes", running.follower.lag()),
        ]
        .map(|(name, value)| (name.to_owned(), value as f64))
        .into()
    }
}
