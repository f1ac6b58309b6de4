//! A target table as the catalogue describes it, and the sets of its columns that statements write.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::types::Oid;
use sqlx::{PgConnection, Row as _};

use super::error::SinkError;
use super::identifier::{TableName, quoted};
use super::statement::Action;
use super::text::ColumnKind;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name, without quotes.
    pub name: String,
    /// The type to cast text to: without length or precision, because an explicit cast would cut silently what the
    /// assignment to the column then refuses; a domain's base type for the same reason.
    pub cast: String,
    /// The type as declared.
    pub declared: String,
    /// What decides a value's text form.
    pub kind: ColumnKind,
    /// Whether a row needs a value here: NOT NULL and nothing to take instead.
    pub needed: bool,
    /// Whether Postgres computes it.
    pub generated: bool,
    /// `GENERATED ALWAYS AS IDENTITY`.
    pub identity_always: bool,
}

/// Some of a table's columns, as positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The key's.
    pub key: Vec<usize>,
    /// The others.
    pub rest: Vec<usize>,
}

impl Columns {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.key.len() + self.rest.len()
    }
}

/// Columns that are written together, with the statements made for them so far.
#[derive(Debug)]
pub struct ColumnSet {
    /// The columns.
    pub columns: Columns,
    /// SQL by what it does.
    pub statements: HashMap<Action, Arc<str>>,
}

/// A table.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: TableName,
    /// Its object id.
    pub oid: u32,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Whether COPY can write to it: it is a table and no view.
    pub takes_copy: bool,
    /// The columns of each unique index that can decide a conflict, sorted.
    unique: Vec<Vec<String>>,
    /// The tables its foreign keys refer to.
    pub references: Vec<u32>,
    /// The sets of columns met so far.
    pub sets: Vec<ColumnSet>,
    by_name: HashMap<String, usize>,
}

const TABLE: &str =
    "SELECT c.oid, c.relkind::text FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";

const COLUMNS: &str = "
    SELECT a.attname::text, pg_catalog.format_type(b.oid, -1), pg_catalog.format_type(a.atttypid, a.atttypmod),
           b.typname::text, b.typcategory::text, e.typname::text, e.typcategory::text,
           (a.attnotnull OR t.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL,
           a.attgenerated <> '', a.attidentity = 'a'
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
        WITH RECURSIVE d AS (
            SELECT t.oid, t.typtype, t.typbasetype
            UNION ALL
            SELECT n.oid, n.typtype, n.typbasetype
            FROM d JOIN pg_catalog.pg_type n ON n.oid = d.typbasetype WHERE d.typtype = 'd'
        ) SELECT oid FROM d WHERE typtype <> 'd'
    ) base
    JOIN pg_catalog.pg_type b ON b.oid = base.oid
    LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum";

const UNIQUE: &str = "
    SELECT (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\")
            FROM pg_catalog.unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k)
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL";

const REFERENCES: &str = "
    SELECT confrelid FROM pg_catalog.pg_constraint WHERE conrelid = $1 AND contype = 'f' AND confrelid <> conrelid";

impl Target {
    /// Looks `name` up; none where there is no such table.
    pub async fn load(connection: &mut PgConnection, name: &TableName) -> Result<Option<Self>, SinkError> {
        let failed = || SinkError::database(format!("reading the definition of table {name}"));
        let Some(table) = sqlx::query(TABLE)
            .bind(name.to_string())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed())?
        else {
            return Ok(None);
        };
        let oid: Oid = table.get(0);
        let kind: String = table.get(1);
        let rows = sqlx::query(COLUMNS)
            .bind(oid)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed())?;
        let columns: Vec<Column> = rows
            .iter()
            .map(|row| {
                let kind = column_kind(&row.get::<String, _>(4), &row.get::<String, _>(3));
                let element: Option<String> = row.get(5);
                let kind = match element {
                    Some(element) => {
                        ColumnKind::Array(Box::new(column_kind(&row.get::<String, _>(6), &element)))
                    }
                    None => kind,
                };
                Column {
                    name: row.get(0),
                    cast: row.get(1),
                    declared: row.get(2),
                    kind,
                    needed: row.get(7),
                    generated: row.get(8),
                    identity_always: row.get(9),
                }
            })
            .collect();
        let unique = sqlx::query(UNIQUE)
            .bind(oid)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed())?;
        let references = sqlx::query(REFERENCES)
            .bind(oid)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed())?;
        Ok(Some(Self {
            name: name.clone(),
            oid: oid.0,
            by_name: columns
                .iter()
                .enumerate()
                .map(|(index, column)| (column.name.clone(), index))
                .collect(),
            columns,
            takes_copy: kind == "r" || kind == "p",
            unique: unique
                .iter()
                .filter_map(|row| row.get::<Option<Vec<String>>, _>(0))
                .collect(),
            references: references.iter().map(|row| row.get::<Oid, _>(0).0).collect(),
            sets: Vec::new(),
        }))
    }

    /// Takes over what a later look found, where that only added columns; positions stay valid then.
    pub fn renew(&mut self, later: Target) -> Result<(), SinkError> {
        if later.oid != self.oid || !later.columns.starts_with(&self.columns) {
            return Err(SinkError::Changed(self.name.to_string()));
        }
        let sets = std::mem::take(&mut self.sets);
        *self = later;
        self.sets = sets;
        Ok(())
    }

    /// The position of the column `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Whether a unique index covers exactly these columns, so that ON CONFLICT can name them.
    pub fn has_unique(&self, key: &[usize]) -> bool {
        let mut names: Vec<&str> = key.iter().map(|&index| &*self.columns[index].name).collect();
        names.sort_unstable();
        self.unique.iter().any(|unique| *unique == names)
    }

    /// The id of a set of columns, by which it is known from now on.
    pub fn set(&mut self, columns: Columns) -> u32 {
        let known = self.sets.iter().position(|set| set.columns == columns);
        let index = known.unwrap_or_else(|| {
            self.sets.push(ColumnSet {
                columns,
                statements: HashMap::new(),
            });
            self.sets.len() - 1
        });
        index as u32
    }

    /// Whether a new row with only these columns would lack something.
    pub fn lacks(&self, columns: &Columns) -> bool {
        self.columns.iter().enumerate().any(|(index, column)| {
            column.needed && !columns.key.contains(&index) && !columns.rest.contains(&index)
        })
    }

    /// The names of columns, quoted, for a list in SQL.
    pub fn names<'a>(&self, columns: impl IntoIterator<Item = &'a usize>) -> String {
        let names: Vec<_> = columns
            .into_iter()
            .map(|&index| quoted(&self.columns[index].name))
            .collect();
        names.join(", ")
    }
}

fn column_kind(category: &str, name: &str) -> ColumnKind {
    match name {
        "json" | "jsonb" => ColumnKind::Json,
        "hstore" => ColumnKind::Hstore,
        "point" => ColumnKind::Point,
        "geometry" | "geography" => ColumnKind::Geometry,
        _ if category == "S" => ColumnKind::Text,
        _ => ColumnKind::Other,
    }
}
