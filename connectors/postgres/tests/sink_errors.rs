//! Every fault says what was being done, to what, what Postgres said and what to do next; none shows a password, and after
//! each the task goes on once the fault is mended, with nothing lost.

mod sink_support;
mod support;

use sink_support::{Message, Sink, Table, UPSERT, config, int, int32, rows, string, text};
use support::{PASSWORD, Postgres};
use tidewater_connector_postgres::sink::PostgresSink;
use tidewater_plugin_api::{Config, Error, ErrorKind, SchemaRef, SinkConnector, Value};

fn people() -> Table {
    Table::new(
        "people",
        &[("id", int32()), ("name", string()), ("age", string())],
    )
}

fn person(id: i32, name: &str, age: &str) -> Message {
    people().write("c", vec![int(id), text(name), text(age)])
}

/// Asserts the kind, and that the message holds all of `parts` and no password.
fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind, kind, "{error}");
    for part in parts {
        assert!(error.message.contains(part), "{part:?} is missing: {error}");
    }
    assert!(!error.message.contains(PASSWORD), "{error}");
}

async fn start_error(config: Config) -> Error {
    match Sink::start_with(config, 1, &["people"]).await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn connecting_and_validating() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let port = postgres.port();
    let server = format!("127.0.0.1:{port}/{database}");
    let wrong = config(port, &database, &[("connection.password", "not it")]);
    let error = start_error(wrong.clone()).await;
    says(
        &error,
        ErrorKind::Config,
        &[&server, "28P01", "connection.password"],
    );
    assert!(!error.message.contains("not it"), "{error}");
    assert!(!format!("{wrong:?}").contains("not it"));
    let missing = config(port, "no_such", &[]);
    says(
        &start_error(missing.clone()).await,
        ErrorKind::Config,
        &["no_such", "3D000", "connection.url"],
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = config(free, &database, &[]);
    says(
        &start_error(refused.clone()).await,
        ErrorKind::Retriable,
        &[&free.to_string(), "firewall"],
    );
    // A server that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port_of_silent = silent.local_addr().unwrap().port();
    let silent_config = config(port_of_silent, &database, &[("connection.timeout.ms", "50")]);
    says(
        &start_error(silent_config).await,
        ErrorKind::Retriable,
        &["no answer within 50 ms"],
    );
    for (config, key) in [
        (wrong, "connection.password"),
        (missing, "connection.url"),
        (refused, "connection.url"),
    ] {
        let problems = PostgresSink::create().validate(&config).await;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, key);
    }
    let faulty = config(
        port,
        &database,
        &[("insert.mode", "upsert"), ("delete.enabled", "true")],
    );
    assert_eq!(PostgresSink::create().validate(&faulty).await.len(), 2);
    assert!(
        PostgresSink::create()
            .validate(&config(port, &database, &UPSERT))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn tables_that_do_not_fit() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let settings = [("insert.mode", "upsert"), ("pk.mode", "record_key")];
    let mut sink = Sink::start(&postgres, &database, &settings, &["people"]).await;
    let batch = sink_support::frame(&sink.number(&[person(1, "Ann", "40")]));
    let place = "topic people, partition 0, offset 0";
    let error = sink.task.put(&batch).await.unwrap_err();
    says(
        &error,
        ErrorKind::Fatal,
        &[place, "table \"people\" does not exist", "auto.create"],
    );
    postgres
        .execute(&database, "CREATE TABLE people (id int, name text)")
        .await;
    let error = sink.task.put(&batch).await.unwrap_err();
    says(
        &error,
        ErrorKind::Fatal,
        &[place, "lacks the columns age", "auto.evolve"],
    );
    postgres
        .execute(&database, "ALTER TABLE people ADD age int")
        .await;
    let error = sink.task.put(&batch).await.unwrap_err();
    says(
        &error,
        ErrorKind::Fatal,
        &[
            place,
            "no primary key or unique index on exactly (id)",
            "CREATE UNIQUE INDEX",
        ],
    );
    postgres
        .execute(&database, "ALTER TABLE people RENAME id TO number")
        .await;
    let mut sink = Sink::start(&postgres, &database, &settings, &["people"]).await;
    let error = sink.task.put(&batch).await.unwrap_err();
    says(
        &error,
        ErrorKind::Fatal,
        &["lacks the key columns id", "pk.fields"],
    );
    postgres
        .execute(
            &database,
            "ALTER TABLE people RENAME number TO id; ALTER TABLE people ADD PRIMARY KEY (id)",
        )
        .await;
    let mut sink = Sink::start(&postgres, &database, &settings, &["people"]).await;
    sink.task.put(&batch).await.unwrap();
    assert_eq!(
        rows(&postgres, &database, "SELECT * FROM people").await,
        ["1|Ann|40"]
    );
}

#[tokio::test]
async fn a_record_that_is_refused_is_named() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE people (id int PRIMARY KEY, name varchar(5) CHECK (name <> 'bad'), age int NOT NULL UNIQUE)",
        )
        .await;
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["people"]).await;
    let fine = |id: i32| person(id, "fine", &format!("{id}"));
    for (bad, parts) in [
        (person(77, "x", "forty"), ["22P02", "column: age", "\"forty\""]),
        (
            person(77, "x", "99999999999"),
            ["22003", "column: age", "out of range"],
        ),
        (
            person(77, "too long", "1000"),
            ["22001", "column: name", "character varying(5)"],
        ),
        (person(77, "bad", "1000"), ["23514", "people_name_check", "id=77"]),
        (person(77, "x", "3"), ["23505", "people_age_key", "(age)=(3)"]),
        (person(77, "nul\0", "1000"), ["22021", "column: name", "id=77"]),
    ] {
        let offset = sink.offset;
        let messages = [fine(1), fine(2), fine(3), bad.clone(), fine(4)];
        let error = sink.put(&messages).await.unwrap_err();
        let place = format!("topic people, partition 0, offset {}", offset + 3);
        says(
            &error,
            ErrorKind::Refused,
            &[&place, "table \"people\"", "key: id=77"],
        );
        says(&error, ErrorKind::Refused, &parts);
        let indices: Vec<_> = error.records.iter().map(|record| record.index).collect();
        assert_eq!(indices, [3]);
        assert!(
            rows(&postgres, &database, "SELECT * FROM people")
                .await
                .is_empty(),
            "all or nothing"
        );
        // What the offsets say is still true: nothing of the batch is there.
        let next = postgres
            .value(
                &database,
                "SELECT coalesce(max(next_offset), 0) FROM tidewater_offsets",
            )
            .await;
        assert_eq!(next.as_deref(), Some("0"));
        sink.offset = offset;
    }
    let nullable = Table::new(
        "people",
        &[("id", int32()), ("name", string()), ("age", string().optional())],
    );
    let error = sink
        .put(&[nullable.write("c", vec![int(77), text("x"), Value::Null])])
        .await
        .unwrap_err();
    says(
        &error,
        ErrorKind::Refused,
        &["23502", "column: age", "key: id=77"],
    );
    sink.put(&[fine(1)]).await.unwrap();
}

