//! A second plugin for tests: one class of its own, whose tasks cannot be made, and one that the puppet has too.

use tidewater_plugin_api::{
    ConfigDef, ConnectorKind, ConnectorSpec, SinkConnector, SinkTask, SourceConnector, SourceTask,
    async_trait,
};

tidewater_plugin_api::export_plugin! {
    name: "tidewater-second",
    sources: [Unmakeable],
    sinks: [Rival],
}

fn spec(class: &str, kind: ConnectorKind) -> ConnectorSpec {
    ConnectorSpec {
        class: class.into(),
        aliases: Vec::new(),
        kind,
        version: "1".into(),
        documentation: "For tests.".into(),
        config: ConfigDef::new(),
        exactly_once: false,
    }
}

struct Unmakeable;

#[async_trait]
impl SourceConnector for Unmakeable {
    fn spec() -> ConnectorSpec {
        spec("unmakeable-source", ConnectorKind::Source)
    }

    fn create() -> Box<dyn SourceConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SourceTask> {
        panic!("told to panic in the constructor")
    }
}

struct Rival;

#[async_trait]
impl SinkConnector for Rival {
    fn spec() -> ConnectorSpec {
        spec("puppet-sink", ConnectorKind::Sink)
    }

    fn create() -> Box<dyn SinkConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SinkTask> {
        panic!("this class has been taken: it is never made")
    }
}
