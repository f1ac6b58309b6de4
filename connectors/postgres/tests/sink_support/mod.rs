//! A sink task on a real database, and the records to feed it with.
#![allow(dead_code)] // each test binary uses its own part of this
#![allow(clippy::unwrap_used)] // a failure here is the test's message

use std::sync::Arc;

use tidewater_connector_postgres::sink::PostgresSink;
use tidewater_plugin_api::frame::SchemaCache;
use tidewater_plugin_api::{
    AssignedPartition, Config, ConfigMap, Field, Frame, FrameBuilder, PutReport, Result, Schema, SchemaRef,
    SinkConnector, SinkTask, SinkTaskContext, TopicPartition, TopicPartitionOffset, Type, Value,
};

use crate::support::{PASSWORD, Postgres, USER};

/// A value and its schema.
pub type Typed = (SchemaRef, Value);

/// A record to be.
#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub partition: u32,
    pub key: Option<Typed>,
    pub value: Option<Typed>,
    pub unavailable: Vec<String>,
}

impl Message {
    pub fn new(topic: &str, key: Option<Typed>, value: Option<Typed>) -> Self {
        Self {
            topic: topic.into(),
            partition: 0,
            key,
            value,
            unavailable: Vec::new(),
        }
    }

    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = partition;
        self
    }
}

/// A frame of messages, each with its offset.
pub fn frame(messages: &[(u64, Message)]) -> Frame {
    let mut batch = FrameBuilder::new();
    let names_schema = SchemaRef::new(Schema::array(Schema::new(Type::String)));
    for (offset, message) in messages {
        let topic = batch.topic(&message.topic).unwrap();
        let mut id = |typed: &Option<Typed>| typed.as_ref().map(|(schema, _)| batch.schema(schema).unwrap());
        let (key_id, value_id) = (id(&message.key), id(&message.value));
        let names_id = batch.schema(&names_schema).unwrap();
        let mut record = batch.record(topic);
        record.partition(message.partition);
        record.offset(*offset);
        if let (Some(id), Some((schema, key))) = (key_id, &message.key) {
            record.key_value(id, Some(schema), key).unwrap();
        }
        if let (Some(id), Some((schema, value))) = (value_id, &message.value) {
            record.value_value(id, Some(schema), value).unwrap();
        }
        if !message.unavailable.is_empty() {
            let names = message.unavailable.iter().cloned().map(Value::String).collect();
            record
                .header(
                    "__unavailable.columns",
                    names_id,
                    Some(&names_schema),
                    Some(&Value::Array(names)),
                )
                .unwrap();
        }
        record.push().unwrap();
    }
    Frame::parse(batch.finish(), &mut SchemaCache::default()).unwrap()
}

/// A table's row schema and key, and the messages that change it.
#[derive(Clone, Debug)]
pub struct Table {
    pub topic: String,
    pub key: SchemaRef,
    pub row: SchemaRef,
    pub envelope: SchemaRef,
}

impl Table {
    /// A table whose first column is the key.
    pub fn new(topic: &str, columns: &[(&str, Schema)]) -> Self {
        let fields = |count: usize| -> Vec<Field> {
            columns[..count]
                .iter()
                .map(|(name, schema)| Field::new(*name, schema.clone()))
                .collect()
        };
        let row = SchemaRef::new(Schema::structure(fields(columns.len())).optional());
        let source = Schema::structure(vec![
            Field::new("connector", Schema::new(Type::String)),
            Field::new("schema", Schema::new(Type::String)),
            Field::new("table", Schema::new(Type::String)),
        ]);
        let envelope = Schema::structure(vec![
            Field::new("before", row.clone()),
            Field::new("after", row.clone()),
            Field::new("source", source),
            Field::new("op", Schema::new(Type::String)),
            Field::new("ts_ms", Schema::new(Type::Int64).optional()),
        ])
        .named(format!("{topic}.Envelope"));
        Self {
            topic: topic.into(),
            key: Schema::structure(fields(1)).into(),
            row,
            envelope: envelope.into(),
        }
    }

    #[allow(clippy::unnecessary_wraps)] // as messages take it
    pub fn key(&self, key: &Value) -> Option<Typed> {
        Some((self.key.clone(), Value::Struct(vec![key.clone()])))
    }

    fn event(&self, op: &str, after: Value) -> Typed {
        let mut names = self.topic.rsplit('.');
        let (table, schema) = (names.next().unwrap_or(""), names.next().unwrap_or("public"));
        let text = |text: &str| Value::String(text.into());
        let source = Value::Struct(vec![text("postgresql"), text(schema), text(table)]);
        (
            self.envelope.clone(),
            Value::Struct(vec![Value::Null, after, source, text(op), Value::Int64(0)]),
        )
    }

    /// An event of `op` (c, r, u) with a whole row.
    pub fn write(&self, op: &str, row: Vec<Value>) -> Message {
        let key = self.key(&row[0]);
        Message::new(&self.topic, key, Some(self.event(op, Value::Struct(row))))
    }

    /// The event of a deletion.
    pub fn delete(&self, key: &Value) -> Message {
        Message::new(&self.topic, self.key(key), Some(self.event("d", Value::Null)))
    }

