//! The snapshot: all rows of the captured tables as they were at one point of the log, read by COPY in bounded memory.
//!
//! A task of its own reads, because a waiting `poll` may be dropped at any moment while COPY must go on. It hands over
//! chunks of lines through a short queue and so waits when nobody takes them (invariant 6).

use bytes::Bytes;
use futures::StreamExt;
use sqlx::PgConnection;
use tidewater_plugin_api::{Error, Result};
use tokio::sync::mpsc;

use super::catalog::{self, Table};
use super::connection::{self, execute, literal, quoted};
use super::failure;
use super::publication::Published;
use super::relation::{Relation, Shape};
use super::settings::{Server, Settings};
use super::type_catalog::TypeCatalog;

/// A chunk ends with this many bytes.
const CHUNK_BYTES: usize = 128 * 1024;
/// So many chunks wait at most.
const CHUNKS: usize = 4;

/// Lines of one table.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The table's place in [`Snapshot::relations`].
    pub(crate) relation: usize,
    pub(crate) lines: Vec<Bytes>,
    /// Whether the table begins here.
    pub(crate) first: bool,
    /// Whether the table ends here.
    pub(crate) last: bool,
    /// Whether nothing at all comes after.
    pub(crate) last_of_all: bool,
}

impl Chunk {
    /// What `source.snapshot` says of the line at `index`.
    pub(crate) fn marker(&self, index: usize) -> &'static str {
        let first = self.first && index == 0;
        let last = self.last && index + 1 == self.lines.len();
        match (first, last) {
            (_, true) if self.last_of_all => "last",
            (true, _) if self.relation == 0 => "first",
            (_, true) => "last_in_data_collection",
            (true, _) => "first_in_data_collection",
            _ => "true",
        }
    }
}

/// A snapshot under way.
pub(crate) struct Snapshot {
    pub(crate) relations: Vec<Relation>,
    chunks: mpsc::Receiver<Result<Option<Chunk>>>,
}

impl Snapshot {
    /// The next chunk; none after the last. Dropped while it waits, it loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>> {
        match self.chunks.recv().await {
            Some(chunk) => chunk,
            // The end is said; silence is no end.
            None => Err(Error::retriable(
                "the reader of the snapshot ended too early; the snapshot begins again",
            )),
        }
    }
}

/// A table to read.
struct Source {
    name: String,
    statement: String,
}

/// Begins to read `published` as they were when `exported` was, or now.
///
/// MVCC does not cover rewriting: a table truncated or rewritten by DDL after the snapshot looks empty to it. Hence the
/// locks, and the comparison with the files the tables had before the snapshot (`before`).
pub(crate) async fn begin(
    settings: &Settings,
    catalog_connection: &mut PgConnection,
    published: &[Published],
    before: &[Table],
    exported: Option<&str>,
) -> Result<Snapshot> {
    let server = &settings.server;
    let mut reader = connection::reader(server).await?;
    let import = exported
        .map(|id| format!("SET TRANSACTION SNAPSHOT {};", literal(id)))
        .unwrap_or_default();
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {import}");
    execute(&mut reader, server, "beginning the snapshot", &begin).await?;
    if !before.is_empty() {
        let names: Vec<String> = before
            .iter()
            .map(|table| format!("{}{}", only(table), relation_name(table)))
            .collect();
        let lock = format!(
            "SET LOCAL lock_timeout = {}; LOCK TABLE {} IN ACCESS SHARE MODE",
            settings.lock_timeout.as_millis(),
            names.join(", ")
        );
        execute(&mut reader, server, "locking the tables of the snapshot", &lock).await?;
    }
    let fault = |error: &sqlx::Error| failure::sql(server, "reading the catalogs", error);
    let oids: Vec<u32> = before.iter().map(|table| table.oid).collect();
    let tables = catalog::tables(catalog_connection, &oids)
        .await
        .map_err(|error| fault(&error))?;
    if exported.is_some() {
        for table in before {
            if !tables
                .iter()
                .any(|now| now.oid == table.oid && now.file == table.file)
            {
                return Err(Error::retriable(format!(
                    "table {} ({server}) was dropped, truncated or rewritten while the snapshot began; it begins again",
                    table.full_name()
                )));
            }
        }
    }
    let mut types = TypeCatalog::default();
    let mut relations = Vec::new();
    let mut sources = Vec::new();
    for table in &tables {
        let publication = published.iter().find(|published| published.oid == table.oid);
        let columns = publication.and_then(|published| published.columns.as_deref());
        let shape = Shape::from_catalog(table, columns);
        let loaded = TypeCatalog::load(catalog_connection, &shape.type_oids())
            .await
            .map_err(|error| fault(&error))?;
        types.extend(loaded);
        relations.push(Relation::new(&shape, &types, settings));
        let filter = publication.and_then(|published| published.row_filter.as_deref());
        sources.push(Source {
            name: table.full_name(),
            statement: copy_statement(table, &shape, filter),
        });
    }
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let (server, max_lines) = (server.clone(), settings.max_batch);
    tokio::spawn(async move {
        let end = read(&mut reader, &server, &sources, max_lines, &sender).await;
        let _ = sender.send(end.map(|()| None)).await; // if nobody listens any more, the task was stopped
    });
    Ok(Snapshot { relations, chunks })
}

