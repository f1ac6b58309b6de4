//! Writing batches to the data file, and making them durable together with their offsets.

use std::path::Path;

use tidewater_plugin_api::{AssignedPartition, Frame, TopicPartitionOffset};

use super::data_file::{DataFile, Standing};
use super::line::{write_record_line, write_value_line};
use super::progress::Progress;
use super::recovery;
use super::settings::{Format, Settings};
use super::side_file::{SideFile, State};
use crate::error::FileError;

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Lines written.
    pub lines: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Records without value that were passed over.
    pub tombstones_skipped: u64,
    /// Records that had been written already.
    pub repeated: u64,
    /// Changes from one file to the next.
    pub rotations: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Writer {
    settings: Settings,
    generation: u64,
    side: SideFile,
    data: DataFile,
    progress: Progress,
    /// Lines on their way to the file; kept, so that no record allocates.
    buffer: Vec<u8>,
    /// Whether there is something that the side file does not cover.
    dirty: bool,
    /// The length the file must be cut back to before anything else is written: a batch failed, and so did cutting.
    cut_to: Option<u64>,
    counts: Counts,
}

impl Writer {
    /// Brings the data file to where `state` says it is, and takes it over for `generation`.
    pub fn open(
        settings: Settings,
        generation: u64,
        side: SideFile,
        state: Option<&State>,
    ) -> Result<Self, FileError> {
        let data = recovery::open(&settings.file, state)?;
        let mut writer = Self {
            progress: state.map_or_else(Progress::default, |state| {
                Progress::new(&state.offsets, &state.topic_ids)
            }),
            buffer: Vec::with_capacity(settings.write_bytes),
            dirty: false,
            cut_to: None,
            counts: Counts::default(),
            settings,
            generation,
            side,
            data,
        };
        // From here on an earlier generation is fenced (invariant 9).
        writer.make_durable()?;
        Ok(writer)
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes `partitions` over. What is known of a topic that is not the same any more counts for nothing.
    pub fn assign(&mut self, partitions: &[AssignedPartition]) {
        if self.progress.assign(partitions) {
            self.dirty = true;
        }
    }

    /// Where `partitions` go on.
    pub fn offsets(&self, partitions: &[AssignedPartition]) -> Vec<TopicPartitionOffset> {
        self.progress.of(partitions)
    }

    /// Appends a line for each record of `batch`: all of them or, after an error, none.
    pub fn put(&mut self, batch: &Frame) -> Result<(), FileError> {
        self.cut_rest()?;
        self.follow_name()?;
        let (length, counts) = (self.data.length(), self.counts);
        match self.append(batch) {
            Ok(()) => {
                self.progress.accept();
                self.dirty = true;
                Ok(())
            }
            Err(error) => {
                self.progress.forget();
                self.counts = counts;
                // Were a part of a line to stay, the next try would tear it; were whole lines, it would double them.
                self.cut_to = Some(length);
                if let Err(cut) = self.cut_rest() {
                    tracing::warn!(error = %cut, "cannot cut off a part of a batch yet");
                }
                Err(error)
            }
        }
    }

    fn append(&mut self, batch: &Frame) -> Result<(), FileError> {
        self.buffer.clear();
        for record in batch.records() {
            if !self.progress.stage(&record) {
                self.counts.repeated += 1;
                continue;
            }
            if record.value_bytes().is_none() && !self.settings.tombstones {
                self.counts.tombstones_skipped += 1;
                continue;
            }
            let decimals = self.settings.decimals;
            let written = match self.settings.format {
                Format::Value => write_value_line(&record, decimals, &mut self.buffer),
                Format::Record => write_record_line(&record, decimals, &mut self.buffer),
            };
            written.map_err(|error| FileError::Record {
                path: self.settings.file.clone(),
                topic: record.original_topic().to_owned(),
                partition: record.partition().map_or(-1, i64::from),
                offset: record.offset().map_or(-1, |offset| offset as i64),
                reason: error.to_string(),
            })?;
            self.counts.lines += 1;
            if self.buffer.len() >= self.settings.write_bytes {
                self.hand_over()?;
            }
        }
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<(), FileError> {
        self.data
            .append(&self.buffer)
            .map_err(|error| self.io("append to", error))?;
        self.counts.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        // One huge line must not hold its memory for ever (invariant 6).
        self.buffer.shrink_to(2 * self.settings.write_bytes);
        Ok(())
    }

    /// Makes everything put so far durable, then its offsets (invariant 4).
    pub fn flush(&mut self) -> Result<(), FileError> {
        self.cut_rest()?;
        if self.dirty {
            self.make_durable()?;
        }
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), FileError> {
        // A failed sync may have lost what it was to write, and the next one would not say so: no second try.
        self.data.sync().map_err(|source| FileError::Sync {
            path: self.settings.file.clone(),
            source,
        })?;
        self.record()
    }

    /// Writes the side file for the data file, which is durable.
    fn record(&mut self) -> Result<(), FileError> {
        let state = self.state(&self.data);
        self.side.write(&state)?;
        self.dirty = false;
        Ok(())
    }

    fn state(&self, data: &DataFile) -> State {
        State {
            generation: self.generation,
            file: data.id(),
            length: data.length(),
            fingerprint: data.fingerprint().to_string(),
            offsets: self.progress.all(),
            topic_ids: self.progress.topic_ids(),
        }
    }

    /// Goes on in the file that bears the name now, if it is another, and takes note of a file that was cut.
    fn follow_name(&mut self) -> Result<(), FileError> {
        let path = &self.settings.file;
        let standing = self
            .data
            .standing(path)
            .map_err(|error| self.io("examine", error))?;
        match standing {
            Standing::Same => Ok(()),
            Standing::Rotated => {
                self.flush()?;
                let mut next = DataFile::open(&self.settings.file)?;
                recovery::end_line(&mut next, &self.settings.file)?;
                next.sync().map_err(|error| self.io("sync", error))?;
                self.side.write(&self.state(&next))?;
                tracing::info!(file = %self.settings.file.display(), length = self.data.length(), "the file was rotated; goes on in a new one");
                self.data = next;
                self.counts.rotations += 1;
                Ok(())
            }
            Standing::Cut => {
                tracing::warn!(
                    file = %path.display(), length = self.data.length(),
                    "the file was emptied or cut by another program; goes on at its end"
                );
                // What was not durable yet may be in a copy that was just made.
                self.data.sync_file_system().map_err(|source| FileError::Sync {
                    path: self.settings.file.clone(),
                    source,
                })?;
                self.accept_length()?;
                self.record()
            }
            Standing::Grown => {
                tracing::warn!(
                    file = %path.display(), length = self.data.length(),
                    "another program appends to the file; what it writes is cut off after a crash"
                );
                self.accept_length()
            }
        }
    }

    fn accept_length(&mut self) -> Result<(), FileError> {
        self.data
            .accept_length()
            .map_err(|error| self.io("read", error))?;
        recovery::end_line(&mut self.data, &self.settings.file)
    }

    fn cut_rest(&mut self) -> Result<(), FileError> {
        if let Some(length) = self.cut_to {
            self.data
                .cut(length)
                .map_err(|error| self.io("cut back", error))?;
            self.cut_to = None;
        }
        Ok(())
    }

    fn io(&self, doing: &'static str, error: std::io::Error) -> FileError {
        FileError::io(doing, self.path(), error)
    }

    fn path(&self) -> &Path {
        &self.settings.file
    }
}
