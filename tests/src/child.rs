//! A child process that cannot outlive its parent, with its output kept and its memory and processor time known.

use std::fs;
use std::process::{Child as StdChild, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};
use crate::output::Output;

/// A user to run a process as: PostgreSQL refuses to run as root.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its first group's id.
    pub gid: u32,
}

impl User {
    /// The user servers run as when this process is root: `postgres`, else `nobody`; `None` when this process is not root.
    pub fn for_servers() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(Error::io("reading", "/etc/passwd"))?;
        let find = |name: &str| {
            users.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then_some(())?;
                let uid = fields.nth(1)?.parse().ok()?;
                let gid = fields.next()?.parse().ok()?;
                Some(Self {
                    name: name.to_owned(),
                    uid,
                    gid,
                })
            })
        };
        match find("postgres").or_else(|| find("nobody")) {
            Some(user) => Ok(Some(user)),
            None => Err(Error::Missing {
                what: "a user other than root to run servers as".to_owned(),
                remedy: "install postgresql, which brings the user postgres".to_owned(),
            }),
        }
    }
}

/// Memory and processor time of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Resident memory now, in bytes.
    pub rss: u64,
    /// The most resident memory it ever had, in bytes.
    pub peak_rss: u64,
    /// Processor seconds so far, user and system, all threads.
    pub cpu_seconds: f64,
}

/// A running process. Dropped, it is asked to stop, then killed.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: StdChild,
    pid: Pid,
    output: Output,
    exit: Option<ExitStatus>,
    /// What a drop sends first.
    stop_signal: Signal,
}

impl Child {
    /// Starts `program`, under `user` if given. The kernel ends it when the thread that called this ends: call
    /// it from a thread that lives as long as the process should.
    pub fn spawn(name: &str, program: &Command, user: Option<&User>, stop_signal: Signal) -> Result<Self> {
        // setpriv (util-linux) replaces itself by the program, so the process id stays, and needs no unsafe code here.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = user {
            command
                .arg(format!("--reuid={}", user.uid))
                .arg(format!("--regid={}", user.gid))
                .arg("--clear-groups");
        }
        command
            .arg("--")
            .arg(program.get_program())
            .args(program.get_args());
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = program.get_current_dir() {
            command.current_dir(dir);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // A group of its own: Ctrl-C on the terminal is this program's to handle, in its order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .spawn()
            .map_err(Error::io("starting (through setpriv)", program.get_program()))?;
        let pipe = child.stderr.take().ok_or_else(|| Error::Child {
            what: format!("{name} has no standard error"),
            output: String::new(),
        })?;
        let pid = Pid::from_child(&child);
        Ok(Self {
            name: name.to_owned(),
            process: child,
            pid,
            output: Output::of(pipe),
            exit: None,
            stop_signal,
        })
    }

    /// What it has written to standard error.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        if self.exit.is_none() {
            self.exit = self.process.try_wait().ok().flatten();
        }
        self.exit.is_none()
    }

    /// Sends a signal. One that has ended already is no error: its exit tells.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_alive() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits until it has ended by itself or by a signal sent before.
    pub async fn ended(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        self.output
            .closed(&format!("the end of {}", self.name), patience)
            .await?;
        let exit = self
            .process
            .wait()
            .map_err(Error::io("waiting for", &self.name))?;
        self.exit = Some(exit);
        Ok(exit)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill_now(&mut self) {
        if self.is_alive() {
            let _ = self.process.kill();
            self.exit = self.process.wait().ok();
        }
    }

    /// Its memory and processor time now.
    pub fn usage(&self) -> Result<Usage> {
        let status_path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&status_path).map_err(Error::io("reading", &status_path))?;
        let kilobytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':')
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .ok()
        };
        let stat_path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&stat_path).map_err(Error::io("reading", &stat_path))?;
        // The second field is the program's name in parentheses and may hold spaces: count from behind it.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Usage {
            rss: kilobytes("VmRSS").unwrap_or(0) * 1024,
            peak_rss: kilobytes("VmHWM").unwrap_or(0) * 1024,
            cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(self.stop_signal);
        let patience = Instant::now() + Duration::from_secs(10);
        while self.is_alive() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill_now();
    }
}