fn relation_name(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

/// A child by inheritance is a table of its own; the rows of a partitioned table are those of its partitions.
fn only(table: &Table) -> &'static str {
    if table.partitioned { "" } else { "ONLY " }
}

fn copy_statement(table: &Table, shape: &Shape, filter: Option<&str>) -> String {
    let columns: Vec<String> = shape.columns.iter().map(|column| quoted(&column.name)).collect();
    let (columns, name) = (columns.join(", "), relation_name(table));
    if !table.partitioned && filter.is_none() && !columns.is_empty() {
        return format!("COPY {name} ({columns}) TO STDOUT");
    }
    let only = only(table);
    let condition = filter
        .map(|filter| format!(" WHERE {filter}"))
        .unwrap_or_default();
    format!("COPY (SELECT {columns} FROM {only}{name}{condition}) TO STDOUT")
}

async fn read(
    connection: &mut PgConnection,
    server: &Server,
    sources: &[Source],
    max_lines: usize,
    sender: &mpsc::Sender<Result<Option<Chunk>>>,
) -> Result<()> {
    // One chunk is held back: whether it is the last is known only with the next.
    let mut held: Option<Chunk> = None;
    for (relation, source) in sources.iter().enumerate() {
        let doing = || format!("reading table {} for the snapshot", source.name);
        let fault = |error: &sqlx::Error| failure::sql(server, doing(), error);
        tracing::info!(table = %source.name, "reading");
        let mut lines = connection
            .copy_out_raw(&source.statement)
            .await
            .map_err(|error| fault(&error))?;
        let mut chunk = Chunk {
            relation,
            lines: Vec::new(),
            first: true,
            last: false,
            last_of_all: false,
        };
        let mut bytes = 0;
        while let Some(line) = lines.next().await {
            let line = line.map_err(|error| fault(&error))?;
            if chunk.lines.len() >= max_lines || bytes >= CHUNK_BYTES {
                let full = std::mem::replace(
                    &mut chunk,
                    Chunk {
                        relation,
                        lines: Vec::new(),
                        first: false,
                        last: false,
                        last_of_all: false,
                    },
                );
                bytes = 0;
                if !pass_on(held.replace(full), sender).await {
                    return Ok(());
                }
            }
            bytes += line.len();
            chunk.lines.push(line);
        }
        if !chunk.lines.is_empty() {
            chunk.last = true;
            if !pass_on(held.replace(chunk), sender).await {
                return Ok(());
            }
        }
    }
    if let Some(last) = &mut held {
        last.last_of_all = true;
    }
    pass_on(held, sender).await;
    execute(connection, server, "ending the snapshot", "COMMIT").await
}

/// Whether anybody still listens.
async fn pass_on(chunk: Option<Chunk>, sender: &mpsc::Sender<Result<Option<Chunk>>>) -> bool {
    match chunk {
        Some(chunk) => sender.send(Ok(Some(chunk))).await.is_ok(),
        None => !sender.is_closed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_tables_and_of_the_snapshot_are_marked() {
        let chunk = |relation, count, first, last, last_of_all| Chunk {
            relation,
            lines: vec![Bytes::new(); count],
            first,
            last,
            last_of_all,
        };
        let markers = |chunk: Chunk| {
            (0..chunk.lines.len())
                .map(|i| chunk.marker(i))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            markers(chunk(0, 3, true, true, false)),
            ["first", "true", "last_in_data_collection"]
        );
        assert_eq!(
            markers(chunk(1, 2, true, false, false)),
            ["first_in_data_collection", "true"]
        );
        assert_eq!(markers(chunk(1, 2, false, true, true)), ["true", "last"]);
        assert_eq!(markers(chunk(0, 1, true, true, true)), ["last"]);
    }
}
