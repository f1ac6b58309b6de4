//! What records do to tables: every operation, every mode, envelopes and flat records, names of any kind.

mod sink_support;
mod support;

use sink_support::{Message, Sink, Table, UPSERT, int, int32, rows, string, text};
use support::Postgres;
use tidewater_plugin_api::{Field, Schema, SchemaRef, Type, Value};

fn people() -> Table {
    Table::new(
        "shop.public.people",
        &[("id", int32()), ("name", string()), ("note", string().optional())],
    )
}

fn person(id: i32, name: &str, note: Option<&str>) -> Vec<Value> {
    vec![int(id), text(name), note.map_or(Value::Null, text)]
}

#[tokio::test]
async fn every_operation_of_an_envelope() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let people = people();
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["shop.public.people"]).await;
    let report = sink
        .put(&[
            people.write("r", person(1, "Ann", None)),
            people.write(
                "c",
                person(2, "Bob", Some("tab\tline\nback\\slash 'quote' \"double\" ü 日本")),
            ),
            people.write("c", person(3, "Cy", Some(""))),
            people.write("u", person(1, "Anna", Some("changed"))),
            people.delete(&int(3)),
            people.tombstone(&int(3)),
        ])
        .await
        .unwrap();
    assert!(report.durable);
    let all = "SELECT * FROM shop_public_people ORDER BY id";
    assert_eq!(
        rows(&postgres, &database, all).await,
        [
            "1|Anna|changed",
            "2|Bob|tab\tline\nback\\slash 'quote' \"double\" ü 日本"
        ]
    );
    // A key change comes as the deletion of the old key and the creation of the new one.
    sink.put(&[
        people.delete(&int(1)),
        people.write("c", person(10, "Anna", None)),
        people.tombstone(&int(1)),
    ])
    .await
    .unwrap();
    assert_eq!(
        rows(
            &postgres,
            &database,
            "SELECT id, name FROM shop_public_people ORDER BY id"
        )
        .await,
        ["2|Bob", "10|Anna"]
    );
    sink.put(&[
        people.write("c", person(4, "lost", None)),
        people.truncate(),
        people.write("c", person(5, "kept", None)),
    ])
    .await
    .unwrap();
    assert_eq!(rows(&postgres, &database, all).await, ["5|kept|-"]);
    let key = "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) \
               WHERE i.indrelid = 'shop_public_people'::regclass AND indisprimary";
    assert_eq!(rows(&postgres, &database, key).await, ["id"]);
}

#[tokio::test]
async fn copy_and_parameters_write_the_same() {
    let postgres = Postgres::shared();
    let people = people();
    let mut results = Vec::new();
    for copy_rows in ["1", "1000000"] {
        let database = postgres.database().await;
        let settings = [
            ("insert.mode", "insert"),
            ("pk.mode", "record_key"),
            ("delete.enabled", "true"),
            ("auto.create", "true"),
            ("batch.copy.rows", copy_rows),
            ("batch.size", "7"),
        ];
        let mut sink = Sink::start(&postgres, &database, &settings, &["shop.public.people"]).await;
        let mut messages = Vec::new();
        for n in 0..60 {
            let note = ["\\N", "\\.", "", "a\\b\tc\nd\re\u{8}\"'", "{}"][n as usize % 5];
            messages.push(people.write("c", person(n, note, (n % 3 != 0).then_some(note))));
            if n % 4 == 0 {
                // What is deleted can be inserted again: the order is kept.
                messages.push(people.delete(&int(n / 2)));
                messages.push(people.write("c", person(n / 2, "again", None)));
            }
        }
        sink.put(&messages).await.unwrap();
        assert_eq!(sink.metric("batches-one-by-one"), 0);
        results.push(
            rows(
                &postgres,
                &database,
                "SELECT * FROM shop_public_people ORDER BY id",
            )
            .await,
        );
    }
    assert_eq!(results[0].len(), 60);
    assert_eq!(results[0][28], "28|again|-");
    let odd = "a\\b\tc\nd\re\u{8}\"'";
    assert_eq!(results[0][13], format!("13|{odd}|{odd}"));
    assert_eq!(results[0], results[1]);
}

