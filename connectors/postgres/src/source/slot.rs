//! The replication slot: what it is, how it is made and dropped.

use std::time::Duration;

use pgwire_replication::{Lsn, ReplicationClient};
use sqlx::{PgConnection, Row};
use tidewater_plugin_api::{Error, Result};

use super::settings::Settings;
use super::{connection, failure};

/// The slot as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Everything before it has been acknowledged.
    pub(crate) confirmed: Lsn,
    /// The process that reads it.
    pub(crate) active_pid: Option<i32>,
    /// Whether the server has thrown away changes the slot was to keep.
    pub(crate) lost: bool,
}

/// The slot called `slot.name`, if there is one. One that is not this connector's kind is an error.
pub(crate) async fn find(connection: &mut PgConnection, settings: &Settings) -> Result<Option<Slot>> {
    let row = sqlx::query(
        "SELECT plugin::text, slot_type, database::text, confirmed_flush_lsn::text, active_pid, wal_status
         FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
    )
    .bind(&settings.slot)
    .fetch_optional(connection)
    .await
    .map_err(|error| failure::sql(&settings.server, "reading pg_replication_slots", &error))?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (plugin, kind, database): (Option<String>, String, Option<String>) =
        (row.get(0), row.get(1), row.get(2));
    let (server, name) = (&settings.server, &settings.slot);
    if kind != "logical"
        || plugin.as_deref() != Some("pgoutput")
        || database.as_deref() != Some(&server.database)
    {
        return Err(Error::config(format!(
            "slot {name:?} ({server}) is a {kind} slot of plugin {} in database {}, not a logical one of pgoutput in {:?}: \
             set another slot.name",
            plugin.as_deref().unwrap_or("none"),
            database.as_deref().unwrap_or("none"),
            server.database
        )));
    }
    let confirmed: Option<String> = row.get(3);
    let status: Option<String> = row.get(5);
    Ok(Some(Slot {
        confirmed: confirmed
            .and_then(|lsn| Lsn::parse(&lsn).ok())
            .unwrap_or(Lsn::ZERO),
        active_pid: row.get(4),
        lost: status.as_deref() == Some("lost"),
    }))
}

/// A slot just made: the point where it begins, and the snapshot of the rows at that very point, to be imported while
/// the session that exported it lives and does nothing else.
pub(crate) struct Made {
    pub(crate) consistent_point: Lsn,
    pub(crate) snapshot: String,
    /// Keeps the exported snapshot, and the slot where it is temporary.
    pub(crate) _session: ReplicationClient,
}

/// Makes the slot; a temporary one goes with its session and serves to take a snapshot at a known point.
pub(crate) async fn make(settings: &Settings, temporary: bool) -> Result<Made> {
    let server = &settings.server;
    let name = if temporary {
        // Beside the real one, unlike any other, and within 63 characters.
        format!("{:.40}_{}", settings.slot, random_suffix())
    } else {
        settings.slot.clone()
    };
    let doing = format!("making replication slot {name:?}");
    let fault = |error: &pgwire_replication::PgWireError| failure::replication(server, &doing, error);
    let config = connection::replication(settings, Lsn::ZERO, Lsn::ZERO);
    let mut session = ReplicationClient::connect_gated(config)
        .await
        .map_err(|error| fault(&error))?;
    let statement = format!(
        "CREATE_REPLICATION_SLOT {name} {}LOGICAL pgoutput EXPORT_SNAPSHOT",
        if temporary { "TEMPORARY " } else { "" }
    );
    tracing::info!(slot = %name, "waiting for the transactions under way to end, then making the slot");
    let rows = session
        .simple_query(&statement)
        .await
        .map_err(|error| fault(&error))?;
    let text = |index: usize| {
        let cell = rows
            .first()
            .and_then(|row| row.get(index))
            .and_then(Option::as_ref);
        cell.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    match (text(1).and_then(|lsn| Lsn::parse(&lsn).ok()), text(2)) {
        (Some(consistent_point), Some(snapshot)) => Ok(Made {
            consistent_point,
            snapshot,
            _session: session,
        }),
        _ => Err(Error::fatal(format!(
            "{doing} ({server}): the server's answer names no point and snapshot"
        ))),
    }
}

fn random_suffix() -> String {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds each hasher at random.
    format!(
        "{:016x}",
        std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish()
    )
}

/// Drops the slot; waits a little for its reader, where that is this task's own session on its way out.
pub(crate) async fn drop_slot(connection: &mut PgConnection, settings: &Settings) -> Result<()> {
    let mut attempts = 0;
    loop {
        let dropped = sqlx::query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
        )
        .bind(&settings.slot)
        .execute(&mut *connection)
        .await;
        match dropped {
            Err(sqlx::Error::Database(error))
                if error.code().as_deref() == Some("55006") && attempts < 50 =>
            {
                attempts += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => {
                let doing = format!("dropping replication slot {:?}", settings.slot);
                return Err(failure::sql(&settings.server, doing, &error));
            }
            Ok(_) => return Ok(()),
        }
    }
}
