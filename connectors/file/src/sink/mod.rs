//! `file-sink`: appends records to a file as JSON lines, each exactly once.
//!
//! - [`settings`]: what can be configured;
//! - [`writer`]: writing batches, and making them durable together with their offsets;
//! - [`mod@line`]: from a record to a line;
//! - [`progress`]: which records are in the file;
//! - [`data_file`]: the data file as the sink holds it;
//! - [`side_file`]: what is durable of it, and the lock that keeps a second writer out;
//! - [`recovery`]: from the side file back to a data file that holds exactly that.

pub mod data_file;
pub mod line;
pub mod progress;
pub mod recovery;
pub mod settings;
pub mod side_file;
pub mod writer;

use std::collections::BTreeMap;

use rustix::fs::Access;
use tidewater_plugin_api::config::ConfigMap;
use tidewater_plugin_api::{
    AlteredOffset, AssignedPartition, Config, ConfigProblem, ConnectorKind, ConnectorSpec, Error, Frame,
    PutReport, Result, SinkConnector, SinkTask, SinkTaskContext, TopicPartition, TopicPartitionOffset,
    async_trait,
};

use self::settings::Settings;
use self::side_file::{SideFile, State};
use self::writer::Writer;
use crate::error::FileError;
use crate::regular_file::{folder, is_missing, must_be_file, must_have_folder};

/// The connector `file-sink`.
#[derive(Debug, Default)]
pub struct FileSink;

#[async_trait]
impl SinkConnector for FileSink {
    fn spec() -> ConnectorSpec {
        ConnectorSpec {
            class: "file-sink".into(),
            aliases: vec![
                "FileStreamSink".into(),
                "FileStreamSinkConnector".into(),
                "org.apache.kafka.connect.file.FileStreamSinkConnector".into(),
            ],
            kind: ConnectorKind::Sink,
            version: env!("CARGO_PKG_VERSION").into(),
            documentation:
                "Appends records to a file as JSON lines. How far the file is durable stands in <file>.offsets, so no line is lost \
                 or doubled by a crash; a file that is rotated away is followed by a new one."
                    .into(),
            config: settings::config_def(),
            exactly_once: true,
        }
    }

    fn create() -> Box<dyn SinkConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SinkTask> {
        Box::new(FileSinkTask::default())
    }

    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        let settings = Settings::read(config);
        match check(&settings) {
            Ok(()) => Vec::new(),
            Err(error) => vec![ConfigProblem {
                key: "file".into(),
                value: Some(settings.file.display().to_string()),
                message: error.to_string(),
            }],
        }
    }

    // They stand in the side file, whose word goes first.
    async fn alter_offsets(
        &mut self,
        _name: &str,
        config: &Config,
        altered: &[AlteredOffset],
    ) -> Result<bool> {
        let (mut side, state) = SideFile::lock(&Settings::read(config).file)?;
        // Where nothing was ever written, the host's own offsets count.
        if let Some(mut state) = state {
            state.alter(altered);
            side.write(&state)?;
        }
        Ok(true)
    }

    // A file is written by one task, however many are allowed.
    async fn task_configs(&mut self, _max_tasks: usize) -> Result<Vec<ConfigMap>> {
        Ok(vec![ConfigMap::new()])
    }
}

/// Whether the file can be written, without touching it.
fn check(settings: &Settings) -> Result<(), FileError> {
    let path = &settings.file;
    must_have_folder(path)?;
    match std::fs::metadata(path) {
        Ok(metadata) => {
            must_be_file(&metadata, path)?;
            may_write(path)?;
        }
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(FileError::io("examine", path, error)),
    }
    // The side file is made there, too.
    may_write(&folder(path))
}

fn may_write(path: &std::path::Path) -> Result<(), FileError> {
    rustix::fs::access(path, Access::WRITE_OK).map_err(|error| FileError::io("write to", path, error))
}

