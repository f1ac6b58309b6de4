//! The main job: a snapshot taken under writes, then live changes, into a second database and a file.

use tidewater_tests::Result;
use tidewater_tests::books::Coverage;
use tidewater_tests::connector_file::ConnectorFile;
use tidewater_tests::shop::{self, DATABASE, WriterOptions, Writers};
use tidewater_tests::stand::{Stand, check_ledgers};

/// The hand-over from the snapshot to the stream is exact under racing writes, and every column type arrives as it was.
#[tokio::test]
async fn snapshot_under_writes_then_live_changes_arrive_in_both_sinks() -> Result<()> {
    let mut stand = Stand::set_up(0.25).await?;
    // What the connector reads must not depend on how the database presents values to its users.
    stand
        .source
        .execute(
            DATABASE,
            "ALTER DATABASE shop SET datestyle = 'SQL, DMY'; ALTER DATABASE shop SET intervalstyle = 'sql_standard';
             ALTER DATABASE shop SET extra_float_digits = -5; ALTER DATABASE shop SET bytea_output = 'escape'",
        )
        .await?;
    let options = WriterOptions {
        max_bulk_rows: 500,
        ..WriterOptions::default()
    };
    let writers = Writers::start(&stand.source, &options).await?;
    let mut daemon = stand.start()?;
    // Through the snapshot and on into the stream.
    let before = shop::rows(&stand.source).await?;
    while shop::rows(&stand.target).await? < before {
        assert!(
            stand.arrivals.next(tidewater_tests::settle::QUIET).await?,
            "nothing arrives\n{}",
            daemon.log_tail()
        );
    }
    let enough = writers.totals().committed + 300;
    while writers.totals().committed < enough {
        stand.arrivals.next(tidewater_tests::settle::QUIET).await?;
    }
    writers.finish().await?;
    let comparison = stand.equal(&daemon).await?;
    assert!(
        comparison.rows() > 25_000 && comparison.tables.len() == 6,
        "{comparison}"
    );

    daemon.stop().await?;
    let totals = stand.balance(Coverage::AfterSnapshot).await?;
    assert!(totals.snapshot > 20_000 && totals.changes > 300, "{totals:?}");
    let ledgers = check_ledgers(&daemon, &["shop-source", "shop-mirror", "shop-lines"])?;
    for (task, ledger) in &ledgers {
        assert_eq!(
            ledger.written + ledger.filtered,
            totals.records(),
            "{task:?} {ledger:?}"
        );
    }
    // Invariant 8: the password is full of characters that give splicing away.
    for line in daemon.log() {
        assert!(
            !line.contains("p'w") && !line.contains("%41@"),
            "a secret in the log: {line}"
        );
    }
    Ok(())
}

/// `auto.create` makes the tables of a database that has none.
#[tokio::test]
async fn tables_are_made_where_there_are_none() -> Result<()> {
    let mut stand = Stand::set_up(0.02).await?;
    stand
        .target
        .execute(DATABASE, "DROP SCHEMA shop CASCADE; CREATE SCHEMA shop")
        .await?;
    stand.options.connectors.clear();
    let tables = "shop\\.(customers|products|orders|order_items|payments)";
    for file in [
        ConnectorFile::shop_source(&stand.source).with("table.include.list", tables),
        ConnectorFile::shop_mirror(&stand.target),
    ] {
        stand.options.connectors.push(file.write(&stand.work)?);
    }
    stand
        .source
        .execute(
            DATABASE,
            // Blanks that pad and hstore have no column type that a schema of Connect's could name.
            "DROP TABLE shop.every_type; ALTER TABLE shop.payments ALTER card TYPE text; ALTER TABLE shop.products DROP attributes",
        )
        .await?;
    let mut daemon = stand.start()?;
    stand.equal(&daemon).await?;
    stand
        .source
        .execute(
            DATABASE,
            "UPDATE shop.orders SET comment = 'later', id = id + 5000000 WHERE id < 20;
             DELETE FROM shop.order_items WHERE order_id = 30",
        )
        .await?;
    let comparison = stand.equal(&daemon).await?;
    assert_eq!(comparison.tables.len(), 5);
    let keys = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
                 WHERE i.indisprimary AND c.relnamespace = 'shop'::regnamespace";
    assert_eq!(
        stand.target.value(DATABASE, keys).await?.as_deref(),
        Some("5"),
        "each table has its primary key"
    );
    daemon.stop().await
}
