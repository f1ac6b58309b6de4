//! `file-source` against everything that happens to log files.

#![allow(clippy::unwrap_used)] // in a test, a failure is the message

mod tasks;

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use tidewater_connector_file::FileSource;
use tidewater_plugin_api::{ErrorKind, SourceConnector as _};
use tokio::sync::watch;

use tasks::{SmallDisk, Source, append, assert_same, source_config};

/// So long that only events can be what wakes the task.
const EVENTS_ONLY: (&str, &str) = ("rescan.interval.ms", "3600000");

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

fn text(range: std::ops::Range<usize>) -> String {
    lines(range).join("\n") + "\n"
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

/// Renames as logrotate does: each file to the next number, the oldest falls off the end.
fn shift(path: &Path, keep: usize) {
    for number in (1..keep).rev() {
        let _ = fs::rename(numbered(path, number), numbered(path, number + 1));
    }
}

fn rotate(path: &Path, keep: usize) {
    shift(path, keep);
    fs::rename(path, numbered(path, 1)).unwrap();
}

fn copytruncate(path: &Path, keep: usize) {
    shift(path, keep);
    fs::copy(path, numbered(path, 1)).unwrap();
    OpenOptions::new().write(true).truncate(true).open(path).unwrap();
}

#[tokio::test]
async fn follows_a_file_that_does_not_exist_yet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let mut source = Source::follow(&path, &[EVENTS_ONLY]).await;
    assert!(source.drain().await.is_empty());
    let writer = thread::spawn({
        let path = path.clone();
        move || append(&path, "one\ntw")
    });
    assert_eq!(source.read_until("one").await, ["one"]);
    writer.join().unwrap();
    assert!(
        source.drain().await.is_empty(),
        "a line that is not ended is none"
    );
    let writer = thread::spawn({
        let path = path.clone();
        move || append(&path, "o\n")
    });
    assert_eq!(source.read_until("two").await, ["two"]);
    writer.join().unwrap();
}

#[tokio::test]
async fn begins_at_the_end_where_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, &(text(0..50_000) + "begun"));
    let mut source = Source::follow(&path, &[("start.position", "end")]).await;
    assert!(source.drain().await.is_empty());
    append(&path, " and ended\nnext\n");
    assert_eq!(source.read_until("next").await, ["begun and ended", "next"]);
    // What is made later is all new.
    let path = folder.path().join("later.log");
    let mut source = Source::follow(&path, &[("start.position", "end")]).await;
    assert!(source.drain().await.is_empty());
    append(&path, "first\n");
    assert_eq!(source.read_until("first").await, ["first"]);
}

#[tokio::test]
async fn batches_are_bounded_and_resumed_at_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, &text(0..1000));
    let mut read = Vec::new();
    let mut positions = Vec::new();
    while read.len() < 1000 {
        let config = source_config(&path, &[("batch.size", "7")]);
        let mut source = Source::start(config, positions).await.unwrap();
        let batch = source.poll().await.unwrap();
        assert!(batch.len() <= 7, "{}", batch.len());
        read.extend(batch);
        positions = source.positions.clone();
    }
    assert_eq!(read, lines(0..1000));
}

/// A writer that rotates every few lines, and goes on in the old file for a while as daemons do until they are told.
fn write_and_rotate(path: &Path, count: usize, mut rotate: impl FnMut(&Path, &mut File, usize)) {
    let open = || OpenOptions::new().append(true).create(true).open(path).unwrap();
    let mut file = open();
    for n in 0..count {
        let line = format!("line {n}\n");
        // In two writes now and then: readers see half a line.
        let (begin, rest) = line.split_at(n % line.len());
        file.write_all(begin.as_bytes()).unwrap();
        file.write_all(rest.as_bytes()).unwrap();
        rotate(path, &mut file, n);
    }
    file.write_all(b"END\n").unwrap();
}

