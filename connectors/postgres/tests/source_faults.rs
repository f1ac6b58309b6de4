//! postgres-source: what can go wrong, one by one: each has its own message, which says what to do, and its right kind.
#![allow(clippy::unwrap_used)] // a failure is the message

mod source_driver;
mod support;

use serde_json::json;
use source_driver::{Driver, config};
use support::{PASSWORD, Postgres};
use tidewater_connector_postgres::source::PostgresSource;
use tidewater_plugin_api::{
    Config, ConfigProblem, Error, ErrorKind, SourceConnector, SourcePosition, SourceTask,
};

/// The error of a start, checked for what it must never hold.
async fn refusal(
    postgres: &Postgres,
    database: &str,
    settings: &[(&str, &str)],
    position: Option<SourcePosition>,
) -> Error {
    let started = Driver::try_start(config(postgres, database, settings), position).await;
    let error = started
        .err()
        .unwrap_or_else(|| panic!("it started with {settings:?}"));
    assert!(
        !error.message.contains(PASSWORD) && !error.message.contains("guessed"),
        "{error}"
    );
    error
}

#[track_caller]
fn check(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind, kind, "{error}");
    for part in parts {
        assert!(error.message.contains(part), "{part:?} is not in: {error}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_told_from_every_other() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let place = format!("127.0.0.1:{}", postgres.port());
    postgres
        .execute(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE plain LOGIN PASSWORD 'x'; CREATE ROLE repl LOGIN REPLICATION PASSWORD 'x'",
        )
        .await;
    let error = refusal(&postgres, &database, &[("database.password", "guessed")], None).await;
    check(&error, ErrorKind::Config, &["28P01", &place, "database.password"]);
    let error = refusal(&postgres, &database, &[("database.user", "nobody")], None).await;
    check(&error, ErrorKind::Config, &["28P01", "nobody"]);
    let error = refusal(&postgres, "no_such", &[], None).await;
    check(
        &error,
        ErrorKind::Config,
        &["3D000", "no_such", "database.dbname"],
    );
    let error = refusal(&postgres, &database, &[("database.port", "1")], None).await;
    check(&error, ErrorKind::Retriable, &["127.0.0.1:1", "is the server up"]);
    let error = refusal(&postgres, &database, &[("database.sslmode", "require")], None).await;
    check(&error, ErrorKind::Config, &["TLS", "database.sslmode"]);

    let plain = [("database.user", "plain"), ("database.password", "x")];
    let error = refusal(&postgres, &database, &plain, None).await;
    check(
        &error,
        ErrorKind::Config,
        &["plain", "ALTER ROLE \"plain\" REPLICATION"],
    );
    let repl = [("database.user", "repl"), ("database.password", "x")];
    let error = refusal(&postgres, &database, &repl, None).await;
    check(
        &error,
        ErrorKind::Config,
        &["42501", "publication.autocreate.mode"],
    );
    postgres
        .execute(&database, "CREATE PUBLICATION dbz_publication FOR ALL TABLES")
        .await;
    let error = refusal(&postgres, &database, &repl, None).await;
    check(&error, ErrorKind::Config, &["public.t", "GRANT SELECT"]);
}

#[tokio::test]
async fn tables_and_publications_that_are_not_there_are_named() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE customers (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY)",
        )
        .await;
    let error = refusal(
        &postgres,
        &database,
        &[("table.include.list", "public.orders,public.custmers")],
        None,
    )
    .await;
    check(
        &error,
        ErrorKind::Config,
        &["public.custmers", "nearest: public.customers"],
    );
    assert!(!error.message.contains("\"public.orders\""), "{error}");
    let error = refusal(
        &postgres,
        &database,
        &[("publication.autocreate.mode", "disabled")],
        None,
    )
    .await;
    check(
        &error,
        ErrorKind::Config,
        &["dbz_publication", "does not exist", "CREATE PUBLICATION"],
    );
    postgres
        .execute(&database, "CREATE PUBLICATION dbz_publication FOR TABLE orders")
        .await;
    let error = refusal(
        &postgres,
        &database,
        &[("table.include.list", "public.customers")],
        None,
    )
    .await;
    check(&error, ErrorKind::Config, &["publishes none", "public.customers"]);
    let filtered = [
        ("publication.autocreate.mode", "filtered"),
        ("schema.include.list", "nowhere"),
    ];
    let error = refusal(&postgres, &database, &filtered, None).await;
    check(&error, ErrorKind::Config, &["select none of the 2 tables"]);
    // What is wrong with the configuration itself comes all at once, and before the server is asked.
    let mut map = config(
        &postgres,
        &database,
        &[("table.include.list", "a("), ("skipped.operations", "x")],
    );
    map.insert("topic.prefix".into(), "shop/1".into());
    let config = Config::new(PostgresSource::spec().config, map).unwrap();
    let problems = PostgresSource::create().validate(&config).await;
    let keys: Vec<&str> = problems
        .iter()
        .map(|problem: &ConfigProblem| problem.key.as_str())
        .collect();
    assert_eq!(keys, ["table.include.list", "skipped.operations", "topic.prefix"]);
}

