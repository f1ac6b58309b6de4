//! How fast postgres-source is, against PostgreSQL's own tools on the same content: the snapshot against
//! `psql -c 'COPY … TO STDOUT'`, the stream against `pg_recvlogical`. Prints rows a second, and processor seconds of this
//! process for a million rows.
//!
//! ```text
//! cargo run --release -p tidewater-connector-postgres --example source_rate [-- ROWS]
//! ```
#![allow(clippy::unwrap_used)] // a failure is the message

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection;
use support::{PASSWORD, Postgres, USER, program};
use tidewater_connector_postgres::source::{PostgresSource, PostgresSourceTask};
use tidewater_plugin_api::{Config, FrameBuilder, SourceConnector, SourceTask, SourceTaskContext};

const TABLE: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, state text NOT NULL,
    total numeric(12,2) NOT NULL, placed timestamptz NOT NULL, note text, paid bool NOT NULL)";
const ROWS: &str =
    "SELECT i, i % 10000, 'state ' || i % 7, i * 0.37, '2024-01-01'::timestamptz + i * interval '1 s',
    'note number ' || i, i % 2 = 0 FROM";

/// Processor seconds of this process so far. The kernel counts in hundredths.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

async fn start(postgres: &Postgres, database: &str) -> PostgresSourceTask {
    let port = postgres.port().to_string();
    let map = [
        ("database.hostname", "127.0.0.1"),
        ("database.port", port.as_str()),
        ("database.user", USER),
        ("database.password", PASSWORD),
        ("database.dbname", database),
        ("database.sslmode", "disable"),
        ("topic.prefix", "rate"),
        ("max.batch.size", "8192"),
    ];
    let map = map
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut task = PostgresSourceTask::new();
    let context = SourceTaskContext {
        connector: "rate".to_owned(),
        task: 0,
        generation: 1,
        config: Config::new(PostgresSource::spec().config, map).unwrap(),
        positions: Vec::new(),
    };
    task.start(context).await.unwrap();
    task
}

/// Reads `rows` records; rows a second and processor seconds for a million.
async fn read(task: &mut PostgresSourceTask, rows: usize) -> (f64, f64) {
    let (began, processor) = (Instant::now(), processor_seconds());
    let (mut count, mut bytes, mut batches) = (0, 0, 0);
    let mut batch = FrameBuilder::new();
    while count < rows {
        task.poll(&mut batch).await.unwrap();
        count += batch.len();
        batches += 1;
        bytes += batch.finish().len();
    }
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    let processor = (processor_seconds() - processor) * 1e6 / rows as f64;
    println!(
        "    {batches} batches, {:.0} bytes a row",
        bytes as f64 / rows as f64
    );
    (rate, processor)
}

fn client(postgres: &Postgres, name: &str) -> Command {
    let mut command = Command::new(program(name));
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", postgres.port().to_string());
    command
        .env("PGUSER", USER)
        .env("PGPASSWORD", PASSWORD)
        .stdout(Stdio::null());
    command
}

fn timed(rows: usize, command: &mut Command) -> f64 {
    let began = Instant::now();
    assert!(command.status().unwrap().success());
    rows as f64 / began.elapsed().as_secs_f64()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rows: usize = std::env::args()
        .nth(1)
        .map_or(1_000_000, |rows| rows.parse().unwrap());
    let postgres = Postgres::start_with(&[("max_wal_size", "4GB"), ("autovacuum", "off")]);
    let database = postgres.database().await;
    postgres.execute(&database, TABLE).await;
    println!("{rows} rows; building the table");
    let fill = format!("INSERT INTO orders {ROWS} generate_series(1, {rows}) i; VACUUM orders");
    for statement in fill.split(';') {
        postgres.execute(&database, statement).await;
    }

    for _ in 0..2 {
        let mut psql = client(&postgres, "psql");
        let copy = timed(rows, psql.args(["-d", &database, "-qc", "COPY orders TO STDOUT"]));
        println!("psql COPY TO STDOUT      {copy:>10.0} rows/s");
    }
    let mut task = start(&postgres, &database).await;
    let (rate, processor) = read(&mut task, rows).await;
    println!("snapshot                 {rate:>10.0} rows/s  {processor:.2} processor s per million");
    // The position after the snapshot, and the stream's beginning.
    task.poll(&mut FrameBuilder::new()).await.unwrap();

    postgres
        .execute(
            &database,
            "SELECT pg_create_logical_replication_slot('other', 'pgoutput')",
        )
        .await;
    for part in 0..rows.div_ceil(1000) {
        let (first, last) = (rows + part * 1000 + 1, rows + (part * 1000 + 1000).min(rows));
        postgres
            .execute(
                &database,
                &format!("INSERT INTO orders {ROWS} generate_series({first}, {last}) i"),
            )
            .await;
    }
    let end = postgres.value(&database, "pg_current_wal_lsn()").await.unwrap();
    let mut recvlogical = client(&postgres, "pg_recvlogical");
    recvlogical.args([
        "-d",
        &database,
        "-S",
        "other",
        "--start",
        "-f",
        "/dev/null",
        "-o",
        "proto_version=1",
    ]);
    recvlogical.args(["-o", "publication_names=dbz_publication", "--endpos", &end]);
    let native = timed(rows, &mut recvlogical);
    println!("pg_recvlogical           {native:>10.0} rows/s");
    let (rate, processor) = read(&mut task, rows).await;
    println!(
        "stream                   {rate:>10.0} rows/s  {processor:.2} processor s per million  {:.2} of it",
        rate / native
    );
    let (p50, p99) = latency(&postgres, &database, &mut task).await;
    println!(
        "latency, one row a transaction: p50 {p50:.2} ms, p99 {p99:.2} ms from the insert's issue to its record"
    );
    task.stop().await.unwrap();
}

/// The 50th and 99th hundredths of the time from an insert's issue, in milliseconds, to the return of the poll with its record.
async fn latency(postgres: &Postgres, database: &str, task: &mut PostgresSourceTask) -> (f64, f64) {
    const ROUNDS: usize = 2000;
    let options = postgres.options(database);
    let (issue, mut issued) = tokio::sync::mpsc::unbounded_channel();
    let writer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect_with(&options).await.unwrap();
            for round in 0..ROUNDS {
                issue.send(Instant::now()).unwrap();
                let id = 1_000_000_000 + round as i64;
                let insert = "INSERT INTO orders VALUES ($1, 1, 'x', 1, now(), NULL, true)";
                sqlx::query(insert)
                    .bind(id)
                    .execute(&mut connection)
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    });
    let mut batch = FrameBuilder::new();
    let mut times = Vec::new();
    while times.len() < ROUNDS {
        task.poll(&mut batch).await.unwrap();
        for _ in 0..batch.len() {
            times.push(issued.recv().await.unwrap().elapsed().as_secs_f64() * 1000.0);
        }
        batch.finish();
    }
    writer.join().unwrap();
    times.sort_by(f64::total_cmp);
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}