#[tokio::test]
async fn loses_and_doubles_nothing_through_renames() {
    const COUNT: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "");
    let mut source = Source::follow(&path, &[("batch.size", "100"), EVENTS_ONLY]).await;
    source.poll().await.unwrap();
    let (read, mut reader_at) = watch::channel(0);
    let writer = thread::spawn({
        let path = path.clone();
        move || {
            write_and_rotate(&path, COUNT, |path, file, n| {
                if n % 250 == 100 {
                    // logrotate keeps ten; a reader further behind than that has lost.
                    wait_for(&mut reader_at, |read| read + 2000 >= n);
                    rotate(path, 10);
                    File::create(path).unwrap();
                } else if n % 250 == 130 {
                    *file = OpenOptions::new().append(true).open(path).unwrap();
                }
            });
        }
    });
    let mut all = Vec::new();
    while all.last().map(String::as_str) != Some("END") {
        all.extend(source.poll().await.unwrap());
        read.send_replace(all.len());
    }
    writer.join().unwrap();
    assert_eq!(all.pop().as_deref(), Some("END"));
    assert_same(&all, &lines(0..COUNT), "renamed");
    assert_eq!(source.count("rotations"), 80);
}

/// Waits, on the writer's thread, until the reader has come far enough.
fn wait_for(reader_at: &mut watch::Receiver<usize>, enough: impl Fn(usize) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime
        .block_on(reader_at.wait_for(|read| enough(*read)))
        .unwrap();
}

#[tokio::test]
async fn loses_and_doubles_nothing_through_copytruncate() {
    const COUNT: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "");
    let mut source = Source::follow(&path, &[("batch.size", "100"), EVENTS_ONLY]).await;
    source.poll().await.unwrap();
    let (read, mut reader_at) = watch::channel(0);
    let writer = thread::spawn({
        let path = path.clone();
        move || {
            let mut since = 0;
            write_and_rotate(&path, COUNT, |path, _, n| {
                if n % 500 == 100 {
                    // A copy is known by what was read of it: something must have been.
                    wait_for(&mut reader_at, |read| read > since);
                    copytruncate(path, 100);
                    since = n + 1;
                }
            });
        }
    });
    let mut all = Vec::new();
    while all.last().map(String::as_str) != Some("END") {
        all.extend(source.poll().await.unwrap());
        read.send_replace(all.len());
    }
    writer.join().unwrap();
    assert_eq!(all.pop().as_deref(), Some("END"));
    assert_same(&all, &lines(0..COUNT), "copied and emptied");
    assert_eq!(source.count("truncations"), 40);
}

#[tokio::test]
async fn goes_on_after_rotations_it_did_not_see() {
    // By number, by date, and counting up: each while the connector was away, with files in between that it never saw.
    type Rename = fn(&Path, usize);
    let by_number: Rename = |path, _| rotate(path, 10);
    let by_date: Rename = |path, n| {
        fs::rename(path, format!("{}-2024010{n}", path.display())).unwrap();
    };
    let between: Rename = |path, n| {
        fs::rename(path, path.with_file_name(format!("app-2024-01-0{n}.log"))).unwrap();
    };
    let counting_up: Rename = |path, n| fs::rename(path, numbered(path, n)).unwrap();
    for (name, rename) in [
        ("number", by_number),
        ("date", by_date),
        ("between", between),
        ("counting up", counting_up),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        append(&path, &text(0..10));
        let mut source = Source::follow(&path, &[("batch.size", "5")]).await;
        assert_eq!(source.poll().await.unwrap(), lines(0..5), "{name}");
        let positions = source.positions.clone();
        drop(source);
        // Real rotations are not microseconds apart.
        let written_at = |second| {
            let file = OpenOptions::new().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(second))
                .unwrap();
        };
        rename(&path, 1);
        append(&path, &text(10..20));
        written_at(1);
        rename(&path, 2);
        // Rotated away without an end of line, and one that stayed empty.
        append(&path, text(20..30).trim_end());
        written_at(2);
        rename(&path, 3);
        append(&path, "");
        written_at(3);
        rename(&path, 4);
        append(&path, &text(30..40));
        let mut source = Source::start(source_config(&path, &[]), positions).await.unwrap();
        assert_eq!(source.read_until("line 39").await, lines(5..40), "{name}");
    }
}

