//! postgres-source and postgres-sink.

pub mod sink;
pub mod source;

tidewater_plugin_api::export_plugin! {
    name: "tidewater-postgres",
    sources: [source::PostgresSource],
    sinks: [sink::PostgresSink],
}
