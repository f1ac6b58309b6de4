//! Two databases, row by row: every column of every row as text, streamed from both in key order, so memory stays small.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::{Error, Result};

/// How many differing rows of a table are shown column by column.
const SHOWN: usize = 5;

/// How text forms are made the same on both sides, whatever the databases' defaults are.
const PINNED: &str = "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; SET timezone = 'UTC';
    SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmloption = content; SET search_path = pg_catalog, public";

/// A table of the source: what is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The columns of its primary key.
    pub key: Vec<String>,
    /// All columns, in the table's order.
    pub columns: Vec<String>,
}

impl Table {
    /// The tables of `schema` that have a primary key.
    pub async fn all_in(connection: &mut PgConnection, schema: &str) -> Result<Vec<Self>> {
        let rows: Vec<(String, Vec<String>, Vec<String>)> = sqlx::query_as(
            "SELECT c.relname::text,
                    (SELECT array_agg(a.attname::text ORDER BY k.ord) FROM unnest(i.indkey) WITH ORDINALITY k(attnum, ord)
                       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum),
                    (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
               FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
              WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              ORDER BY c.relname",
        )
        .bind(schema)
        .fetch_all(connection)
        .await
        .map_err(Error::sql(format!("listing the tables of {schema}")))?;
        let named = |(name, key, columns)| Self {
            schema: schema.to_owned(),
            name,
            key,
            columns,
        };
        Ok(rows.into_iter().map(named).collect())
    }

    fn full_name(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// The key as text that sorts the same by bytes here and there, without characters COPY escapes.
    fn hex_key(&self) -> String {
        let parts: Vec<String> = self
            .key
            .iter()
            .map(|column| format!("{}::text", quoted(column)))
            .collect();
        format!(
            "encode(convert_to(concat_ws(', ', {}), 'UTF8'), 'hex')",
            parts.join(", ")
        )
    }

    fn copy_statement(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("{}::text", quoted(column)))
            .collect();
        let key = self.hex_key();
        format!(
            "COPY (SELECT {key}, ROW({})::text FROM {} ORDER BY {key} COLLATE \"C\") TO STDOUT",
            columns.join(", "),
            self.full_name()
        )
    }
}

/// How two tables differ in one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The target lacks the row with this key.
    Missing(String),
    /// The target has a row with this key, the source does not.
    Extra(String),
    /// The columns that differ: name, source's text, target's text.
    Changed(String, Vec<(String, Option<String>, Option<String>)>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "key ({key}) is missing in the target"),
            Self::Extra(key) => write!(f, "key ({key}) is in the target alone"),
            Self::Changed(key, columns) => {
                write!(f, "key ({key}):")?;
                for (column, source, target) in columns {
                    write!(
                        f,
                        " {column}: {} in the source, {} in the target;",
                        shown(source.as_deref()),
                        shown(target.as_deref())
                    )?;
                }
                Ok(())
            }
        }
    }
}

/// One table's comparison.
#[derive(Debug, Clone, Default)]
pub struct TableResult {
    /// `schema.name`.
    pub table: String,
    /// Rows in the source.
    pub source_rows: u64,
    /// Rows in the target.
    pub target_rows: u64,
    /// How many rows differ, are missing or are too many.
    pub different: u64,
    /// The first of them.
    pub first: Vec<Difference>,
    /// Why the target's table cannot be read at all.
    pub unreadable: Option<String>,
}

/// The comparison of all tables.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// One entry a table.
    pub tables: Vec<TableResult>,
}

impl Comparison {
    /// Whether every row of every table is the same.
    pub fn is_equal(&self) -> bool {
        self.tables
            .iter()
            .all(|table| table.different == 0 && table.unreadable.is_none())
    }

    /// Rows of the source.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.source_rows).sum()
    }

    /// An error with all that differs, unless nothing does.
    pub fn into_result(self) -> Result<Self> {
        if self.is_equal() {
            Ok(self)
        } else {
            Err(Error::Different(self.to_string()))
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            let TableResult {
                table: name,
                source_rows,
                target_rows,
                different,
                ..
            } = table;
            if let Some(reason) = &table.unreadable {
                writeln!(f, "{name}: cannot be read in the target: {reason}")?;
            } else if *different == 0 {
                writeln!(f, "{name}: {source_rows} rows, all the same")?;
            } else {
                writeln!(
                    f,
                    "{name}: {source_rows} rows in the source, {target_rows} in the target, {different} differ"
                )?;
                for difference in &table.first {
                    writeln!(f, "    {difference}")?;
                }
            }
        }
        Ok(())
    }
}

/// Compares `tables` of both databases.
pub async fn compare(
    source: &mut PgConnection,
    target: &mut PgConnection,
    tables: &[Table],
) -> Result<Comparison> {
    for connection in [&mut *source, &mut *target] {
        sqlx::raw_sql(PINNED)
            .execute(connection)
            .await
            .map_err(Error::sql("pinning text formats"))?;
    }
    let mut comparison = Comparison::default();
    for table in tables {
        comparison
            .tables
            .push(compare_table(source, target, table).await?);
    }
    Ok(comparison)
}

