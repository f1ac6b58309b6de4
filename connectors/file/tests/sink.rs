//! `file-sink` through crashes, rotation and full disks: each line once, each line whole.

#![allow(clippy::unwrap_used)] // in a test, a failure is the message

mod tasks;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tidewater_connector_file::FileSink;
use tidewater_plugin_api::frame::SchemaCache;
use tidewater_plugin_api::{ErrorKind, SinkConnector as _};

use tasks::{Sink, SmallDisk, append, batch, next_offset, partition, sink_config, written};

fn side_file(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.offsets", path.display()))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn what_was_not_flushed_is_cut_off_and_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut sink, offset) = Sink::open(&path, 1).await.unwrap();
    assert_eq!(offset, 0);
    sink.put(0, &["a", "b"]).await.unwrap();
    sink.flush().await.unwrap();
    let durable = length(&path);
    sink.put(2, &["c", "d"]).await.unwrap();
    assert!(
        length(&path) > durable,
        "lines are there to be read before they are durable"
    );
    drop(sink);
    let (mut sink, offset) = Sink::open(&path, 2).await.unwrap();
    assert_eq!((offset, length(&path)), (2, durable));
    sink.put(2, &["c", "d"]).await.unwrap();
    // A batch that comes again, in whole or in part, is not written again.
    sink.put(0, &["a", "b", "c", "d", "e"]).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(written(&path), ["a", "b", "c", "d", "e"]);
    assert_eq!(sink.count("repeated"), 4);
}

#[tokio::test]
async fn offsets_are_kept_by_partition_and_survive_other_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
    sink.put(5, &["a"]).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);
    let mut sink = Sink::start(sink_config(&path, &[]), 2).await.unwrap();
    assert_eq!(sink.task.open(&[partition(1)]).await.unwrap(), []);
    sink.flush().await.unwrap();
    let offsets = sink.task.open(&[partition(0), partition(1)]).await.unwrap();
    assert_eq!((offsets.len(), next_offset(&offsets)), (1, 6));
}

#[tokio::test]
async fn a_new_topic_of_the_same_name_is_written_from_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
    sink.put(0, &["old 0", "old 1"]).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);
    let mut sink = Sink::start(sink_config(&path, &[]), 2).await.unwrap();
    let renewed = partition(0).partition.assigned("second");
    assert_eq!(sink.task.open(std::slice::from_ref(&renewed)).await.unwrap(), []);
    sink.put(0, &["new 0"]).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(written(&path), ["old 0", "old 1", "new 0"]);
    drop(sink);
    let mut sink = Sink::start(sink_config(&path, &[]), 3).await.unwrap();
    let offsets = sink.task.open(&[renewed]).await.unwrap();
    assert_eq!(
        next_offset(&offsets),
        1,
        "the new topic's offset is remembered as such"
    );
}

#[tokio::test]
async fn tombstones() {
    let folder = tempfile::tempdir().unwrap();
    for (setting, expected) in [("true", "null\n"), ("false", "")] {
        let path = folder.path().join(setting);
        let mut sink = Sink::start(sink_config(&path, &[("write.tombstones", setting)]), 1)
            .await
            .unwrap();
        sink.task.open(&[partition(0)]).await.unwrap();
        let mut tombstone = tidewater_plugin_api::FrameBuilder::new();
        let topic = tombstone.topic("lines").unwrap();
        let mut record = tombstone.record(topic);
        record.partition(0);
        record.offset(0);
        record.push().unwrap();
        let tombstone =
            tidewater_plugin_api::Frame::parse(tombstone.finish(), &mut SchemaCache::default()).unwrap();
        sink.task.put(&tombstone).await.unwrap();
        sink.flush().await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        let offsets = sink.task.open(&[partition(0)]).await.unwrap();
        assert_eq!(next_offset(&offsets), 1, "passed over is done, too");
    }
}

#[tokio::test]
async fn a_file_that_others_began_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    append(&path, "\"whole\"\n\"not ended\"");
    let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
    sink.put(0, &["a"]).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);
    Sink::open(&path, 2).await.unwrap();
    assert_eq!(written(&path), ["whole", "not ended", "a"]);
}

#[tokio::test]
async fn rotation_under_the_writer() {
    // With and without a new file made by the rotator.
    for create in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
        let mut rotated = Vec::new();
        for n in 0..100u64 {
            sink.put(n, &[&n.to_string()]).await.unwrap();
            if n % 3 == 0 {
                sink.flush().await.unwrap();
            }
            if n % 10 == 5 {
                rotated.push(folder.path().join(format!("out.jsonl-{n}")));
                fs::rename(&path, rotated.last().unwrap()).unwrap();
                if create {
                    File::create(&path).unwrap();
                }
            }
        }
        sink.flush().await.unwrap();
        rotated.push(path);
        let all: Vec<String> = rotated.iter().flat_map(|path| written(path)).collect();
        let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(all, expected, "create {create}");
        assert_eq!(sink.count("rotations"), 10);
    }
}

