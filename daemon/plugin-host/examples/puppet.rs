//! A plugin for tests: a source and a sink that succeed, fail, hang and panic where their configuration says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidewater_plugin_api::metric::{Counter, Gauge};
use tidewater_plugin_api::{
    AssignedPartition, Config, ConfigDef, ConfigMap, ConfigProblem, ConnectorKind, ConnectorSpec, Error,
    Frame, FrameBuilder, Importance, PutReport, Result, Schema, SchemaRef, SinkConnector, SinkTask,
    SinkTaskContext, SourceConnector, SourcePosition, SourceTask, SourceTaskContext, TopicPartition,
    TopicPartitionOffset, Type, async_trait, config_def::ConfigType,
};

tidewater_plugin_api::export_plugin! {
    name: "tidewater-puppet",
    sources: [PuppetSource],
    sinks: [PuppetSink],
}

/// Calls that have begun to wait or block.
static WAITS: Counter = Counter::new("waits");
/// Futures that were dropped while they waited.
static DROPPED_FUTURES: Counter = Counter::new("dropped_futures");
static MADE_TASKS: Counter = Counter::new("made_tasks");
static DROPPED_TASKS: Counter = Counter::new("dropped_tasks");
static STOPS: Counter = Counter::new("stops");
static POLLS: Counter = Counter::new("polls");
static GENERATION: Gauge = Gauge::new("generation");

fn spec(class: &str, alias: &str, kind: ConnectorKind) -> ConnectorSpec {
    ConnectorSpec {
        class: class.into(),
        aliases: vec![alias.into()],
        kind,
        version: env!("CARGO_PKG_VERSION").into(),
        documentation: "Does what it is told.".into(),
        config: ConfigDef::new()
            .optional(
                "at",
                ConfigType::String,
                "",
                Importance::High,
                "The call that does it.",
            )
            .optional(
                "do",
                ConfigType::String,
                "nothing",
                Importance::High,
                "What that call does.",
            )
            .nullable(
                "block.file",
                ConfigType::String,
                Importance::Low,
                "`block` blocks while it is there.",
            )
            .optional(
                "records",
                ConfigType::Int,
                "3",
                Importance::Low,
                "Records per poll.",
            )
            .optional(
                "bytes",
                ConfigType::Int,
                "0",
                Importance::Low,
                "Bytes to make a record longer by.",
            )
            .optional(
                "polls",
                ConfigType::Long,
                "1",
                Importance::Low,
                "Polls that bring something.",
            ),
        exactly_once: false,
    }
}

/// What the configuration says.
#[derive(Clone, Default)]
struct Orders {
    at: String,
    does: String,
    block: PathBuf,
}

impl Orders {
    fn new(config: &Config) -> Self {
        Self {
            at: config.str("at").into(),
            does: config.str("do").into(),
            block: config.str("block.file").into(),
        }
    }

    async fn obey(&self, call: &str) -> Result<()> {
        if self.at != call {
            return Ok(());
        }
        match self.does.as_str() {
            "panic" => panic!("told to panic in {call}"),
            "retriable" => Err(Error::retriable(format!("told to fail in {call}"))),
            "fatal" => Err(Error::fatal(format!("told to fail in {call}"))),
            "config" => Err(Error::config(format!("told to fail in {call}"))),
            "fenced" => Err(Error::new(
                tidewater_plugin_api::ErrorKind::Fenced,
                "told to fail",
            )),
            "hang" => {
                let _dropped = OnDrop(|| DROPPED_FUTURES.add(1));
                WAITS.add(1);
                std::future::pending().await
            }
            "hang-and-panic-on-drop" => {
                let _dropped = OnDrop(|| panic!("told to panic as the future of {call} is dropped"));
                WAITS.add(1);
                std::future::pending().await
            }
            "block" => {
                WAITS.add(1);
                block(&self.block);
                Ok(())
            }
            "block-in-pool" => {
                let file = self.block.clone();
                tokio::task::spawn_blocking(move || block(&file));
                Ok(())
            }
            "panic-in-spawn" => {
                let spawned = tokio::spawn(async move { panic!("told to panic in a spawned task") }).await;
                assert!(spawned.is_err());
                Ok(())
            }
            "panic-in-pool" => {
                let spawned =
                    tokio::task::spawn_blocking(|| panic!("told to panic in the blocking pool")).await;
                assert!(spawned.is_err());
                Ok(())
            }
            "panic-with-a-number" => std::panic::panic_any(42),
            "log" => {
                tracing::error!(
                    rows = 3,
                    table = "orders",
                    ready = true,
                    ratio = 0.5,
                    task = "own",
                    "told to log"
                );
                tracing::trace!("told to trace");
                let inner = tokio::task::spawn_blocking(|| tracing::warn!("from the pool")).await;
                assert!(inner.is_ok());
                Ok(())
            }
            other => Err(Error::config(format!("do = {other:?} is not known"))),
        }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        if self.at == "drop" {
            match self.does.as_str() {
                "panic" => panic!("told to panic in Drop"),
                "block" => block(&self.block),
                _ => {}
            }
        }
    }
}

