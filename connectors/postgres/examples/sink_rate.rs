//! How fast postgres-sink writes, beside what a plain COPY of the same rows takes on the same server.
//!
//! ```text
//! cargo run --release -p tidewater-connector-postgres --example sink_rate [ROWS] [ROWS_PER_BATCH…]
//! ```
//! Starts a throwaway PostgreSQL (fsync on) and writes change events of narrow rows: first all new, then all changed
//! again, then all deleted. Building the events is not counted. On a busy machine compare the CPU times, not the rates.
//! `SINK_SETTINGS="key=value …"` adds to the configuration.
#![allow(clippy::unwrap_used)] // a failure is the message

#[path = "../tests/sink_support/mod.rs"]
mod sink_support;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use sink_support::{Message, Sink, Table, frame, rows, string};
use support::Postgres;
use tidewater_plugin_api::{Frame, Schema, Type, Value};

/// The CPU seconds of a process so far: `self`, or the session's server process.
fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0 // ticks a second on Linux
}

fn narrow() -> Table {
    Table::new(
        "narrow",
        &[
            ("id", Schema::new(Type::Int64)),
            ("customer", Schema::new(Type::Int32)),
            ("name", string()),
            (
                "price",
                Schema::new(Type::Bytes)
                    .named("org.apache.kafka.connect.data.Decimal")
                    .parameter("scale", "2"),
            ),
            (
                "changed",
                Schema::new(Type::Int64).named("io.debezium.time.MicroTimestamp"),
            ),
        ],
    )
}

fn row(id: i64, round: i64) -> Vec<Value> {
    vec![
        Value::Int64(id),
        Value::Int32((id % 1000) as i32),
        Value::String(format!("name {id} {round}")),
        Value::Bytes((id * 7 + round).to_be_bytes().to_vec().into()),
        Value::Int64(1_700_000_000_000_000 + id * 1000),
    ]
}

/// The frames of `count` messages, `per_batch` each, from offset `first` on.
fn frames(count: i64, per_batch: usize, first: u64, message: impl Fn(i64) -> Message) -> Vec<Frame> {
    let ids: Vec<i64> = (0..count).collect();
    ids.chunks(per_batch)
        .map(|ids| {
            let messages: Vec<_> = ids.iter().map(|&id| (first + id as u64, message(id))).collect();
            frame(&messages)
        })
        .collect()
}

async fn measure(
    sink: &mut Sink,
    server: &str,
    what: &str,
    per_batch: usize,
    count: i64,
    frames: Vec<Frame>,
) {
    let (started, before, server_before) = (Instant::now(), cpu("self"), cpu(server));
    for frame in &frames {
        sink.task.put(frame).await.unwrap();
    }
    let took = started.elapsed();
    let per_million = |used: f64| used * 1e6 / count as f64;
    println!(
        "{what:<8} {per_batch:>6} rows a batch  {:>8.0} rows/s  CPU-s per million rows: {:>5.2} here, {:>5.2} in the server",
        count as f64 / took.as_secs_f64(),
        per_million(cpu("self") - before),
        per_million(cpu(server) - server_before)
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse::<usize>().ok());
    let count = arguments.next().unwrap_or(300_000) as i64;
    let mut sizes: Vec<usize> = arguments.collect();
    if sizes.is_empty() {
        sizes = vec![100, 500, 2_000, 5_000];
    }
    let settings: Vec<(String, String)> = std::env::var("SINK_SETTINGS")
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let postgres = Postgres::start_with(&[("fsync", "on"), ("max_wal_size", "4GB")]);
    let table = narrow();

    let database = postgres.database().await;
    let columns = "(id bigint PRIMARY KEY, customer int, name text, price numeric, changed timestamp)";
    postgres
        .execute(
            &database,
            &format!("CREATE TABLE narrow {columns}; CREATE TABLE copied {columns}"),
        )
        .await;
    let mut text = Vec::new();
    for id in 0..count {
        let price = (id * 7) as f64 / 100.0;
        text.extend_from_slice(
            format!(
                "{id}\t{}\tname {id} 0\t{price:.2}\t2023-11-14 22:13:20.{:06}\n",
                id % 1000,
                id * 1000 % 1_000_000
            )
            .as_bytes(),
        );
    }
    let mut connection = postgres.connect(&database).await;
    let started = Instant::now();
    let mut copy = connection.copy_in_raw("COPY copied FROM STDIN").await.unwrap();
    for chunk in text.chunks(1 << 18) {
        copy.send(chunk).await.unwrap();
    }
    copy.finish().await.unwrap();
    println!(
        "COPY of the same rows, one transaction  {:>8.0} rows/s",
        count as f64 / started.elapsed().as_secs_f64()
    );

    for per_batch in sizes {
        let database = postgres.database().await;
        let mut with = sink_support::UPSERT.to_vec();
        with.extend(settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let mut sink = Sink::start(&postgres, &database, &with, &["narrow"]).await;
        let server = rows(
            &postgres,
            &database,
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidewater sink 0'",
        )
        .await;
        let server = server.last().unwrap();
        let new = frames(count, per_batch, 0, |id| table.write("c", row(id, 0)));
        measure(&mut sink, server, "create", per_batch, count, new).await;
        let changed = frames(count, per_batch, count as u64, |id| table.write("u", row(id, 1)));
        measure(&mut sink, server, "update", per_batch, count, changed).await;
        assert_eq!(
            rows(&postgres, &database, "SELECT count(*) FROM narrow").await,
            [count.to_string()]
        );
        let gone = frames(count, per_batch, 2 * count as u64, |id| {
            table.delete(&Value::Int64(id))
        });
        measure(&mut sink, server, "delete", per_batch, count, gone).await;
        assert_eq!(
            rows(&postgres, &database, "SELECT count(*) FROM narrow").await,
            ["0"]
        );
        sink.task.stop().await.unwrap();
    }
}