#[tokio::test]
async fn validation_asks_the_server_and_changes_nothing() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    let validate = async |settings: &[(&str, &str)]| {
        let config = Config::new(
            PostgresSource::spec().config,
            config(&postgres, &database, settings),
        )
        .unwrap();
        PostgresSource::create().validate(&config).await
    };
    assert_eq!(validate(&[]).await, []);
    let problems = validate(&[("table.include.list", "public.u")]).await;
    assert_eq!(problems[0].key, "table.include.list");
    let objects = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots
                   WHERE database = current_database())";
    assert_eq!(postgres.value(&database, objects).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn the_server_s_settings_are_checked() {
    let postgres = Postgres::start_with(&[("wal_level", "replica")]);
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
        )
        .await;
    let error = refusal(&postgres, &database, &[], None).await;
    check(
        &error,
        ErrorKind::Config,
        &["wal_level=replica", "ALTER SYSTEM SET wal_level"],
    );
    let mut driver = Driver::start(&postgres, &database, &[("snapshot.mode", "initial_only")], None).await;
    assert_eq!(driver.snapshot().await.len(), 1);
    driver.stop().await;
}

#[tokio::test]
async fn slots_and_senders_run_out() {
    let postgres = Postgres::start_with(&[("max_replication_slots", "1"), ("max_wal_senders", "1")]);
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    let mut first = Driver::start(&postgres, &database, &[], None).await;
    first.snapshot().await;
    postgres.execute(&database, "INSERT INTO t VALUES (1)").await;
    first.take_records(1).await;
    let error = refusal(&postgres, &database, &[("slot.name", "second")], None).await;
    check(&error, ErrorKind::Retriable, &["53300", "max_wal_senders"]);
    first.stop().await;
    // The session ends a moment after the task; its slot stays.
    while postgres
        .value(&database, "SELECT count(*) FROM pg_stat_replication")
        .await
        .as_deref()
        != Some("0")
    {}
    let error = refusal(&postgres, &database, &[("slot.name", "second")], None).await;
    check(
        &error,
        ErrorKind::Fatal,
        &["53400", "max_replication_slots", "second"],
    );
}

#[tokio::test]
async fn a_slot_in_use_is_tried_again_and_names_its_reader() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    let mut first = Driver::start(&postgres, &database, &[], None).await;
    first.snapshot().await;
    postgres.execute(&database, "INSERT INTO t VALUES (1)").await;
    first.take_records(1).await;
    let position = first.position.clone();
    let pid = postgres
        .value(
            &database,
            &format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'slot_{database}'"),
        )
        .await
        .unwrap();
    let error = refusal(&postgres, &database, &[], position.clone()).await;
    check(
        &error,
        ErrorKind::Retriable,
        &["55006", &format!("process {pid}"), "slot.name"],
    );
    first.stop().await;
    // Its session ends a moment later: that is waited for.
    let mut second = Driver::start(&postgres, &database, &[], position).await;
    postgres.execute(&database, "INSERT INTO t VALUES (2)").await;
    assert_eq!(second.take_records(1).await[0].after(), &json!({"id": 2}));
    second.stop().await;
}

