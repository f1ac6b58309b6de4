//! `tidewater run`.

use std::path::Path;

use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::folder::Folder;

const SOURCE: &str =
    "connector.class = \"file-source\"\nfile = \"in.log\"\ntopic = \"lines\"\nvalue.converter = \"string\"\n";
const SINK: &str = "connector.class = \"file-sink\"\nfile = \"out.jsonl\"\ntopics = \"lines\"\nvalue.converter = \"string\"\n";

fn pipeline() -> Folder {
    Folder::with(&[
        ("c/source.toml", SOURCE),
        ("c/sink.toml", SINK),
        ("in.log", "one\ntwo\n"),
    ])
}

/// Stops the daemon in order; gives what it printed and its log.
fn stop(mut daemon: Daemon, signal: Signal) -> (String, Vec<String>) {
    daemon.signal(signal);
    daemon.wait_for("stopped");
    let (status, printed, log) = daemon.end();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    (printed, log)
}

#[test]
fn records_flow_until_a_signal_stops_it_in_order() {
    let folder = pipeline();
    let mut daemon = Daemon::start(folder.command(&["run", "c"]));
    daemon.wait_for("runs");
    wait_for_lines(&folder.path("out.jsonl"), 2);
    let (printed, log) = stop(daemon, Signal::TERM);
    assert!(printed.contains("Stop with Ctrl-C"), "{printed}");
    for connector in ["source", "sink"] {
        assert!(
            printed
                .lines()
                .any(|line| line.starts_with(connector) && line.contains("c/")),
            "{printed}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(folder.path("out.jsonl")).expect("written"),
        "\"one\"\n\"two\"\n"
    );
    assert!(
        log.iter()
            .any(|line| line.contains("ledger") && line.contains("read=2")),
        "{log:#?}"
    );

    // It goes on where it stopped.
    folder.write("in.log", "one\ntwo\nthree\n");
    let daemon = Daemon::start(folder.command(&["run", "c"]));
    wait_for_lines(&folder.path("out.jsonl"), 3);
    stop(daemon, Signal::INT);
    let lines = std::fs::read_to_string(folder.path("out.jsonl")).expect("written");
    assert_eq!(lines, "\"one\"\n\"two\"\n\"three\"\n");
}

/// Waits for the file to have this many lines, told of each change by the kernel.
fn wait_for_lines(path: &Path, lines: usize) {
    use notify::Watcher as _;
    let (sender, changes) = std::sync::mpsc::channel();
    let mut watcher =
        notify::recommended_watcher(move |_| sender.send(()).unwrap_or_default()).expect("a watcher");
    let folder = path.parent().expect("within a folder");
    watcher
        .watch(folder, notify::RecursiveMode::NonRecursive)
        .expect("watched");
    let has = || std::fs::read_to_string(path).unwrap_or_default().lines().count();
    while has() < lines {
        let patience = std::time::Duration::from_mins(1);
        changes
            .recv_timeout(patience)
            .unwrap_or_else(|_| panic!("{} lines in {}", has(), path.display()));
    }
}

#[test]
fn logs_are_json_where_programs_read_them() {
    let folder = pipeline();
    let mut daemon =
        Daemon::start(folder.command(&["run", "--log-format", "json", "c", "--data-dir", "elsewhere"]));
    daemon.wait_for("runs");
    let (printed, log) = stop(daemon, Signal::TERM);
    assert_eq!(printed, "", "the table is for people");
    for line in &log {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(
            event["level"].is_string() && event["message"].is_string(),
            "{line}"
        );
    }
    assert!(folder.path("elsewhere/plugins").is_dir());
}

#[test]
fn a_broken_file_keeps_no_other_from_running() {
    let folder = pipeline();
    folder.write(
        "c/broken.toml",
        "connector.class = \"file-sink\"\nfiel = \"x\"\ntopics = \"lines\"\n",
    );
    folder.write("c/unreadable.json", "{");
    let mut daemon = Daemon::start(folder.command(&["run", "c"]));
    daemon.wait_for("2 connector files left out");
    wait_for_lines(&folder.path("out.jsonl"), 2);
    let (_, log) = stop(daemon, Signal::TERM);
    let errors: Vec<&String> = log.iter().filter(|line| line.contains("ERROR")).collect();
    for says in [
        "c/broken.toml:2: fiel: is no key of file-sink; did you mean file?",
        "c/unreadable.json:1:",
    ] {
        assert!(errors.iter().any(|line| line.contains(says)), "{errors:#?}");
    }
}

#[test]
fn where_nothing_can_run_nothing_is_started() {
    let folder = Folder::with(&[
        ("bad.toml", "connector.class = \"file-sink\"\n"),
        ("good.toml", SOURCE),
    ]);
    folder
        .run(&["run", "bad.toml"])
        .code(2)
        .complains("bad.toml: file: is missing")
        .complains("nothing was started");
    folder
        .run(&["run", "good.toml", "nowhere"])
        .code(2)
        .complains("nowhere: cannot be read: No such file");
    folder.run(&["run"]).code(2).complains("no connector file");
    folder
        .run(&["run", "--plugin-path", ".", "good.toml"])
        .code(3)
        .complains("no plugin could be loaded");
    assert!(!folder.path("tidewater-data/topics").exists());
}

#[test]
fn a_data_directory_that_cannot_be_used() {
    let folder = pipeline();
    folder.write("a-file", "");
    folder
        .run(&["run", "c", "--data-dir", "a-file/data"])
        .code(3)
        .complains("cannot make the data directory a-file/data");

    let mut first = Daemon::start(folder.command(&["run", "c"]));
    first.wait_for("runs");
    folder
        .run(&["run", "c"])
        .code(3)
        .complains("is in use by the process with pid");
    stop(first, Signal::TERM);
}
