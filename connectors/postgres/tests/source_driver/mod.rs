//! Runs a postgres-source task as the host would, and shows its records as JSON.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses its own part of this; a failure is the message

use std::time::Duration;

use serde_json::{Map, Value as Json};
use tidewater_connector_postgres::source::{PostgresSource, PostgresSourceTask};
use tidewater_plugin_api::frame::SchemaCache;
use tidewater_plugin_api::json::{DecimalFormat, write_value};
use tidewater_plugin_api::{
    Config, ConfigMap, Error, Frame, FrameBuilder, Schema, SourceConnector, SourcePosition, SourceTask,
    SourceTaskContext, ValueRef,
};

use crate::support::{PASSWORD, Postgres, USER};

/// Long enough for a busy machine; reached only where something hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    pub topic: String,
    pub key: Json,
    pub value: Json,
    /// Key and value schemas in Connect's JSON form.
    pub key_schema: Json,
    pub value_schema: Json,
    pub headers: Vec<(String, Json)>,
}

impl Record {
    pub fn op(&self) -> &str {
        self.value["op"].as_str().unwrap_or("tombstone")
    }

    pub fn after(&self) -> &Json {
        &self.value["after"]
    }

    pub fn before(&self) -> &Json {
        &self.value["before"]
    }

    pub fn snapshot(&self) -> &str {
        self.value["source"]["snapshot"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&Json> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The schema of a field of `after`.
    pub fn field_schema(&self, name: &str) -> Json {
        let fields = self.value_schema["fields"].as_array().unwrap();
        let after = fields.iter().find(|field| field["field"] == "after").unwrap();
        let fields = after["fields"].as_array().unwrap();
        fields
            .iter()
            .find(|field| field["field"] == name)
            .cloned()
            .unwrap_or(Json::Null)
    }
}

/// A batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub records: Vec<Record>,
    pub positions: Vec<SourcePosition>,
}

/// A running task.
pub struct Driver {
    pub task: PostgresSourceTask,
    builder: FrameBuilder,
    /// The position of the last batch.
    pub position: Option<SourcePosition>,
}

/// The configuration for `database` with further `settings`; a setting without a value is taken away.
pub fn config(postgres: &Postgres, database: &str, settings: &[(&str, &str)]) -> ConfigMap {
    let mut map = ConfigMap::new();
    let port = postgres.port().to_string();
    let slot = format!("slot_{database}");
    for (key, value) in [
        ("database.hostname", "127.0.0.1"),
        ("database.port", port.as_str()),
        ("database.user", USER),
        ("database.password", PASSWORD),
        ("database.dbname", database),
        ("database.sslmode", "disable"),
        ("topic.prefix", "t"),
        ("slot.name", slot.as_str()),
        ("status.update.interval.ms", "50"),
    ]
    .iter()
    .chain(settings)
    {
        map.insert((*key).to_owned(), (*value).to_owned());
    }
    map
}

impl Driver {
    pub async fn start(
        postgres: &Postgres,
        database: &str,
        settings: &[(&str, &str)],
        position: Option<SourcePosition>,
    ) -> Self {
        Self::try_start(config(postgres, database, settings), position)
            .await
            .unwrap()
    }

    pub async fn try_start(map: ConfigMap, position: Option<SourcePosition>) -> Result<Self, Error> {
        let config = Config::new(PostgresSource::spec().config, map).expect("a valid configuration");
        let mut task = PostgresSourceTask::new();
        let context = SourceTaskContext {
            connector: "test".to_owned(),
            task: 0,
            generation: 1,
            config,
            positions: position.clone().into_iter().collect(),
        };
        tokio::time::timeout(PATIENCE, task.start(context))
            .await
            .expect("start hangs")?;
        Ok(Self {
            task,
            builder: FrameBuilder::new(),
            position,
        })
    }

    /// One poll, whatever it brings.
    pub async fn poll(&mut self) -> Result<Batch, Error> {
        tokio::time::timeout(PATIENCE, self.task.poll(&mut self.builder))
            .await
            .expect("poll hangs")?;
        Ok(self.take())
    }

    /// What has been pushed so far.
    pub fn take(&mut self) -> Batch {
        let mut builder = std::mem::take(&mut self.builder);
        self.take_from(&mut builder)
    }

    /// What has been pushed into `builder`.
    pub fn take_from(&mut self, builder: &mut FrameBuilder) -> Batch {
        let frame = Frame::parse(builder.finish(), &mut SchemaCache::default()).unwrap();
        let batch = Batch {
            records: records(&frame),
            positions: frame.positions().to_vec(),
        };
        if let Some(position) = batch.positions.last() {
            self.position = Some(position.clone());
        }
        batch
    }

    /// Makes the last position durable.
    pub async fn commit(&mut self) {
        if let Some(position) = self.position.clone() {
            self.task.commit(&[position]).await.unwrap();
        }
    }

    /// Polls until `enough` holds of all records since the call; commits nothing.
    pub async fn until(&mut self, mut enough: impl FnMut(&[Record]) -> bool) -> Vec<Record> {
        let mut records = Vec::new();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !enough(&records) {
                records.extend(self.poll().await.unwrap().records);
            }
        });
        let came = waited.await.is_ok();
        assert!(came, "what was awaited did not come; there came {records:#?}");
        records
    }

    /// Polls until there are `count` records.
    pub async fn take_records(&mut self, count: usize) -> Vec<Record> {
        let records = self.until(|records| records.len() >= count).await;
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// Polls until the snapshot is over; its records.
    pub async fn snapshot(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        loop {
            let batch = self.poll().await.unwrap();
            records.extend(batch.records);
            let complete = |position: &SourcePosition| !offset(position).contains_key("snapshot");
            if batch.positions.last().is_some_and(complete) {
                return records;
            }
        }
    }

    /// Polls until `condition` of the database holds, committing every position.
    pub async fn until_database(
        &mut self,
        postgres: &Postgres,
        database: &str,
        condition: &str,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        let waited = tokio::time::timeout(PATIENCE, async {
            while postgres.value(database, condition).await.as_deref() != Some("true") {
                records.extend(self.poll().await.unwrap().records);
                self.commit().await;
            }
        });
        assert!(waited.await.is_ok(), "never true: {condition}");
        records
    }

    pub async fn stop(mut self) {
        self.task.stop().await.unwrap();
    }
}

/// The offset of a position.
pub fn offset(position: &SourcePosition) -> &Map<String, Json> {
    position.offset.as_ref().unwrap()
}

fn records(frame: &Frame) -> Vec<Record> {
    let schema = |schema: Option<&tidewater_plugin_api::SchemaRef>| {
        schema.map_or(Json::Null, |schema| {
            serde_json::from_slice(schema.json()).unwrap()
        })
    };
    frame
        .records()
        .map(|record| Record {
            topic: record.topic().to_owned(),
            key: json(record.key().unwrap(), record.key_schema().map(|schema| &**schema)),
            value: json(
                record.value().unwrap(),
                record.value_schema().map(|schema| &**schema),
            ),
            key_schema: schema(record.key_schema()),
            value_schema: schema(record.value_schema()),
            headers: record
                .headers()
                .map(|header| {
                    let header = header.unwrap();
                    (
                        header.name.to_owned(),
                        json(header.value, header.schema.map(|schema| &**schema)),
                    )
                })
                .collect(),
        })
        .collect()
}

fn json(value: ValueRef<'_>, schema: Option<&Schema>) -> Json {
    let mut text = Vec::new();
    write_value(value, schema, DecimalFormat::Numeric, &mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}
