//! The shop: a sample database of related tables, every common column type, and the audit that counts what changes.

mod writers;

use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::{Error, Result};
use crate::postgres::Postgres;

pub use writers::{Totals, WriterOptions, Writers};

/// The schema the shop's tables are in.
pub const SCHEMA: &str = "shop";

/// The database the shop is in, on the source as on a mirror.
pub const DATABASE: &str = "shop";

/// Makes the shop in a new database of `server`. `scale` 1 gives some 124,000 rows.
pub async fn load(server: &Postgres, scale: f64) -> Result<()> {
    server.execute("postgres", "CREATE DATABASE shop").await?;
    server.execute(DATABASE, include_str!("shop/schema.sql")).await?;
    let scale = format!("SET shop.scale = '{scale}';");
    // Constraints and triggers after the rows: that loads several times faster.
    server
        .execute(DATABASE, &format!("{scale} {}", include_str!("shop/load.sql")))
        .await?;
    server
        .execute(
            DATABASE,
            &format!("{scale} {}", include_str!("shop/every_type.sql")),
        )
        .await?;
    server
        .execute(DATABASE, include_str!("shop/constraints.sql"))
        .await?;
    server.execute(DATABASE, include_str!("shop/audit.sql")).await?;
    server
        .execute(DATABASE, "CREATE SEQUENCE audit.live_id START 1000000; ANALYZE")
        .await
}

/// Makes the shop's empty tables in a new database of `server`, without what belongs to the source alone.
pub async fn prepare_mirror(server: &Postgres) -> Result<()> {
    server.execute("postgres", "CREATE DATABASE shop").await?;
    server.execute(DATABASE, include_str!("shop/schema.sql")).await
}

/// How many changes of each kind the audit of the source has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows created, changed keys among them.
    pub creates: u64,
    /// Rows updated with their key unchanged.
    pub updates: u64,
    /// Rows deleted, changed keys among them.
    pub deletes: u64,
}

impl Changes {
    /// Change events these make.
    pub fn events(self) -> u64 {
        self.creates + self.updates + self.deletes
    }

    /// Records these make when each delete is followed by a tombstone.
    pub fn records_with_tombstones(self) -> u64 {
        self.events() + self.deletes
    }
}

/// What the audit has counted so far.
pub async fn changes(server: &Postgres) -> Result<Changes> {
    let mut connection = server.connect(DATABASE).await?;
    let sql = "SELECT count(*) FILTER (WHERE op = 'c'), count(*) FILTER (WHERE op = 'u'),
                      count(*) FILTER (WHERE op = 'd') FROM audit.changes";
    let (creates, updates, deletes): (i64, i64, i64) = sqlx::query_as(sql)
        .fetch_one(&mut connection)
        .await
        .map_err(Error::sql("counting the audited changes"))?;
    Ok(Changes {
        creates: creates.unsigned_abs(),
        updates: updates.unsigned_abs(),
        deletes: deletes.unsigned_abs(),
    })
}

/// Rows and sum of revisions of each of the shop's tables that is there: equal when, almost surely, the rows are.
/// Cheap enough to be asked often; [`crate::compare`] is what proves.
pub async fn fingerprint(connection: &mut PgConnection) -> Result<Vec<(String, i64, String)>> {
    let tables: Vec<(String,)> = sqlx::query_as(
        "SELECT relname::text FROM pg_class
          WHERE relnamespace = to_regnamespace('shop') AND relkind = 'r' ORDER BY relname",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(Error::sql("listing the shop's tables"))?;
    let mut prints = Vec::with_capacity(tables.len());
    for (table,) in tables {
        let sql = format!("SELECT count(*), coalesce(sum(rev), 0)::text FROM shop.{table}");
        let (rows, revisions): (i64, String) = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(&mut *connection)
            .await
            .map_err(Error::sql(format!("counting shop.{table}")))?;
        prints.push((table, rows, revisions));
    }
    Ok(prints)
}

/// How many rows the shop has in all.
pub async fn rows(server: &Postgres) -> Result<u64> {
    let mut connection = server.connect(DATABASE).await?;
    let prints = fingerprint(&mut connection).await?;
    Ok(prints.iter().map(|(_, rows, _)| rows.unsigned_abs()).sum())
}