#[tokio::test]
async fn all_that_are_refused_are_named_at_once_and_the_rest_can_be_put() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE people (id int PRIMARY KEY, name text, age int CHECK (age < 100))",
        )
        .await;
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["people"]).await;
    let mut messages: Vec<_> = (0..20).map(|id| person(id, "fine", "7")).collect();
    messages[4] = person(4, "x", "forty");
    messages[11] = person(11, "x", "200");
    messages[19] = people().write("x", vec![int(19), text("fine"), text("7")]);
    let numbered = sink.number(&messages);
    let error = sink.task.put(&sink_support::frame(&numbered)).await.unwrap_err();
    let refused: Vec<_> = error.records.iter().map(|record| record.index).collect();
    assert_eq!((error.kind, refused), (ErrorKind::Refused, vec![4, 11, 19]));
    for (record, says) in error
        .records
        .iter()
        .zip(["22P02", "people_age_check", "the event's op is"])
    {
        let place = format!("partition 0, offset {}", record.index);
        assert!(
            record.message.contains(says) && record.message.contains(&place),
            "{}",
            record.message
        );
    }
    let count = "SELECT count(*) FROM people";
    assert_eq!(rows(&postgres, &database, count).await, ["0"], "all or nothing");

    let rest: Vec<_> = numbered
        .into_iter()
        .filter(|(offset, _)| ![4, 11, 19].contains(offset))
        .collect();
    assert!(sink.task.put(&sink_support::frame(&rest)).await.unwrap().durable);
    assert_eq!(rows(&postgres, &database, count).await, ["17"]);
    // The offsets passed what was left out, and stop at the last that was written.
    let next = "SELECT max(next_offset) FROM tidewater_offsets";
    assert_eq!(rows(&postgres, &database, next).await, ["19"]);
}

