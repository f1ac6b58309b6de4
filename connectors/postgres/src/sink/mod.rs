//! postgres-sink: records into PostgreSQL tables, each exactly once.
//!
//! The map, in the order a record meets it:
//!
//! - `config` with `connection_url` and `table_format`: the JDBC sinks' keys;
//! - `task`: the life of a task and of a batch; `offsets`: how far each partition is written, in the target itself;
//! - `session`: the connection; `catalog`: what it knows of tables (`target`) and how records become their rows, with
//!   their keys (`key`); `ddl`: tables and columns that are made;
//! - `collect`, with `record` and `placeholder`: change events, flat records and tombstones into a `batch` of the last
//!   state per key;
//! - `steps`: the statements a batch takes, in order; `statement`: their SQL; `write`: carrying them out;
//! - `rows`, with `text` and `temporal`: values as text, as parameters or for COPY;
//! - `error`, and `blame`: which record, key and column Postgres refused;
//! - `identifier`: names in SQL.

use tidewater_plugin_api::{
    AlteredOffset, Config, ConfigProblem, ConnectorKind, ConnectorSpec, Error, Result, SinkConnector,
    SinkTask, async_trait,
};

mod batch;
mod blame;
mod catalog;
mod collect;
pub mod config;
pub mod connection_url;
mod ddl;
mod error;
mod identifier;
mod key;
mod offsets;
mod placeholder;
mod record;
mod rows;
mod session;
mod statement;
mod steps;
pub mod table_format;
mod target;
mod task;
mod temporal;
mod text;
mod write;

pub use task::PostgresSinkTask;

/// The connector `postgres-sink`.
#[derive(Debug, Default)]
pub struct PostgresSink;

#[async_trait]
impl SinkConnector for PostgresSink {
    fn spec() -> ConnectorSpec {
        ConnectorSpec {
            class: "postgres-sink".into(),
            aliases: vec![
                "io.debezium.connector.jdbc.JdbcSinkConnector".into(),
                "io.confluent.connect.jdbc.JdbcSinkConnector".into(),
            ],
            kind: ConnectorKind::Sink,
            version: env!("CARGO_PKG_VERSION").into(),
            documentation: "Writes change events and flat records into PostgreSQL tables: inserts, upserts, deletes and \
                            truncates, each exactly once, as the offsets are kept in the target's own transactions. \
                            Tables and columns are made on demand."
                .into(),
            config: config::definition(),
            exactly_once: true,
        }
    }

    fn create() -> Box<dyn SinkConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SinkTask> {
        Box::new(PostgresSinkTask::default())
    }

    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        let settings = match config::Settings::read(config) {
            Ok(settings) => settings,
            Err(problems) => return problems,
        };
        match session::Session::connect(&settings, "tidewater validate").await {
            Ok(session) => {
                // Nothing depends on how the session ends.
                let _ = sqlx::Connection::close(session.connection).await;
                Vec::new()
            }
            Err(error) => {
                let key = match error.code().as_deref() {
                    Some("28P01") => "connection.password",
                    Some("28000") => "connection.user",
                    _ => "connection.url",
                };
                vec![ConfigProblem::new(
                    key,
                    error.into_plugin(&settings.server()).message,
                )]
            }
        }
    }

    async fn alter_offsets(
        &mut self,
        name: &str,
        config: &Config,
        altered: &[AlteredOffset],
    ) -> Result<bool> {
        let settings = config::Settings::read(config).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Error::config(problems.join("; "))
        })?;
        let altering = async {
            let application = format!("tidewater {name} offsets");
            let mut session = session::Session::connect(&settings, &application).await?;
            let offsets = offsets::Offsets::new(settings.offsets_table.clone(), name, 0);
            offsets.prepare(&mut session.connection).await?;
            offsets.alter(&mut session.connection, altered).await
        };
        match altering.await {
            Ok(()) => Ok(true),
            Err(error) => Err(error.into_plugin(&settings.server())),
        }
    }
}
