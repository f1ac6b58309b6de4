//! The publication: made where that is wanted, and what it publishes.

use sqlx::{PgConnection, Row};
use tidewater_plugin_api::{Error, Result};

use super::connection::{execute, quoted};
use super::failure;
use super::settings::{PublicationMode, Settings};
use super::type_catalog::oid;

/// A table that the publication publishes.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) oid: u32,
    /// Its columns, where the publication lists them.
    pub(crate) columns: Option<Vec<String>>,
    /// The condition on its rows, as SQL.
    pub(crate) row_filter: Option<String>,
}

/// A publication as it is.
struct Existing {
    all_tables: bool,
    operations: [bool; 4],
}

/// Makes or mends the publication as `publication.autocreate.mode` says; `captured` are the tables that the lists select,
/// as `(schema, name)`.
pub(crate) async fn ensure(
    connection: &mut PgConnection,
    settings: &Settings,
    captured: &[(String, String)],
) -> Result<()> {
    let (server, name) = (&settings.server, &settings.publication);
    let existing = find(connection, settings).await?;
    let tables = || -> String {
        let tables: Vec<String> = captured
            .iter()
            .map(|(schema, table)| format!("{}.{}", quoted(schema), quoted(table)))
            .collect();
        tables.join(", ")
    };
    let options = format!(
        "WITH (publish_via_partition_root = {})",
        settings.via_partition_root
    );
    let statement = match (settings.publication_mode, &existing) {
        (PublicationMode::Disabled, None) => {
            return Err(Error::config(format!(
                "publication {name:?} does not exist ({server}) and publication.autocreate.mode is disabled: CREATE \
                 PUBLICATION {} FOR TABLE …, or set another publication.autocreate.mode or publication.name",
                quoted(name)
            )));
        }
        (PublicationMode::Filtered, None) => {
            format!(
                "CREATE PUBLICATION {} FOR TABLE {} {options}",
                quoted(name),
                tables()
            )
        }
        (PublicationMode::AllTables, None) => {
            format!("CREATE PUBLICATION {} FOR ALL TABLES {options}", quoted(name))
        }
        (PublicationMode::NoTables, None) => format!("CREATE PUBLICATION {} {options}", quoted(name)),
        (PublicationMode::Filtered, Some(existing)) if !existing.all_tables => {
            if lists(connection, settings, captured).await? {
                return Ok(());
            }
            format!("ALTER PUBLICATION {} SET TABLE {}", quoted(name), tables())
        }
        (_, Some(existing)) => {
            let missing: Vec<&str> = ["insert", "update", "delete", "truncate"]
                .into_iter()
                .zip(existing.operations)
                .filter_map(|(operation, published)| (!published).then_some(operation))
                .collect();
            if !missing.is_empty() {
                tracing::warn!(publication = %name, "the publication does not publish {}: these changes are not captured", missing.join(", "));
            }
            return Ok(());
        }
    };
    tracing::info!(publication = %name, "{statement}");
    let doing = format!("making publication {name:?}");
    match execute(connection, server, &doing, &statement).await {
        Err(error) if error.message.contains("42501") => Err(Error::config(format!(
            "{}; with publication.autocreate.mode=filtered the role must own the tables and may CREATE in the database, \
             with all_tables it must be a superuser; or let an administrator make the publication and set it to disabled",
            error.message
        ))),
        other => other,
    }
}

async fn find(connection: &mut PgConnection, settings: &Settings) -> Result<Option<Existing>> {
    let row = sqlx::query(
        "SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_catalog.pg_publication WHERE pubname = $1",
    )
    .bind(&settings.publication)
    .fetch_optional(connection)
    .await;
    let parse = |row: sqlx::postgres::PgRow| {
        Ok(Existing {
            all_tables: row.try_get(0)?,
            operations: [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?],
        })
    };
    row.and_then(|row| row.map(parse).transpose())
        .map_err(|error| failure::sql(&settings.server, "reading pg_publication", &error))
}

/// Whether the publication lists exactly these tables.
async fn lists(
    connection: &mut PgConnection,
    settings: &Settings,
    captured: &[(String, String)],
) -> Result<bool> {
    let rows = sqlx::query(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_publication_rel r
           JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE p.pubname = $1",
    )
    .bind(&settings.publication)
    .fetch_all(connection)
    .await
    .map_err(|error| failure::sql(&settings.server, "reading pg_publication_rel", &error))?;
    let mut listed: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut captured = captured.to_vec();
    listed.sort();
    captured.sort();
    Ok(listed == captured)
}

/// What the publication publishes. Of a partitioned table, either the whole or its partitions, as it says.
pub(crate) async fn published(
    connection: &mut PgConnection,
    settings: &Settings,
    version: u32,
) -> Result<Vec<Published>> {
    // Lists of columns and conditions on rows came with PostgreSQL 15.
    let query = if version >= 150_000 {
        "SELECT c.oid::int8, p.attnames::text[], p.rowfilter
         FROM pg_catalog.pg_publication_tables p JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE p.pubname = $1 ORDER BY p.schemaname, p.tablename"
    } else {
        "SELECT c.oid::int8, NULL::text[], NULL::text
         FROM pg_catalog.pg_publication_tables p JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
           JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE p.pubname = $1 ORDER BY p.schemaname, p.tablename"
    };
    let rows = sqlx::query(query)
        .bind(&settings.publication)
        .fetch_all(connection)
        .await;
    let parse = |row: &sqlx::postgres::PgRow| {
        Ok(Published {
            oid: oid(row.try_get(0)?),
            columns: row.try_get(1)?,
            row_filter: row.try_get(2)?,
        })
    };
    rows.and_then(|rows| rows.iter().map(parse).collect())
        .map_err(|error| failure::sql(&settings.server, "reading pg_publication_tables", &error))
}
