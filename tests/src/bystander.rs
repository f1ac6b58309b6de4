//! A pipeline beside the one in trouble: a file followed into another file, which must go on (invariant 7).

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use crate::connector_file::ConnectorFile;
use crate::daemon::{Daemon, DaemonOptions};
use crate::error::{Error, Result};
use crate::lines::LineCount;
use crate::settle::QUIET;
use crate::work_dir::WorkDir;

/// Both files, and how far they are.
#[derive(Debug)]
pub struct Bystander {
    input: PathBuf,
    output: LineCount,
    lines: u64,
}

impl Bystander {
    /// Adds both connectors to the daemon's.
    pub fn join(work: &WorkDir, options: &mut DaemonOptions) -> Result<Self> {
        work.folder("bystander")?;
        let input = work.write("bystander/in.log", "")?;
        let output = work.join("bystander/out.log");
        let source = ConnectorFile::new("bystander-source", "file-source")
            .with("file", input.display())
            .with("topic", "bystander")
            .with("value.converter", "string");
        let sink = ConnectorFile::new("bystander-sink", "file-sink")
            .with("file", output.display())
            .with("topics", "bystander")
            .with("value.converter", "string");
        options.connectors.push(source.write(work)?);
        options.connectors.push(sink.write(work)?);
        Ok(Self {
            input,
            output: LineCount::watch(&output)?,
            lines: 0,
        })
    }

    /// Proves that a line written now arrives, all those before it too, and none twice.
    pub async fn still_flows(&mut self, daemon: &mut Daemon) -> Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(&self.input)
            .map_err(Error::io("opening", &self.input))?;
        self.lines += 1;
        writeln!(file, "line {}", self.lines).map_err(Error::io("writing", &self.input))?;
        let found = self.output.reach(self.lines, QUIET).await?;
        if found == self.lines && daemon.is_alive() {
            return Ok(());
        }
        let what = format!("beside the trouble, {found} of {} lines have arrived", self.lines);
        Err(Error::Child {
            what,
            output: daemon.log_tail(),
        })
    }
}