/// Blocks the thread for as long as `file` is there.
fn block(file: &Path) {
    while file.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

struct PuppetSource(Option<Orders>);

#[async_trait]
impl SourceConnector for PuppetSource {
    fn spec() -> ConnectorSpec {
        spec(
            "puppet-source",
            "com.example.PuppetSourceConnector",
            ConnectorKind::Source,
        )
    }

    fn create() -> Box<dyn SourceConnector> {
        Box::new(Self(None))
    }

    fn create_task() -> Box<dyn SourceTask> {
        MADE_TASKS.add(1);
        Box::new(PuppetSourceTask::default())
    }

    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        let orders = Orders::new(config);
        match orders.obey("validate").await {
            Ok(()) => Vec::new(),
            Err(error) => vec![ConfigProblem::new("do", error.message)],
        }
    }

    async fn start(&mut self, config: &Config) -> Result<()> {
        let orders = self.0.insert(Orders::new(config));
        orders.obey("connector-start").await
    }

    async fn task_configs(&mut self, max_tasks: usize) -> Result<Vec<ConfigMap>> {
        let orders = self.0.clone().unwrap_or_default();
        orders.obey("task_configs").await?;
        let extra = usize::from(orders.does == "too-many-tasks");
        Ok((0..max_tasks + extra)
            .map(|task| ConfigMap::from([("part".to_owned(), task.to_string())]))
            .collect())
    }

    async fn stop(&mut self) -> Result<()> {
        STOPS.add(1);
        self.0.clone().unwrap_or_default().obey("connector-stop").await
    }
}

#[derive(Default)]
struct PuppetSourceTask {
    orders: Orders,
    connector: String,
    records: usize,
    /// What makes each record longer.
    filling: Vec<u8>,
    schema: Option<SchemaRef>,
    polls_left: i64,
    /// How many records have been read.
    read: i64,
    committed: i64,
}

impl Drop for PuppetSourceTask {
    fn drop(&mut self) {
        DROPPED_TASKS.add(1);
    }
}

impl PuppetSourceTask {
    fn push(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let schema = self
            .schema
            .get_or_insert_with(|| Arc::new(Schema::new(Type::String)));
        let topic = batch.topic("puppets")?;
        let id = batch.schema(schema)?;
        let mut record = batch.record(topic);
        record.value(id, |writer| {
            let open = writer.begin();
            writer.raw(self.read.to_string().as_bytes());
            writer.raw(&self.filling);
            writer.end(open);
        });
        record.push()?;
        self.read += 1;
        Ok(())
    }

    fn position(&self, batch: &mut FrameBuilder) {
        let json =
            |name: &str, value: serde_json::Value| serde_json::Map::from_iter([(name.to_owned(), value)]);
        batch.position(SourcePosition {
            partition: json("puppet", self.connector.clone().into()),
            offset: Some(json("read", self.read.into())),
        });
    }
}