#[tokio::test]
async fn flat_records_and_the_modes_of_writing() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let people = Table {
        topic: "people".into(),
        ..people()
    };
    postgres
        .execute(
            &database,
            "CREATE TABLE people (id int PRIMARY KEY, name varchar(20), note text)",
        )
        .await;
    let all = "SELECT * FROM people ORDER BY id";
    let update = [
        ("insert.mode", "update"),
        ("pk.mode", "record_key"),
        ("delete.enabled", "true"),
    ];
    let mut sink = Sink::start(&postgres, &database, &update, &["people"]).await;
    sink.put(&[people.flat(person(1, "not there", None))])
        .await
        .unwrap();
    assert!(rows(&postgres, &database, all).await.is_empty());

    let insert = [("insert.mode", "insert"), ("offsets.table", "inserts")];
    let mut sink = Sink::start(&postgres, &database, &insert, &["people"]).await;
    sink.put(&[
        people.flat(person(1, "a", None)),
        people.flat(person(2, "b", None)),
    ])
    .await
    .unwrap();
    sink.put(&[people.tombstone(&int(1))]).await.unwrap();
    assert_eq!(sink.metric("records-passed-over"), 1);
    assert_eq!(rows(&postgres, &database, all).await, ["1|a|-", "2|b|-"]);

    let mut sink = Sink::start_with(
        sink_support::config(postgres.port(), &database, &update),
        2,
        &["people"],
    )
    .await
    .unwrap();
    sink.offset = 10;
    sink.put(&[
        people.flat(person(1, "changed", Some("x"))),
        people.tombstone(&int(2)),
        people.flat(person(2, "gone already", None)),
    ])
    .await
    .unwrap();
    assert_eq!(rows(&postgres, &database, all).await, ["1|changed|x"]);
}

#[tokio::test]
async fn each_way_to_a_key() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let people = Table {
        topic: "people".into(),
        ..people()
    };
    // From the value.
    let settings = [
        ("insert.mode", "upsert"),
        ("pk.mode", "record_value"),
        ("pk.fields", "name,id"),
        ("auto.create", "true"),
        ("table.name.format", "by_value"),
    ];
    let mut sink = Sink::start(&postgres, &database, &settings, &["people"]).await;
    sink.put(&[
        people.flat(person(1, "a", None)),
        people.flat(person(1, "a", Some("last"))),
    ])
    .await
    .unwrap();
    assert_eq!(
        rows(&postgres, &database, "SELECT name, id, note FROM by_value").await,
        ["a|1|last"]
    );
    // From topic, partition and offset.
    let settings = [
        ("pk.mode", "kafka"),
        ("auto.create", "true"),
        ("table.name.format", "by_kafka"),
        ("offsets.table", "o2"),
    ];
    let mut sink = Sink::start(&postgres, &database, &settings, &["people"]).await;
    sink.put(&[
        people.flat(person(1, "a", None)),
        people.flat(person(1, "b", None)).partition(2),
    ])
    .await
    .unwrap();
    assert_eq!(
        rows(
            &postgres,
            &database,
            "SELECT __connect_topic, __connect_partition, __connect_offset, name FROM by_kafka ORDER BY 3"
        )
        .await,
        ["people|0|0|a", "people|2|1|b"]
    );
    // A key that is no struct.
    let settings = [
        ("insert.mode", "upsert"),
        ("pk.mode", "record_key"),
        ("pk.fields", "number"),
        ("delete.enabled", "true"),
        ("auto.create", "true"),
        ("table.name.format", "by_key"),
        ("fields.whitelist", "name"),
        ("offsets.table", "o3"),
    ];
    let mut sink = Sink::start(&postgres, &database, &settings, &["people"]).await;
    let plain = |id: i64, row: Option<Vec<Value>>| {
        let value = row.map(|row| (people.row.clone(), Value::Struct(row)));
        Message::new(
            "people",
            Some((Schema::new(Type::Int64).into(), Value::Int64(id))),
            value,
        )
    };
    sink.put(&[
        plain(7, Some(person(1, "a", Some("left out")))),
        plain(8, Some(person(1, "b", None))),
        plain(8, None),
    ])
    .await
    .unwrap();
    assert_eq!(rows(&postgres, &database, "SELECT * FROM by_key").await, ["7|a"]);
}

#[tokio::test]
async fn values_that_were_not_sent_stay() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let docs = Table::new(
        "docs",
        &[
            ("id", int32()),
            ("title", string()),
            ("body", string()),
            ("tags", Schema::array(string())),
            ("size", Schema::new(Type::Int64).optional()),
        ],
    );
    let unsent = "__debezium_unavailable_value";
    let doc = |id: i32, title: &str, body: &str| {
        vec![
            int(id),
            text(title),
            text(body),
            Value::Array(vec![text("a"), text("b")]),
            Value::Int64(5),
        ]
    };
    let partial = |id: i32, title: &str| {
        let row = vec![
            int(id),
            text(title),
            text(unsent),
            Value::Array(vec![text(unsent)]),
            Value::Null,
        ];
        let mut message = docs.write("u", row);
        message.unavailable = vec!["size".into()];
        message
    };
    let all = "SELECT * FROM docs ORDER BY id";
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["docs"]).await;
    // `body` and `tags` are NOT NULL: an insertion without them would be refused though the row is there.
    sink.put(&[
        docs.write("c", doc(1, "one", "long")),
        docs.write("c", doc(2, "two", "longer")),
    ])
    .await
    .unwrap();
    sink.put(&[
        partial(1, "uno"),
        docs.write("u", doc(2, "zwei", "new")),
        partial(2, "due"),
    ])
    .await
    .unwrap();
    assert_eq!(
        rows(&postgres, &database, all).await,
        [r#"1|uno|long|["a","b"]|5"#, r#"2|due|new|["a","b"]|5"#]
    );
    // A row in which nothing changed at all.
    let row = vec![
        int(1),
        text(unsent),
        text(unsent),
        Value::Array(vec![text(unsent)]),
        Value::Int64(6),
    ];
    let mut nothing = docs.write("u", row);
    nothing.unavailable = vec!["size".into()];
    sink.put(&[nothing]).await.unwrap();
    assert_eq!(
        rows(&postgres, &database, all).await[0],
        r#"1|uno|long|["a","b"]|5"#
    );
    assert_eq!(sink.metric("batches-one-by-one"), 0);
}

