//! postgres-source: changes as they come, and their envelopes.
#![allow(clippy::unwrap_used)] // a failure is the message

mod source_driver;
mod support;

use serde_json::json;
use source_driver::{Driver, Record, offset};
use support::Postgres;
use tidewater_plugin_api::SourceTask;

#[tokio::test]
async fn inserts_updates_and_deletes_become_change_events() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, note text);
             INSERT INTO customers VALUES (1, 'Ann', NULL)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    let read = driver.snapshot().await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].topic, "t.public.customers");
    assert_eq!((read[0].op(), read[0].snapshot()), ("r", "last"));
    assert_eq!(read[0].key, json!({"id": 1}));
    assert_eq!(read[0].after(), &json!({"id": 1, "name": "Ann", "note": null}));

    postgres
        .execute(
            &database,
            "INSERT INTO customers VALUES (2, 'Bob', 'x');
             UPDATE customers SET name = 'Bea' WHERE id = 2;
             DELETE FROM customers WHERE id = 1;",
        )
        .await;
    let changes = driver.take_records(4).await;
    let ops: Vec<&str> = changes.iter().map(Record::op).collect();
    assert_eq!(ops, ["c", "u", "d", "tombstone"]);
    assert_eq!(changes[0].after(), &json!({"id": 2, "name": "Bob", "note": "x"}));
    assert_eq!(changes[1].before(), &json!(null));
    assert_eq!(changes[1].after(), &json!({"id": 2, "name": "Bea", "note": "x"}));
    assert_eq!(changes[2].before(), &json!({"id": 1, "name": null, "note": null}));
    assert_eq!(changes[2].after(), &json!(null));
    assert_eq!(
        (&changes[3].key, &changes[3].value),
        (&json!({"id": 1}), &json!(null))
    );

    let source = &changes[0].value["source"];
    assert_eq!(source["connector"], "postgresql");
    assert_eq!(source["name"], "t");
    assert_eq!(source["db"], json!(database));
    assert_eq!(
        (&source["schema"], &source["table"]),
        (&json!("public"), &json!("customers"))
    );
    assert_eq!(source["snapshot"], "false");
    assert_eq!(source["xmin"], json!(null));
    assert!(source["txId"].as_i64().unwrap() > 0);
    let sequence: Vec<String> = serde_json::from_str(source["sequence"].as_str().unwrap()).unwrap();
    assert_eq!(sequence[1], source["lsn"].to_string());
    assert!(sequence[0].parse::<u64>().unwrap() <= source["lsn"].as_u64().unwrap());
    assert_eq!(
        source["ts_us"].as_i64().unwrap() / 1000,
        source["ts_ms"].as_i64().unwrap()
    );
    let age = changes[0].value["ts_ms"].as_i64().unwrap() - source["ts_ms"].as_i64().unwrap();
    assert!((0..60_000).contains(&age), "{age}");
    let fields: Vec<&str> = changes[0]
        .value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        fields,
        [
            "before",
            "after",
            "source",
            "transaction",
            "op",
            "ts_ms",
            "ts_us",
            "ts_ns"
        ]
    );
    assert_eq!(changes[0].value_schema["name"], "t.public.customers.Envelope");
    assert_eq!(changes[0].key_schema["name"], "t.public.customers.Key");
    assert_eq!(changes[0].field_schema("name")["optional"], false);
    assert_eq!(changes[0].field_schema("note")["optional"], true);
    let position = driver.position.clone().unwrap();
    assert!(offset(&position)["lsn_commit"].as_u64().unwrap() > source["lsn"].as_u64().unwrap());
    driver.stop().await;
}

fn ops(records: &[Record]) -> Vec<&str> {
    records.iter().map(Record::op).collect()
}

