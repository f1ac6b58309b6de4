//! The stream: transactions as PostgreSQL sends them, each change turned into its records at once.
//!
//! Nothing of a transaction is held back, so its size does not matter; the position says how many of its changes are done
//! (invariants 2 and 6). After a restart PostgreSQL sends it again from its beginning, and those are passed over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};
use sqlx::PgConnection;
use tidewater_plugin_api::{Error, FrameBuilder, Result};
use tokio::task::JoinHandle;

use super::catalog::{self, Table};
use super::connection;
use super::envelope::{Emitter, Operation, Origin};
use super::failure;
use super::pgoutput::{self, Message, Old, RelationMessage};
use super::position::{Last, Partial, Position};
use super::preflight;
use super::relation::{Relation, Shape};
use super::row::{Cells, Row};
use super::settings::Settings;
use super::slot;
use super::type_catalog::TypeCatalog;

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's time begins.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A transaction under way.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    commit: Lsn,
    xid: u32,
    micros: i64,
    /// How many of its changes have come.
    changes: u64,
    /// How many of them were done before a restart.
    skip: u64,
}

/// The catalogs' knowledge of a table that the stream has just described, being read.
struct Loading {
    message: RelationMessage,
    /// None where the last attempt failed.
    reading: Option<JoinHandle<Result<Loaded>>>,
}

struct Loaded {
    connection: PgConnection,
    table: Option<Table>,
    types: TypeCatalog,
}

/// A session that streams.
pub(crate) struct Stream {
    client: ReplicationClient,
    settings: Arc<Settings>,
    /// None for tables that are not captured.
    relations: HashMap<u32, Option<Relation>>,
    types: TypeCatalog,
    transaction: Option<Transaction>,
    loading: Option<Loading>,
    catalog: Option<PgConnection>,
    old: Cells,
    new: Cells,
    /// When the server was last heard of.
    heard: Instant,
    /// Whether the server still has this session, being asked.
    asking: Option<JoinHandle<Result<bool>>>,
    /// Whether the server waits to hear how far this is: it does when it shuts down.
    asked: bool,
    /// Changes of captured tables that `skipped.operations` leaves out.
    pub(crate) filtered: u64,
}

impl Stream {
    /// Takes over a session that has started.
    pub(crate) fn new(client: ReplicationClient, settings: Arc<Settings>) -> Self {
        Self {
            client,
            settings,
            relations: HashMap::new(),
            types: TypeCatalog::default(),
            transaction: None,
            loading: None,
            catalog: None,
            old: Cells::new(),
            new: Cells::new(),
            heard: Instant::now(),
            asking: None,
            asked: false,
            filtered: 0,
        }
    }

    /// Tells the server that it may forget everything before `lsn` (invariant 3).
    pub(crate) fn acknowledge(&self, lsn: Lsn) {
        self.client.update_applied_lsn(lsn);
    }

    /// The end of the server's log as far as it is known, for metrics.
    pub(crate) fn log_end(&self) -> Lsn {
        self.client.metrics().last_wal_end()
    }

    /// Whether a transaction is on its way.
    pub(crate) fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether the server has asked since the last call how far this is.
    pub(crate) fn was_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// Ends the session in order.
    pub(crate) async fn shut_down(&mut self) {
        let _ = self.client.shutdown().await; // an error means that it has ended
    }

    /// The next event. Dropped while it waits, it loses nothing.
    pub(crate) async fn next(&mut self) -> Result<ReplicationEvent> {
        let server = &self.settings.server;
        match self.client.recv().await {
            Ok(Some(event)) => {
                self.heard = Instant::now();
                Ok(event)
            }
            Ok(None) => Err(Error::retriable(format!(
                "the server ended the stream ({server}); it is opened again"
            ))),
            Err(error) => Err(failure::replication(server, "streaming", &error)),
        }
    }

