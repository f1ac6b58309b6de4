//! postgres-source: the hand-over from snapshot to stream, restarts, and what the slot is told.
#![allow(clippy::unwrap_used)] // a failure is the message

mod source_driver;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use source_driver::{Driver, Record, offset};
use support::Postgres;
use tidewater_plugin_api::{SourcePosition, SourceTask};

fn confirmed(slot: &str, comparison: &str) -> String {
    format!("SELECT confirmed_flush_lsn {comparison} FROM pg_replication_slots WHERE slot_name = '{slot}'")
}

fn lsn(value: u64) -> String {
    format!("'{:X}/{:X}'::pg_lsn", value >> 32, value & 0xffff_ffff)
}

/// Which change a record is, unlike for any two changes.
fn identity(record: &Record) -> (u64, String, String) {
    let source = &record.value["source"];
    (
        source["lsn"].as_u64().unwrap(),
        record.op().to_owned(),
        record.key.to_string(),
    )
}

/// Rows by key after `records` have been applied; an insert of a key that is there, or a change of one that is not, fails.
fn apply(rows: &mut BTreeMap<i64, i64>, records: &[Record]) {
    for record in records {
        let (after, before) = (record.after(), record.before());
        match record.op() {
            "r" | "c" => {
                let old = rows.insert(after["id"].as_i64().unwrap(), after["v"].as_i64().unwrap());
                assert_eq!(old, None, "twice: {record:?}");
            }
            "u" => {
                let old = rows.insert(after["id"].as_i64().unwrap(), after["v"].as_i64().unwrap());
                assert!(old.is_some(), "lost before: {record:?}");
            }
            "d" => {
                let old = rows.remove(&before["id"].as_i64().unwrap());
                assert!(old.is_some(), "lost before: {record:?}");
            }
            _ => {}
        }
    }
}

async fn rows(postgres: &Postgres, database: &str) -> BTreeMap<i64, i64> {
    let sql = "SELECT coalesce(json_object_agg(id, v), '{}') FROM w";
    let json: BTreeMap<String, i64> =
        serde_json::from_str(&postgres.value(database, sql).await.unwrap()).unwrap();
    json.into_iter().map(|(id, v)| (id.parse().unwrap(), v)).collect()
}

#[tokio::test]
async fn writers_racing_the_snapshot_lose_and_double_nothing() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE w (id int PRIMARY KEY, v int NOT NULL); INSERT INTO w SELECT i, 0 FROM generate_series(1, 5000) i",
        )
        .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (postgres, database, stop) = (postgres.clone(), database.clone(), stop.clone());
            tokio::spawn(async move {
                let mut connection = postgres.connect(&database).await;
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) || round < 50 {
                    round += 1;
                    let (id, fresh) = (writer * 1000 + round % 900 + 1, 10_000 + writer * 100_000 + round);
                    for sql in [
                        format!("UPDATE w SET v = v + 1 WHERE id = {id}"),
                        format!(
                            "BEGIN; INSERT INTO w VALUES ({fresh}, 1); DELETE FROM w WHERE id = {}; COMMIT",
                            id + 1
                        ),
                        format!("BEGIN; DELETE FROM w WHERE id = {id}; ROLLBACK"),
                    ] {
                        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                            .execute(&mut connection)
                            .await
                            .unwrap();
                    }
                }
            })
        })
        .collect();
    let mut found = BTreeMap::new();
    let mut driver = Driver::start(&postgres, &database, &[("max.batch.size", "500")], None).await;
    apply(&mut found, &driver.snapshot().await);
    apply(&mut found, &driver.until(|records| records.len() > 300).await);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    postgres.execute(&database, "INSERT INTO w VALUES (-1, -1)").await;
    let last = driver
        .until(|records| records.iter().any(|record| record.after()["id"] == -1))
        .await;
    apply(&mut found, &last);
    assert_eq!(found, rows(&postgres, &database).await);
    driver.stop().await;
}