async fn compare_table(
    source: &mut PgConnection,
    target: &mut PgConnection,
    table: &Table,
) -> Result<TableResult> {
    let mut result = TableResult {
        table: format!("{}.{}", table.schema, table.name),
        ..TableResult::default()
    };
    let mut differing: Vec<(String, Side)> = Vec::new();
    {
        let copy = table.copy_statement();
        let mut left = Rows::start(source, &copy, &result.table).await?;
        let mut right = match Rows::start(target, &copy, &result.table).await {
            Ok(rows) => rows,
            Err(error) => {
                result.unreadable = Some(error.to_string());
                // The stream left of it has to be read to its end before the connection can do anything else.
                while left.next().await?.is_some() {
                    result.source_rows += 1;
                }
                return Ok(result);
            }
        };
        let (mut one, mut other) = (left.next().await?, right.next().await?);
        loop {
            let order = match (&one, &other) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.key.cmp(&other.key),
            };
            let difference = match (order, &one, &other) {
                (Ordering::Less, Some(row), _) => Some((row.key.clone(), Side::SourceOnly)),
                (Ordering::Greater, _, Some(row)) => Some((row.key.clone(), Side::TargetOnly)),
                (_, Some(row), Some(twin)) if row.text != twin.text => Some((row.key.clone(), Side::Both)),
                _ => None,
            };
            if let Some(difference) = difference {
                result.different += 1;
                if differing.len() < SHOWN {
                    differing.push(difference);
                }
            }
            if order != Ordering::Greater {
                result.source_rows += 1;
                one = left.next().await?;
            }
            if order != Ordering::Less {
                result.target_rows += 1;
                other = right.next().await?;
            }
        }
    }
    for (key, side) in differing {
        let shown = text_of(&key);
        result.first.push(match side {
            Side::SourceOnly => Difference::Missing(shown),
            Side::TargetOnly => Difference::Extra(shown),
            Side::Both => Difference::Changed(shown, changed_columns(source, target, table, &key).await?),
        });
    }
    Ok(result)
}

enum Side {
    SourceOnly,
    TargetOnly,
    Both,
}

async fn changed_columns(
    source: &mut PgConnection,
    target: &mut PgConnection,
    table: &Table,
    key: &str,
) -> Result<Vec<(String, Option<String>, Option<String>)>> {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("{}::text", quoted(column)))
        .collect();
    let sql = format!(
        "SELECT ARRAY[{}] FROM {} WHERE {} = $1",
        columns.join(", "),
        table.full_name(),
        table.hex_key()
    );
    let mut sides = Vec::with_capacity(2);
    for connection in [source, target] {
        let row: Option<(Vec<Option<String>>,)> = sqlx::query_as(AssertSqlSafe(sql.clone()))
            .bind(key)
            .fetch_optional(connection)
            .await
            .map_err(Error::sql(format!(
                "reading a differing row of {}",
                table.full_name()
            )))?;
        sides.push(row.map(|(values,)| values).unwrap_or_default());
    }
    let at = |side: usize, column: usize| sides[side].get(column).cloned().flatten();
    let pairs = table
        .columns
        .iter()
        .enumerate()
        .map(|(n, name)| (name.clone(), at(0, n), at(1, n)));
    Ok(pairs.filter(|(_, one, other)| one != other).collect())
}

/// A row as COPY gives it: both fields still in COPY's escapes, which are the same on both sides.
struct Row {
    key: String,
    text: Vec<u8>,
}

/// The lines of a running COPY.
struct Rows<'c> {
    stream: BoxStream<'c, sqlx::Result<Bytes>>,
    buffer: Vec<u8>,
    read: usize,
    table: String,
}

impl<'c> Rows<'c> {
    async fn start(connection: &'c mut PgConnection, copy: &str, table: &str) -> Result<Self> {
        let stream = connection
            .copy_out_raw(copy)
            .await
            .map_err(Error::sql(format!("reading {table}")))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            read: 0,
            table: table.to_owned(),
        })
    }

    async fn next(&mut self) -> Result<Option<Row>> {
        loop {
            let rest = &self.buffer[self.read..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = &rest[..end];
                let tab = line.iter().position(|byte| *byte == b'\t').unwrap_or(end);
                let key = String::from_utf8_lossy(&line[..tab]).into_owned();
                let text = line.get(tab + 1..).unwrap_or_default().to_vec();
                self.read += end + 1;
                return Ok(Some(Row { key, text }));
            }
            self.buffer.drain(..self.read);
            self.read = 0;
            match self.stream.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(Error::sql(format!("reading {}", self.table))(error)),
                None => return Ok(None),
            }
        }
    }
}

fn text_of(hex: &str) -> String {
    let nibble = |byte: &u8| (*byte as char).to_digit(16).unwrap_or(0) as u8;
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | nibble(digit)))
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn shown(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) if text.chars().count() > 120 => {
            format!(
                "{:?}… ({} characters)",
                text.chars().take(120).collect::<String>(),
                text.chars().count()
            )
        }
        Some(text) => format!("{text:?}"),
    }
}
