//! postgres-source and postgres-sink.

#[cfg(feature = "sink")]
pub mod sink;
#[cfg(feature = "source")]
pub mod source;

#[cfg(all(feature = "sink", feature = "source"))]
tidewater_plugin_api::export_plugin! {
    name: "tidewater-postgres",
    sources: [source::PostgresSource],
    sinks: [sink::PostgresSink],
}