#[tokio::test]
async fn a_restart_within_a_transaction_goes_on_at_the_very_change() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE w (id int PRIMARY KEY, v int); CREATE TABLE x (id int)",
        )
        .await;
    let settings = [("max.batch.size", "100"), ("table.include.list", "public.w")];
    let mut driver = Driver::start(&postgres, &database, &settings, None).await;
    driver.snapshot().await;
    driver.commit().await;
    // Changes of other tables stand in between, and all come before a smaller transaction.
    postgres
        .execute(
            &database,
            "BEGIN; INSERT INTO w SELECT i, i FROM generate_series(1, 5000) i; INSERT INTO x SELECT generate_series(1, 100);
             UPDATE w SET v = -v; COMMIT; INSERT INTO w VALUES (0, 0)",
        )
        .await;
    let mut seen = BTreeSet::new();
    let mut total = 0;
    let mut lives = 0;
    while total < 10_001 {
        let before = total;
        for _ in 0..=lives % 7 {
            let batch = driver.poll().await.unwrap();
            assert!(batch.records.len() <= 100);
            total += batch.records.len();
            for record in &batch.records {
                assert!(seen.insert(identity(record)), "twice: {record:?}");
            }
            let position = driver.position.clone().unwrap();
            if let Some(changes) = offset(&position).get("tx_changes") {
                assert!(changes.as_u64().unwrap() >= total as u64);
            }
        }
        driver.commit().await;
        let position = driver.position.take();
        if lives % 2 == 0 {
            driver.stop().await;
        } else {
            drop(driver); // as if killed: the server may still hold the slot for a moment
        }
        driver = Driver::start(&postgres, &database, &settings, position).await;
        lives += 1;
        assert!(total > before || lives < 500, "no progress");
    }
    assert_eq!(total, 10_001);
    assert!(lives > 10);
    driver.stop().await;
}

#[tokio::test]
async fn the_slot_moves_only_for_what_was_committed() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let slot = format!("slot_{database}");
    postgres
        .execute(&database, "CREATE TABLE w (id int PRIMARY KEY, v int)")
        .await;
    let mut driver = Driver::start(&postgres, &database, &[("max.batch.size", "10")], None).await;
    driver.snapshot().await;
    driver.commit().await;
    postgres.execute(&database, "INSERT INTO w VALUES (1, 1)").await;
    let first = driver.take_records(1).await.remove(0);
    let change = lsn(first.value["source"]["lsn"].as_u64().unwrap());
    let end = lsn(offset(driver.position.as_ref().unwrap())["lsn_commit"]
        .as_u64()
        .unwrap());
    let uncommitted = driver.position.clone().unwrap();
    // Many status updates go by without a commit. They are counted by the server's own clock of replies.
    let replied = format!(
        "SELECT reply_time FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE slot_name = '{slot}'"
    );
    for _ in 0..3 {
        let before = postgres.value(&database, &replied).await.unwrap();
        while postgres.value(&database, &replied).await.unwrap() == before {
            driver.poll().await.unwrap();
        }
    }
    let passed = confirmed(&slot, &format!("> {change}"));
    assert_eq!(
        postgres.value(&database, &passed).await.as_deref(),
        Some("false"),
        "acknowledged before the commit"
    );
    driver.task.commit(&[uncommitted]).await.unwrap();
    driver
        .until_database(&postgres, &database, &confirmed(&slot, &format!(">= {end}")))
        .await;

    // Within a transaction: what is committed of it is not acknowledged.
    postgres
        .execute(
            &database,
            "INSERT INTO w SELECT i, i FROM generate_series(2, 101) i",
        )
        .await;
    let mut batch = driver.poll().await.unwrap();
    while batch.records.is_empty() {
        batch = driver.poll().await.unwrap();
    }
    let position = driver.position.clone().unwrap();
    assert!(offset(&position).contains_key("tx_changes"), "{position:?}");
    let inside = batch.records[0].value["source"]["lsn"].as_u64().unwrap();
    driver.commit().await;
    let safe = offset(&position)["lsn_commit"].as_u64().unwrap();
    assert!(safe <= inside);
    driver.stop().await;
    let beyond = confirmed(&slot, &format!("> {}", lsn(safe)));
    assert_eq!(postgres.value(&database, &beyond).await.as_deref(), Some("false"));
}

