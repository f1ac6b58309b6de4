//! A file followed through rotation and truncation into another file, with `kill -9` of the daemon in between: each line once, in order.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tidewater_tests::Result;
use tidewater_tests::connector_file::ConnectorFile;
use tidewater_tests::daemon::{Daemon, DaemonOptions};
use tidewater_tests::lines::LineCount;
use tidewater_tests::settle::QUIET;
use tidewater_tests::stand::check_ledgers;
use tidewater_tests::work_dir::WorkDir;

/// Writes numbered lines and knows how many.
struct Log {
    path: PathBuf,
    lines: u64,
}

impl Log {
    fn append(&mut self, lines: u64) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .expect("the log opens");
        let mut text = String::new();
        for _ in 0..lines {
            self.lines += 1;
            text.push_str(&Self::line(self.lines));
            text.push('\n');
        }
        // In two writes, so that a reader may meet half a line.
        let half = (0..=text.len() / 2)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        file.write_all(&text.as_bytes()[..half])
            .expect("the log takes a line");
        file.write_all(&text.as_bytes()[half..])
            .expect("the log takes a line");
    }

    fn line(number: u64) -> String {
        format!(
            "line {number} with \"quotes\", \\ and ü {}",
            "x".repeat((number % 97) as usize)
        )
    }
}

struct Pipeline {
    work: WorkDir,
    options: DaemonOptions,
    output: LineCount,
    log: Log,
}

impl Pipeline {
    fn set_up() -> Result<Self> {
        let work = WorkDir::new()?;
        work.folder("in")?;
        work.folder("out")?;
        let log = Log {
            path: work.join("in/app.log"),
            lines: 0,
        };
        let out = work.join("out/lines.log");
        let source = ConnectorFile::new("log-source", "file-source")
            .with("file", log.path.display())
            .with("topic", "log")
            .with("value.converter", "string");
        let sink = ConnectorFile::new("log-sink", "file-sink")
            .with("file", out.display())
            .with("topics", "log")
            .with("value.converter", "string");
        let mut options = DaemonOptions::new(work.join("data"));
        options.connectors = vec![source.write(&work)?, sink.write(&work)?];
        Ok(Self {
            output: LineCount::watch(&out)?,
            work,
            options,
            log,
        })
    }

    async fn arrived(&mut self, daemon: &Daemon) -> Result<()> {
        let found = self.output.reach(self.log.lines, QUIET).await?;
        assert_eq!(
            found,
            self.log.lines,
            "lines that have arrived\n{}",
            daemon.log_tail()
        );
        Ok(())
    }

    /// Each line once and in order.
    fn check(&self) {
        let text = fs::read_to_string(self.work.join("out/lines.log")).expect("the output is there");
        let found: Vec<&str> = text.lines().collect();
        for (number, line) in (1..).zip(&found) {
            let expected = Log::line(number);
            let json = serde_json::Value::from(expected.as_str()).to_string();
            assert!(
                **line == expected || **line == json,
                "line {number} is {line:?}, not {expected:?}"
            );
        }
        assert_eq!(found.len() as u64, self.log.lines);
    }
}

fn renamed(path: &Path, suffix: &str) -> PathBuf {
    path.with_file_name(format!("app.log.{suffix}"))
}

#[tokio::test]
async fn each_line_arrives_once_through_rotation_truncation_and_kills() -> Result<()> {
    let mut pipe = Pipeline::set_up()?;
    pipe.log.append(500);
    let mut daemon = Daemon::start(&pipe.options)?;
    pipe.arrived(&daemon).await?;

    // Rotated by renaming: what is still unread in the old file comes before the new one.
    pipe.log.append(2000);
    fs::rename(&pipe.log.path, renamed(&pipe.log.path, "1")).expect("the log is renamed");
    pipe.log.append(300);
    pipe.arrived(&daemon).await?;

    // Truncated, as copytruncate does once everything is copied.
    File::create(&pipe.log.path).expect("the log is truncated");
    pipe.log.append(40);
    pipe.arrived(&daemon).await?;

    // Killed in mid-flow; lines come while it is away, and the file is rotated meanwhile.
    for round in 2..8 {
        pipe.log.append(3000);
        pipe.output.reach(pipe.log.lines - 2500, QUIET).await?;
        daemon.kill_now();
        pipe.log.append(100);
        if round % 2 == 0 {
            fs::rename(&pipe.log.path, renamed(&pipe.log.path, &round.to_string()))
                .expect("the log is renamed");
            pipe.log.append(200);
        }
        daemon = Daemon::start(&pipe.options)?;
    }
    pipe.arrived(&daemon).await?;
    daemon.stop().await?;
    pipe.check();
    check_ledgers(&daemon, &["log-source", "log-sink"])?;
    Ok(())
}

/// Half a line is no line until its end is there.
#[tokio::test]
async fn half_a_line_waits_for_its_other_half() -> Result<()> {
    let mut pipe = Pipeline::set_up()?;
    pipe.log.append(1);
    let second = Log::line(2);
    let mut file = OpenOptions::new()
        .append(true)
        .open(&pipe.log.path)
        .expect("the log opens");
    file.write_all(&second.as_bytes()[..6])
        .expect("half a line is written");
    let mut daemon = Daemon::start(&pipe.options)?;
    pipe.arrived(&daemon).await?;
    daemon.kill_now();
    writeln!(file, "{}", &second[6..]).expect("the other half is written");
    pipe.log.lines = 2;
    daemon = Daemon::start(&pipe.options)?;
    pipe.arrived(&daemon).await?;
    daemon.stop().await?;
    pipe.check();
    Ok(())
}
