//! A plugin for tests that panics when it is asked what it is.

use tidewater_plugin_api::{ConnectorSpec, SourceConnector, SourceTask, async_trait};

tidewater_plugin_api::export_plugin! { name: "tidewater-unspeakable", sources: [Unspeakable] }

struct Unspeakable;

#[async_trait]
impl SourceConnector for Unspeakable {
    fn spec() -> ConnectorSpec {
        panic!("told to panic in spec")
    }

    fn create() -> Box<dyn SourceConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SourceTask> {
        panic!("nobody knows of it")
    }
}