#[tokio::test]
async fn an_idle_source_lets_the_slot_move_on() {
    let postgres = Postgres::start();
    let database = postgres.database().await;
    let slot = format!("slot_{database}");
    postgres
        .execute(
            &database,
            "CREATE TABLE w (id int PRIMARY KEY, v int); CREATE TABLE busy (id int)",
        )
        .await;
    let settings = [
        ("table.include.list", "public.w"),
        ("publication.autocreate.mode", "filtered"),
    ];
    let mut driver = Driver::start(&postgres, &database, &settings, None).await;
    driver.snapshot().await;
    postgres
        .execute(&database, "INSERT INTO busy SELECT generate_series(1, 20000)")
        .await;
    let now = postgres.value(&database, "pg_current_wal_lsn()").await.unwrap();
    let records = driver
        .until_database(&postgres, &database, &confirmed(&slot, &format!(">= '{now}'")))
        .await;
    assert!(records.is_empty(), "{records:?}");
    // The stored position moved before the slot did: a restart loses nothing and finds no gap.
    let position = driver.position.take();
    driver.stop().await;
    postgres.execute(&database, "INSERT INTO w VALUES (1, 1)").await;
    let mut driver = Driver::start(&postgres, &database, &settings, position).await;
    assert_eq!(driver.take_records(1).await[0].after(), &json!({"id": 1, "v": 1}));
    driver.stop().await;
}

#[tokio::test]
async fn heartbeats_come_as_records_and_move_the_slot() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE w (id int PRIMARY KEY, v int)")
        .await;
    let mut driver = Driver::start(&postgres, &database, &[("heartbeat.interval.ms", "20")], None).await;
    driver.snapshot().await;
    let position = driver.position.clone().unwrap();
    let before = offset(&position)["lsn_commit"].as_u64().unwrap();
    let beats = driver.until(|records| records.len() >= 3).await;
    assert_eq!(beats[0].topic, "__debezium-heartbeat.t");
    assert_eq!(beats[0].key, json!({"serverName": "t"}));
    assert!(beats[0].value["ts_ms"].as_i64().unwrap() > 0);
    let moved = |driver: &Driver| {
        offset(driver.position.as_ref().unwrap())["lsn_commit"]
            .as_u64()
            .unwrap()
    };
    while moved(&driver) <= before {
        driver.poll().await.unwrap();
    }
    driver.stop().await;
}

#[tokio::test]
async fn a_snapshot_cut_short_begins_anew_and_keeps_the_deletes_since() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE w (id int PRIMARY KEY, v int); INSERT INTO w SELECT i, 0 FROM generate_series(1, 3000) i")
        .await;
    let settings = [("max.batch.size", "100")];
    let mut driver = Driver::start(&postgres, &database, &settings, None).await;
    let batch = driver.poll().await.unwrap();
    assert_eq!(batch.records[0].after()["id"], 1);
    let position = driver.position.clone();
    assert_eq!(offset(position.as_ref().unwrap())["snapshot_completed"], false);
    driver.commit().await;
    drop(driver);
    postgres
        .execute(
            &database,
            "DELETE FROM w WHERE id = 1; INSERT INTO w VALUES (4000, 1)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &settings, position).await;
    let read = driver.snapshot().await;
    assert_eq!(read.len(), 3000);
    assert!(
        read.iter()
            .all(|record| record.op() == "r" && record.after()["id"] != 1)
    );
    let changes = driver.take_records(3).await;
    let ops: Vec<&str> = changes.iter().map(Record::op).collect();
    assert_eq!(ops, ["d", "tombstone", "c"]);
    assert_eq!(changes[0].key, json!({"id": 1}));
    driver.stop().await;
}

