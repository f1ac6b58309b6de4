//! The demo's way from empty servers to the proof, one step after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use tidewater_tests::arrivals::Arrivals;
use tidewater_tests::built::{Built, repository};
use tidewater_tests::daemon::{Daemon, DaemonOptions};
use tidewater_tests::error::{Error, Result};
use tidewater_tests::latency::{Latencies, now_micros};
use tidewater_tests::lines::LineCount;
use tidewater_tests::postgres::{Durability, Postgres, PostgresOptions, SUPERUSER};
use tidewater_tests::progress::{Progress, count};
use tidewater_tests::settle::{QUIET, settle};
use tidewater_tests::shop::{self, DATABASE, WriterOptions, Writers};
use tidewater_tests::work_dir::WorkDir;

use crate::keep;
use crate::report::{Report, Stage};

/// How many transactions are written before the `kill -9`, how many while the daemon is away, and how many after.
const TRANSACTIONS: [u64; 3] = [1500, 300, 1500];

/// What the demo runs on.
pub struct Stand {
    /// The shop.
    pub source: Postgres,
    /// Its mirror.
    pub target: Postgres,
    /// How the daemon is started.
    pub options: DaemonOptions,
    /// Where everything is; dropped last, when the servers have stopped.
    pub work: WorkDir,
}