#[tokio::test]
async fn a_key_change_is_a_delete_and_an_insert() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE k (a int, b text, v int, PRIMARY KEY (b, a)); INSERT INTO k VALUES (1, 'x', 5);
             CREATE TABLE f (id int PRIMARY KEY, v int); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f VALUES (1, 5)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    driver.snapshot().await;
    postgres
        .execute(
            &database,
            "UPDATE k SET a = 2, v = 6; UPDATE f SET id = 2, v = 6; UPDATE f SET v = 7",
        )
        .await;
    let changes = driver.take_records(7).await;
    assert_eq!(ops(&changes), ["d", "tombstone", "c", "d", "tombstone", "c", "u"]);
    let (old, new) = (json!({"b": "x", "a": 1}), json!({"b": "x", "a": 2}));
    assert_eq!(
        [&changes[0].key, &changes[1].key, &changes[2].key],
        [&old, &old, &new]
    );
    assert_eq!(changes[0].before(), &json!({"a": 1, "b": "x", "v": null}));
    assert_eq!(changes[0].header("__debezium.newkey"), Some(&new));
    assert_eq!(changes[2].header("__debezium.oldkey"), Some(&old));
    assert_eq!(changes[2].after(), &json!({"a": 2, "b": "x", "v": 6}));
    assert_eq!(
        changes[3].before(),
        &json!({"id": 1, "v": 5}),
        "REPLICA IDENTITY FULL tells the whole old row"
    );
    assert_eq!(
        (changes[6].before(), changes[6].after()),
        (&json!({"id": 2, "v": 6}), &json!({"id": 2, "v": 7}))
    );
    driver.stop().await;
}

#[tokio::test]
async fn unchanged_large_values_keep_their_place() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    // Incompressible, so that it is stored out of line.
    let large = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)";
    let columns = "id int PRIMARY KEY, v int, t text NOT NULL, b bytea, ta text[], ia int[], j jsonb";
    let row = format!(
        "1, 1, {large}, {large}::bytea, ARRAY[{large}], array(SELECT generate_series(1, 9999)), to_jsonb({large})"
    );
    postgres
        .execute(
            &database,
            &format!(
                "CREATE TABLE k ({columns}); CREATE TABLE f ({columns}); ALTER TABLE f REPLICA IDENTITY FULL;
                 ALTER TABLE k ALTER COLUMN ia SET STORAGE EXTERNAL; ALTER TABLE f ALTER COLUMN ia SET STORAGE EXTERNAL;
                 INSERT INTO k VALUES ({row}); INSERT INTO f VALUES ({row})"
            ),
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    let read = driver.snapshot().await;
    postgres
        .execute(&database, "UPDATE k SET v = 2; UPDATE f SET v = 2")
        .await;
    let changes = driver.take_records(2).await;
    let placeholder = "__debezium_unavailable_value";
    let default = &changes[0];
    assert_eq!(default.after()["v"], 2);
    assert_eq!(default.after()["t"], placeholder);
    assert_eq!(default.after()["j"], placeholder);
    assert_eq!(default.after()["b"], "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==");
    assert_eq!(default.after()["ta"], json!([placeholder]));
    assert_eq!(default.after()["ia"], json!(null));
    assert_eq!(default.header("__unavailable.columns"), Some(&json!(["ia"])));
    // REPLICA IDENTITY FULL has the values in the old row.
    let mut expected = read
        .iter()
        .find(|record| record.topic == "t.public.f")
        .unwrap()
        .after()
        .clone();
    expected["v"] = json!(2);
    assert!(changes[1].after() == &expected, "not the old row's values");
    assert!(changes[1].headers.is_empty());
    driver.stop().await;
}

#[tokio::test]
async fn truncates_are_skipped_unless_wanted() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)",
        )
        .await;
    let mut wanted = Driver::start(
        &postgres,
        &database,
        &[("skipped.operations", "none"), ("slot.name", "truncates")],
        None,
    )
    .await;
    let mut skipping = Driver::start(&postgres, &database, &[("tombstones.on.delete", "false")], None).await;
    wanted.snapshot().await;
    skipping.snapshot().await;
    postgres
        .execute(
            &database,
            "TRUNCATE a, b; INSERT INTO a VALUES (1); DELETE FROM a; INSERT INTO b VALUES (1)",
        )
        .await;
    let changes = wanted.take_records(6).await;
    assert_eq!(ops(&changes), ["t", "t", "c", "d", "tombstone", "c"]);
    let topics: Vec<&str> = changes[..2].iter().map(|record| record.topic.as_str()).collect();
    assert_eq!(topics, ["t.public.a", "t.public.b"]);
    assert_eq!(
        (&changes[0].key, changes[0].before(), changes[0].after()),
        (&json!(null), &json!(null), &json!(null))
    );
    assert_eq!(ops(&skipping.take_records(3).await), ["c", "d", "c"]);
    let skipped = skipping.task.metrics()["skipped_changes"];
    assert!((skipped - 2.0).abs() < 0.5, "{skipped}");
    wanted.stop().await;
    skipping.stop().await;
}