#[tokio::test]
async fn records_that_cannot_be_rows() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["people"]).await;
    let table = people();
    let row = Value::Struct(vec![int(1), text("a"), text("b")]);
    let with_key =
        |key: Option<(SchemaRef, Value)>| Message::new("people", key, Some((table.row.clone(), row.clone())));
    let plain_key = (SchemaRef::new(string()), text("k"));
    let null_key = Table::new("people", &[("id", int32().optional())]);
    let cases = [
        (with_key(None), "has no key"),
        (with_key(Some(plain_key)), "pk.fields"),
        (with_key(null_key.key(&Value::Null)), "the key column id is null"),
        (
            Message::new(
                "people",
                table.key(&int(1)),
                Some((SchemaRef::new(string()), text("x"))),
            ),
            "only a struct has columns",
        ),
        (
            table.write("x", vec![int(1), text("a"), text("b")]),
            "the event's op is \"x\"",
        ),
    ];
    for (message, part) in cases {
        let error = sink.put(&[message]).await.unwrap_err();
        assert!(error.message.contains(part), "{part}: {error}");
        assert!(
            matches!(
                error.kind,
                ErrorKind::Fatal | ErrorKind::Config | ErrorKind::Refused
            ),
            "{error}"
        );
    }
    let keyed = Table::new("people", &[("id", int32()), ("name", string())]);
    let mut settings = UPSERT.to_vec();
    settings.extend([("pk.fields", "id,nick"), ("offsets.table", "o2")]);
    let mut sink = Sink::start(&postgres, &database, &settings, &["people"]).await;
    let error = sink
        .put(&[keyed.flat(vec![int(1), text("a")])])
        .await
        .unwrap_err();
    says(
        &error,
        ErrorKind::Fatal,
        &["pk.fields names \"nick\"", "it has id"],
    );
}

