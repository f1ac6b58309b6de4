//! What all measurements share: two servers, a table whose changes wait in a slot, and the daemon started on it.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use tidewater_tests::child::Usage;
use tidewater_tests::connector_file::ConnectorFile;
use tidewater_tests::daemon::{Daemon, DaemonOptions};
use tidewater_tests::error::{Error, Result};
use tidewater_tests::postgres::{Durability, Postgres, PostgresOptions, SUPERUSER};
use tidewater_tests::progress::{Progress, count};
use tidewater_tests::work_dir::WorkDir;

/// The database on both servers.
pub const DATABASE: &str = "bench";

/// The slot from which each round's slot is copied, so that all have the same content.
const MASTER_SLOT: &str = "bench_master";

/// Servers, data and connector files for all measurements.
pub struct Bed {
    /// Captured from.
    pub source: Postgres,
    /// Written to by the sink.
    pub target: Postgres,
    /// Rows of the table, each also one change in the slot.
    pub rows: u64,
    /// Where the slot's content ends.
    pub end: String,
    /// How records stand in topics.
    pub converter: &'static str,
    /// Where everything is; dropped last, when the servers have stopped.
    pub work: WorkDir,
}

impl Bed {
    /// Starts both servers and writes `rows` rows in transactions of 500 behind a slot.
    pub async fn set_up(progress: &mut Progress, rows: u64, converter: &'static str) -> Result<Self> {
        progress.step("starting two throwaway PostgreSQL servers");
        let work = WorkDir::new()?;
        let options = PostgresOptions {
            password: "tidewater".to_owned(),
            durability: Durability::Full,
            settings: vec![("max_wal_size".to_owned(), "16GB".to_owned())],
        };
        let source = Postgres::start(&work, "source", options.clone()).await?;
        let target = Postgres::start(&work, "target", options).await?;
        progress.done(&format!("ports {} and {}", source.port(), target.port()));

        progress.step(format!("writing {} rows behind a slot", count(rows)));
        for server in [&source, &target] {
            server.execute("postgres", "CREATE DATABASE bench").await?;
        }
        let table = "CREATE TABLE events (id bigint PRIMARY KEY, customer int NOT NULL, kind varchar(20) NOT NULL,
                         amount numeric(12,2) NOT NULL, note text, active boolean NOT NULL, at timestamptz NOT NULL)";
        source.execute(DATABASE, table).await?;
        source
            .execute(DATABASE, "CREATE PUBLICATION bench FOR TABLE events")
            .await?;
        // By itself: a transaction that has written may not make a slot.
        let slot = format!("SELECT pg_create_logical_replication_slot('{MASTER_SLOT}', 'pgoutput')");
        source.execute(DATABASE, &slot).await?;
        source
            .execute(
                DATABASE,
                &format!(
                    "DO $$ BEGIN FOR begins IN 0..{rows} - 1 BY 500 LOOP
                         INSERT INTO events SELECT i, i % 10000, 'kind ' || i % 7, i / 100.0,
                             'a note of an ordinary length for row ' || i, i % 2 = 0, clock_timestamp()
                           FROM generate_series(begins, least(begins + 499, {rows} - 1)) i;
                         COMMIT;
                     END LOOP; END $$"
                ),
            )
            .await?;
        source.execute(DATABASE, "VACUUM ANALYZE events").await?;
        source.execute(DATABASE, "CHECKPOINT").await?;
        let end = source
            .value(DATABASE, "SELECT pg_current_wal_flush_lsn()")
            .await?
            .unwrap_or_default();
        progress.done(&format!("up to {end}"));
        Ok(Self {
            source,
            target,
            rows,
            end,
            converter,
            work,
        })
    }

    /// A slot of this name with the whole content still before it.
    pub async fn slot(&self, name: &str) -> Result<()> {
        let sql = format!("SELECT pg_copy_logical_replication_slot('{MASTER_SLOT}', '{name}')");
        self.source.execute(DATABASE, &sql).await
    }

    /// Drops a slot.
    pub async fn drop_slot(&self, name: &str) -> Result<()> {
        self.source
            .execute(DATABASE, &format!("SELECT pg_drop_replication_slot('{name}')"))
            .await
    }

    /// Captures the table.
    pub fn source_file(&self, slot: &str, snapshot_mode: &str) -> ConnectorFile {
        ConnectorFile::new("bench-source", "postgres-source")
            .with("database.hostname", "127.0.0.1")
            .with("database.port", self.source.port())
            .with("database.user", SUPERUSER)
            .with("database.password", self.source.password())
            .with("database.dbname", DATABASE)
            .with("topic.prefix", "bench")
            .with("plugin.name", "pgoutput")
            .with("slot.name", slot)
            .with("publication.name", "bench")
            .with("publication.autocreate.mode", "disabled")
            .with("table.include.list", "public\\.events")
            .with("snapshot.mode", snapshot_mode)
            .converter(self.converter)
    }

    /// Writes the topic into the target's table.
    pub fn mirror_file(&self) -> ConnectorFile {
        ConnectorFile::new("bench-mirror", "postgres-sink")
            .with("topics", "bench.public.events")
            .with(
                "connection.url",
                format!("jdbc:postgresql://127.0.0.1:{}/{DATABASE}", self.target.port()),
            )
            .with("connection.username", SUPERUSER)
            .with("connection.password", self.target.password())
            .with("insert.mode", "upsert")
            .with("pk.mode", "record_key")
            .with("delete.enabled", true)
            .with("auto.create", true)
            .with("table.name.format", "${source.schema}.${source.table}")
            .converter(self.converter)
    }

    /// Writes the topic into a file.
    pub fn lines_file(&self) -> ConnectorFile {
        ConnectorFile::new("bench-lines", "file-sink")
            .with("topics", "bench.public.events")
            .with("file", self.lines_path().display())
            .converter(self.converter)
    }

    fn lines_path(&self) -> PathBuf {
        self.work.join("events.jsonl")
    }

    /// Starts a daemon with nothing in its data folder on these connectors.
    pub fn start(&self, files: &[ConnectorFile]) -> Result<Run> {
        let data = self.work.join("data");
        for gone in [fs::remove_dir_all(&data), fs::remove_file(self.lines_path())] {
            match gone {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("clearing", &data)(error));
                }
                _ => {}
            }
        }
        let mut options = DaemonOptions::new(data);
        options.config = Some(self.work.write("bench.toml", "ledger.interval.ms = 50\n")?);
        for file in files {
            options.connectors.push(file.write(&self.work)?);
        }
        let started = Instant::now();
        Ok(Run {
            daemon: Daemon::start(&options)?,
            started,
        })
    }
}

/// A daemon that is being measured.
pub struct Run {
    /// The daemon.
    pub daemon: Daemon,
    /// When it was started: its start-up counts.
    pub started: Instant,
}

impl Run {
    /// Waits until the connector's books say so many written; answers the seconds since the start and the daemon's usage then.
    pub async fn written(&self, connector: &str, records: u64) -> Result<(f64, Usage)> {
        self.daemon
            .wait_for(
                &format!("{connector} to have written {records} records"),
                |event| {
                    event.text("connector").as_deref() == Some(connector)
                        && event.number("written").is_some_and(|written| written >= records)
                },
            )
            .await?;
        Ok((self.started.elapsed().as_secs_f64(), self.daemon.usage()?))
    }
}