#[tokio::test]
async fn a_table_may_change_in_mid_stream() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY, a text, b int NOT NULL)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    driver.snapshot().await;
    // All before the first is read: the catalogs are then ahead of the stream.
    postgres
        .execute(
            &database,
            "INSERT INTO t VALUES (1, 'one', 1);
             ALTER TABLE t ADD COLUMN c text DEFAULT 'new';
             INSERT INTO t VALUES (2, NULL, 2);
             UPDATE t SET a = '' WHERE a IS NULL; ALTER TABLE t ALTER COLUMN a SET NOT NULL;
             ALTER TABLE t RENAME COLUMN a TO z; ALTER TABLE t RENAME COLUMN id TO key;
             INSERT INTO t VALUES (3, 'three', 3, 'c');
             ALTER TABLE t DROP COLUMN b; ALTER TABLE t ALTER COLUMN c DROP DEFAULT; ALTER TABLE t ALTER COLUMN c TYPE int USING length(c);
             INSERT INTO t VALUES (4, 'four', 44);
             DELETE FROM t WHERE key = 2;
             CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (9);
             DROP TABLE t;",
        )
        .await;
    let changes = driver.take_records(8).await;
    assert_eq!(changes[0].after(), &json!({"id": 1, "a": "one", "b": 1}));
    assert_eq!(
        changes[1].after(),
        &json!({"id": 2, "a": null, "b": 2, "c": "new"})
    );
    assert_eq!(changes[2].after(), &json!({"id": 2, "a": "", "b": 2, "c": "new"}));
    assert_eq!(
        changes[3].after(),
        &json!({"key": 3, "z": "three", "b": 3, "c": "c"})
    );
    assert_eq!(changes[4].after(), &json!({"key": 4, "z": "four", "c": 44}));
    assert_eq!((changes[5].op(), &changes[5].key), ("d", &json!({"key": 2})));
    assert_eq!(changes[7].after(), &json!({"id": 9}));
    assert_eq!(
        [&changes[0].key, &changes[3].key],
        [&json!({"id": 1}), &json!({"key": 3})]
    );
    driver.stop().await;
}

#[tokio::test]
async fn a_column_that_became_not_null_may_still_come_null() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY, a text)")
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    driver.snapshot().await;
    postgres
        .execute(
            &database,
            "INSERT INTO t VALUES (1, NULL); UPDATE t SET a = 'x'; ALTER TABLE t ALTER COLUMN a SET NOT NULL",
        )
        .await;
    let changes = driver.take_records(2).await;
    assert_eq!(
        [changes[0].after(), changes[1].after()],
        [&json!({"id": 1, "a": null}), &json!({"id": 1, "a": "x"})]
    );
    driver.stop().await;
}

#[tokio::test]
async fn what_was_rolled_back_never_comes() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    driver.snapshot().await;
    for sql in [
        "BEGIN; INSERT INTO t VALUES (1); ROLLBACK",
        "BEGIN; INSERT INTO t VALUES (2); SAVEPOINT s; INSERT INTO t VALUES (3); ROLLBACK TO s; INSERT INTO t VALUES (4);
         SAVEPOINT r; INSERT INTO t VALUES (5); RELEASE r; COMMIT",
        "SELECT pg_logical_emit_message(true, 'app', 'hello')",
        "INSERT INTO t VALUES (6)",
    ] {
        postgres.execute(&database, sql).await;
    }
    let changes = driver.take_records(4).await;
    let ids: Vec<_> = changes
        .iter()
        .map(|record| record.after()["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, [2, 4, 5, 6]);
    driver.stop().await;
}

#[tokio::test]
async fn replica_identities_decide_keys_and_old_rows() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL, v int);
             CREATE UNIQUE INDEX by_code ON by_index (code); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_code;
             CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL;
             CREATE TABLE nothing (id int PRIMARY KEY, a int); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
             INSERT INTO by_index VALUES (1, 'x', 1); INSERT INTO keyless VALUES (1, 'k')",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[], None).await;
    let read = driver.snapshot().await;
    assert_eq!(
        read[0].key,
        json!({"code": "x"}),
        "the only columns that deletes carry"
    );
    assert_eq!(read[1].key, json!(null));
    postgres
        .execute(
            &database,
            "UPDATE by_index SET code = 'y'; DELETE FROM by_index;
             UPDATE keyless SET b = 'l'; DELETE FROM keyless; INSERT INTO nothing VALUES (1, 1)",
        )
        .await;
    let changes = driver.take_records(8).await;
    assert_eq!(
        ops(&changes),
        ["d", "tombstone", "c", "d", "tombstone", "u", "d", "c"]
    );
    assert_eq!(changes[3].before(), &json!({"id": null, "code": "y", "v": null}));
    assert_eq!(
        (&changes[5].key, changes[5].before()),
        (&json!(null), &json!({"a": 1, "b": "k"}))
    );
    assert_eq!(changes[6].before(), &json!({"a": 1, "b": "l"}));
    assert_eq!(changes[7].key, json!({"id": 1}));
    driver.stop().await;
}

