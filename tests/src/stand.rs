//! What most tests stand on: the shop on one server, its mirror on another, a file, and the daemon between them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::arrivals::Arrivals;
use crate::books::{Coverage, Form, Streamed, Totals};
use crate::compare::Comparison;
use crate::connector_file::ConnectorFile;
use crate::daemon::{Daemon, DaemonOptions};
use crate::daemon_log::Ledger;
use crate::error::{Error, Result};
use crate::lines::{LineCount, Place, check_order, visit_records};
use crate::postgres::{Postgres, PostgresOptions};
use crate::settle::settle;
use crate::shop::{self, DATABASE};
use crate::topics;
use crate::work_dir::WorkDir;

/// Records as JSON with their schemas, which topics can be read back from without the daemon.
pub const JSON: &str = "json";

/// Servers, files and the daemon's options.
#[derive(Debug)]
pub struct Stand {
    /// The shop.
    pub source: Postgres,
    /// Its mirror.
    pub target: Postgres,
    /// Notifications of what arrives in the mirror.
    pub arrivals: Arrivals,
    /// How the daemon is started: on a source, a mirror and a file of records.
    pub options: DaemonOptions,
    /// How records stand in topics.
    pub converter: &'static str,
    /// Where everything is; dropped last, when the servers have stopped.
    pub work: WorkDir,
}

impl Stand {
    /// Loads the shop (`scale` 1: some 124,000 rows) and writes the three connector files.
    pub async fn set_up(scale: f64) -> Result<Self> {
        Self::with_converter(scale, JSON).await
    }

    /// The same with another converter for all three.
    pub async fn with_converter(scale: f64, converter: &'static str) -> Result<Self> {
        let work = WorkDir::new()?;
        let source = Postgres::start(&work, "source", PostgresOptions::default()).await?;
        let target = Postgres::start(&work, "target", PostgresOptions::default()).await?;
        shop::load(&source, scale).await?;
        shop::prepare_mirror(&target).await?;
        let arrivals = Arrivals::watch(&target, DATABASE).await?;
        work.folder("out")?;
        let mut options = DaemonOptions::new(work.join("data"));
        let files = [
            ConnectorFile::shop_source(&source),
            ConnectorFile::shop_mirror(&target),
            ConnectorFile::shop_lines(&work.join("out/shop.jsonl")),
        ];
        for file in files {
            options.connectors.push(file.converter(converter).write(&work)?);
        }
        Ok(Self {
            source,
            target,
            arrivals,
            options,
            converter,
            work,
        })
    }

    /// Starts the daemon. Call from a thread that lives as long as it should.
    pub fn start(&self) -> Result<Daemon> {
        Daemon::start(&self.options)
    }

    /// The file the shop's records are written to.
    pub fn file(&self) -> PathBuf {
        self.work.join("out/shop.jsonl")
    }

    /// Waits until the mirror is equal to the shop, which nobody writes to any more; anything else is an error, with the daemon's last
    /// words.
    pub async fn equal(&mut self, daemon: &Daemon) -> Result<Comparison> {
        let settled = settle(&self.source, &self.target, &mut self.arrivals).await;
        settled
            .and_then(Comparison::into_result)
            .map_err(|error| Error::Child {
                what: error.to_string(),
                output: daemon.log_tail(),
            })
    }

    /// Proves, on a stopped daemon, that topics and file hold what the audit says, and the file what the topics hold. Topics are read
    /// where anybody can read them, in JSON; typed ones are known by the lines that came of them.
    pub async fn balance(&self, coverage: Coverage) -> Result<Totals> {
        let (mut of_topics, mut of_file) = (Vec::new(), Vec::new());
        let mut in_topics = Streamed::new(Form::WithSchemas);
        topics::visit(&self.options.data_dir, "shop.shop.", |record| {
            of_topics.push(Place::from(record));
            if self.converter == JSON {
                in_topics.take(record)?;
            }
            Ok(())
        })
        .await?;
        let mut in_file = Streamed::new(Form::Plain);
        visit_records(&self.file(), |record| {
            of_file.push(Place::from(record));
            in_file.take(record)
        })?;
        check_order(&of_file)?;
        of_topics.sort_unstable();
        of_file.sort_unstable();
        if of_topics != of_file {
            return Err(Error::Different(format!(
                "the file has {} records where the topics have {}",
                of_file.len(),
                of_topics.len()
            )));
        }
        if self.converter == JSON {
            in_topics.balance(&self.source, coverage).await?;
        }
        in_file.balance(&self.source, coverage).await
    }

    /// Waits until the file has as many lines as the snapshot and the audited changes make.
    pub async fn file_complete(&self, daemon: &Daemon, snapshot_rows: u64) -> Result<()> {
        let expected = snapshot_rows + shop::changes(&self.source).await?.records_with_tombstones();
        let found = LineCount::watch(&self.file())?
            .reach(expected, crate::settle::QUIET)
            .await?;
        if found == expected {
            return Ok(());
        }
        Err(Error::Child {
            what: format!("the file has {found} lines where {expected} records were made"),
            output: daemon.log_tail(),
        })
    }
}

/// Proves that, after an orderly stop, the books of every task balance with nothing in flight (invariant 10), and that these
/// connectors kept some.
pub fn check_ledgers(daemon: &Daemon, connectors: &[&str]) -> Result<BTreeMap<(String, u64), Ledger>> {
    let ledgers = daemon.ledgers();
    for name in connectors {
        if !ledgers.keys().any(|(connector, _)| connector == name) {
            return Err(Error::Different(format!("{name} logged no ledger: {ledgers:?}")));
        }
    }
    match ledgers
        .iter()
        .find(|(_, ledger)| !ledger.balances() || ledger.in_flight > 0)
    {
        Some((task, ledger)) => Err(Error::Different(format!(
            "the ledger of {task:?} does not balance: {ledger:?}"
        ))),
        None => Ok(ledgers),
    }
}
