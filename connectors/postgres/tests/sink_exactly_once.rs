//! Each record once, whatever happens in between: connections that end at every stage of a batch, answers that are lost,
//! batches that come again, instances that are no longer the live one, a server that crashes under load (invariants 4, 5
//! and 9).
#![allow(clippy::unwrap_used)] // a failure here is the test's message

mod cutting_proxy;
mod sink_support;
mod support;

use std::sync::Arc;

use cutting_proxy::{Cut, Proxy};
use sink_support::{
    Message, Sink, Table, UPSERT, config, frame, int, int32, partitions, put_until_done, rows, string, text,
};
use support::Postgres;
use tidewater_connector_postgres::sink::PostgresSink;
use tidewater_plugin_api::{AlteredOffset, ErrorKind, SinkConnector as _};

/// Sums up and counts; each `write` adds its row anew, so a record that came twice would show.
const INSERT: [(&str, &str); 1] = [("insert.mode", "insert")];

fn log_table() -> Table {
    Table::new("log", &[("n", int32()), ("word", string())])
}

fn entry(table: &Table, n: i32) -> Message {
    table.flat(vec![int(n), text("w")])
}

const COUNTED: &str = "SELECT count(*), count(DISTINCT n), min(n), max(n) FROM log";

async fn offset(postgres: &Postgres, database: &str) -> Option<String> {
    postgres
        .value(
            database,
            "SELECT next_offset FROM tidewater_offsets WHERE topic = 'log' AND partition = 0",
        )
        .await
}

/// A function that ends the session it runs in, the first time only, and its use as a trigger.
fn suicide(timing: &str, table: &str, constraint: &str) -> String {
    format!(
        "CREATE SEQUENCE deaths;
         CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('deaths') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
             RETURN NULL;
         END $$;
         CREATE {constraint} TRIGGER die {timing} ON {table} {} EXECUTE FUNCTION die()",
        if constraint.is_empty() {
            "FOR EACH STATEMENT"
        } else {
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        }
    )
}

#[tokio::test]
async fn a_session_killed_at_each_stage() {
    let postgres = Postgres::shared();
    let stages = [
        ("AFTER UPDATE", "tidewater_offsets", ""),
        ("AFTER INSERT", "log", ""),
        // Runs within COMMIT.
        ("AFTER INSERT", "log", "CONSTRAINT"),
    ];
    for (timing, table, constraint) in stages {
        for copy_rows in ["1", "1000"] {
            let database = postgres.database().await;
            postgres
                .execute(&database, "CREATE TABLE log (n int, word text)")
                .await;
            let settings = [INSERT[0], ("batch.copy.rows", copy_rows)];
            let mut sink = Sink::start(&postgres, &database, &settings, &["log"]).await;
            let table_of_log = log_table();
            let messages: Vec<_> = (0..10).map(|n| entry(&table_of_log, n)).collect();
            sink.put(&messages[..4]).await.unwrap();
            postgres
                .execute(&database, &suicide(timing, table, constraint))
                .await;
            let batch = frame(&sink.number(&messages[4..]));
            let error = sink.task.put(&batch).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
            // In a COPY the end of the connection hides what the server said before.
            let told = error.message.contains("57P01") || (copy_rows == "1" && error.message.contains("EOF"));
            assert!(told, "{error}");
            assert_eq!(offset(&postgres, &database).await.as_deref(), Some("4"));
            assert_eq!(put_until_done(&mut sink, &batch).await, 0);
            assert_eq!(rows(&postgres, &database, COUNTED).await, ["10|10|0|9"]);
            assert_eq!(offset(&postgres, &database).await.as_deref(), Some("10"));
        }
    }
}