#[tokio::test]
async fn rotation_between_a_crash_and_the_restart() {
    for create in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
        sink.put(0, &["a"]).await.unwrap();
        sink.flush().await.unwrap();
        sink.put(1, &["b"]).await.unwrap();
        drop(sink);
        let rotated = folder.path().join("out.jsonl.1");
        fs::rename(&path, &rotated).unwrap();
        if create {
            File::create(&path).unwrap();
        }
        let (mut sink, offset) = Sink::open(&path, 2).await.unwrap();
        assert_eq!(offset, 1);
        sink.put(1, &["b"]).await.unwrap();
        sink.flush().await.unwrap();
        assert_eq!(
            (written(&rotated), written(&path)),
            (vec!["a".into()], vec!["b".into()])
        );
        // And once more, with a new file that has nothing durable in it yet.
        sink.put(2, &["c"]).await.unwrap();
        drop(sink);
        let (_, offset) = Sink::open(&path, 3).await.unwrap();
        assert_eq!((offset, written(&path)), (2, vec!["b".into()]));
    }
}

#[tokio::test]
async fn copied_and_emptied_under_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
    sink.put(0, &["a"]).await.unwrap();
    sink.flush().await.unwrap();
    sink.put(1, &["b"]).await.unwrap();
    let copy = folder.path().join("out.jsonl.1");
    fs::copy(&path, &copy).unwrap();
    OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    sink.put(2, &["c"]).await.unwrap();
    drop(sink);
    let (_, offset) = Sink::open(&path, 2).await.unwrap();
    assert_eq!(offset, 2);
    assert_eq!(written(&copy), ["a", "b"]);
    assert_eq!(written(&path), [""; 0]);
}

#[tokio::test]
async fn one_writer_at_a_time_and_the_latest_generation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (sink, _) = Sink::open(&path, 5).await.unwrap();
    let error = Sink::open(&path, 6).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Retriable);
    assert!(
        error.message.contains("is being written by another file-sink"),
        "{error}"
    );
    drop(sink);
    let error = Sink::open(&path, 4).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Fenced);
    assert!(error.message.contains("generation 5"), "{error}");
    // The lock is given back with the refusal, and with a stop.
    let (mut sink, _) = Sink::open(&path, 6).await.unwrap();
    sink.task.stop().await.unwrap();
    Sink::open(&path, 7).await.unwrap();
    assert_eq!(sink.put(0, &["late"]).await.unwrap_err().kind, ErrorKind::Fatal);
}

#[tokio::test]
async fn a_zombie_is_fenced_where_locks_do_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut zombie, _) = Sink::open(&path, 1).await.unwrap();
    // As on a file system without locks: the side file is another, and so is its lock.
    let copy = folder.path().join("copy");
    fs::copy(side_file(&path), &copy).unwrap();
    fs::rename(&copy, side_file(&path)).unwrap();
    let (heir, _) = Sink::open(&path, 2).await.unwrap();
    zombie.put(0, &["late"]).await.unwrap();
    assert_eq!(zombie.flush().await.unwrap_err().kind, ErrorKind::Fenced);
    drop(heir);
    let (_, offset) = Sink::open(&path, 3).await.unwrap();
    assert_eq!((offset, written(&path)), (0, Vec::<String>::new()));
}

#[tokio::test]
async fn files_that_are_not_as_they_were_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
    let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    sink.put(0, &lines).await.unwrap();
    sink.flush().await.unwrap();
    drop(sink);
    let good = fs::read(&path).unwrap();
    let good_side = fs::read(side_file(&path)).unwrap();
    let refused = async || {
        let error = Sink::open(&path, 2).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Fatal);
        assert!(error.message.contains("out.jsonl"), "{error}");
        error.message
    };

    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(500)
        .unwrap();
    assert!(
        refused()
            .await
            .contains(&format!("{} bytes are missing", good.len() - 500))
    );
    assert_eq!(length(&path), 500, "a refused file is not touched");

    fs::write(&path, vec![b'x'; 5000]).unwrap();
    assert!(refused().await.contains("is not the file that file-sink wrote"));

    fs::write(&path, &good).unwrap();
    fs::write(side_file(&path), &good_side[..good_side.len() / 2]).unwrap();
    assert!(refused().await.contains("does not hold what file-sink writes"));
    fs::write(side_file(&path), &good_side).unwrap();

    // Restored from a backup, under another inode: it is the same by what it holds.
    let copy = folder.path().join("copy");
    fs::write(&copy, [&good[..], b"\"torn"].concat()).unwrap();
    fs::rename(&copy, &path).unwrap();
    let (_, offset) = Sink::open(&path, 2).await.unwrap();
    assert_eq!((offset, fs::read(&path).unwrap()), (100, good));
}

