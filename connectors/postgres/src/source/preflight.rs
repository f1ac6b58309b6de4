//! What must hold before anything is begun, each fault with its remedy.

use sqlx::{PgConnection, Row};
use tidewater_plugin_api::{Error, Result};

use super::catalog::{self, Table};
use super::failure;
use super::settings::{PublicationMode, Settings, SnapshotMode};

/// The oldest version that is read: 13.
const OLDEST: u32 = 130_000;

/// What was found.
pub(crate) struct Found {
    /// `server_version_num`.
    pub(crate) version: u32,
    /// The tables that the lists select, without their columns.
    pub(crate) tables: Vec<Table>,
}

/// Checks the server, the role and the lists of tables.
pub(crate) async fn check(connection: &mut PgConnection, settings: &Settings) -> Result<Found> {
    let server = &settings.server;
    let fault = |error: &sqlx::Error| failure::sql(server, "checking the server", error);
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int4, current_setting('wal_level'),
           COALESCE((SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), false),
           pg_catalog.getdatabaseencoding()::text",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| fault(&error))?;
    let version = u32::try_from(row.get::<i32, _>(0)).unwrap_or(0);
    if version < OLDEST {
        return Err(Error::config(format!(
            "{server} is of version {}; 13 or later is needed",
            version / 10_000
        )));
    }
    if settings.snapshot_mode != SnapshotMode::InitialOnly {
        let wal_level: String = row.get(1);
        if wal_level != "logical" {
            return Err(Error::config(format!(
                "{server} has wal_level={wal_level}, which does not tell what rows changed: ALTER SYSTEM SET \
                 wal_level = 'logical' and restart the server, or set snapshot.mode=initial_only"
            )));
        }
        if !row.get::<bool, _>(2) {
            return Err(Error::config(format!(
                "role {:?} may not replicate ({server}): ALTER ROLE \"{}\" REPLICATION",
                server.user, server.user
            )));
        }
    }
    if row.get::<String, _>(3) == "SQL_ASCII" {
        tracing::warn!("{server} has the encoding SQL_ASCII: text that is not UTF-8 will stop the connector");
    }
    let all = catalog::all_tables(connection)
        .await
        .map_err(|error| fault(&error))?;
    let names: Vec<String> = all.iter().map(Table::full_name).collect();
    let unmatched = settings.filter.unmatched(&names);
    if !unmatched.is_empty() {
        let faults: Vec<String> = unmatched
            .into_iter()
            .map(|(pattern, nearest)| match nearest.as_slice() {
                [] => format!("{pattern:?} matches no table"),
                nearest => format!("{pattern:?} matches no table (nearest: {})", nearest.join(", ")),
            })
            .collect();
        return Err(Error::config(format!(
            "table.include.list: {} ({server}); name tables as <schema>.<table>",
            faults.join("; ")
        )));
    }
    let tables: Vec<Table> = all
        .into_iter()
        .filter(|table| captured(settings, table))
        .collect();
    if tables.is_empty() && settings.publication_mode == PublicationMode::Filtered {
        return Err(Error::config(format!(
            "the include and exclude lists select none of the {} tables ({server}), and \
             publication.autocreate.mode=filtered needs one at least",
            names.len()
        )));
    }
    Ok(Found { version, tables })
}

/// Whether the lists select the table, by itself or as a partition of one.
pub(crate) fn captured(settings: &Settings, table: &Table) -> bool {
    let filter = &settings.filter;
    filter.captures(&table.schema, &table.name)
        || (!filter.excludes(&table.schema, &table.name)
            && table
                .ancestors
                .iter()
                .any(|(schema, name)| filter.captures(schema, name)))
}

/// That the role may read all `tables`, for a snapshot.
pub(crate) async fn check_readable(
    connection: &mut PgConnection,
    settings: &Settings,
    tables: &[Table],
) -> Result<()> {
    let oids: Vec<i64> = tables.iter().map(|table| i64::from(table.oid)).collect();
    let hidden: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = ANY ($1::int8[]::oid[])
           AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
         ORDER BY 1",
    )
    .bind(oids)
    .fetch_all(connection)
    .await
    .map_err(|error| failure::sql(&settings.server, "checking privileges", &error))?;
    if hidden.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!(
        "role {:?} may not read {} ({}): GRANT USAGE ON SCHEMA …; GRANT SELECT ON {} TO \"{}\"",
        settings.server.user,
        hidden.join(", "),
        settings.server,
        hidden.join(", "),
        settings.server.user
    )))
}