#[tokio::test]
async fn a_connection_cut_around_each_message() {
    let postgres = Postgres::shared();
    for copy_rows in ["1", "1000"] {
        for (at, is_in) in [
            ("BEGIN", true),
            ("log", true),
            ("COMMIT", false),
            ("COMMIT", true),
        ] {
            for cut in [Cut::Before, Cut::AfterItsAnswer] {
                let database = postgres.database().await;
                postgres
                    .execute(&database, "CREATE TABLE log (n int, word text)")
                    .await;
                let proxy = Proxy::start(postgres.port()).await;
                let settings = [INSERT[0], ("batch.copy.rows", copy_rows)];
                let mut sink = Sink::start_with(config(proxy.port, &database, &settings), 1, &["log"])
                    .await
                    .unwrap();
                let table = log_table();
                let first: Vec<_> = (0..3).map(|n| entry(&table, n)).collect();
                if is_in {
                    sink.put(&first).await.unwrap();
                } else {
                    sink.offset = 3; // nothing was ever written when the cut comes
                }
                let batch = frame(&sink.number(&(3..9).map(|n| entry(&table, n)).collect::<Vec<_>>()));
                proxy.cut(at, cut);
                let error = sink.task.put(&batch).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
                proxy.was_cut();
                put_until_done(&mut sink, &batch).await;
                let expected = if is_in { "9|9|0|8" } else { "6|6|3|8" };
                let context = format!("{at} {cut:?} {copy_rows}");
                assert_eq!(rows(&postgres, &database, COUNTED).await, [expected], "{context}");
                assert_eq!(
                    offset(&postgres, &database).await.as_deref(),
                    Some("9"),
                    "{context}"
                );
                // Only a commit whose answer was lost had gone through.
                let went_through = at == "COMMIT\0" && cut == Cut::AfterItsAnswer;
                assert_eq!(
                    sink.metric("records-redelivered"),
                    if went_through { 6 } else { 0 },
                    "{context}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_falls_silent() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE log (n int, word text)")
        .await;
    let proxy = Proxy::start(postgres.port()).await;
    let settings = [INSERT[0], ("write.timeout.ms", "2000")];
    let mut sink = Sink::start_with(config(proxy.port, &database, &settings), 1, &["log"])
        .await
        .unwrap();
    let table = log_table();
    let batch = frame(&sink.number(&[entry(&table, 0), entry(&table, 1)]));
    proxy.cut("INSERT", Cut::Silence);
    let error = sink.task.put(&batch).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retriable, "{error}");
    assert!(error.message.contains("write.timeout.ms"), "{error}");
    proxy.was_cut();
    // The silent session still holds its transaction open on the server; it ends as it would with the machine it was on.
    postgres
        .execute(
            &database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
        )
        .await;
    put_until_done(&mut sink, &batch).await;
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["2|2|0|1"]);
}

#[tokio::test]
async fn batches_that_come_again_change_nothing() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE log (n int, word text)")
        .await;
    let mut sink = Sink::start(&postgres, &database, &INSERT, &["log"]).await;
    assert!(sink.positions.is_empty(), "nothing was written yet");
    let table = log_table();
    let messages: Vec<_> = (0..20).map(|n| entry(&table, n)).collect();
    let numbered = sink.number(&messages);
    sink.task.put(&frame(&numbered[..10])).await.unwrap();
    sink.task.put(&frame(&numbered[..10])).await.unwrap();
    sink.task.put(&frame(&numbered[5..15])).await.unwrap();
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["15|15|0|14"]);
    sink.task.stop().await.unwrap();

    // The next life goes on where this one ended, even where the host begins too early.
    let mut sink = Sink::start_with(config(postgres.port(), &database, &INSERT), 2, &["log"])
        .await
        .unwrap();
    assert_eq!(sink.positions.len(), 1);
    assert_eq!(
        (sink.positions[0].partition.partition, sink.positions[0].offset),
        (0, 15)
    );
    sink.task.put(&frame(&numbered)).await.unwrap();
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["20|20|0|19"]);
    assert_eq!(sink.metric("records-redelivered"), 15);
    // Each partition counts for itself.
    sink.task
        .put(&frame(&[
            (0, entry(&table, 100).partition(1)),
            (20, entry(&table, 101)),
        ]))
        .await
        .unwrap();
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["22|22|0|101"]);
}