#[tokio::test]
async fn a_slot_of_another_kind_is_refused() {
    let postgres = Postgres::shared();
    let (database, other) = (postgres.database().await, postgres.database().await);
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    postgres
        .execute(
            &other,
            "SELECT pg_create_logical_replication_slot('others_slot', 'pgoutput')",
        )
        .await;
    let error = refusal(&postgres, &database, &[("slot.name", "others_slot")], None).await;
    check(&error, ErrorKind::Config, &["others_slot", &other, "slot.name"]);
    postgres
        .execute(&other, "SELECT pg_drop_replication_slot('others_slot')")
        .await;
}

#[tokio::test]
async fn lost_changes_are_said_or_mended() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[("slot.drop.on.stop", "true")], None).await;
    driver.snapshot().await;
    postgres.execute(&database, "INSERT INTO t VALUES (2)").await;
    driver.take_records(1).await;
    let position = driver.position.clone();
    driver.stop().await;
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'slot_{database}'");
    assert_eq!(
        postgres.value(&database, &slots).await.as_deref(),
        Some("0"),
        "dropped on stop"
    );
    postgres.execute(&database, "INSERT INTO t VALUES (3)").await;
    let error = refusal(&postgres, &database, &[], position.clone()).await;
    check(
        &error,
        ErrorKind::Fatal,
        &["is missing", "snapshot.mode=when_needed"],
    );
    let mode = [("snapshot.mode", "when_needed")];
    let mut driver = Driver::start(&postgres, &database, &mode, position.clone()).await;
    assert_eq!(driver.snapshot().await.len(), 3);
    let position = driver.position.clone();
    driver.stop().await;
    // Somebody moves the slot on.
    let free = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'slot_{database}'");
    while postgres.value(&database, &free).await.as_deref() != Some("true") {}
    postgres.execute(&database, "INSERT INTO t VALUES (4)").await;
    let advance = format!("SELECT pg_replication_slot_advance('slot_{database}', pg_current_wal_lsn())");
    postgres.execute(&database, &advance).await;
    let error = refusal(&postgres, &database, &[], position.clone()).await;
    check(
        &error,
        ErrorKind::Fatal,
        &["moved on", "snapshot.mode=when_needed"],
    );
    let mut driver = Driver::start(&postgres, &database, &mode, position).await;
    assert_eq!(driver.snapshot().await.len(), 4);
    postgres.execute(&database, "INSERT INTO t VALUES (5)").await;
    assert_eq!(driver.take_records(1).await[0].after(), &json!({"id": 5}));
    driver.stop().await;
}