#[tokio::test]
async fn rows_too_large_for_one_statement() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let people = people();
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["shop.public.people"]).await;
    let large = "x".repeat(9_000_000);
    let messages: Vec<_> = (0..5)
        .map(|n| people.write("c", person(n, &large, None)))
        .collect();
    sink.put(&messages).await.unwrap();
    let lengths = "SELECT id, length(name) FROM shop_public_people ORDER BY id";
    let expected: Vec<_> = (0..5).map(|n| format!("{n}|9000000")).collect();
    assert_eq!(rows(&postgres, &database, lengths).await, expected);
    assert_eq!(sink.metric("rows-written"), 5);
}

#[tokio::test]
async fn names_of_any_kind() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let odd = Table::new(
        r#"p.sel"ect.Weird "Name" $1"#,
        &[
            ("Id", int32()),
            ("select", string()),
            ("a \"b\" 'c'", string()),
            (&"ä".repeat(40), string()),
        ],
    );
    let mut settings = UPSERT.to_vec();
    settings.push(("table.name.format", "${source.schema}.${source.table}"));
    let mut sink = Sink::start(&postgres, &database, &settings, &[&odd.topic]).await;
    let row = |n: i32| vec![int(n), text("x"), text("y"), text("z")];
    sink.put(&[
        odd.write("c", row(1)),
        odd.write("c", row(2)),
        odd.tombstone(&int(2)),
    ])
    .await
    .unwrap();
    sink.put(&[odd.write("u", row(1))]).await.unwrap();
    assert_eq!(
        rows(
            &postgres,
            &database,
            r#"SELECT "Id", "select", "a ""b"" 'c'" FROM "sel""ect"."Weird ""Name"" $1""#
        )
        .await,
        ["1|x|y"]
    );
    // Unquoted, as SQL reads it.
    let mut settings = UPSERT.to_vec();
    settings.extend([
        ("quote.identifiers", "false"),
        ("collection.name.format", "Copy_${topic}"),
        ("offsets.table", "o2"),
    ]);
    let upper = Table::new("Order.Lines", &[("ID", int32()), ("Text", string())]);
    let mut sink = Sink::start(&postgres, &database, &settings, &["Order.Lines"]).await;
    sink.put(&[upper.write("c", vec![int(1), text("a")])])
        .await
        .unwrap();
    assert_eq!(
        rows(&postgres, &database, "SELECT id, text FROM copy_order_lines").await,
        ["1|a"]
    );
}

#[tokio::test]
async fn tables_are_made_and_widened() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(&database, "CREATE TYPE mood AS ENUM ('sad', 'glad')")
        .await;
    let from = |schema: Schema, ty: &str, length: &str, scale: &str| {
        schema
            .parameter("__debezium.source.column.type", ty)
            .parameter("__debezium.source.column.length", length)
            .parameter("__debezium.source.column.scale", scale)
    };
    let decimal = Schema::new(Type::Bytes)
        .named("org.apache.kafka.connect.data.Decimal")
        .parameter("scale", "2");
    let columns = [
        ("id", int32()),
        ("mood", from(string(), "MOOD", "0", "0")),
        ("unknown", from(string(), "GEOMETRY", "0", "0")),
        ("code", from(string(), "VARCHAR", "8", "0")),
        ("price", from(decimal, "NUMERIC", "10", "2").optional()),
        ("flag", Schema::new(Type::Bool).default_value(Value::Bool(true))),
    ];
    let table = Table::new("t", &columns);
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["t"]).await;
    let row = vec![
        int(1),
        text("glad"),
        text("POINT(1 2)"),
        text("abc"),
        Value::Bytes(vec![0x7b].into()),
        Value::Bool(false),
    ];
    sink.put(&[table.write("c", row.clone())]).await.unwrap();
    let described = "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute \
                     WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum";
    assert_eq!(
        rows(&postgres, &database, described).await,
        [
            "id|integer|true",
            "mood|mood|true",
            "unknown|text|true",
            "code|character varying(8)|true",
            "price|numeric(10,2)|false",
            "flag|boolean|true"
        ]
    );
    let mut wider = columns.to_vec();
    wider.push(("added", string()));
    wider.push(("counted", int32().default_value(int(7))));
    wider.push(("maybe", Schema::new(Type::Float64).optional()));
    let wider = Table::new("t", &wider);
    let mut wide_row = row.clone();
    wide_row[0] = int(2);
    wide_row.extend([text("new"), int(8), Value::Null]);
    // Old and new schema in one batch, and the old one again afterwards.
    let mut third = row.clone();
    third[0] = int(3);
    sink.put(&[
        table.write("u", row),
        wider.write("c", wide_row),
        table.write("c", third),
    ])
    .await
    .unwrap();
    assert_eq!(
        rows(
            &postgres,
            &database,
            "SELECT id, price, added, counted, maybe FROM t ORDER BY id"
        )
        .await,
        ["1|1.23|-|7|-", "2|1.23|new|8|-", "3|1.23|-|7|-"]
    );
    let later = "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 6 ORDER BY attnum";
    assert_eq!(
        rows(&postgres, &database, later).await,
        ["added|false", "counted|true", "maybe|false"]
    );
}