#[tokio::test]
async fn finds_the_rest_in_a_copy_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, &text(0..10));
    let mut source = Source::follow(&path, &[("batch.size", "5")]).await;
    assert_eq!(source.poll().await.unwrap(), lines(0..5));
    let positions = source.positions.clone();
    drop(source);
    copytruncate(&path, 10);
    // It has grown beyond the position again: only what it holds tells that it was emptied.
    append(&path, &text(10..50));
    let mut source = Source::start(source_config(&path, &[]), positions).await.unwrap();
    assert_eq!(source.read_until("line 49").await, lines(5..50));
}

#[tokio::test]
async fn goes_on_with_the_next_file_where_the_rest_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, &text(0..10));
    let mut source = Source::follow(&path, &[("batch.size", "5")]).await;
    source.poll().await.unwrap();
    let positions = source.positions.clone();
    drop(source);
    fs::remove_file(&path).unwrap();
    // The inode is mostly given to the next file made.
    append(&path, &text(100..110));
    let mut source = Source::start(source_config(&path, &[]), positions).await.unwrap();
    assert_eq!(source.read_until("line 109").await, lines(100..110));
}

#[tokio::test]
async fn truncated_deleted_replaced_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, &text(0..10));
    let mut source = Source::follow(&path, &[EVENTS_ONLY]).await;
    assert_eq!(source.read_until("line 9").await, lines(0..10));

    File::create(&path).unwrap();
    append(&path, "line 10\n");
    assert_eq!(source.read_until("line 10").await, ["line 10"], "emptied");

    fs::remove_file(&path).unwrap();
    assert!(source.drain().await.is_empty());
    append(&path, "line 11\n");
    assert_eq!(source.read_until("line 11").await, ["line 11"], "deleted");

    let next = folder.path().join("next");
    fs::write(&next, "line 12\n").unwrap();
    fs::rename(&next, &path).unwrap();
    assert_eq!(source.read_until("line 12").await, ["line 12"], "replaced");

    // A longer copy of itself, as rsync puts in place: only what is new in it is read.
    fs::write(&next, format!("line 12\n{}", text(13..40))).unwrap();
    fs::rename(&next, &path).unwrap();
    let mut all = source.read_until("line 39").await;
    assert_eq!(
        all.remove(0),
        "line 12",
        "too little had been read to know a copy by"
    );
    assert_eq!(all, lines(13..40));
    let longer = fs::read_to_string(&path).unwrap() + "line 40\n";
    fs::write(&next, longer).unwrap();
    fs::rename(&next, &path).unwrap();
    assert_eq!(
        source.read_until("line 40").await,
        ["line 40"],
        "replaced by a longer copy"
    );
}

#[tokio::test]
async fn a_symbolic_link_that_is_led_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = folder.path().join("current.log");
    let (monday, tuesday) = (elsewhere.path().join("monday"), elsewhere.path().join("tuesday"));
    append(&monday, &text(0..10));
    symlink(&monday, &path).unwrap();
    let mut source = Source::follow(&path, &[EVENTS_ONLY]).await;
    assert_eq!(source.read_until("line 9").await, lines(0..10));
    append(&monday, "line 10\n");
    assert_eq!(
        source.read_until("line 10").await,
        ["line 10"],
        "the link's own folder does not change"
    );
    append(&tuesday, "line 11\n");
    let link = folder.path().join("link");
    symlink(&tuesday, &link).unwrap();
    fs::rename(&link, &path).unwrap();
    assert_eq!(source.read_until("line 11").await, ["line 11"]);
}

#[tokio::test]
async fn a_writer_that_does_not_append_leaves_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let mut file = File::create(&path).unwrap();
    file.write_all(text(0..1000).as_bytes()).unwrap();
    file.seek_relative(64 << 20).unwrap();
    file.write_all(b"far\n").unwrap();
    // Emptied under the writer, which goes on where it was.
    let mut source = Source::follow(&path, &[("on.bad.line", "skip")]).await;
    assert_eq!(source.poll().await.unwrap(), lines(0..1000));
    copytruncate(&path, 3);
    file.write_all(b"after\n").unwrap();
    let all = source.read_until("after").await;
    assert_eq!(
        all,
        ["after"],
        "the rest of the copy is one line of zeros, too long to be one"
    );
}