#[async_trait]
impl SourceTask for PuppetSourceTask {
    async fn start(&mut self, context: SourceTaskContext) -> Result<()> {
        self.orders = Orders::new(&context.config);
        self.orders.obey("start").await?;
        GENERATION.set(context.generation as f64);
        self.connector.clone_from(&context.connector);
        self.records = context.config.usize("records");
        self.filling = vec![b'x'; context.config.usize("bytes")];
        self.polls_left = context.config.i64("polls");
        let partition = serde_json::Map::from_iter([("puppet".to_owned(), self.connector.clone().into())]);
        self.read = context
            .offset(&partition)
            .and_then(|offset| offset.get("read")?.as_i64())
            .unwrap_or(0);
        Ok(())
    }

    async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        POLLS.add(1);
        self.orders.obey("poll").await?;
        if self.orders.does == "one-at-a-time" {
            // Each call reads one record; only the third call returns.
            self.push(batch)?;
            self.position(batch);
            if self.read < 3 {
                WAITS.add(1);
                std::future::pending::<()>().await;
            }
            return Ok(());
        }
        if self.orders.does == "empty" && self.polls_left > 1 {
            self.polls_left -= 1;
            return Ok(());
        }
        if self.polls_left == 0 {
            let _dropped = OnDrop(|| DROPPED_FUTURES.add(1));
            WAITS.add(1);
            std::future::pending::<()>().await;
        }
        self.polls_left -= 1;
        for _ in 0..self.records {
            self.push(batch)?;
        }
        self.position(batch);
        Ok(())
    }

    async fn commit(&mut self, positions: &[SourcePosition]) -> Result<()> {
        self.orders.obey("commit").await?;
        for position in positions {
            let read = position
                .offset
                .as_ref()
                .and_then(|offset| offset.get("read")?.as_i64());
            self.committed = read.unwrap_or(self.committed);
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        STOPS.add(1);
        self.orders.obey("stop").await
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        assert!(self.orders.at != "metrics", "told to panic in metrics");
        [
            ("read".to_owned(), self.read as f64),
            ("committed".to_owned(), self.committed as f64),
        ]
        .into()
    }
}

struct PuppetSink;

#[async_trait]
impl SinkConnector for PuppetSink {
    fn spec() -> ConnectorSpec {
        spec(
            "puppet-sink",
            "com.example.PuppetSinkConnector",
            ConnectorKind::Sink,
        )
    }

    fn create() -> Box<dyn SinkConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SinkTask> {
        MADE_TASKS.add(1);
        Box::new(PuppetSinkTask::default())
    }
}

#[derive(Default)]
struct PuppetSinkTask {
    orders: Orders,
    open: Vec<TopicPartition>,
    records: usize,
    bytes: usize,
    flushes: usize,
}

impl Drop for PuppetSinkTask {
    fn drop(&mut self) {
        DROPPED_TASKS.add(1);
    }
}

#[async_trait]
impl SinkTask for PuppetSinkTask {
    async fn start(&mut self, context: SinkTaskContext) -> Result<()> {
        self.orders = Orders::new(&context.config);
        GENERATION.set(context.generation as f64);
        self.orders.obey("start").await
    }

    async fn open(&mut self, partitions: &[AssignedPartition]) -> Result<Vec<TopicPartitionOffset>> {
        self.orders.obey("open").await?;
        self.open
            .extend(partitions.iter().map(|assigned| assigned.partition.clone()));
        Ok(partitions
            .iter()
            .map(|assigned| TopicPartitionOffset {
                partition: assigned.partition.clone(),
                offset: 7,
            })
            .collect())
    }

    async fn put(&mut self, batch: &Frame) -> Result<PutReport> {
        self.orders.obey("put").await?;
        for record in batch.records() {
            let value = record.value().map_err(|error| Error::fatal(error.to_string()))?;
            self.bytes += value.as_str().map_or(0, str::len);
            self.records += 1;
        }
        Ok(PutReport::default())
    }

    async fn flush(&mut self) -> Result<()> {
        self.orders.obey("flush").await?;
        self.flushes += 1;
        Ok(())
    }

    async fn close(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.orders.obey("close").await?;
        self.open.retain(|open| !partitions.contains(open));
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        STOPS.add(1);
        self.orders.obey("stop").await
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        [
            ("open".to_owned(), self.open.len() as f64),
            ("records".to_owned(), self.records as f64),
            ("bytes".to_owned(), self.bytes as f64),
            ("flushes".to_owned(), self.flushes as f64),
        ]
        .into()
    }
}
