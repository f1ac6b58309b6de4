//! postgres-source: changes as they come, and their envelopes.
#![cfg(feature = "source")]

mod source_driver;
mod support;

use serde_json::json;
use source_driver::{Driver, offset};
use support::Postgres;

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
    let ops: Vec<&str> = changes.iter().map(|record| record.op()).collect();
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
