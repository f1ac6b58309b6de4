//! The built daemon as a child process: started on connector files, watched by its log, stopped in order or by `kill -9`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use crate::built::Built;
use crate::child::{Child, Usage};
use crate::daemon_log::{Event, Ledger, ledgers};
use crate::error::{Error, Result};

/// How long a step of the daemon may take before a test gives up: generous, since it is never a measure.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How the daemon is started.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Where the log and the offsets are kept.
    pub data_dir: PathBuf,
    /// Connector files, or folders of them.
    pub connectors: Vec<PathBuf>,
    /// The worker's file, if any.
    pub config: Option<PathBuf>,
    /// Folders of plugins; none means the daemon's own default.
    pub plugin_path: Vec<PathBuf>,
    /// Environment variables, as connector files name them.
    pub env: Vec<(String, String)>,
    /// Runs it, when this process is root, without root's power to open every file.
    pub respects_permissions: bool,
}

impl DaemonOptions {
    /// Starts with the daemon's own defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            connectors: Vec::new(),
            config: None,
            plugin_path: Vec::new(),
            env: Vec::new(),
            respects_permissions: false,
        }
    }

    /// Adds a connector file or a folder of them.
    #[must_use]
    pub fn connector(mut self, path: impl AsRef<Path>) -> Self {
        self.connectors.push(path.as_ref().to_owned());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "numbers and text alike are given in place"
    )]
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.push((key.to_owned(), value.to_string()));
        self
    }

    fn command(&self, built: &Built) -> Command {
        let mut command = if self.respects_permissions && rustix::process::geteuid().is_root() {
            let mut setpriv = Command::new("setpriv");
            setpriv
                .args(["--bounding-set", "-dac_override,-dac_read_search", "--"])
                .arg(built.daemon());
            setpriv
        } else {
            Command::new(built.daemon())
        };
        command.arg("run").args(["--log-format", "json"]);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.arg("--data-dir").arg(&self.data_dir);
        for folder in &self.plugin_path {
            command.arg("--plugin-path").arg(folder);
        }
        command
            .args(&self.connectors)
            // Many run at once; a test of the REST API names its own.
            .env("TIDEWATER_LISTENERS", "none")
            .envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it. Call from a thread that lives as long as it should.
    pub fn start(options: &DaemonOptions) -> Result<Self> {
        let built = Built::find()?;
        let child = Child::spawn("the daemon", &options.command(&built), None, Signal::TERM)?;
        Ok(Self { child })
    }

    /// Waits for an event of its log, those logged already among them.
    pub async fn wait_for(&self, what: &str, accept: impl FnMut(&Event) -> bool) -> Result<Event> {
        self.wait_from(0, what, accept).await
    }

    /// Waits for an event of its log from line `start` on.
    pub async fn wait_from(
        &self,
        start: usize,
        what: &str,
        mut accept: impl FnMut(&Event) -> bool,
    ) -> Result<Event> {
        let pick = |line: &str| Some(Event::parse(line)).filter(|event| accept(event));
        self.child.output().wait_from(start, what, PATIENCE, pick).await
    }

    /// Waits for a warning or an error that has all these words, in any case.
    pub async fn wait_for_trouble(&self, start: usize, words: &[&str]) -> Result<Event> {
        let what = format!("a warning or an error that says {words:?}");
        self.wait_from(start, &what, |event| {
            let text = event.words();
            event.is_trouble() && words.iter().all(|word| text.contains(&word.to_lowercase()))
        })
        .await
    }

    /// How many lines it has logged so far.
    pub fn lines_logged(&self) -> usize {
        self.child.output().len()
    }

    /// All it has logged.
    pub fn log(&self) -> Vec<String> {
        self.child.output().lines_from(0)
    }

    /// The end of its log, for a person.
    pub fn log_tail(&self) -> String {
        self.child.output().tail()
    }

    /// The last ledger of each task.
    pub fn ledgers(&self) -> BTreeMap<(String, u64), Ledger> {
        ledgers(&self.log())
    }

    /// Memory and processor time so far.
    pub fn usage(&self) -> Result<Usage> {
        self.child.usage()
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.is_alive()
    }

    /// `kill -9`; waits until it is gone.
    pub fn kill_now(&mut self) {
        self.child.kill_now();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.child.ended(PATIENCE).await
    }

    /// SIGTERM; waits until it has stopped in order. Anything but exit code 0 is an error.
    pub async fn stop(&mut self) -> Result<()> {
        self.child.signal(Signal::TERM);
        let exit = self.child.ended(PATIENCE).await?;
        if exit.success() {
            return Ok(());
        }
        Err(Error::Child {
            what: format!("the daemon stopped with {exit}"),
            output: self.log_tail(),
        })
    }
}
