//! A plugin for tests: a source of numbers and a sink into a file, which do their work and fail on command.
//!
//! The command stands in the file that `fault.file` names, read at every call, so that a fault comes and goes while all
//! runs: lines of a call and what it does, such as `put panic`. Without the file there is no fault. `fault` in the
//! configuration is one more such line.
//!
//! Calls: `validate`, `connector-start`, `task-configs`, `connector-stop`, `alter-offsets`; `start`, `stop`; `poll`,
//! `commit`; `open`, `put`, `flush`, `close`.
//! What they do: `retriable`, `fatal`, `config`, `fenced` (errors of that kind), `panic`, `hang` (waits for ever, but can be
//! dropped), `block` (blocks its thread until the command is gone), and `poll` besides: `malformed` (a value that is not of its
//! schema), `flood` (large batches without a pause), `trickle` (a record at a time).

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use tidewater_plugin_api::{
    AssignedPartition, Config, ConfigDef, ConfigMap, ConfigProblem, ConnectorKind, ConnectorSpec, Error,
    ErrorKind, Frame, FrameBuilder, Importance, PutReport, Result, Schema, SchemaRef, SinkConnector,
    SinkTask, SinkTaskContext, SourceConnector, SourcePosition, SourceTask, SourceTaskContext,
    TopicPartitionOffset, Type, async_trait, config_def::ConfigType,
};

tidewater_plugin_api::export_plugin! {
    name: "tidewater-fault-plugin",
    sources: [FaultSource],
    sinks: [FaultSink],
}

/// Records of a batch that floods, and the bytes of each.
const FLOOD: (usize, usize) = (2000, 1000);

fn spec(class: &str, kind: ConnectorKind) -> ConnectorSpec {
    let config = ConfigDef::new()
        .nullable(
            "fault",
            ConfigType::String,
            Importance::High,
            "A call and what it does, such as `put panic`.",
        )
        .nullable(
            "fault.file",
            ConfigType::String,
            Importance::High,
            "A file of such lines, read at every call.",
        );
    let config = match kind {
        ConnectorKind::Source => config
            .optional(
                "topic",
                ConfigType::String,
                "numbers",
                Importance::High,
                "Where the numbers go.",
            )
            .optional(
                "batch",
                ConfigType::Int,
                "10",
                Importance::Low,
                "Numbers per poll.",
            )
            .optional(
                "records",
                ConfigType::Long,
                "9223372036854775807",
                Importance::Low,
                "Numbers of each task in all.",
            )
            .optional(
                "pause.ms",
                ConfigType::Long,
                "1",
                Importance::Low,
                "Between polls, in milliseconds.",
            )
            .nullable(
                "parts",
                ConfigType::Int,
                Importance::Low,
                "Tasks to split the work into.",
            )
            .nullable(
                "part",
                ConfigType::Int,
                Importance::Low,
                "A task's part; the connector sets it.",
            )
            .nullable(
                "special",
                ConfigType::String,
                Importance::Low,
                "Something for the last task alone.",
            )
            .nullable(
                "password",
                ConfigType::Password,
                Importance::Low,
                "Something to keep.",
            ),
        ConnectorKind::Sink => config
            .required(
                "file",
                ConfigType::String,
                Importance::High,
                "Where the records go, one a line.",
            )
            .nullable(
                "password",
                ConfigType::Password,
                Importance::Low,
                "Something to keep.",
            ),
    };
    ConnectorSpec {
        class: class.into(),
        aliases: Vec::new(),
        kind,
        version: env!("CARGO_PKG_VERSION").into(),
        documentation: "For tests: fails on command.".into(),
        config,
        exactly_once: false,
    }
}

/// What the configuration says of faults.
#[derive(Clone, Debug, Default)]
struct Orders {
    always: String,
    file: Option<PathBuf>,
}

impl Orders {
    fn new(config: &Config) -> Self {
        let text = |key: &str| config.get(key).unwrap_or_default().to_owned();
        Self {
            always: text("fault"),
            file: Some(text("fault.file"))
                .filter(|file| !file.is_empty())
                .map(Into::into),
        }
    }

    /// What `call` is told to do now.
    fn fault(&self, call: &str) -> Option<String> {
        let in_file = self
            .file
            .as_ref()
            .and_then(|file| std::fs::read_to_string(file).ok())
            .unwrap_or_default();
        in_file
            .lines()
            .chain([self.always.as_str()])
            .filter_map(|line| line.split_once(' '))
            .find(|(of, _)| *of == call)
            .map(|(_, what)| what.trim().to_owned())
    }