#[tokio::test]
async fn generated_identity_and_domain_columns() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE DOMAIN short AS varchar(5) CHECK (value <> 'bad');
             CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a short, b int,
                             c int GENERATED ALWAYS AS (b * 2) STORED, d char(3), e bit(4), f timestamp(0))",
        )
        .await;
    let table = Table::new(
        "t",
        &[
            ("id", int32()),
            ("a", string()),
            ("b", int32()),
            ("c", int32()),
            ("d", string()),
            ("e", string()),
            ("f", string()),
        ],
    );
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["t"]).await;
    let row = |id: i32, b: i32| {
        vec![
            int(id),
            text("five5"),
            int(b),
            int(0),
            text("x"),
            text("1010"),
            text("2020-01-01 00:00:00.7"),
        ]
    };
    sink.put(&[table.write("c", row(7, 1))]).await.unwrap();
    sink.put(&[table.write("u", row(7, 2)), table.write("c", row(8, 3))])
        .await
        .unwrap();
    assert_eq!(
        rows(
            &postgres,
            &database,
            "SELECT id, a, b, c, d, e, f FROM t ORDER BY id"
        )
        .await,
        [
            "7|five5|2|4|x  |1010|2020-01-01T00:00:01",
            "8|five5|3|6|x  |1010|2020-01-01T00:00:01"
        ]
    );
    // Nothing is cut to fit in silence.
    let mut long = row(9, 1);
    long[1] = text("sixsix");
    let error = sink.put(&[table.write("c", long)]).await.unwrap_err();
    assert!(error.message.contains("22001"), "{error}");
}

#[tokio::test]
async fn foreign_keys_between_tables_of_a_batch() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    postgres
        .execute(
            &database,
            "CREATE TABLE parents (id int PRIMARY KEY);
             CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents)",
        )
        .await;
    let parents = Table::new("parents", &[("id", int32())]);
    let children = Table::new("children", &[("id", int32()), ("parent", int32())]);
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["parents", "children"]).await;
    sink.put(&[
        children.write("c", vec![int(1), int(1)]),
        parents.write("c", vec![int(1)]),
        parents.write("c", vec![int(2)]),
    ])
    .await
    .unwrap();
    sink.put(&[parents.delete(&int(1)), children.delete(&int(1))])
        .await
        .unwrap();
    assert_eq!(sink.metric("batches-one-by-one"), 0);
    assert_eq!(rows(&postgres, &database, "SELECT * FROM parents").await, ["2"]);
}

#[tokio::test]
async fn records_that_concern_no_table_are_passed_over() {
    let postgres = Postgres::shared();
    let database = postgres.database().await;
    let mut sink = Sink::start(&postgres, &database, &UPSERT, &["t"]).await;
    let heartbeat = SchemaRef::new(
        Schema::structure(vec![Field::new("ts_ms", Schema::new(Type::Int64))])
            .named("io.debezium.connector.common.Heartbeat"),
    );
    let table = Table::new("t", &[("id", int32())]);
    sink.put(&[
        Message::new("t", None, Some((heartbeat, Value::Struct(vec![Value::Int64(1)])))),
        // A tombstone for a table that was never made.
        table.tombstone(&int(1)),
    ])
    .await
    .unwrap();
    assert_eq!(sink.metric("records-passed-over"), 2);
    let made = rows(&postgres, &database, "SELECT to_regclass('t')").await;
    assert_eq!(made, ["-"]);
}