#[tokio::test]
async fn a_new_topic_of_the_same_name_is_written_from_its_start() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE log (n int, word text)")
        .await;
    let table = log_table();
    let mut sink = Sink::start(&postgres, &database, &INSERT, &["log"]).await;
    sink.put(&[entry(&table, 0), entry(&table, 1)]).await.unwrap();
    // The log was made anew: its offsets start over, and those in the target are of another topic.
    let mut renewed = sink_support::partitions(&["log"], 1);
    renewed[0].topic_id = "another".into();
    assert_eq!(sink.task.open(&renewed).await.unwrap(), []);
    sink.task
        .put(&frame(&[(0, entry(&table, 2)), (1, entry(&table, 3))]))
        .await
        .unwrap();
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["4|4|0|3"]);
    let known = sink.task.open(&renewed).await.unwrap();
    assert_eq!(known[0].offset, 2, "the new topic's offset is remembered as such");
}

#[tokio::test]
async fn an_earlier_instance_is_fenced() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE log (n int, word text)")
        .await;
    let table = log_table();
    let settings = config(postgres.port(), &database, &INSERT);
    let mut old = Sink::start_with(settings.clone(), 5, &["log"]).await.unwrap();
    old.put(&[entry(&table, 0)]).await.unwrap();
    let mut new = Sink::start_with(settings.clone(), 6, &["log"]).await.unwrap();
    new.offset = new.positions[0].offset;
    new.put(&[entry(&table, 1)]).await.unwrap();
    // The old one wakes up and goes on with the same record.
    let error = old.put(&[entry(&table, 1)]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["2|2|0|1"]);
    // Nor can it come back.
    let Err(error) = Sink::start_with(settings, 5, &["log"]).await else {
        panic!("an earlier generation took over");
    };
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    assert!(error.message.contains("topic log, partition 0"), "{error}");
    new.put(&[entry(&table, 2)]).await.unwrap();
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["3|3|0|2"]);
}

#[tokio::test]
async fn an_offset_changed_by_hand_is_where_the_sink_goes_on() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE log (n int, word text)")
        .await;
    let table = log_table();
    let settings = config(postgres.port(), &database, &INSERT);
    let mut left_behind = Sink::start_with(settings.clone(), 5, &["log"]).await.unwrap();
    left_behind
        .put(&[entry(&table, 0), entry(&table, 1), entry(&table, 2)])
        .await
        .unwrap();
    let alter = async |partition: usize, offset: Option<u64>| {
        let partition = partitions(&["log"], 3).swap_remove(partition);
        let altered = [AlteredOffset { partition, offset }];
        PostgresSink::create()
            .alter_offsets("sink", &settings, &altered)
            .await
    };
    // One that was written, and one that never was.
    assert!(alter(0, Some(1)).await.unwrap());
    assert!(alter(2, Some(7)).await.unwrap());
    // A task that was left behind cannot move it on.
    let error = left_behind.put(&[entry(&table, 3)]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");

    let mut next = Sink::start_with(settings.clone(), 7, &["log"]).await.unwrap();
    let positions: Vec<_> = next
        .positions
        .iter()
        .map(|position| (position.partition.partition, position.offset))
        .collect();
    assert_eq!(positions, [(0, 1), (2, 7)]);
    next.offset = 1;
    next.put(&[entry(&table, 1), entry(&table, 2)]).await.unwrap();
    assert_eq!(
        rows(&postgres, &database, COUNTED).await,
        ["5|3|0|2"],
        "written again, as asked"
    );

    assert!(alter(0, None).await.unwrap());
    let reset = Sink::start_with(settings.clone(), 9, &["log"]).await.unwrap();
    assert!(
        reset
            .positions
            .iter()
            .all(|position| position.partition.partition != 0),
        "{:?}",
        reset.positions
    );
}

#[tokio::test]
async fn a_successor_waits_for_what_its_predecessor_has_open() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE log (n int, word text);
             CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
             CREATE TRIGGER wait AFTER INSERT ON log EXECUTE FUNCTION wait()",
        )
        .await;
    let mut holder = postgres.connect(&database).await;
    sqlx::query("SELECT pg_advisory_lock(7)")
        .execute(&mut holder)
        .await
        .unwrap();
    let settings = config(postgres.port(), &database, &INSERT);
    let mut old = Sink::start_with(settings.clone(), 1, &["log"]).await.unwrap();
    let table = log_table();
    let batch = [entry(&table, 0), entry(&table, 1)];
    let writing = tokio::spawn(async move { old.put(&batch).await });
    let waiting = |count: i32| {
        format!(
            "SELECT count(*) >= {count} FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        )
    };
    until(&mut holder, &waiting(1)).await;
    let opening = tokio::spawn(async move { Sink::start_with(settings, 2, &["log"]).await });
    until(&mut holder, &waiting(2)).await;
    sqlx::query("SELECT pg_advisory_unlock(7)")
        .execute(&mut holder)
        .await
        .unwrap();
    writing.await.unwrap().unwrap();
    let new = opening.await.unwrap().unwrap();
    assert_eq!(
        new.positions[0].offset, 2,
        "what the predecessor committed is seen"
    );
}

