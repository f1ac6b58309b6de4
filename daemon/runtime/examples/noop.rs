//! The plugin of the benchmark: a source that makes records out of nothing and a sink that looks at each and forgets it.

use std::sync::Arc;

use async_trait::async_trait;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{
    AssignedPartition, ConfigDef, ConnectorKind, ConnectorSpec, Field, Frame, FrameBuilder, Importance,
    PutReport, Result, Schema, SchemaRef, SinkConnector, SinkTask, SinkTaskContext, SourceConnector,
    SourcePosition, SourceTask, SourceTaskContext, TopicPartitionOffset, Type,
};

tidewater_plugin_api::export_plugin! { name: "tidewater-noop", sources: [NoopSource], sinks: [NoopSink] }

fn spec(class: &str, kind: ConnectorKind) -> ConnectorSpec {
    let number = |def: ConfigDef, name: &str, default: &str, doc: &str| {
        def.optional(name, ConfigType::Long, default, Importance::High, doc)
    };
    let mut config = ConfigDef::new();
    if kind == ConnectorKind::Source {
        config = config.optional(
            "topic",
            ConfigType::String,
            "noop",
            Importance::High,
            "Where records go.",
        );
        config = number(
            config,
            "records",
            "0",
            "How many records it makes before it waits for ever.",
        );
        config = number(config, "batch", "1000", "Records of one poll.");
        config = number(config, "bytes", "100", "About the size of a record.");
        config = config
            .optional(
                "shape",
                ConfigType::String,
                "bytes",
                Importance::High,
                "What a value is.",
            )
            .one_of(&["bytes", "row"]);
    }
    ConnectorSpec {
        class: class.into(),
        aliases: Vec::new(),
        kind,
        version: env!("CARGO_PKG_VERSION").into(),
        documentation: "Does nothing, fast.".into(),
        config,
        exactly_once: false,
    }
}

struct NoopSource;

#[async_trait]
impl SourceConnector for NoopSource {
    fn spec() -> ConnectorSpec {
        spec("noop-source", ConnectorKind::Source)
    }

    fn create() -> Box<dyn SourceConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SourceTask> {
        Box::new(NoopSourceTask {
            topic: String::new(),
            left: 0,
            made: 0,
            batch: 0,
            filling: String::new(),
            key: Arc::new(Schema::new(Type::Bytes)),
            value: Arc::new(Schema::new(Type::Bytes)),
        })
    }
}

struct NoopSourceTask {
    topic: String,
    left: usize,
    made: u64,
    batch: usize,
    filling: String,
    key: SchemaRef,
    value: SchemaRef,
}

#[async_trait]
impl SourceTask for NoopSourceTask {
    async fn start(&mut self, context: SourceTaskContext) -> Result<()> {
        let config = &context.config;
        config.str("topic").clone_into(&mut self.topic);
        self.left = config.usize("records");
        self.batch = config.usize("batch").max(1);
        let mut filling = config.usize("bytes");
        if config.str("shape") == "row" {
            filling = filling.saturating_sub(24);
            self.value = Arc::new(
                Schema::structure(vec![
                    Field::new("id", Schema::new(Type::Int64)),
                    Field::new("amount", Schema::new(Type::Float64)),
                    Field::new("active", Schema::new(Type::Bool)),
                    Field::new("note", Schema::new(Type::String).optional()),
                ])
                .named("noop.Row"),
            );
        }
        self.filling = "x".repeat(filling);
        Ok(())
    }

    async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        if self.left == 0 {
            std::future::pending::<()>().await;
        }
        let topic = batch.topic(&self.topic)?;
        let (key, value) = (batch.schema(&self.key)?, batch.schema(&self.value)?);
        let row = self.value.name.is_some();
        for _ in 0..self.batch.min(self.left) {
            let mut record = batch.record(topic);
            record.key(key, |writer| writer.bytes(&self.made.to_be_bytes()));
            record.value(value, |writer| {
                if !row {
                    writer.bytes(self.filling.as_bytes());
                    return;
                }
                let open = writer.begin();
                writer.i64(self.made as i64);
                writer.f64(self.made as f64 / 100.0);
                writer.bool(self.made.is_multiple_of(2));
                writer.present();
                writer.string(&self.filling);
                writer.end(open);
            });
            record.push()?;
            self.made += 1;
            self.left -= 1;
        }
        let partition = serde_json::Map::from_iter([("noop".to_owned(), self.topic.clone().into())]);
        let offset = serde_json::Map::from_iter([("made".to_owned(), self.made.into())]);
        batch.position(SourcePosition {
            partition,
            offset: Some(offset),
        });
        Ok(())
    }
}

struct NoopSink;

#[async_trait]
impl SinkConnector for NoopSink {
    fn spec() -> ConnectorSpec {
        spec("noop-sink", ConnectorKind::Sink)
    }

    fn create() -> Box<dyn SinkConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SinkTask> {
        Box::new(NoopSinkTask(0))
    }
}

/// The bytes of all values seen.
struct NoopSinkTask(usize);

#[async_trait]
impl SinkTask for NoopSinkTask {
    async fn start(&mut self, _context: SinkTaskContext) -> Result<()> {
        Ok(())
    }

    async fn open(&mut self, _partitions: &[AssignedPartition]) -> Result<Vec<TopicPartitionOffset>> {
        Ok(Vec::new())
    }

    async fn put(&mut self, batch: &Frame) -> Result<PutReport> {
        for record in batch.records() {
            self.0 += record.value_bytes().map_or(0, <[u8]>::len);
        }
        Ok(PutReport::default())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
