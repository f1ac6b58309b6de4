//! What people and machines get wrong: each fault is told with what to do about it, the daemon lives, a pipeline beside it goes on, and
//! once the cause is removed everything arrives.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;
use tidewater_tests::Result;
use tidewater_tests::built::Built;
use tidewater_tests::bystander::Bystander;
use tidewater_tests::child::Child;
use tidewater_tests::connector_file::ConnectorFile;
use tidewater_tests::daemon::{Daemon, DaemonOptions, PATIENCE};
use tidewater_tests::lines::LineCount;
use tidewater_tests::postgres::{Postgres, PostgresOptions};
use tidewater_tests::settle::QUIET;
use tidewater_tests::shop::DATABASE;
use tidewater_tests::work_dir::WorkDir;

/// A source with one small table, a file it should arrive in, and the bystander.
struct Case {
    source: Postgres,
    options: DaemonOptions,
    bystander: Bystander,
    output: LineCount,
    work: WorkDir,
}

impl Case {
    async fn set_up(settings: &[(&str, &str)]) -> Result<Self> {
        let work = WorkDir::new()?;
        let options = PostgresOptions {
            settings: settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..PostgresOptions::default()
        };
        let source = Postgres::start(&work, "source", options).await?;
        source.execute("postgres", "CREATE DATABASE shop").await?;
        let table = "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, rev bigint);
                     INSERT INTO shop.orders SELECT i, 0 FROM generate_series(1, 100) i";
        source.execute(DATABASE, table).await?;
        let mut options = DaemonOptions::new(work.join("data"));
        let bystander = Bystander::join(&work, &mut options)?;
        work.folder("out")?;
        let output = LineCount::watch(&work.join("out/shop.jsonl"))?;
        let lines = ConnectorFile::shop_lines(&work.join("out/shop.jsonl"));
        options.connectors.push(lines.write(&work)?);
        Ok(Self {
            source,
            options,
            bystander,
            output,
            work,
        })
    }

    fn add(&mut self, file: &ConnectorFile) -> Result<()> {
        self.options.connectors.push(file.write(&self.work)?);
        Ok(())
    }

    /// Starts the daemon and waits until the fault is told, with all these words and without the password.
    async fn told(&mut self, words: &[&str]) -> Result<Daemon> {
        let mut daemon = Daemon::start(&self.options)?;
        daemon.wait_for_trouble(0, words).await?;
        self.bystander.still_flows(&mut daemon).await?;
        for line in daemon.log() {
            assert!(
                !line.contains("p'w") && !line.contains("%41@"),
                "a secret in the log: {line}"
            );
        }
        Ok(daemon)
    }

    /// The cause has been removed: all rows arrive by themselves, and live ones after them.
    async fn healed(mut self, mut daemon: Daemon, expected: u64) -> Result<()> {
        let found = self.output.reach(expected, QUIET).await?;
        assert_eq!(
            found,
            expected,
            "rows after the cause was removed\n{}",
            daemon.log_tail()
        );
        self.source
            .execute(DATABASE, "INSERT INTO shop.orders VALUES (1000, 1)")
            .await?;
        let found = self.output.reach(expected + 1, QUIET).await?;
        assert_eq!(found, expected + 1, "a row inserted later\n{}", daemon.log_tail());
        self.bystander.still_flows(&mut daemon).await?;
        daemon.stop().await
    }
}

#[tokio::test]
async fn a_wrong_password() -> Result<()> {
    let mut case = Case::set_up(&[]).await?;
    case.add(&ConnectorFile::shop_source(&case.source).with("database.password", "wr0ng-s3cret"))?;
    let daemon = case.told(&["shop-source", "password"]).await?;
    assert!(
        !daemon.log().join("\n").contains("wr0ng-s3cret"),
        "a secret in the log"
    );
    case.source
        .execute("postgres", "ALTER ROLE tidewater PASSWORD 'wr0ng-s3cret'")
        .await?;
    let found = case.output.reach(100, QUIET).await?;
    assert_eq!(
        found,
        100,
        "rows after the cause was removed\n{}",
        daemon.log_tail()
    );
    let mut daemon = daemon;
    case.bystander.still_flows(&mut daemon).await?;
    daemon.stop().await
}