/// The task of a `file-sink`.
#[derive(Debug, Default)]
pub struct FileSinkTask {
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    /// Not started, stopped, or unable to tell what is durable: only a new life of the task can go on.
    #[default]
    Idle,
    /// The file is locked, and not touched yet.
    Locked(Box<Lock>),
    /// Batches are written.
    Writing(Box<Writer>),
}

#[derive(Debug)]
struct Lock {
    settings: Settings,
    generation: u64,
    side: SideFile,
    state: Option<State>,
}

impl Lock {
    /// Locks the side file and reads it (invariant 9).
    fn take(settings: Settings, generation: u64) -> Result<Self, FileError> {
        let (side, state) = SideFile::lock(&settings.file)?;
        match &state {
            Some(state) if state.generation > generation => Err(FileError::Fenced {
                path: settings.file,
                theirs: state.generation,
                ours: generation,
            }),
            _ => Ok(Self {
                settings,
                generation,
                side,
                state,
            }),
        }
    }
}

impl FileSinkTask {
    fn writer(&mut self) -> Result<&mut Writer> {
        match &mut self.stage {
            Stage::Writing(writer) => Ok(writer),
            _ => Err(Error::fatal(
                "file-sink has no file open; the task must start again",
            )),
        }
    }

    /// Runs `work`; where it fails for good, nothing more is written by this life of the task.
    fn write<T>(&mut self, work: impl FnOnce(&mut Writer) -> Result<T, FileError>) -> Result<T> {
        let result = work(self.writer()?);
        if matches!(
            result,
            Err(FileError::Sync { .. } | FileError::Fenced { .. } | FileError::SideFile { .. })
        ) {
            self.stage = Stage::Idle;
        }
        Ok(result?)
    }
}

#[async_trait]
impl SinkTask for FileSinkTask {
    async fn start(&mut self, context: SinkTaskContext) -> Result<()> {
        let settings = Settings::read(&context.config);
        check(&settings)?;
        self.stage = Stage::Locked(Box::new(Lock::take(settings, context.generation)?));
        Ok(())
    }

    async fn open(&mut self, partitions: &[AssignedPartition]) -> Result<Vec<TopicPartitionOffset>> {
        if let Stage::Locked(_) = &self.stage
            && let Stage::Locked(lock) = std::mem::take(&mut self.stage)
        {
            let (settings, generation) = (lock.settings.clone(), lock.generation);
            match Writer::open(lock.settings, lock.generation, lock.side, lock.state.as_ref()) {
                Ok(writer) => self.stage = Stage::Writing(Box::new(writer)),
                Err(error) => {
                    // The host may call again, once there is room on the disk, say.
                    self.stage = Stage::Locked(Box::new(Lock::take(settings, generation)?));
                    return Err(error.into());
                }
            }
        }
        self.writer()?.assign(partitions);
        // What is answered here must be durable: the host begins after it.
        self.write(Writer::flush)?;
        Ok(self.writer()?.offsets(partitions))
    }

    async fn put(&mut self, batch: &Frame) -> Result<PutReport> {
        self.write(|writer| writer.put(batch))?;
        Ok(PutReport::default())
    }

    async fn flush(&mut self) -> Result<()> {
        self.write(Writer::flush)
    }

    async fn close(&mut self, _partitions: &[TopicPartition]) -> Result<()> {
        match self.stage {
            Stage::Writing(_) => self.write(Writer::flush),
            _ => Ok(()),
        }
    }

    async fn stop(&mut self) -> Result<()> {
        self.stage = Stage::Idle;
        Ok(())
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let Stage::Writing(writer) = &self.stage else {
            return BTreeMap::new();
        };
        let counts = writer.counts();
        [
            ("lines", counts.lines),
            ("bytes", counts.bytes),
            ("tombstones_skipped", counts.tombstones_skipped),
            ("repeated", counts.repeated),
            ("rotations", counts.rotations),
        ]
        .map(|(name, value)| (name.to_owned(), value as f64))
        .into()
    }
}
