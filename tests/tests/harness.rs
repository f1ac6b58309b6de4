//! The harness itself: a comparison that could not find a difference would prove nothing.

use std::time::Duration;

use tidewater_tests::compare::{Difference, Table, compare};
use tidewater_tests::postgres::{Postgres, PostgresOptions};
use tidewater_tests::shop::{self, WriterOptions, Writers};
use tidewater_tests::small_disk::SmallDisk;
use tidewater_tests::work_dir::WorkDir;

#[tokio::test]
async fn each_kind_of_difference_is_found_and_shown() -> tidewater_tests::Result<()> {
    let work = WorkDir::new()?;
    let server = Postgres::start(&work, "server", PostgresOptions::default()).await?;
    server.execute("postgres", "CREATE DATABASE one").await?;
    server.execute("postgres", "CREATE DATABASE two").await?;
    let rows = "CREATE SCHEMA s; CREATE TABLE s.t (id text, n int, v text, PRIMARY KEY (id, n));
                INSERT INTO s.t SELECT chr(9 + i), i, 'v' || i FROM generate_series(1, 200) i; CREATE TABLE s.u (id int PRIMARY KEY)";
    server.execute("one", rows).await?;
    server.execute("two", rows).await?;
    let (mut one, mut two) = (server.connect("one").await?, server.connect("two").await?);
    let tables = Table::all_in(&mut one, "s").await?;
    assert_eq!(
        tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(),
        ["t", "u"]
    );
    let equal = compare(&mut one, &mut two, &tables).await?;
    assert!(equal.is_equal(), "{equal}");
    assert_eq!(equal.rows(), 200);

    server
        .execute(
            "two",
            "DELETE FROM s.t WHERE n = 3; INSERT INTO s.t VALUES ('new', 1); UPDATE s.t SET v = NULL WHERE n = 57;
             UPDATE s.t SET v = '' WHERE n = 58; DROP TABLE s.u",
        )
        .await?;
    let different = compare(&mut one, &mut two, &tables).await?;
    assert_eq!(different.tables[0].different, 4);
    assert!(
        different.tables[0]
            .first
            .contains(&Difference::Missing("\u{c}, 3".to_owned())),
        "{different}"
    );
    assert!(
        different.tables[0]
            .first
            .contains(&Difference::Extra("new, 1".to_owned())),
        "{different}"
    );
    let changed = Difference::Changed(
        "B, 57".to_owned(),
        vec![("v".to_owned(), Some("v57".to_owned()), None)],
    );
    assert!(different.tables[0].first.contains(&changed), "{different}");
    assert!(different.tables[1].unreadable.is_some());
    assert!(different.into_result().is_err());
    Ok(())
}

#[tokio::test]
async fn the_audit_counts_what_committed_and_nothing_else() -> tidewater_tests::Result<()> {
    let work = WorkDir::new()?;
    let server = Postgres::start(&work, "server", PostgresOptions::default()).await?;
    shop::load(&server, 0.05).await?;
    let before = shop::rows(&server).await?;
    let writers = Writers::start(
        &server,
        &WriterOptions {
            max_bulk_rows: 200,
            ..WriterOptions::default()
        },
    )
    .await?;
    while writers.totals().committed < 400 || writers.totals().rolled_back < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let totals = writers.finish().await?;
    let changes = shop::changes(&server).await?;
    assert!(
        changes.creates > 400 && changes.updates > 50 && changes.deletes > 10,
        "{changes:?} {totals:?}"
    );
    let after = shop::rows(&server).await?;
    assert_eq!(after + changes.deletes, before + changes.creates, "{changes:?}");
    Ok(())
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_what_was_committed() -> tidewater_tests::Result<()> {
    let work = WorkDir::new()?;
    let mut server = Postgres::start(&work, "server", PostgresOptions::default()).await?;
    let port = server.port();
    server
        .execute("postgres", "CREATE TABLE t AS SELECT 1 AS one")
        .await?;
    server.kill_now().await?;
    assert!(server.connect("postgres").await.is_err());
    server.start_again().await?;
    assert_eq!(server.port(), port);
    assert_eq!(
        server.value("postgres", "SELECT one FROM t").await?.as_deref(),
        Some("1")
    );
    server.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_small_disk_is_full_after_its_size_and_can_grow() -> tidewater_tests::Result<()> {
    let work = WorkDir::new()?;
    let disk = SmallDisk::mount(work.join("small"), "1m").await?;
    let file = disk.path().join("file");
    let full = std::fs::write(&file, vec![0; 2 << 20]).expect_err("two megabytes do not fit into one");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    disk.resize("4m")?;
    std::fs::write(&file, vec![0; 2 << 20]).expect("two megabytes fit into four");
    Ok(())
}
