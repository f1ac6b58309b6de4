//! The catalogs: which tables there are, what their columns and keys are.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::codec::choose::Declared;
use super::type_catalog::oid;

/// A table as the catalogs have it now.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Whether it is partitioned, and so holds no rows of its own.
    pub(crate) partitioned: bool,
    pub(crate) identity: Identity,
    /// The names, `schema.name`, of the tables it is a partition of.
    pub(crate) ancestors: Vec<(String, String)>,
    /// The file its rows are in; it changes when the table is rewritten or truncated.
    pub(crate) file: Option<i64>,
    pub(crate) columns: Vec<Column>,
}

/// A column as the catalogs have it now; generated ones, which PostgreSQL does not publish, are left out.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) declared: Declared,
    pub(crate) not_null: bool,
    /// Its place in the primary key, from 0.
    pub(crate) key_position: Option<i32>,
    /// Whether it is of the index that is the replica identity.
    pub(crate) in_identity_index: bool,
}

/// `pg_class.relreplident`: what an update or delete tells of the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The primary key, where there is one.
    Default,
    Nothing,
    /// The whole row.
    Full,
    Index,
}

impl Identity {
    /// By its letter.
    pub(crate) fn of(letter: u8) -> Self {
        match letter {
            b'f' => Identity::Full,
            b'n' => Identity::Nothing,
            b'i' => Identity::Index,
            _ => Identity::Default,
        }
    }
}

impl Table {
    /// `schema.name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Whether there is a primary key.
    pub(crate) fn has_key(&self) -> bool {
        self.columns.iter().any(|column| column.key_position.is_some())
    }

    /// Why updates and deletes of this table cannot be captured, or not by key; none where they can.
    pub(crate) fn identity_fault(&self) -> Option<String> {
        let name = self.full_name();
        match self.identity {
            Identity::Default if !self.has_key() => Some(format!(
                "table {name} has no primary key and REPLICA IDENTITY DEFAULT: its records have no key, and PostgreSQL \
                 refuses updates and deletes of it while it is published; add a primary key, or ALTER TABLE {name} \
                 REPLICA IDENTITY FULL"
            )),
            Identity::Nothing => Some(format!(
                "table {name} has REPLICA IDENTITY NOTHING: PostgreSQL refuses updates and deletes of it while it is \
                 published; ALTER TABLE {name} REPLICA IDENTITY DEFAULT or FULL"
            )),
            Identity::Full if !self.has_key() => Some(format!(
                "table {name} has no primary key: its records have no key; see message.key.columns"
            )),
            Identity::Index
                if self
                    .columns
                    .iter()
                    .any(|c| c.key_position.is_some() && !c.in_identity_index) =>
            {
                Some(format!(
                    "the replica identity of table {name} is an index without all of its primary key: its records are \
                     keyed by the columns of that index, the only ones that deletes carry"
                ))
            }
            _ => None,
        }
    }
}

/// Everything but the columns; `$1` is the tables wanted, or null for all permanent ones outside the system's schemas.
const TABLES: &str = "
    SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text,
      pg_catalog.pg_relation_filenode(c.oid)::int8,
      ARRAY(SELECT an.nspname::text FROM pg_catalog.pg_partition_ancestors(c.oid) p (relid)
            JOIN pg_catalog.pg_class ac ON ac.oid = p.relid
            JOIN pg_catalog.pg_namespace an ON an.oid = ac.relnamespace
            WHERE p.relid <> c.oid ORDER BY ac.oid),
      ARRAY(SELECT ac.relname::text FROM pg_catalog.pg_partition_ancestors(c.oid) p (relid)
            JOIN pg_catalog.pg_class ac ON ac.oid = p.relid
            WHERE p.relid <> c.oid ORDER BY ac.oid)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE CASE WHEN $1::int8[] IS NULL
        THEN c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
          AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg\\_temp%'
        ELSE c.oid = ANY ($1::int8[]::oid[]) END
    ORDER BY n.nspname, c.relname";

const COLUMNS: &str = "
    SELECT a.attrelid::int8, a.attname::text, a.atttypid::int8, a.atttypmod::int4, a.attndims::int4, a.attnotnull,
      (SELECT position::int4 - 1 FROM pg_catalog.pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, position)
       WHERE i.indrelid = a.attrelid AND i.indisprimary AND k.attnum = a.attnum),
      EXISTS (SELECT FROM pg_catalog.pg_index i
              WHERE i.indrelid = a.attrelid AND i.indisreplident AND a.attnum = ANY (i.indkey::int2[]))
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = ANY ($1::int8[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY a.attrelid, a.attnum";

/// All permanent tables outside the system's schemas, by name, without their columns.
pub(crate) async fn all_tables(connection: &mut PgConnection) -> Result<Vec<Table>, sqlx::Error> {
    let rows = sqlx::query(TABLES)
        .bind(None::<Vec<i64>>)
        .fetch_all(connection)
        .await?;
    rows.iter().map(table).collect()
}

/// The tables `oids` with their columns, by name; those dropped since are left out.
pub(crate) async fn tables(connection: &mut PgConnection, oids: &[u32]) -> Result<Vec<Table>, sqlx::Error> {
    let oids: Vec<i64> = oids.iter().map(|&oid| i64::from(oid)).collect();
    let rows = sqlx::query(TABLES)
        .bind(Some(&oids))
        .fetch_all(&mut *connection)
        .await?;
    let mut tables: Vec<Table> = rows.iter().map(table).collect::<Result<_, _>>()?;
    for row in sqlx::query(COLUMNS).bind(&oids).fetch_all(connection).await? {
        let relation = oid(row.try_get(0)?);
        let column = Column {
            name: row.try_get(1)?,
            declared: Declared {
                type_oid: oid(row.try_get(2)?),
                modifier: row.try_get(3)?,
                dimensions: row.try_get(4)?,
            },
            not_null: row.try_get(5)?,
            key_position: row.try_get(6)?,
            in_identity_index: row.try_get(7)?,
        };
        if let Some(table) = tables.iter_mut().find(|table| table.oid == relation) {
            table.columns.push(column);
        }
    }
    Ok(tables)
}

fn table(row: &PgRow) -> Result<Table, sqlx::Error> {
    let identity: String = row.try_get(4)?;
    let (schemas, names): (Vec<String>, Vec<String>) = (row.try_get(6)?, row.try_get(7)?);
    Ok(Table {
        oid: oid(row.try_get(0)?),
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        partitioned: row.try_get::<String, _>(3)? == "p",
        identity: Identity::of(identity.bytes().next().unwrap_or(b'd')),
        file: row.try_get(5)?,
        ancestors: schemas.into_iter().zip(names).collect(),
        columns: Vec::new(),
    })
}