#[tokio::test]
async fn a_full_disk_tears_and_doubles_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.folder.path().join("out.jsonl");
    let ballast = disk.folder.path().join("ballast");
    let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
    sink.put(0, &["first"]).await.unwrap();
    sink.flush().await.unwrap();
    fs::write(&ballast, vec![0; 900 << 10]).unwrap();
    let line = "x".repeat(999);
    let many: Vec<&str> = vec![&line; 1000];
    let before = length(&path);
    let error = sink.put(1, &many).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retriable);
    for part in ["cannot append to", "out.jsonl", "KiB are free in", "make room"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert_eq!(length(&path), before, "nothing of the batch stays");
    // Room for some of it, which is written then; the rest in the next batch finds the disk full again.
    sink.put(1, &many[..50]).await.unwrap();
    assert_eq!(
        sink.put(51, &many[..500]).await.unwrap_err().kind,
        ErrorKind::Retriable
    );

    // Not even the side file can be written: the flush is repeated, too.
    let filler = disk.folder.path().join("filler");
    let full = File::create(&filler).unwrap().write_all(&vec![0; 1 << 20]);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let error = sink.flush().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
    assert!(error.message.contains("out.jsonl.offsets.tmp"), "{error}");

    fs::remove_file(&filler).unwrap();
    sink.flush().await.unwrap();
    fs::remove_file(&ballast).unwrap();
    sink.put(51, &many[..500]).await.unwrap();
    sink.flush().await.unwrap();
    let lines = written(&path);
    assert_eq!(lines.len(), 551);
    assert!(lines[1..].iter().all(|written| *written == line));
    drop(sink);
    let (_, offset) = Sink::open(&path, 2).await.unwrap();
    assert_eq!(offset, 551);
}

#[tokio::test]
async fn opening_on_a_full_disk_is_tried_again() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.folder.path().join("out.jsonl");
    let mut sink = Sink::start(sink_config(&path, &[]), 1).await.unwrap();
    let filler = disk.folder.path().join("filler");
    File::create(&filler)
        .unwrap()
        .write_all(&vec![0; 2 << 20])
        .unwrap_err();
    let error = sink.task.open(&[partition(0)]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
    fs::remove_file(&filler).unwrap();
    sink.task.open(&[partition(0)]).await.unwrap();
    sink.put(0, &["a"]).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(written(&path), ["a"]);
}

#[tokio::test]
async fn a_disk_that_becomes_read_only() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.folder.path().join("out.jsonl");
    disk.read_only();
    let error = Sink::open(&path, 1).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Retriable);
    assert!(error.message.contains("is mounted read-only"), "{error}");
    let problems = FileSink::create().validate(&sink_config(&path, &[])).await;
    assert!(
        problems[0].to_string().contains("is mounted read-only"),
        "{}",
        problems[0]
    );
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    for (path, kind, part) in [
        (at("missing/out.jsonl"), ErrorKind::Retriable, "missing of"),
        (at("folder"), ErrorKind::Config, "is a folder, not a file"),
        (at("pipe"), ErrorKind::Config, "is a pipe, not a file"),
        (
            PathBuf::from("/dev/full"),
            ErrorKind::Config,
            "is a device, not a file",
        ),
        (at("loop"), ErrorKind::Retriable, "lead in a circle"),
    ] {
        let error = Sink::open(&path, 1).await.err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(part), "{error}");
        let problems = FileSink::create().validate(&sink_config(&path, &[])).await;
        assert!(problems[0].to_string().contains(part), "{}", problems[0]);
        assert!(!side_file(&path).exists(), "nothing is left behind");
    }
    let config = sink_config(&at("new.jsonl"), &[]);
    assert_eq!(FileSink::create().validate(&config).await, []);
    assert!(!at("new.jsonl").exists(), "validation touches nothing");
}

#[tokio::test]
async fn a_record_that_cannot_be_written_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let (mut sink, _) = Sink::open(&path, 1).await.unwrap();
    let mut frame = batch(0, &["good", "bad!"]).bytes().to_vec();
    let bad = frame.windows(4).position(|window| window == b"bad!").unwrap();
    frame[bad] = 0xff;
    let frame = tidewater_plugin_api::Frame::parse(frame.into(), &mut SchemaCache::default()).unwrap();
    let error = sink.task.put(&frame).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fatal);
    assert!(error.message.contains("offset 1 of lines-0"), "{error}");
    assert_eq!(length(&path), 0);
}