/// Asks until the answer is true.
async fn until(connection: &mut sqlx::PgConnection, question: &str) {
    for _ in 0..10_000 {
        let yes: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(question.to_owned()))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        if yes {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("never true: {question}");
}

#[tokio::test]
async fn a_cancelled_put_leaves_nothing_half_done() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TABLE log (n int, word text)")
        .await;
    let mut sink = Sink::start(
        &postgres,
        &database,
        &[INSERT[0], ("batch.copy.rows", "1")],
        &["log"],
    )
    .await;
    let table = log_table();
    let batch = frame(&sink.number(&(0..2000).map(|n| entry(&table, n)).collect::<Vec<_>>()));
    for polls in 1..40 {
        // Polled so often and then dropped, wherever that is.
        let mut put = sink.task.put(&batch);
        let mut left = polls;
        let dropped = std::future::poll_fn(|context| {
            left -= 1;
            match put.as_mut().poll(context) {
                std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
            }
        })
        .await;
        drop(put);
        if let Some(done) = dropped {
            done.unwrap();
            break;
        }
    }
    put_until_done(&mut sink, &batch).await;
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["2000|2000|0|1999"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_under_load() {
    // Commits must outlive the crash.
    let postgres = Arc::new(Postgres::start_with(&[
        ("fsync", "on"),
        ("synchronous_commit", "off"),
    ]));
    let database = postgres.database().await;
    let log = log_table();
    let people = Table::new("people", &[("id", int32()), ("name", string())]);
    postgres
        .execute(&database, "CREATE TABLE log (n int, word text)")
        .await;
    let start = |topic: &'static str, settings: Vec<(&'static str, &'static str)>| {
        let config = config(postgres.port(), &database, &settings);
        async move { Sink::start_with(config, 1, &[topic]).await.unwrap() }
    };
    let mut log_sink = start("log", INSERT.to_vec()).await;
    let mut people_sink = start("people", UPSERT.to_vec()).await;
    let (crash, mut crashes) = tokio::sync::mpsc::channel::<()>(1);
    let server = postgres.clone();
    let crasher = tokio::task::spawn_blocking(move || {
        let mut count = 0;
        while crashes.blocking_recv().is_some() {
            server.stop("immediate");
            server.start_again();
            count += 1;
        }
        count
    });
    let mut interrupted = 0;
    for round in 0..120 {
        let logged: Vec<_> = (0..50).map(|n| entry(&log, round * 50 + n)).collect();
        let changed: Vec<_> = (0..50)
            .map(|n| match (round + n) % 7 {
                0 => people.delete(&int(n)),
                _ => people.write("u", vec![int(n), text(&format!("{round}"))]),
            })
            .collect();
        let batches = [
            frame(&log_sink.number(&logged)),
            frame(&people_sink.number(&changed)),
        ];
        if round % 30 == 10 {
            crash.send(()).await.unwrap();
        }
        interrupted += put_until_done(&mut log_sink, &batches[0]).await;
        interrupted += put_until_done(&mut people_sink, &batches[1]).await;
    }
    drop(crash);
    assert_eq!(crasher.await.unwrap(), 4);
    assert!(interrupted > 0, "the crashes interrupted nothing");
    assert_eq!(rows(&postgres, &database, COUNTED).await, ["6000|6000|0|5999"]);
    let expected: Vec<_> = (0..50)
        .filter(|n| (119 + n) % 7 != 0)
        .map(|n| format!("{n}|119"))
        .collect();
    assert_eq!(
        rows(&postgres, &database, "SELECT id, name FROM people ORDER BY id").await,
        expected
    );
}
