//! The files in `configs/`, unchanged, as the demo and the README use them.

use std::fs::{self, OpenOptions};
use std::io::Write;

use tidewater_tests::Result;
use tidewater_tests::arrivals::Arrivals;
use tidewater_tests::built::{Built, repository};
use tidewater_tests::daemon::{Daemon, DaemonOptions};
use tidewater_tests::lines::LineCount;
use tidewater_tests::postgres::{Postgres, PostgresOptions, SUPERUSER};
use tidewater_tests::settle::{QUIET, settle};
use tidewater_tests::shop::{self, DATABASE};
use tidewater_tests::stand::check_ledgers;
use tidewater_tests::work_dir::WorkDir;

#[tokio::test]
async fn every_sample_file_runs() -> Result<()> {
    let work = WorkDir::new()?;
    let source = Postgres::start(&work, "source", PostgresOptions::default()).await?;
    let target = Postgres::start(&work, "target", PostgresOptions::default()).await?;
    shop::load(&source, 0.02).await?;
    shop::prepare_mirror(&target).await?;
    let mut arrivals = Arrivals::watch(&target, DATABASE).await?;
    work.folder("out")?;
    let access_log = work.write("access.log", "GET / 200\n")?;
    let configs = repository().join("configs");
    let mut options = DaemonOptions::new(work.join("data"))
        .connector(configs.join("connectors"))
        .env("SHOP_SOURCE_PORT", source.port())
        .env("SHOP_SOURCE_USER", SUPERUSER)
        .env("SHOP_SOURCE_PASSWORD", source.password())
        .env("SHOP_TARGET_PORT", target.port())
        .env("SHOP_TARGET_USER", SUPERUSER)
        .env("SHOP_TARGET_PASSWORD", target.password())
        .env("SHOP_FILE", work.join("out/shop.jsonl").display())
        .env("ACCESS_LOG", access_log.display())
        .env("ACCESS_LOG_COPY", work.join("out/access.log").display());
    options.config = Some(configs.join("tidewater.toml"));

    let mut shop_lines = LineCount::watch(&work.join("out/shop.jsonl"))?;
    let mut access_lines = LineCount::watch(&work.join("out/access.log"))?;
    let mut daemon = Daemon::start(&options)?;
    let log = |daemon: &Daemon| daemon.log_tail();
    settle(&source, &target, &mut arrivals).await?.into_result()?;
    let rows = shop::rows(&source).await?;
    assert_eq!(shop_lines.reach(rows, QUIET).await?, rows, "{}", log(&daemon));
    let mut file = OpenOptions::new()
        .append(true)
        .open(&access_log)
        .expect("the access log opens");
    writeln!(file, "GET /health 200\nGET /shop 200").expect("the access log takes a line");
    assert_eq!(access_lines.reach(2, QUIET).await?, 2, "{}", log(&daemon));
    daemon.stop().await?;

    // Each file there is one of the connectors that ran.
    let files = fs::read_dir(configs.join("connectors")).expect("the samples are there");
    let names: Vec<String> = files
        .map(|file| file.expect("a sample is there").path())
        .map(|path| {
            path.file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert!(names.len() >= 5, "{names:?}");
    check_ledgers(&daemon, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(())
}

/// `tidewater validate` finds no fault in them.
#[test]
fn every_sample_file_is_valid() -> Result<()> {
    let mut command = std::process::Command::new(Built::find()?.daemon());
    command
        .arg("validate")
        .arg(repository().join("configs/connectors"));
    for name in [
        "SHOP_SOURCE_PORT",
        "SHOP_SOURCE_USER",
        "SHOP_SOURCE_PASSWORD",
        "SHOP_TARGET_PORT",
        "SHOP_TARGET_USER",
        "SHOP_TARGET_PASSWORD",
        "SHOP_FILE",
        "ACCESS_LOG",
        "ACCESS_LOG_COPY",
    ] {
        command.env(
            name,
            if name.ends_with("PORT") {
                "5432"
            } else {
                "/tmp/some-value"
            },
        );
    }
    let output = command.output().expect("the daemon's program runs");
    assert!(output.status.success(), "{output:?}");
    Ok(())
}
