//! `file-sink` against a model: killed at any byte, rotated at any time, every line is there once, in order and whole.

#![allow(clippy::unwrap_used)] // in a test, a failure is the message

mod tasks;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tasks::{Sink, assert_same, written};

#[derive(Clone, Debug)]
enum Step {
    /// A batch of so many lines of so many bytes.
    Put(u8, u16),
    /// Everything is made durable, and the host commits.
    Flush,
    /// The process is killed, and of what was not synced only this share is on the disk.
    Kill(f64),
    /// The file is renamed, and nothing or an empty file takes its place.
    Rotate { create: bool },
    /// The file is copied and emptied.
    CopyTruncate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20u8, 0..2000u16).prop_map(|(count, size)| Step::Put(count, size)),
        3 => Just(Step::Flush),
        3 => (0.0..=1.0).prop_map(Step::Kill),
        2 => any::<bool>().prop_map(|create| Step::Rotate { create }),
        1 => Just(Step::CopyTruncate),
    ];
    prop::collection::vec(step, 1..50)
}

fn line(offset: u64, size: u16) -> String {
    format!("{offset} {}", "x".repeat(usize::from(size)))
}

/// How much of the file at `path` is durable, where the side file describes that file.
fn durable_length(path: &Path) -> Option<u64> {
    let side = fs::read_to_string(format!("{}.offsets", path.display())).unwrap();
    let side: serde_json::Value = serde_json::from_str(&side).unwrap();
    let there = fs::metadata(path).ok()?.ino();
    (side["state"]["file"]["inode"] == there).then(|| side["state"]["length"].as_u64().unwrap())
}

async fn run(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let mut generation = 1;
    let (mut sink, _) = Sink::open(&path, generation).await.unwrap();
    // What the topic holds, and how far the sink has come.
    let mut topic: Vec<String> = Vec::new();
    let mut next = 0;
    let mut rotated: Vec<PathBuf> = Vec::new();
    let mut durable = 0;
    for step in steps {
        match step {
            Step::Put(count, size) => {
                let end = next + usize::from(count);
                while topic.len() < end {
                    topic.push(line(topic.len() as u64, size));
                }
                let lines: Vec<&str> = topic[next..end].iter().map(String::as_str).collect();
                sink.put(next as u64, &lines).await.unwrap();
                next = end;
            }
            Step::Flush => {
                sink.flush().await.unwrap();
                durable = next;
            }
            Step::Kill(share) => {
                drop(sink);
                // Only of the file that the side file describes may anything be missing.
                if let Some(synced) = durable_length(&path) {
                    let length = fs::metadata(&path).unwrap().len();
                    let unsynced = length.saturating_sub(synced);
                    let kept = length - unsynced + (unsynced as f64 * share) as u64;
                    OpenOptions::new()
                        .write(true)
                        .open(&path)
                        .unwrap()
                        .set_len(kept)
                        .unwrap();
                }
                generation += 1;
                let (opened, offset) = Sink::open(&path, generation).await.unwrap();
                sink = opened;
                next = offset as usize;
                assert!(next >= durable, "what was flushed is kept: {next} of {durable}");
            }
            Step::Rotate { create } if path.exists() => {
                rotated.push(
                    folder
                        .path()
                        .join(format!("out.jsonl-{}", 100_000_000 + rotated.len())),
                );
                fs::rename(&path, rotated.last().unwrap()).unwrap();
                if create {
                    fs::write(&path, "").unwrap();
                }
            }
            // The copy is known by what was durable of it: something must have been.
            Step::CopyTruncate if durable_length(&path).is_some_and(|length| length > 0) => {
                rotated.push(
                    folder
                        .path()
                        .join(format!("out.jsonl-{}", 100_000_000 + rotated.len())),
                );
                fs::copy(&path, rotated.last().unwrap()).unwrap();
                OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
            }
            Step::Rotate { .. } | Step::CopyTruncate => {}
        }
    }
    sink.put(
        next as u64,
        &topic[next..].iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await
    .unwrap();
    sink.flush().await.unwrap();
    rotated.push(path);
    let all: Vec<String> = rotated
        .iter()
        .filter(|path| path.exists())
        .flat_map(|path| written(path))
        .collect();
    assert_same(&all, &topic, "in the end");
}

proptest! {
    // Each case syncs to the disk many times: a quarter of the usual number.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_line_once_in_order_and_whole(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