#[tokio::test]
async fn a_missing_table_in_the_source() -> Result<()> {
    let mut case = Case::set_up(&[]).await?;
    let include = "shop\\.orders,shop\\.no_such_table";
    case.add(&ConnectorFile::shop_source(&case.source).with("table.include.list", include))?;
    let daemon = case.told(&["shop-source", "no_such_table"]).await?;
    case.source
        .execute(DATABASE, "CREATE TABLE shop.no_such_table (id int PRIMARY KEY)")
        .await?;
    case.healed(daemon, 100).await
}

#[tokio::test]
async fn a_missing_table_in_the_target() -> Result<()> {
    let mut case = Case::set_up(&[]).await?;
    case.source.execute("postgres", "CREATE DATABASE mirror").await?;
    let url = format!("jdbc:postgresql://127.0.0.1:{}/mirror", case.source.port());
    case.add(&ConnectorFile::shop_source(&case.source))?;
    case.add(
        &ConnectorFile::shop_mirror(&case.source)
            .with("connection.url", url)
            .with("auto.create", false),
    )?;
    let daemon = case.told(&["shop-mirror", "orders", "auto.create"]).await?;
    let table = "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, rev bigint)";
    let mut arrivals = tidewater_tests::arrivals::Arrivals::watch(&case.source, "mirror").await?;
    case.source.execute("mirror", table).await?;
    let count = "SELECT count(*) FROM shop.orders";
    while case.source.value("mirror", count).await?.as_deref() != Some("100") {
        assert!(
            arrivals.next(QUIET).await?,
            "rows do not arrive\n{}",
            daemon.log_tail()
        );
    }
    case.healed(daemon, 100).await
}

#[tokio::test]
async fn wal_level_is_not_logical() -> Result<()> {
    let mut case = Case::set_up(&[("wal_level", "replica")]).await?;
    case.add(&ConnectorFile::shop_source(&case.source))?;
    let daemon = case.told(&["shop-source", "wal_level", "logical"]).await?;
    case.source.set("wal_level", "logical");
    case.source.stop().await?;
    case.source.start_again().await?;
    case.healed(daemon, 100).await
}

#[tokio::test]
async fn a_slot_in_use() -> Result<()> {
    let mut case = Case::set_up(&[]).await?;
    for statement in [
        "CREATE PUBLICATION tidewater_shop FOR TABLE shop.orders",
        "SELECT pg_create_logical_replication_slot('tidewater_shop', 'pgoutput')",
    ] {
        case.source.execute(DATABASE, statement).await?;
    }
    let mut command = case.source.client("pg_recvlogical", DATABASE);
    command.args([
        "--dbname",
        DATABASE,
        "--slot",
        "tidewater_shop",
        "--start",
        "-f",
        "/dev/null",
        "--verbose",
    ]);
    command.args(["-o", "proto_version=1", "-o", "publication_names=tidewater_shop"]);
    let mut holder = Child::spawn("pg_recvlogical", &command, None, Signal::INT)?;
    let streams = |line: &str| line.contains("streaming initiated").then_some(());
    holder
        .output()
        .wait_from(0, "pg_recvlogical to hold the slot", PATIENCE, streams)
        .await?;

    case.add(&ConnectorFile::shop_source(&case.source))?;
    let daemon = case.told(&["shop-source", "tidewater_shop", "slot"]).await?;
    holder.signal(Signal::INT);
    holder.ended(PATIENCE).await?;
    case.healed(daemon, 100).await
}