#[tokio::test]
async fn partitions_come_as_tables_or_under_their_root() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
             CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
             CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO p VALUES (1, 'a'), (11, 'b'); INSERT INTO other VALUES (1)",
        )
        .await;
    let start = async |root: &str, name: &str| {
        let settings = [
            ("publish.via.partition.root", root),
            ("publication.name", name),
            ("slot.name", name),
            ("publication.autocreate.mode", "filtered"),
            ("table.include.list", "public.p"),
        ];
        Driver::start(&postgres, &database, &settings, None).await
    };
    let (mut leaves, mut root) = (start("false", "leaves").await, start("true", "root").await);
    let topics = |records: &[Record]| {
        records
            .iter()
            .map(|record| record.topic.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(topics(&leaves.snapshot().await), ["t.public.p1", "t.public.p2"]);
    assert_eq!(topics(&root.snapshot().await), ["t.public.p", "t.public.p"]);
    postgres
        .execute(&database, "UPDATE p SET v = 'x'; INSERT INTO other VALUES (2)")
        .await;
    assert_eq!(
        topics(&leaves.take_records(2).await),
        ["t.public.p1", "t.public.p2"]
    );
    assert_eq!(topics(&root.take_records(2).await), ["t.public.p", "t.public.p"]);
    leaves.stop().await;
    root.stop().await;
}

#[tokio::test]
async fn a_publication_s_columns_and_conditions_hold_for_the_snapshot_too() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY, v int, secret text); INSERT INTO t VALUES (1, 1, 'a'), (2, 20, 'b');
             CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (extra int) INHERITS (parent);
             INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2);
             CREATE PUBLICATION \"My Pub\" FOR TABLE t (id, v) WHERE (id > 1), TABLE ONLY parent",
        )
        .await;
    let settings = [
        ("publication.name", "My Pub"),
        ("publication.autocreate.mode", "disabled"),
    ];
    let mut driver = Driver::start(&postgres, &database, &settings, None).await;
    let read = driver.snapshot().await;
    let rows: Vec<_> = read.iter().map(Record::after).collect();
    assert_eq!(rows, [&json!({"id": 1}), &json!({"id": 2, "v": 20})]);
    postgres.execute(&database, "UPDATE t SET v = v + 1").await;
    assert_eq!(
        driver.take_records(1).await[0].after(),
        &json!({"id": 2, "v": 21})
    );
    driver.stop().await;
}

#[tokio::test]
async fn snapshot_rows_are_marked_and_batches_bounded() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 250);
             CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (1, 'x'), (2, NULL);
             CREATE TABLE empty (id int PRIMARY KEY)",
        )
        .await;
    let mut driver = Driver::start(&postgres, &database, &[("max.batch.size", "100")], None).await;
    let mut records = Vec::new();
    while records.len() < 252 {
        let batch = driver.poll().await.unwrap();
        assert!(batch.records.len() <= 100);
        records.extend(batch.records);
    }
    let marks: Vec<_> = [0, 1, 249, 250, 251]
        .iter()
        .map(|&index: &usize| records[index].snapshot())
        .collect();
    assert_eq!(
        marks,
        [
            "first",
            "true",
            "last_in_data_collection",
            "first_in_data_collection",
            "last"
        ]
    );
    assert!(
        records
            .iter()
            .all(|record| record.value["source"]["txId"].is_null())
    );
    driver.stop().await;
}