#[tokio::test]
async fn a_slot_the_server_invalidated_is_said_or_made_anew() {
    let postgres = Postgres::start_with(&[("max_slot_wal_keep_size", "1MB"), ("max_wal_size", "32MB")]);
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    driver.snapshot().await;
    let position = driver.position.clone();
    driver.stop().await;
    let status = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'slot_{database}'");
    while postgres.value(&database, &status).await.as_deref() != Some("lost") {
        postgres
            .execute(
                &database,
                "CREATE TABLE x AS SELECT repeat('x', 1000) FROM generate_series(1, 20000); DROP TABLE x",
            )
            .await;
        postgres.execute(&database, "SELECT pg_switch_wal()").await;
        postgres.execute(&database, "CHECKPOINT").await;
    }
    let error = refusal(&postgres, &database, &[], position.clone()).await;
    check(
        &error,
        ErrorKind::Fatal,
        &["invalidated", "max_slot_wal_keep_size", "when_needed"],
    );
    let mut driver = Driver::start(
        &postgres,
        &database,
        &[("snapshot.mode", "when_needed")],
        position,
    )
    .await;
    assert_eq!(driver.snapshot().await.len(), 1);
    postgres.execute(&database, "INSERT INTO t VALUES (2)").await;
    assert_eq!(driver.take_records(1).await[0].after(), &json!({"id": 2}));
    driver.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_server_is_survived() {
    // With fsync: an immediate stop is a crash. The timeout ends a stop in order, which waits for what was sent to be
    // acknowledged.
    let postgres = Postgres::start_with(&[("fsync", "on"), ("wal_sender_timeout", "2s")]);
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (0)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[("max.batch.size", "100")], None).await;
    driver.snapshot().await;
    let mut ids = Vec::new();
    for (round, mode) in ["fast", "immediate"].into_iter().enumerate() {
        let first = round * 1000 + 1;
        let insert = format!("INSERT INTO t SELECT generate_series({first}, {})", first + 299);
        postgres.execute(&database, &insert).await;
        // In the middle of a transaction, nothing of which has been committed.
        let batch = driver.until(|records| records.len() >= 100).await;
        ids.extend(batch.iter().map(|record| record.after()["id"].as_u64().unwrap()));
        postgres.stop(mode);
        let error = loop {
            match driver.poll().await {
                Ok(batch) => ids.extend(
                    batch
                        .records
                        .iter()
                        .map(|record| record.after()["id"].as_u64().unwrap()),
                ),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
        let error = driver.poll().await.unwrap_err();
        check(&error, ErrorKind::Retriable, &["127.0.0.1", "is the server up"]);
        ids.extend(
            driver
                .take()
                .records
                .iter()
                .map(|record| record.after()["id"].as_u64().unwrap()),
        );
        postgres.start_again();
        while ids.len() < (round + 1) * 300 {
            let batch = driver.poll().await.unwrap();
            ids.extend(
                batch
                    .records
                    .iter()
                    .map(|record| record.after()["id"].as_u64().unwrap()),
            );
        }
    }
    let expected: Vec<u64> = (1..=300).chain(1001..=1300).collect();
    assert_eq!(ids, expected, "each once and in order");
    driver.commit().await;
    driver.task.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_of_the_server_in_order_is_not_held_up() {
    // Without a timeout the server waits until it has heard that everything it sent is durable.
    let postgres = std::sync::Arc::new(Postgres::start_with(&[("wal_sender_timeout", "0")]));
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    let idle_for_long = [("status.update.interval.ms", "600000")];
    let mut driver = Driver::start(&postgres, &database, &idle_for_long, None).await;
    driver.snapshot().await;
    driver.commit().await;
    postgres.execute(&database, "INSERT INTO t VALUES (1)").await;
    driver.take_records(1).await;
    driver.commit().await;
    let stopping = {
        let postgres = postgres.clone();
        tokio::task::spawn_blocking(move || postgres.stop("fast"))
    };
    let error = loop {
        match driver.poll().await {
            Ok(_) => driver.commit().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
    stopping.await.unwrap();
}

/// Passes connections on to `port` until it is frozen; those made afterwards pass again.
struct Proxy {
    port: u16,
    frozen: tokio::sync::watch::Sender<bool>,
}

impl Proxy {
    async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (frozen, mut freeze) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                freeze.mark_unchanged();
                let mut freeze = freeze.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        // As when a network drops a connection without a word: both ends stay open.
                        _ = freeze.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { port: own, frozen }
    }
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_opened_again() {
    let postgres = Postgres::start_with(&[("wal_sender_timeout", "1s")]);
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    let proxy = Proxy::to(postgres.port()).await;
    let port = proxy.port.to_string();
    let mut driver = Driver::start(&postgres, &database, &[("database.port", &port)], None).await;
    driver.snapshot().await;
    postgres.execute(&database, "INSERT INTO t VALUES (1)").await;
    driver.take_records(1).await;
    proxy.frozen.send(true).unwrap();
    postgres.execute(&database, "INSERT INTO t VALUES (2)").await;
    let error = loop {
        match driver.poll().await {
            Ok(batch) => assert!(batch.records.is_empty(), "{batch:?}"),
            Err(error) => break error,
        }
    };
    check(&error, ErrorKind::Retriable, &["fell silent", "opened again"]);
    assert_eq!(driver.take_records(1).await[0].after(), &json!({"id": 2}));
    driver.stop().await;
}
