//! Waiting for rows to arrive in a target database without polling it: a trigger notifies, this listens.

use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::error::{Error, Result};
use crate::postgres::Postgres;

/// Notifies on each committed change of any table, those created later among them.
const NOTIFY: &str = r"
CREATE SCHEMA IF NOT EXISTS arrivals;
CREATE OR REPLACE FUNCTION arrivals.changed() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('arrivals', TG_TABLE_NAME); RETURN NULL; END $$;
CREATE OR REPLACE FUNCTION arrivals.watch(t regclass) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE format('CREATE TRIGGER arrivals AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION arrivals.changed()', t);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER arrivals', t);
END $$;
CREATE OR REPLACE FUNCTION arrivals.created() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE t record; BEGIN
    FOR t IN SELECT objid FROM pg_event_trigger_ddl_commands()
              WHERE object_type = 'table' AND schema_name <> 'pg_temp' LOOP
        PERFORM arrivals.watch(t.objid::regclass);
    END LOOP;
END $$;
CREATE EVENT TRIGGER arrivals_created ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
    EXECUTE FUNCTION arrivals.created();
SELECT arrivals.watch(oid::regclass) FROM pg_class
 WHERE relkind = 'r' AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace);
";

/// Notifications of changes in a target database.
#[derive(Debug)]
pub struct Arrivals {
    listener: PgListener,
    name: String,
}

impl Arrivals {
    /// Sets the triggers up in `database` and listens.
    pub async fn watch(server: &Postgres, database: &str) -> Result<Self> {
        server.execute(database, NOTIFY).await?;
        let mut listener = PgListener::connect_with(&server.pool(database, 1))
            .await
            .map_err(Error::sql(format!("listening to {database}")))?;
        listener
            .listen("arrivals")
            .await
            .map_err(Error::sql(format!("listening to {database}")))?;
        Ok(Self {
            listener,
            name: database.to_owned(),
        })
    }

    /// Waits until something is committed there; `false` when nothing was for as long as `patience`. Changes since the
    /// last call count, and so does a lost connection, since behind it they may have been missed.
    pub async fn next(&mut self, patience: Duration) -> Result<bool> {
        let waited = tokio::time::timeout(patience, self.listener.try_recv()).await;
        match waited {
            Ok(Ok(_)) => {
                while self.listener.next_buffered().is_some() {}
                Ok(true)
            }
            // The server is down for the moment: the listener connects again at the next call.
            Ok(Err(sqlx::Error::Io(_) | sqlx::Error::Database(_) | sqlx::Error::PoolTimedOut)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(true)
            }
            Ok(Err(error)) => Err(Error::Sql {
                doing: format!("waiting for changes in {}", self.name),
                source: error,
            }),
            Err(_) => Ok(false),
        }
    }
}