#[tokio::test]
async fn snapshot_modes_decide_what_is_read() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE w (id int PRIMARY KEY, v int); INSERT INTO w VALUES (1, 1)",
        )
        .await;
    let start = async |mode: &str, slot: &str, position: Option<SourcePosition>| {
        Driver::start(
            &postgres,
            &database,
            &[("snapshot.mode", mode), ("slot.name", slot)],
            position,
        )
        .await
    };
    let mut none = start("no_data", "modes_none", None).await;
    let mut only = start("initial_only", "modes_only", None).await;
    let mut always = start("always", "modes_always", None).await;
    assert_eq!(only.snapshot().await.len(), 1);
    assert_eq!(always.snapshot().await.len(), 1);
    postgres.execute(&database, "INSERT INTO w VALUES (2, 2)").await;
    assert_eq!(none.take_records(1).await[0].after()["id"], 2);
    assert_eq!(always.take_records(1).await[0].op(), "c");
    // Once it is done, nothing more is read, now or after a restart, and there is no slot.
    assert!(only.poll().await.unwrap().records.is_empty());
    let position = only.position.clone();
    only.stop().await;
    let mut only = start("initial_only", "modes_only", position).await;
    assert!(only.poll().await.unwrap().records.is_empty());
    let slots = "count(*) FROM pg_replication_slots WHERE slot_name = 'modes_only'";
    assert_eq!(
        postgres
            .value(&database, &format!("SELECT {slots}"))
            .await
            .as_deref(),
        Some("0")
    );
    let position = always.position.clone();
    always.stop().await;
    let mut always = start("always", "modes_always", position).await;
    assert_eq!(always.snapshot().await.len(), 2);
    for driver in [none, only, always] {
        driver.stop().await;
    }
}

#[tokio::test]
async fn a_waiting_poll_may_be_dropped() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE w (id int PRIMARY KEY, v int); INSERT INTO w SELECT i, 0 FROM generate_series(1, 2000) i")
        .await;
    let mut driver = Driver::start(&postgres, &database, &[("max.batch.size", "64")], None).await;
    let mut seen = BTreeSet::new();
    let mut records: Vec<Record> = Vec::new();
    let mut batch = tidewater_plugin_api::FrameBuilder::new();
    let writer = {
        let (postgres, database) = (postgres.clone(), database.clone());
        tokio::spawn(async move {
            for round in 0..40 {
                let sql = format!(
                    "CREATE TABLE t{round} (id int PRIMARY KEY, v int); INSERT INTO t{round} VALUES (1, 1);
                                   INSERT INTO w SELECT i, {round} FROM generate_series({0}, {0} + 49) i",
                    10_000 + round * 50
                );
                postgres.execute(&database, &sql).await;
            }
        })
    };
    // Each poll may take a few steps of the scheduler only, then it is dropped; the batch stays.
    for budget in (0..12_u32).cycle() {
        let dropped = {
            let poll = driver.task.poll(&mut batch);
            tokio::pin!(poll);
            let steps = async {
                for _ in 0..budget {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                polled = &mut poll => { polled.unwrap(); false }
                () = steps => true,
            }
        };
        tokio::task::yield_now().await;
        if !dropped || batch.len() > 500 {
            records.extend(driver.take_from(&mut batch).records);
        }
        if records.len() >= 2000 + 40 * 51 {
            break;
        }
    }
    writer.await.unwrap();
    assert_eq!(records.len(), 2000 + 40 * 51);
    for record in &records {
        assert!(
            seen.insert((record.topic.clone(), record.key.to_string())),
            "twice: {record:?}"
        );
    }
    driver.stop().await;
}