    /// After a long silence, asks the server whether it still has this session; an error where it has not. A connection
    /// that a network dropped without a word looks just like a server without changes.
    pub(crate) async fn check_alive(&mut self) -> Result<()> {
        let patience = self.settings.status_interval.saturating_mul(6);
        match &mut self.asking {
            None if self.heard.elapsed() < patience => {}
            None => {
                let settings = self.settings.clone();
                self.asking = Some(tokio::spawn(async move {
                    let mut connection = connection::catalog(&settings.server).await?;
                    Ok(slot::find(&mut connection, &settings)
                        .await?
                        .is_some_and(|slot| slot.active_pid.is_some()))
                }));
            }
            Some(asking) if asking.is_finished() => {
                let answer = asking.await;
                self.asking = None;
                let alive =
                    answer.map_err(|error| Error::retriable(format!("asking for the slot: {error}")))??;
                if !alive && self.heard.elapsed() >= patience {
                    return Err(Error::retriable(format!(
                        "the stream fell silent, and the server no longer has it ({}); it is opened again",
                        self.settings.server
                    )));
                }
                self.heard = Instant::now();
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Waits for the catalogs where a table was just described. To be called before the next event is taken; dropped
    /// while it waits, it loses nothing.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        let Some(loading) = &mut self.loading else {
            return Ok(());
        };
        let reading = loading.reading.get_or_insert_with(|| {
            let settings = self.settings.clone();
            let (oid, connection) = (loading.message.oid, self.catalog.take());
            let types = loading
                .message
                .columns
                .iter()
                .map(|column| column.type_oid)
                .collect();
            tokio::spawn(load(settings, connection, oid, types))
        });
        let loaded = reading.await;
        loading.reading = None;
        let loaded = loaded.map_err(|error| Error::retriable(format!("reading the catalogs: {error}")))??;
        self.catalog = Some(loaded.connection);
        self.types.extend(loaded.types);
        let Some(Loading { message, .. }) = self.loading.take() else {
            return Ok(());
        };
        let captured = match &loaded.table {
            Some(table) => preflight::captured(&self.settings, table),
            None => self.settings.filter.captures(&message.schema, &message.table),
        };
        let relation = captured.then(|| {
            let shape = Shape::from_stream(&message, loaded.table.as_ref());
            Relation::new(&shape, &self.types, &self.settings)
        });
        self.relations.insert(message.oid, relation);
        Ok(())
    }

    /// Turns an event into records, and moves the position on.
    pub(crate) fn handle(
        &mut self,
        event: ReplicationEvent,
        batch: &mut FrameBuilder,
        emitter: &mut Emitter,
        position: &mut Position,
    ) -> Result<()> {
        match event {
            ReplicationEvent::XLogData { wal_start, data, .. } => {
                self.change(wal_start, &data, batch, emitter, position)
            }
            ReplicationEvent::Begin {
                final_lsn,
                xid,
                commit_time_micros,
            } => {
                let skip = already_done(position, final_lsn).map_err(|lost| {
                    Error::fatal(format!(
                        "slot {:?} ({}) did not send the transaction that commits at {lost} again, of which a part is done: \
                         the rest of it is lost. Set snapshot.mode=when_needed and delete this connector's offsets to read \
                         all rows again",
                        self.settings.slot, self.settings.server
                    ))
                })?;
                self.transaction = Some(Transaction {
                    commit: final_lsn,
                    xid,
                    micros: commit_time_micros.saturating_add(POSTGRES_EPOCH),
                    changes: 0,
                    skip,
                });
                Ok(())
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.transaction = None;
                if end_lsn > position.done {
                    position.done = end_lsn;
                    position.partial = None;
                }
                Ok(())
            }
            // All that was committed before has been sent: the same a subscription of PostgreSQL's own concludes.
            ReplicationEvent::KeepAlive {
                wal_end,
                reply_requested,
                ..
            } => {
                self.asked |= reply_requested;
                if self.transaction.is_none() && position.partial.is_none() && wal_end > position.done {
                    position.done = wal_end;
                }
                Ok(())
            }
            // Messages of pg_logical_emit_message, heartbeats among them.
            _ => Ok(()),
        }
    }

    fn change(
        &mut self,
        lsn: Lsn,
        data: &[u8],
        batch: &mut FrameBuilder,
        emitter: &mut Emitter,
        position: &mut Position,
    ) -> Result<()> {
        let server = &self.settings.server;
        let message = pgoutput::decode(data, &mut self.old, &mut self.new)
            .map_err(|error| Error::fatal(format!("streaming ({server}) at {lsn}: {error}")))?;
        let (truncated, relation, operation, old) = match message {
            Message::Other => return Ok(()),
            Message::Relation(message) => {
                self.loading = Some(Loading {
                    message,
                    reading: None,
                });
                return Ok(());
            }
            Message::Truncate { relations } => (relations, 0, Operation::Truncate, Old::Nothing),
            Message::Insert { relation } => (Vec::new(), relation, Operation::Create, Old::Nothing),
            Message::Update { relation, old } => (Vec::new(), relation, Operation::Update, old),
            Message::Delete { relation, old } => (Vec::new(), relation, Operation::Delete, old),
        };
        let Some(transaction) = &mut self.transaction else {
            return Err(Error::fatal(format!(
                "streaming ({server}) at {lsn}: a change outside of a transaction"
            )));
        };
        transaction.changes += 1;
        if transaction.changes <= transaction.skip {
            return Ok(());
        }
        let origin = Origin {
            micros: transaction.micros,
            snapshot: "false",
            last_commit: Some(position.done),
            lsn,
            xid: Some(transaction.xid),
        };
        let reached = Position {
            partial: Some(Partial {
                commit: transaction.commit,
                changes: transaction.changes,
            }),
            last: Some(Last {
                lsn,
                xid: transaction.xid,
                micros: transaction.micros,
            }),
            ..*position
        };
        let skipped = self.settings.skipped;
        let unwanted = match operation {
            Operation::Create => skipped.create,
            Operation::Update => skipped.update,
            Operation::Delete => skipped.delete,
            Operation::Truncate => skipped.truncate,
            Operation::Read => false,
        };
        let new_row = Row {
            buffer: data,
            cells: &self.new,
        };
        let old_row = Row {
            buffer: data,
            cells: &self.old,
        };
        let targets = if operation == Operation::Truncate {
            truncated
        } else {
            vec![relation]
        };
        for oid in targets {
            let relation = self.relations.get_mut(&oid).ok_or_else(|| {
                Error::fatal(format!(
                    "streaming ({server}) at {lsn}: a change of table {oid}, which was not described"
                ))
            })?;
            let Some(relation) = relation else {
                continue;
            };
            if unwanted {
                self.filtered += 1;
                continue;
            }
            match operation {
                Operation::Update => {
                    let old = (old != Old::Nothing).then_some(old_row);
                    emitter.update(batch, relation, old, new_row, origin)?;
                }
                Operation::Delete => emitter.delete(batch, relation, old_row, origin)?,
                Operation::Truncate => emitter.truncate(batch, relation, origin)?,
                Operation::Create | Operation::Read => {
                    emitter.row(batch, relation, operation, new_row, origin)?;
                }
            }
        }
        *position = reached;
        Ok(())
    }
}

/// How many changes of the transaction that commits at `commit` are done already; an error where the rest of a
/// transaction that is partly done did not come.
fn already_done(position: &Position, commit: Lsn) -> Result<u64, Lsn> {
    match position.partial {
        _ if commit < position.done => Ok(u64::MAX),
        Some(partial) if commit < partial.commit => Ok(u64::MAX),
        Some(partial) if commit == partial.commit => Ok(partial.changes),
        Some(partial) => Err(partial.commit),
        None => Ok(0),
    }
}

async fn load(
    settings: Arc<Settings>,
    connection: Option<PgConnection>,
    oid: u32,
    types: Vec<u32>,
) -> Result<Loaded> {
    // A connection that was idle for long may have been closed meanwhile: a new one is worth an attempt.
    if let Some(connection) = connection
        && let Ok(loaded) = load_with(&settings, connection, oid, &types).await
    {
        return Ok(loaded);
    }
    let connection = connection::catalog(&settings.server).await?;
    load_with(&settings, connection, oid, &types).await
}

async fn load_with(
    settings: &Settings,
    mut connection: PgConnection,
    oid: u32,
    types: &[u32],
) -> Result<Loaded> {
    let doing = "reading the catalogs for the stream";
    let fault = |error: sqlx::Error| failure::sql(&settings.server, doing, &error);
    let tables = catalog::tables(&mut connection, &[oid]).await.map_err(fault)?;
    let types = TypeCatalog::load(&mut connection, types).await.map_err(fault)?;
    Ok(Loaded {
        connection,
        table: tables.into_iter().next(),
        types,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_transactions_and_done_changes_are_passed_over() {
        let whole = Position {
            done: Lsn(100),
            ..Position::default()
        };
        let partly = Position {
            partial: Some(Partial {
                commit: Lsn(200),
                changes: 7,
            }),
            ..whole
        };
        assert_eq!(already_done(&whole, Lsn(99)), Ok(u64::MAX));
        assert_eq!(already_done(&whole, Lsn(100)), Ok(0));
        assert_eq!(already_done(&partly, Lsn(150)), Ok(u64::MAX));
        assert_eq!(already_done(&partly, Lsn(200)), Ok(7));
        assert_eq!(already_done(&partly, Lsn(201)), Err(Lsn(200)));
    }
}
