//! A session on the target: one connection, set up so that text means the same everywhere, and what it has learnt.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use super::catalog::Catalog;
use super::config::Settings;
use super::error::SinkError;
use super::identifier::quoted;

/// A session.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub connection: PgConnection,
    /// The tables and plans known to it.
    pub catalog: Catalog,
}

/// What every session needs:
/// - one meaning of text, whatever the server's defaults are;
/// - commits that are on disk when they return (invariant 4), even where the server's default waves that;
/// - an end of its transaction and its locks when this process hangs or its machine is gone.
const SETUP: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; \
    SET lc_monetary = 'C'; SET standard_conforming_strings = on; SET client_min_messages = warning; SET jit = off; \
    SET idle_in_transaction_session_timeout = '60s'; SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
    SET tcp_keepalives_count = 3; \
    SELECT pg_catalog.set_config('synchronous_commit', 'on', false) \
    WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";

impl Session {
    /// Connects.
    pub async fn connect(settings: &Settings, application: &str) -> Result<Self, SinkError> {
        let doing = "connecting";
        let options = options(settings, application);
        let connecting = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            sqlx::raw_sql(SETUP).execute(&mut connection).await?;
            if let Some(path) = &settings.url.search_path {
                let schemas: Vec<_> = path.split(',').map(|schema| quoted(schema.trim())).collect();
                let sql = format!("SET search_path = {}", schemas.join(", "));
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
            }
            Ok(connection)
        };
        let connection = tokio::time::timeout(settings.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| {
                let why = format!("no answer within {} ms", settings.connect_timeout.as_millis());
                Err(sqlx::Error::Io(std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    why,
                )))
            })
            .map_err(SinkError::database(doing))?;
        Ok(Self {
            connection,
            catalog: Catalog::default(),
        })
    }

    /// Ends a transaction that is open; nothing of it stays.
    pub async fn rollback(&mut self) -> Result<(), SinkError> {
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.connection)
            .await
            .map_err(SinkError::database("rolling back"))?;
        Ok(())
    }
}

fn options(settings: &Settings, application: &str) -> PgConnectOptions {
    let mut options = PgConnectOptions::new_without_pgpass()
        .port(settings.url.port)
        .application_name(application)
        .statement_cache_capacity(1000)
        .ssl_mode(match settings.sslmode.as_str() {
            "disable" => PgSslMode::Disable,
            "allow" => PgSslMode::Allow,
            "require" => PgSslMode::Require,
            "verify-ca" => PgSslMode::VerifyCa,
            "verify-full" => PgSslMode::VerifyFull,
            _ => PgSslMode::Prefer,
        });
    options = if settings.url.host.starts_with('/') {
        options.socket(&settings.url.host)
    } else {
        options.host(&settings.url.host)
    };
    if let Some(user) = &settings.user {
        options = options.username(user);
    }
    if let Some(password) = &settings.password {
        options = options.password(password.reveal());
    }
    if let Some(database) = &settings.url.database {
        options = options.database(database);
    }
    if let Some(file) = &settings.sslrootcert {
        options = options.ssl_root_cert(file);
    }
    if let Some(file) = &settings.sslcert {
        options = options.ssl_client_cert(file);
    }
    if let Some(file) = &settings.sslkey {
        options = options.ssl_client_key(file);
    }
    // Statements may hold data, and logs are read by others (invariant 8).
    options.disable_statement_logging()
}