    /// A tombstone.
    pub fn tombstone(&self, key: &Value) -> Message {
        Message::new(&self.topic, self.key(key), None)
    }

    /// The event of a truncation.
    pub fn truncate(&self) -> Message {
        Message::new(&self.topic, None, Some(self.event("t", Value::Null)))
    }

    /// A flat record.
    pub fn flat(&self, row: Vec<Value>) -> Message {
        let key = self.key(&row[0]);
        Message::new(&self.topic, key, Some((self.row.clone(), Value::Struct(row))))
    }
}

pub fn text(text: &str) -> Value {
    Value::String(text.into())
}

pub fn int(number: i32) -> Value {
    Value::Int32(number)
}

pub fn string() -> Schema {
    Schema::new(Type::String)
}

pub fn int32() -> Schema {
    Schema::new(Type::Int32)
}

/// A running task that owns partitions of topics.
pub struct Sink {
    pub task: Box<dyn SinkTask>,
    pub positions: Vec<TopicPartitionOffset>,
    /// The next offset, one for all partitions.
    pub offset: u64,
}

/// What most tests want: upserts and deletes by the record's key, tables made on demand.
pub const UPSERT: [(&str, &str); 6] = [
    ("insert.mode", "upsert"),
    ("pk.mode", "record_key"),
    ("delete.enabled", "true"),
    ("truncate.enabled", "true"),
    ("auto.create", "true"),
    ("auto.evolve", "true"),
];

/// A configuration for `database` at `port`.
pub fn config(port: u16, database: &str, settings: &[(&str, &str)]) -> Config {
    let mut map: ConfigMap = [
        (
            "connection.url".to_owned(),
            format!("jdbc:postgresql://127.0.0.1:{port}/{database}"),
        ),
        ("connection.user".to_owned(), USER.to_owned()),
        ("connection.password".to_owned(), PASSWORD.to_owned()),
        ("connection.sslmode".to_owned(), "disable".to_owned()),
    ]
    .into();
    map.extend(
        settings
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned())),
    );
    Config::new(PostgresSink::spec().config, map).unwrap()
}

pub fn partitions(topics: &[&str], count: u32) -> Vec<AssignedPartition> {
    topics
        .iter()
        .flat_map(|topic| {
            (0..count).map(move |partition| {
                TopicPartition {
                    topic: (*topic).to_owned(),
                    partition,
                }
                .assigned(format!("id of {topic}"))
            })
        })
        .collect()
}

impl Sink {
    /// Starts a task of the connector "sink" in its first life.
    pub async fn start(
        postgres: &Postgres,
        database: &str,
        settings: &[(&str, &str)],
        topics: &[&str],
    ) -> Self {
        Self::start_with(config(postgres.port(), database, settings), 1, topics)
            .await
            .unwrap()
    }

    pub async fn start_with(config: Config, generation: u64, topics: &[&str]) -> Result<Self> {
        let mut task = PostgresSink::create_task();
        task.start(SinkTaskContext {
            connector: "sink".into(),
            task: 0,
            generation,
            config,
        })
        .await?;
        let positions = task.open(&partitions(topics, 3)).await?;
        Ok(Self {
            task,
            positions,
            offset: 0,
        })
    }

    /// Puts messages at the offsets that come next.
    pub async fn put(&mut self, messages: &[Message]) -> Result<PutReport> {
        let numbered = self.number(messages);
        self.task.put(&frame(&numbered)).await
    }

    /// Gives messages the offsets that come next.
    pub fn number(&mut self, messages: &[Message]) -> Vec<(u64, Message)> {
        messages
            .iter()
            .map(|message| {
                self.offset += 1;
                (self.offset - 1, message.clone())
            })
            .collect()
    }

    pub fn metric(&self, name: &str) -> u64 {
        self.task.metrics()[name] as u64
    }
}

/// The rows of a query as text, cells parted by `|`, NULL as `-`.
pub async fn rows(postgres: &Postgres, database: &str, query: &str) -> Vec<String> {
    use sqlx::Row as _;
    let mut connection = postgres.connect(database).await;
    let sql = format!(
        "SELECT coalesce((SELECT string_agg(coalesce(value, '-'), '|' ORDER BY n) \
         FROM json_each_text(row_to_json(q)) WITH ORDINALITY AS e(key, value, n)), '') FROM ({query}) q"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .fetch_all(&mut connection)
        .await
        .unwrap_or_else(|error| panic!("{query}: {error}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// A runtime-independent pause-free retry: repeats a retriable `put` until it succeeds.
pub async fn put_until_done(sink: &mut Sink, frame: &Frame) -> u32 {
    let mut attempts = 0;
    loop {
        match sink.task.put(frame).await {
            Ok(report) => {
                assert!(report.durable);
                return attempts;
            }
            Err(error) => {
                assert_eq!(error.kind, tidewater_plugin_api::ErrorKind::Retriable, "{error}");
                attempts += 1;
                assert!(attempts < 10_000, "{error}");
                // As the host does: a back-off before the same batch comes again.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
    }
}

/// A shared handle, for tests that stop and start the server from elsewhere.
pub type Server = Arc<Postgres>;