    async fn obey(&self, call: &str) -> Result<Option<String>> {
        let Some(fault) = self.fault(call) else {
            return Ok(None);
        };
        let error = |kind| Err(Error::new(kind, format!("told to fail in {call}")));
        match fault.as_str() {
            "retriable" => error(ErrorKind::Retriable),
            "fatal" => error(ErrorKind::Fatal),
            "config" => error(ErrorKind::Config),
            "fenced" => error(ErrorKind::Fenced),
            "panic" => panic!("told to panic in {call}"),
            "hang" => std::future::pending().await,
            "block" => {
                while self.fault(call).is_some() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(None)
            }
            _ => Ok(Some(fault)),
        }
    }
}

/// The connector of [`FaultSourceTask`].
#[derive(Default)]
struct FaultSource {
    orders: Orders,
    parts: Option<usize>,
    special: Option<String>,
}

#[async_trait]
impl SourceConnector for FaultSource {
    fn spec() -> ConnectorSpec {
        spec("fault-source", ConnectorKind::Source)
    }

    fn create() -> Box<dyn SourceConnector> {
        Box::new(Self::default())
    }

    fn create_task() -> Box<dyn SourceTask> {
        Box::new(FaultSourceTask::default())
    }

    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        match Orders::new(config).obey("validate").await {
            Ok(_) => Vec::new(),
            Err(error) => vec![ConfigProblem::new("fault", error.message)],
        }
    }

    async fn start(&mut self, config: &Config) -> Result<()> {
        self.orders = Orders::new(config);
        self.parts = config.get("parts").and_then(|parts| parts.parse().ok());
        self.special = config.get("special").map(str::to_owned);
        self.orders.obey("connector-start").await.map(drop)
    }

    async fn task_configs(&mut self, max_tasks: usize) -> Result<Vec<ConfigMap>> {
        self.orders.obey("task-configs").await?;
        let tasks = self.parts.unwrap_or(max_tasks).min(max_tasks);
        let part = |number: usize| ConfigMap::from([("part".to_owned(), number.to_string())]);
        Ok((0..tasks).map(part).collect())
    }

    async fn alter_offsets(
        &mut self,
        _name: &str,
        config: &Config,
        offsets: &[SourcePosition],
    ) -> Result<bool> {
        Orders::new(config).obey("alter-offsets").await?;
        for offset in offsets.iter().filter_map(|position| position.offset.as_ref()) {
            if offset.get("next").and_then(Json::as_u64).is_none() {
                let offset = Json::Object(offset.clone());
                return Err(Error::config(format!(
                    "{offset} does not say which number is next"
                )));
            }
        }
        Ok(true)
    }

    async fn stop(&mut self) -> Result<()> {
        self.orders.obey("connector-stop").await.map(drop)
    }
}

/// Reads the numbers from 0 on, each `part:number`.
#[derive(Default)]
struct FaultSourceTask {
    orders: Orders,
    topic: String,
    part: i64,
    next: i64,
    end: i64,
    batch: usize,
    pause: Duration,
    schema: Option<SchemaRef>,
}

impl FaultSourceTask {
    fn partition(&self) -> Map<String, Json> {
        Map::from_iter([("part".to_owned(), self.part.into())])
    }

    fn push(&mut self, batch: &mut FrameBuilder, filling: usize, garbled: bool) -> Result<()> {
        let schema = self
            .schema
            .get_or_insert_with(|| Arc::new(Schema::new(Type::String)));
        let topic = batch.topic(&self.topic)?;
        let id = batch.schema(schema)?;
        let mut record = batch.record(topic);
        record.value(id, |writer| {
            let open = writer.begin();
            if garbled {
                writer.raw(&[0xff, 0xfe, 0xc3]);
            } else {
                writer.raw(format!("{}:{}", self.part, self.next).as_bytes());
                writer.raw(&vec![b' '; filling]);
            }
            writer.end(open);
        });
        record.push()?;
        self.next += 1;
        Ok(())
    }
}

#[async_trait]
impl SourceTask for FaultSourceTask {
    async fn start(&mut self, context: SourceTaskContext) -> Result<()> {
        let config = &context.config;
        self.orders = Orders::new(config);
        self.orders.obey("start").await?;
        config.str("topic").clone_into(&mut self.topic);
        self.part = config.get("part").and_then(|part| part.parse().ok()).unwrap_or(0);
        self.batch = config.usize("batch");
        self.end = config.i64("records");
        self.pause = Duration::from_millis(config.i64("pause.ms").unsigned_abs());
        self.next = context
            .offset(&self.partition())
            .and_then(|offset| offset.get("next")?.as_i64())
            .unwrap_or(0);
        Ok(())
    }

