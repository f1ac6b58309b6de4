//! Connections: SQL sessions for the catalogs and the snapshot, and the session that streams changes. All that yield
//! values have the same settings pinned, so that a value has one text.

use std::time::Duration;

use pgwire_replication::{Lsn, ReplicationConfig, SslMode, TlsConfig};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tidewater_plugin_api::{Error, Result};

use super::failure;
use super::settings::{Server, Settings, Tls};

/// The settings that decide how PostgreSQL writes values as text, and those that could end an idle session.
const PINNED: [(&str, &str); 10] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("row_security", "off"), // a snapshot must fail rather than leave out rows that the stream has
];

/// A server that shuts down waits until it has heard that everything has arrived.
const LONGEST_STATUS_INTERVAL: Duration = Duration::from_secs(1);
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// A connection for the catalogs, with the database's own settings.
pub(crate) async fn catalog(server: &Server) -> Result<PgConnection> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&server.host)
        .port(server.port)
        .username(&server.user)
        .password(server.password.reveal())
        .database(&server.database)
        .application_name("tidewater postgres-source")
        .ssl_mode(match server.tls {
            Tls::Disable => PgSslMode::Disable,
            Tls::Prefer => PgSslMode::Prefer,
            Tls::Require => PgSslMode::Require,
            Tls::VerifyCa => PgSslMode::VerifyCa,
            Tls::VerifyFull => PgSslMode::VerifyFull,
        })
        .disable_statement_logging();
    let options = match &server.root_certificates {
        Some(path) => options.ssl_root_cert(path),
        None => options,
    };
    match tokio::time::timeout(CONNECT_PATIENCE, PgConnection::connect_with(&options)).await {
        Ok(connected) => connected.map_err(|error| failure::sql(server, "connecting", &error)),
        Err(_) => Err(Error::retriable(format!(
            "connecting ({server}): no answer within {} s; check database.hostname, database.port and the network",
            CONNECT_PATIENCE.as_secs()
        ))),
    }
}

/// A connection for reading rows.
pub(crate) async fn reader(server: &Server) -> Result<PgConnection> {
    let mut connection = catalog(server).await?;
    let statements: Vec<String> = PINNED
        .iter()
        .map(|(name, value)| format!("SET {name} = '{value}'"))
        .collect();
    execute(
        &mut connection,
        server,
        "preparing a session",
        &statements.join(";"),
    )
    .await?;
    Ok(connection)
}

/// Runs statements that answer nothing.
pub(crate) async fn execute(
    connection: &mut PgConnection,
    server: &Server,
    doing: &str,
    statements: &str,
) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(connection)
        .await
        .map_err(|error| failure::sql(server, doing, &error))?;
    Ok(())
}

/// How to stream from `start`, everything before `durable` being acknowledged.
pub(crate) fn replication(settings: &Settings, start: Lsn, durable: Lsn) -> ReplicationConfig {
    let server = &settings.server;
    let mut config = ReplicationConfig::new(
        &server.host,
        &server.user,
        server.password.reveal(),
        &server.database,
        &settings.slot,
        // The server folds unquoted names to lower case.
        quoted(&settings.publication),
    );
    config.port = server.port;
    config.tls = TlsConfig {
        mode: match server.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require => SslMode::Require,
            Tls::VerifyCa => SslMode::VerifyCa,
            Tls::VerifyFull => SslMode::VerifyFull,
        },
        ca_pem_path: server.root_certificates.clone(),
        ..TlsConfig::default()
    };
    config.start_lsn = start;
    config.ack_lsn = Some(durable);
    let status_interval = settings.status_interval.min(LONGEST_STATUS_INTERVAL);
    config.status_interval = status_interval;
    config.idle_wakeup_interval = status_interval;
    // Bounded in messages: few, so that wide rows do not add up (invariant 6). Client and worker share a thread, so
    // more would not be faster.
    config.buffer_events = 64;
    let options: Vec<String> = PINNED
        .iter()
        .map(|(name, value)| format!("-c {name}={value}"))
        .collect();
    config.options = Some(options.join(" "));
    config.application_name = Some("tidewater postgres-source".to_owned());
    config
}

/// `name` as SQL takes any name.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    // E'' reads backslashes whatever standard_conforming_strings says.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_cannot_break_out() {
        assert_eq!(quoted("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("a'\\"), "E'a''\\\\'");
    }
}