/// Runs it all; an error is what a person should read.
pub async fn run(progress: &mut Progress) -> Result<()> {
    let scale = std::env::var("SCALE")
        .ok()
        .and_then(|scale| scale.parse().ok())
        .unwrap_or(1.0);
    let stand = set_up(progress, scale).await?;
    let mut report = Report::default();
    let daemon = prove(progress, &stand, &mut report).await;
    progress.clear();
    println!("\n{report}");
    let daemon = daemon?;
    if std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0") {
        keep::explain(&stand, &daemon);
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn set_up(progress: &mut Progress, scale: f64) -> Result<Stand> {
    // `make demo` has built it; cargo alone may not have.
    progress.step("finding the daemon");
    let built = tokio::task::spawn_blocking(Built::find)
        .await
        .map_err(|join| Error::Child {
            what: format!("finding the daemon: {join}"),
            output: String::new(),
        })??;
    progress.done(&built.daemon().display().to_string());

    progress.step("starting two throwaway PostgreSQL servers");
    let work = WorkDir::new()?;
    let options = PostgresOptions {
        password: "tidewater".to_owned(),
        durability: Durability::Full,
        ..PostgresOptions::default()
    };
    let source = Postgres::start(&work, "source", options.clone()).await?;
    let target = Postgres::start(&work, "target", options).await?;
    progress.done(&format!("ports {} and {}", source.port(), target.port()));

    progress.step("loading the shop");
    shop::load(&source, scale).await?;
    shop::prepare_mirror(&target).await?;
    progress.done(&format!("{} rows in 6 tables", count(shop::rows(&source).await?)));

    let lines = work.folder("out")?;
    let configs = repository().join("configs");
    let mut options = DaemonOptions::new(work.join("data"))
        .connector(configs.join("connectors"))
        .env("SHOP_SOURCE_PORT", source.port())
        .env("SHOP_SOURCE_USER", SUPERUSER)
        .env("SHOP_SOURCE_PASSWORD", source.password())
        .env("SHOP_TARGET_PORT", target.port())
        .env("SHOP_TARGET_USER", SUPERUSER)
        .env("SHOP_TARGET_PASSWORD", target.password())
        .env("SHOP_FILE", lines.join("shop.jsonl").display())
        .env("ACCESS_LOG", work.write("access.log", "GET / 200\n")?.display())
        .env("ACCESS_LOG_COPY", lines.join("access.jsonl").display());
    options.config = Some(configs.join("tidewater.toml"));
    Ok(Stand {
        source,
        target,
        options,
        work,
    })
}

/// Streams, kills, streams on, compares. The daemon that is left runs.
async fn prove(progress: &mut Progress, stand: &Stand, report: &mut Report) -> Result<Daemon> {
    let Stand {
        work, source, target, ..
    } = stand;
    let mut arrivals = Arrivals::watch(target, DATABASE).await?;
    let mut lines = LineCount::watch(&work.join("out/shop.jsonl"))?;

    progress.step("streaming the snapshot");
    let rows = shop::rows(source).await?;
    let started = Instant::now();
    let mut daemon = Daemon::start(&stand.options)?;
    loop {
        let there = shop::rows(target).await?;
        progress.detail(&format!("{} of {} rows", count(there), count(rows)));
        if there >= rows {
            break;
        }
        wait_alive(&mut daemon, &mut arrivals).await?;
    }
    with_log(
        &daemon,
        settle(source, target, &mut arrivals).await?.into_result(),
    )?;
    let snapshot_usage = daemon.usage()?;
    report.stages.push(Stage::new(
        "snapshot",
        rows,
        started.elapsed(),
        snapshot_usage.cpu_seconds,
    ));
    report.note_loaded(snapshot_usage);
    progress.done(&format!("{} rows, equal", count(rows)));

    let writer_options = WriterOptions {
        pause: Duration::from_millis(3),
        max_bulk_rows: 2000,
        ..WriterOptions::default()
    };
    progress.step("streaming live inserts, updates and deletes of 3 writers");
    let began = Instant::now();
    let since = now_micros();
    let writers = Writers::start(source, &writer_options).await?;
    write_until(progress, &writers, &mut daemon, target, TRANSACTIONS[0]).await?;
    let until = now_micros();
    let usage = daemon.usage()?;
    report.note_loaded(usage);
    let first_changes = shop::changes(source).await?.events();
    report.stages.push(Stage::new(
        "live, until the kill",
        first_changes,
        began.elapsed(),
        usage.cpu_seconds - snapshot_usage.cpu_seconds,
    ));
    progress.done(&format!("{} changes committed", count(first_changes)));

    progress.step("kill -9 of the daemon while the writers go on");
    daemon.kill_now();
    while writers.totals().committed < TRANSACTIONS[0] + TRANSACTIONS[1] {
        progress.detail(&format!(
            "{} transactions committed",
            count(writers.totals().committed)
        ));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let missed = shop::changes(source).await?.events() - first_changes;
    progress.done(&format!("{} changes while it was away", count(missed)));

    progress.step("started again: catching up under load");
    let began = Instant::now();
    let mut daemon = Daemon::start(&stand.options)?;
    write_until(progress, &writers, &mut daemon, target, TRANSACTIONS.iter().sum()).await?;
    let totals = writers.finish().await?;
    let comparison = with_log(&daemon, settle(source, target, &mut arrivals).await)?;
    report.comparison = Some(comparison.clone());
    let changes = shop::changes(source).await?;
    let usage = daemon.usage()?;
    report.note_loaded(usage);
    report.stages.push(Stage::new(
        "live, with the catching up",
        changes.events() - first_changes,
        began.elapsed(),
        usage.cpu_seconds,
    ));
    with_log(&daemon, comparison.into_result())?;
    progress.done(&format!(
        "{} transactions, {} rolled back; both databases are equal",
        count(totals.committed),
        count(totals.rolled_back)
    ));

    progress.step("counting the file's lines");
    let expected = rows + changes.records_with_tombstones();
    report.lines = Some((expected, lines.reach(expected, QUIET).await?));
    report.changes = Some(changes);

    // Only here, after all has come to rest, do the newest commits say how late they arrived.
    let (mut one, mut other) = (source.connect(DATABASE).await?, target.connect(DATABASE).await?);
    report.latencies = Latencies::read(&mut one, &mut other, "shop.payments", "id", since, until).await?;
    report.note_idle(daemon.usage()?);
    stop_and_balance(&mut daemon, report).await?;
    let found = lines.now()?;
    report.lines = Some((expected, found));
    if found != expected {
        return Err(Error::Different(format!(
            "the file has {found} lines where {expected} records were made"
        )));
    }
    progress.done(&format!(
        "{} lines, as expected; the ledgers balance",
        count(found)
    ));
    Daemon::start(&stand.options)
}

async fn stop_and_balance(daemon: &mut Daemon, report: &mut Report) -> Result<()> {
    daemon.stop().await?;
    report.ledgers = daemon.ledgers();
    let unbalanced = report
        .ledgers
        .iter()
        .find(|(_, ledger)| !ledger.balances() || ledger.in_flight > 0);
    match unbalanced {
        Some(((connector, task), ledger)) => Err(Error::Different(format!(
            "after an orderly stop the ledger of {connector}-{task} does not balance: {ledger:?}"
        ))),
        None if report.ledgers.is_empty() => Err(Error::Different("the daemon logged no ledger".to_owned())),
        None => Ok(()),
    }
}

/// Lets the writers write until they have committed so many transactions.
async fn write_until(
    progress: &mut Progress,
    writers: &Writers,
    daemon: &mut Daemon,
    target: &Postgres,
    transactions: u64,
) -> Result<()> {
    while writers.totals().committed < transactions {
        let there = shop::rows(target).await?;
        progress.detail(&format!(
            "{} of {} transactions, {} rows in the mirror",
            count(writers.totals().committed),
            count(transactions),
            count(there)
        ));
        if !daemon.is_alive() {
            return Err(Error::Child {
                what: "the daemon ended".to_owned(),
                output: daemon.log_tail(),
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn wait_alive(daemon: &mut Daemon, arrivals: &mut Arrivals) -> Result<()> {
    let arrived = arrivals.next(QUIET).await?;
    if arrived && daemon.is_alive() {
        return Ok(());
    }
    let what = if arrived {
        "the daemon ended"
    } else {
        "nothing arrives in the mirror any more"
    };
    Err(Error::Child {
        what: what.to_owned(),
        output: daemon.log_tail(),
    })
}

/// Adds the daemon's last words to a failure.
fn with_log<T>(daemon: &Daemon, result: Result<T>) -> Result<T> {
    result.map_err(|error| Error::Child {
        what: error.to_string(),
        output: daemon.log_tail(),
    })
}

/// The file the shop's changes are written to.
pub fn lines_path(work: &WorkDir) -> std::path::PathBuf {
    work.join(Path::new("out/shop.jsonl"))
}
