//! The harness of the other tests: a server starts, restarts on its port, and is gone afterwards.

mod support;

#[tokio::test]
async fn a_server_starts_and_restarts() {
    let postgres = support::Postgres::start();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int); INSERT INTO t VALUES (7)")
        .await;
    postgres.stop("fast");
    postgres.start_again();
    assert_eq!(
        postgres.value(&database, "SELECT id FROM t").await.as_deref(),
        Some("7")
    );
    let wal_level = postgres.value(&database, "current_setting('wal_level')").await;
    assert_eq!(wal_level.as_deref(), Some("logical"));
}
