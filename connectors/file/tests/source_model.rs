//! `file-source` against a model: whatever happens to the file, in whatever order, the lines come once each and in order.

#![allow(clippy::unwrap_used)] // in a test, a failure is the message

mod tasks;

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use tasks::{Source, append, assert_same, source_config};

#[derive(Clone, Debug)]
enum Step {
    /// Whole lines are written.
    Write(u8),
    /// A part of a line is written.
    WritePart,
    /// Renamed, `app.log.1` and so on; the new file is made at once, or with the next line.
    Rotate { create: bool },
    /// Copied and emptied.
    CopyTruncate,
    /// Emptied, once all was read.
    Truncate,
    /// Replaced by another file, once all was read.
    Replace,
    /// Deleted, once all was read.
    Delete,
    /// The task reads a batch.
    Read,
    /// The task is killed. What it read last may not have arrived.
    Kill { in_vain: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..40u8).prop_map(Step::Write),
        2 => Just(Step::WritePart),
        3 => any::<bool>().prop_map(|create| Step::Rotate { create }),
        2 => Just(Step::CopyTruncate),
        1 => Just(Step::Truncate),
        1 => Just(Step::Replace),
        1 => Just(Step::Delete),
        5 => Just(Step::Read),
        3 => any::<bool>().prop_map(|in_vain| Step::Kill { in_vain }),
    ];
    prop::collection::vec(step, 1..60)
}

/// The writer, the rotator and what they expect of the reader.
struct World {
    path: PathBuf,
    source: Option<Source>,
    expected: Vec<String>,
    read: Vec<String>,
    /// How many lines had been written when the present content began.
    content_began: usize,
    /// What is written of a line that is not ended.
    begun: String,
    number: usize,
    /// Empty files that are gone. Here another may be made in their inode within a tick of the clock, and nothing could
    /// tell the two apart.
    gone: Vec<File>,
    /// Each write is at a time of its own, as it is where steps are not microseconds apart.
    clock: u64,
}

fn tick(path: &Path, clock: u64) {
    let file = OpenOptions::new().append(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(clock))
        .unwrap();
}

const SETTINGS: [(&str, &str); 2] = [("batch.size", "13"), ("rescan.interval.ms", "3600000")];

impl World {
    async fn new(folder: &Path) -> Self {
        let path = folder.join("app.log");
        append(&path, "");
        tick(&path, 1);
        let mut source = Source::follow(&path, &SETTINGS).await;
        source.drain().await;
        Self {
            source: Some(source),
            path,
            expected: Vec::new(),
            read: Vec::new(),
            content_began: 0,
            begun: String::new(),
            number: 0,
            gone: Vec::new(),
            clock: 1,
        }
    }

    fn source(&mut self) -> &mut Source {
        self.source.as_mut().unwrap()
    }

    fn write(&mut self, text: &str) {
        append(&self.path, text);
        self.tick(&self.path.clone());
    }

    fn tick(&mut self, path: &Path) {
        self.clock += 1;
        let file = OpenOptions::new().append(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(self.clock))
            .unwrap();
    }

    fn write_line(&mut self) {
        let rest = format!("line {}", self.number);
        self.number += 1;
        self.write(&format!("{rest}\n"));
        let line = std::mem::take(&mut self.begun) + &rest;
        self.expected.push(line);
    }

    fn shift(&self) {
        let numbered = |number: usize| format!("{}.{number}", self.path.display());
        for number in (1..100)
            .rev()
            .filter(|&number| fs::exists(numbered(number)).unwrap())
        {
            fs::rename(numbered(number), numbered(number + 1)).unwrap();
        }
    }

    fn first_rotated(&self) -> PathBuf {
        format!("{}.1", self.path.display()).into()
    }

    /// Lets the reader come to the end of a file that ends with a line.
    async fn settle(&mut self) {
        if !self.begun.is_empty() {
            self.write_line();
        }
        let lines = self.source().drain().await;
        self.read.extend(lines);
        self.content_began = self.expected.len();
    }

    fn keep_if_empty(&mut self) {
        self.gone.extend(
            File::open(&self.path)
                .ok()
                .filter(|file| file.metadata().unwrap().len() == 0),
        );
    }

    async fn take(&mut self, step: Step) {
        let exists = self.path.exists();
        match step {
            Step::Write(count) => (0..count).for_each(|_| self.write_line()),
            Step::WritePart => {
                let part = format!("part {} of ", self.number);
                self.number += 1;
                self.write(&part);
                self.begun += &part;
            }
            Step::Rotate { create } if exists => {
                self.shift();
                fs::rename(&self.path, self.first_rotated()).unwrap();
                if create {
                    self.write("");
                }
                if !self.begun.is_empty() {
                    let line = std::mem::take(&mut self.begun);
                    self.expected.push(line);
                }
                self.content_began = self.expected.len();
            }
            // A copy is known by what was read of it. A part of a line in it is one, since it is not written on.
            Step::CopyTruncate if exists && self.read.len() > self.content_began => {
                self.shift();
                fs::copy(&self.path, self.first_rotated()).unwrap();
                self.tick(&self.first_rotated());
                File::create(&self.path).unwrap();
                self.tick(&self.path.clone());
                if !self.begun.is_empty() {
                    let line = std::mem::take(&mut self.begun);
                    self.expected.push(line);
                }
                self.content_began = self.expected.len();
            }
            Step::Truncate if exists => {
                self.settle().await;
                File::create(&self.path).unwrap();
                self.tick(&self.path.clone());
                // The reader looks in between: a file written anew to hold the same again cannot be told from itself.
                self.settle().await;
            }
            Step::Replace if exists => {
                self.settle().await;
                self.keep_if_empty();
                let next = self.path.with_file_name("next");
                self.begun.clear();
                let line = format!("line {}", self.number);
                self.number += 1;
                append(&next, &format!("{line}\n"));
                self.tick(&next);
                fs::rename(&next, &self.path).unwrap();
                self.expected.push(line);
            }
            Step::Delete if exists => {
                self.settle().await;
                self.keep_if_empty();
                fs::remove_file(&self.path).unwrap();
            }
            Step::Read => {
                let lines = self.source().glance().await.unwrap();
                self.read.extend(lines);
            }
            Step::Kill { in_vain } => {
                if in_vain {
                    self.source().glance_in_vain().await;
                }
                let positions = self.source.take().unwrap().positions;
                let config = source_config(&self.path, &SETTINGS);
                self.source = Some(Source::start(config, positions).await.unwrap());
            }
            Step::Rotate { .. } | Step::CopyTruncate | Step::Truncate | Step::Replace | Step::Delete => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_once_and_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut world = World::new(folder.path()).await;
            for step in steps {
                world.take(step).await;
                let read = world.read.len();
                assert_same(&world.read, &world.expected[..read.min(world.expected.len())], "so far");
            }
            world.write_line();
            let lines = world.source().drain().await;
            world.read.extend(lines);
            assert_same(&world.read, &world.expected, "in the end");
        });
    }
}