#[tokio::test]
async fn rights_limits_and_full_disks() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let role = format!("{database}_writer");
    postgres
        .execute(
            &database,
            &format!(
                "CREATE TABLE people (id int PRIMARY KEY, name text, age text);
                 CREATE ROLE {role} LOGIN PASSWORD 'w' CONNECTION LIMIT 2;
                 GRANT CREATE ON SCHEMA public TO {role}"
            ),
        )
        .await;
    let settings = {
        let mut settings = UPSERT.to_vec();
        settings.extend([("connection.user", role.as_str()), ("connection.password", "w")]);
        config(postgres.port(), &database, &settings)
    };
    let mut sink = Sink::start_with(settings.clone(), 1, &["people"]).await.unwrap();
    let batch = sink_support::frame(&sink.number(&[person(1, "Ann", "40")]));
    let error = sink.task.put(&batch).await.unwrap_err();
    says(&error, ErrorKind::Fatal, &["42501", "people", "Grant"]);
    postgres
        .execute(&database, &format!("GRANT ALL ON people TO {role}"))
        .await;
    sink.task.put(&batch).await.unwrap();
    let _second = Sink::start_with(settings.clone(), 1, &["people"]).await.unwrap();
    says(
        &start_error(settings).await,
        ErrorKind::Retriable,
        &["53300", "max_connections"],
    );

    // The server's own words for a full disk, for a deadlock and for an operator's hand, each once.
    for (code, part) in [
        ("53100", "disk is full"),
        ("40P01", "repeated"),
        ("40001", "repeated"),
        ("57014", "repeated"),
    ] {
        let table = format!("t{code}").to_lowercase();
        postgres
            .execute(
                &database,
                &format!(
                    "CREATE TABLE {table} (id int PRIMARY KEY, name text, age text);
                     CREATE SEQUENCE {table}_times;
                     CREATE FUNCTION {table}_once() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN
                         IF nextval('{table}_times') = 1 THEN RAISE EXCEPTION 'it happened' USING ERRCODE = '{code}'; END IF;
                         RETURN NULL;
                     END $$;
                     CREATE TRIGGER once AFTER INSERT ON {table} EXECUTE FUNCTION {table}_once()"
                ),
            )
            .await;
        let mut sink = Sink::start(&postgres, &database, &UPSERT, &[&table]).await;
        let other = Table {
            topic: table.clone(),
            ..people()
        };
        let batch =
            sink_support::frame(&sink.number(&[other.write("c", vec![int(1), text("Ann"), text("40")])]));
        let error = sink.task.put(&batch).await.unwrap_err();
        says(&error, ErrorKind::Retriable, &[code, "it happened", part, &table]);
        sink.task.put(&batch).await.unwrap();
        assert_eq!(
            rows(&postgres, &database, &format!("SELECT * FROM {table}")).await,
            ["1|Ann|40"]
        );
    }
}

#[tokio::test]
async fn a_table_that_changes_underfoot() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["people"]).await;
    sink.put(&[person(1, "Ann", "40")]).await.unwrap();
    for (change, expected) in [
        ("ALTER TABLE people ALTER age TYPE int USING age::int", "2|Bob|50"),
        // Positions of columns change.
        (
            "ALTER TABLE people DROP name; ALTER TABLE people ADD name text",
            "2|50|Bob",
        ),
        ("DROP TABLE people", "2|Bob|50"),
        (
            "ALTER TABLE people RENAME TO old; CREATE TABLE people (age text, name text, id int PRIMARY KEY)",
            "50|Bob|2",
        ),
    ] {
        postgres.execute(&database, change).await;
        sink.put(&[person(2, "Bob", "50"), person(3, "Cy", "60")])
            .await
            .unwrap();
        let found = rows(&postgres, &database, "SELECT * FROM people WHERE id = 2").await;
        assert_eq!(found, [expected], "{change}");
    }
}

#[tokio::test]
async fn the_host_s_mistakes_are_told() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let mut task = PostgresSink::create_task();
    let frame = sink_support::frame(&[(0, person(1, "a", "b"))]);
    assert!(
        task.put(&frame)
            .await
            .unwrap_err()
            .message
            .contains("before its start")
    );
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["other"]).await;
    let error = sink.task.put(&frame).await.unwrap_err();
    says(&error, ErrorKind::Fatal, &["a partition that is not open"]);
    let no_schema = {
        let mut batch = tidewater_plugin_api::FrameBuilder::new();
        let topic = batch.topic("other").unwrap();
        let mut record = batch.record(topic);
        record.partition(0);
        record.offset(0);
        let map = Value::Map(vec![(text("id"), int(1))]);
        record
            .value_value(tidewater_plugin_api::frame::SchemaId::NONE, None, &map)
            .unwrap();
        record.push().unwrap();
        tidewater_plugin_api::Frame::parse(
            batch.finish(),
            &mut tidewater_plugin_api::frame::SchemaCache::default(),
        )
        .unwrap()
    };
    let error = sink.task.put(&no_schema).await.unwrap_err();
    says(
        &error,
        ErrorKind::Refused,
        &["the value has no schema", "schemas.enable"],
    );
}