    async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let fault = self.orders.obey("poll").await?;
        let (records, filling) = match fault.as_deref() {
            Some("flood") => FLOOD,
            Some("trickle") => (1, 0),
            _ => {
                tokio::time::sleep(self.pause).await;
                (self.batch, 0)
            }
        };
        let left = usize::try_from(self.end - self.next).unwrap_or(0);
        if left == 0 {
            std::future::pending::<()>().await;
        }
        for _ in 0..records.min(left) {
            self.push(batch, filling, fault.as_deref() == Some("malformed"))?;
        }
        batch.position(SourcePosition {
            partition: self.partition(),
            offset: Some(Map::from_iter([("next".to_owned(), self.next.into())])),
        });
        Ok(())
    }

    async fn commit(&mut self, _positions: &[SourcePosition]) -> Result<()> {
        self.orders.obey("commit").await.map(drop)
    }

    async fn stop(&mut self) -> Result<()> {
        self.orders.obey("stop").await.map(drop)
    }
}

/// The connector of [`FaultSinkTask`].
#[derive(Default)]
struct FaultSink(Orders);

#[async_trait]
impl SinkConnector for FaultSink {
    fn spec() -> ConnectorSpec {
        spec("fault-sink", ConnectorKind::Sink)
    }

    fn create() -> Box<dyn SinkConnector> {
        Box::new(Self::default())
    }

    fn create_task() -> Box<dyn SinkTask> {
        Box::new(FaultSinkTask::default())
    }

    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        match Orders::new(config).obey("validate").await {
            Ok(_) => Vec::new(),
            Err(error) => vec![ConfigProblem::new("fault", error.message)],
        }
    }

    async fn start(&mut self, config: &Config) -> Result<()> {
        self.0 = Orders::new(config);
        self.0.obey("connector-start").await.map(drop)
    }

    async fn task_configs(&mut self, max_tasks: usize) -> Result<Vec<ConfigMap>> {
        self.0.obey("task-configs").await?;
        Ok(vec![ConfigMap::new(); max_tasks])
    }

    async fn stop(&mut self) -> Result<()> {
        self.0.obey("connector-stop").await.map(drop)
    }
}

/// Appends each record as a line: task, topic, partition, offset and value.
#[derive(Default)]
struct FaultSinkTask {
    orders: Orders,
    task: u32,
    file: Option<std::fs::File>,
}

impl FaultSinkTask {
    fn append(&mut self, lines: &str) -> Result<()> {
        let fault = |error: std::io::Error| Error::fatal(format!("the file cannot be written: {error}"));
        match &mut self.file {
            Some(file) => file.write_all(lines.as_bytes()).map_err(fault),
            None => Err(Error::fatal("it has not been started")),
        }
    }
}

#[async_trait]
impl SinkTask for FaultSinkTask {
    async fn start(&mut self, context: SinkTaskContext) -> Result<()> {
        self.orders = Orders::new(&context.config);
        self.task = context.task;
        self.orders.obey("start").await?;
        let path = context.config.str("file");
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        self.file = Some(opened.map_err(|error| Error::fatal(format!("{path} cannot be opened: {error}")))?);
        Ok(())
    }

    async fn open(&mut self, _partitions: &[AssignedPartition]) -> Result<Vec<TopicPartitionOffset>> {
        self.orders.obey("open").await?;
        Ok(Vec::new())
    }

    async fn put(&mut self, batch: &Frame) -> Result<PutReport> {
        self.orders.obey("put").await?;
        let mut lines = String::new();
        for record in batch.records() {
            let value = record.value().map_err(|error| Error::fatal(error.to_string()))?;
            let line = format!(
                "{} {} {} {} {}\n",
                self.task,
                record.topic(),
                record.partition().unwrap_or_default(),
                record.offset().unwrap_or_default(),
                value.as_str().unwrap_or("-").trim_end()
            );
            lines.push_str(&line);
        }
        self.append(&lines)?;
        Ok(PutReport::default())
    }

    async fn flush(&mut self) -> Result<()> {
        self.orders.obey("flush").await.map(drop)
    }

    async fn close(&mut self, _partitions: &[tidewater_plugin_api::TopicPartition]) -> Result<()> {
        self.orders.obey("close").await.map(drop)
    }

    async fn stop(&mut self) -> Result<()> {
        self.orders.obey("stop").await.map(drop)
    }
}