#[tokio::test]
async fn bad_lines_stop_the_task_or_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let long = "x".repeat(2000);
    let mut content = format!("good\n{long}\nbetter\n").into_bytes();
    content.extend_from_slice(b"h\xe4user\nbest\n");
    fs::write(&path, &content).unwrap();
    let strict = [("max.line.bytes", "1000")];
    let mut source = Source::follow(&path, &strict).await;
    assert_eq!(
        source.poll().await.unwrap(),
        ["good"],
        "what stands before goes first"
    );
    // Also after a restart, from the position stored.
    let mut source = Source::start(source_config(&path, &strict), source.positions.clone())
        .await
        .unwrap();
    let error = loop {
        match source.poll().await {
            Ok(lines) => assert_eq!(lines, [""; 0]),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Fatal);
    for part in [
        "app.log, line at byte 5:",
        "max.line.bytes=1000",
        "on.bad.line=skip",
    ] {
        assert!(error.message.contains(part), "{error}");
    }
    let skip = [("max.line.bytes", "1000"), ("on.bad.line", "skip")];
    let mut source = Source::start(source_config(&path, &skip), source.positions.clone())
        .await
        .unwrap();
    assert_eq!(source.read_until("best").await, ["better", "best"]);
    assert_eq!(source.count("bad_lines"), 2);
}

#[tokio::test]
async fn takes_over_a_position_of_file_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, &text(0..10));
    let stored =
        serde_json::json!({"partition": {"filename": path}, "offset": {"position": text(0..4).len()}});
    let positions = vec![serde_json::from_value(stored).unwrap()];
    let mut source = Source::start(source_config(&path, &[]), positions).await.unwrap();
    assert_eq!(source.read_until("line 9").await, lines(4..10));
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
        (at("missing/app.log"), ErrorKind::Retriable, "missing of"),
        (at("folder"), ErrorKind::Config, "is a folder, not a file"),
        (at("pipe"), ErrorKind::Config, "is a pipe, not a file"),
        (
            PathBuf::from("/dev/null"),
            ErrorKind::Config,
            "is a device, not a file",
        ),
        (at("loop"), ErrorKind::Retriable, "lead in a circle"),
    ] {
        let config = source_config(&path, &[]);
        let error = Source::start(config.clone(), Vec::new()).await.err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(part), "{error}");
        assert!(error.message.contains(path.to_str().unwrap()), "{error}");
        let problems = FileSource::create().validate(&config).await;
        assert!(problems[0].to_string().contains(part), "{}", problems[0]);
    }
    let config = source_config(&at("not-yet.log"), &[]);
    assert_eq!(FileSource::create().validate(&config).await, []);
}

#[tokio::test]
async fn a_file_that_becomes_unreadable_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "one\n");
    let mut source = Source::follow(&path, &[]).await;
    assert_eq!(source.read_until("one").await, ["one"]);
    // Root may read everything: a circle of links is what nobody can open.
    fs::rename(&path, folder.path().join("app.log.1")).unwrap();
    symlink(&path, &path).unwrap();
    let error = source.glance().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
    fs::remove_file(&path).unwrap();
    append(&path, "two\n");
    assert_eq!(source.read_until("two").await, ["two"]);
}

#[tokio::test]
async fn a_folder_that_is_unmounted_and_comes_back() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.folder.path().join("app.log");
    append(&path, "one\n");
    let mut source = Source::follow(&path, &[("rescan.interval.ms", "50")]).await;
    assert_eq!(source.read_until("one").await, ["one"]);
    disk.unmount();
    assert!(source.drain().await.is_empty());
    assert!(disk.again());
    append(&path, "two\n");
    assert_eq!(source.read_until("two").await, ["two"]);
    append(&path, "three\n");
    assert_eq!(source.read_until("three").await, ["three"]);
}
