//! The connector class: what it is called, what it can be told, and whether the server agrees.

use sqlx::Connection;
use tidewater_plugin_api::{
    Config, ConfigProblem, ConnectorKind, ConnectorSpec, ErrorKind, SourceConnector, SourceTask, async_trait,
};

use super::config_def::config_def;
use super::settings::{Settings, SnapshotMode};
use super::task::PostgresSourceTask;
use super::{connection, preflight, slot};

/// `postgres-source`: PostgreSQL's changes into topics, by logical replication.
#[derive(Debug, Default)]
pub struct PostgresSource;

#[async_trait]
impl SourceConnector for PostgresSource {
    fn spec() -> ConnectorSpec {
        ConnectorSpec {
            class: "postgres-source".to_owned(),
            aliases: vec!["io.debezium.connector.postgresql.PostgresConnector".to_owned()],
            kind: ConnectorKind::Source,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            documentation: "Captures the rows of PostgreSQL tables, and then every change of them, by logical replication \
                            (pgoutput). Records are Debezium's change events. PostgreSQL 13 or later with \
                            wal_level=logical. Types without a mapping of their own (ranges, composites, geometric and \
                            network types, arrays of several dimensions, extensions) are sent as PostgreSQL's text, \
                            never left out; bit varying is text too, and a time with time zone keeps its own offset. Defaults of \
                            columns do not stand in schemas, so that a null stays a null."
                .to_owned(),
            config: config_def(),
            exactly_once: true,
        }
    }

    fn create() -> Box<dyn SourceConnector> {
        Box::new(Self)
    }

    fn create_task() -> Box<dyn SourceTask> {
        Box::new(PostgresSourceTask::new())
    }

    async fn validate(&mut self, config: &Config) -> Vec<ConfigProblem> {
        let settings = match Settings::new(config) {
            Ok(settings) => settings,
            Err(problems) => return problems,
        };
        let checked = async {
            let mut connection = connection::catalog(&settings.server).await?;
            preflight::check(&mut connection, &settings).await?;
            if settings.snapshot_mode != SnapshotMode::InitialOnly {
                slot::find(&mut connection, &settings).await?;
            }
            let _ = connection.close().await; // it has served
            Ok::<(), tidewater_plugin_api::Error>(())
        };
        match checked.await {
            Ok(()) => Vec::new(),
            Err(error) => {
                let key = match error.kind {
                    ErrorKind::Config if error.message.starts_with("table.include.list") => {
                        "table.include.list"
                    }
                    ErrorKind::Retriable => "database.hostname",
                    _ => "",
                };
                vec![ConfigProblem::new(key, error.message)]
            }
        }
    }
}