#[tokio::test]
async fn an_unreadable_file() -> Result<()> {
    let mut case = Case::set_up(&[]).await?;
    let secret = case.work.write("locked/app.log", "one\ntwo\n")?;
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).expect("the file is locked");
    let copy = case.work.join("out/copy.log");
    case.options.respects_permissions = true;
    let source = ConnectorFile::new("locked-source", "file-source")
        .with("file", secret.display())
        .with("topic", "locked")
        .with("value.converter", "string");
    let sink = ConnectorFile::new("locked-sink", "file-sink")
        .with("file", copy.display())
        .with("topics", "locked")
        .with("value.converter", "string");
    case.add(&source)?;
    case.add(&sink)?;
    let path = secret.display().to_string();
    let mut daemon = case.told(&["locked-source", &path, "permission"]).await?;
    let mut copied = LineCount::watch(&copy)?;
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).expect("the file is unlocked");
    assert_eq!(copied.reach(2, QUIET).await?, 2, "{}", daemon.log_tail());
    daemon.stop().await
}

/// All faults of a file are told at once, with the nearest right name; nothing of it runs, everything else does.
#[tokio::test]
async fn three_mistakes_in_one_file() -> Result<()> {
    let mut case = Case::set_up(&[]).await?;
    let wrong = ConnectorFile::shop_source(&case.source)
        .without("table.include.list")
        .with("table.inclde.list", "shop\\..*")
        .with("database.port", "fivefourthreetwo")
        .with("snapshot.mode", "sometimes");
    case.add(&wrong)?;
    let mut daemon = Daemon::start(&case.options)?;
    for words in [
        ["table.inclde.list", "table.include.list"],
        ["database.port", "fivefourthreetwo"],
        ["snapshot.mode", "initial_only"],
    ] {
        daemon.wait_for_trouble(0, &words).await?;
    }
    case.bystander.still_flows(&mut daemon).await?;
    daemon.stop().await?;

    let path = wrong.write(&case.work)?;
    let output = Command::new(Built::find()?.daemon())
        .arg("validate")
        .arg(&path)
        .output();
    let output = output.expect("the daemon's program runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let file = path.display().to_string();
    for word in [
        "table.inclde.list",
        "table.include.list",
        "database.port",
        "snapshot.mode",
        "sometimes",
        &file,
    ] {
        assert!(said.contains(word), "validate says nothing of {word}: {said}");
    }
    assert!(!said.contains("p'w"), "a secret is shown: {said}");
    Ok(())
}

/// Text named like a library, a library that is no plugin, and a plugin cut short lie beside the real ones.
#[tokio::test]
async fn libraries_that_are_no_plugins() -> Result<()> {
    let mut case = Case::set_up(&[]).await?;
    let built = Built::find()?;
    let plugins = case.work.folder("plugins")?;
    for name in ["file", "postgres"] {
        let library = built.library(name);
        fs::copy(&library, plugins.join(library.file_name().unwrap_or_default()))
            .expect("a library is copied");
    }
    let whole = fs::read(built.library("file")).expect("a library is read");
    fs::write(plugins.join("libcut.so"), &whole[..whole.len() / 3]).expect("half a library is written");
    fs::write(plugins.join("libtext.so"), "this is no library\n").expect("text is written");
    let foreign = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/aarch64-linux-gnu/libc.so.6",
        "/lib64/libc.so.6",
    ];
    let foreign = foreign
        .iter()
        .find(|path| fs::metadata(path).is_ok())
        .expect("this machine has a C library");
    // Passed over in silence, unless its name claims to be a plugin or it is named itself.
    fs::copy(foreign, plugins.join("libtidewater_claims.so")).expect("a library is copied");
    let named = case.work.join("libnamed.so");
    fs::copy(foreign, &named).expect("a library is copied");
    case.options.plugin_path = vec![plugins, named];
    case.add(&ConnectorFile::shop_source(&case.source))?;
    let daemon = case.told(&["libtext.so"]).await?;
    for words in [
        ["libcut.so", "cut short"],
        ["libtidewater_claims.so", "no tidewater plugin"],
        ["libnamed.so", "no tidewater plugin"],
    ] {
        daemon.wait_for_trouble(0, &words).await?;
    }
    case.healed(daemon, 100).await
}
