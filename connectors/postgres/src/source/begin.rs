//! The beginning of a task, and its return after a lost connection: what must hold is checked, the publication and the
//! slot are found or made, and it is decided whether to take a snapshot or to go on streaming, and from where.

use std::time::Duration;

use pgwire_replication::{Lsn, ReplicationClient};
use sqlx::{Connection, PgConnection};
use tidewater_plugin_api::{Error, Result};

use super::catalog::{self, Table};
use super::position::{Position, SnapshotState};
use super::publication::{self, Published};
use super::settings::{PublicationMode, Settings, SnapshotMode};
use super::slot::{self, Slot};
use super::snapshot::{self, Snapshot};
use super::{connection, failure, preflight};

/// What comes first.
pub(crate) enum Begun {
    /// All rows, and then the stream from `resume`.
    Snapshot {
        snapshot: Snapshot,
        /// Where the snapshot stands in the log.
        point: Lsn,
        resume: Position,
    },
    /// The stream.
    Stream {
        client: ReplicationClient,
        position: Position,
    },
    /// Nothing more: the one snapshot that was wanted is done.
    Done,
}

/// What a task knows when it begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// How far it has read.
    pub(crate) position: Option<Position>,
    /// What is durable, and so may be acknowledged.
    pub(crate) durable: Lsn,
    /// Whether it has been streaming already and lost its connection.
    pub(crate) again: bool,
}

/// Begins, or begins again.
pub(crate) async fn begin(settings: &Settings, known: Known) -> Result<Begun> {
    let mut connection = connection::catalog(&settings.server).await?;
    let begun = begin_with(settings, known, &mut connection).await?;
    let _ = connection.close().await; // it has served
    Ok(begun)
}

async fn begin_with(settings: &Settings, known: Known, connection: &mut PgConnection) -> Result<Begun> {
    let found = preflight::check(connection, settings).await?;
    if settings.snapshot_mode == SnapshotMode::InitialOnly {
        if known
            .position
            .is_some_and(|position| position.snapshot == SnapshotState::Complete)
        {
            return Ok(Begun::Done);
        }
        return snapshot_without_slot(settings, connection, found.tables).await;
    }

    let listed: Vec<(String, String)> = found
        .tables
        .iter()
        // Partitions are published with the table they are of.
        .filter(|table| {
            !table
                .ancestors
                .iter()
                .any(|(schema, name)| settings.filter.captures(schema, name))
        })
        .map(|table| (table.schema.clone(), table.name.clone()))
        .collect();
    // The publication comes first: decoding looks for it at the slot's own point of the log.
    publication::ensure(connection, settings, &listed).await?;
    let published = publication::published(connection, settings, found.version).await?;
    let tables = captured_tables(settings, connection, &found.tables, &published).await?;

    let slot = slot::find(connection, settings).await?;
    let end = log_end(settings, connection).await?;
    let plan = plan(settings, known, slot.as_ref(), end)?;
    if plan.drop_slot {
        slot::drop_slot(connection, settings).await?;
    }
    let resume_at = |position: Position| Position {
        snapshot: SnapshotState::Complete,
        ..position
    };
    if plan.snapshot {
        preflight::check_readable(connection, settings, &tables).await?;
        // A slot that is there stays, so that no change since is lost; a temporary one gives the snapshot its point.
        let made = slot::make(settings, plan.resume.is_some()).await?;
        let snapshot =
            snapshot::begin(settings, connection, &published, &tables, Some(&made.snapshot)).await?;
        let point = made.consistent_point;
        let resume = plan.resume.map_or(
            Position {
                done: point,
                ..Position::default()
            },
            resume_at,
        );
        return Ok(Begun::Snapshot {
            snapshot,
            point,
            resume,
        });
    }
    let position = if let Some(position) = plan.resume {
        position
    } else {
        let made = slot::make(settings, false).await?;
        Position {
            done: made.consistent_point,
            ..Position::default()
        }
    };
    let client = open(settings, connection, position, known.durable.min(position.done)).await?;
    Ok(Begun::Stream { client, position })
}

/// What is to be done about slot and snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    drop_slot: bool,
    snapshot: bool,
    /// Where the stream goes on; none where the slot is yet to be made and says.
    resume: Option<Position>,
}

/// `end` is where the server's log ends.
fn plan(settings: &Settings, known: Known, slot: Option<&Slot>, end: Lsn) -> Result<Plan> {
    let complete = known
        .position
        .filter(|position| position.snapshot == SnapshotState::Complete);
    let usable = slot.filter(|slot| !slot.lost);
    let from_slot = |slot: &Slot| Position {
        done: slot.confirmed,
        ..Position::default()
    };
    let gap = complete.and_then(|position| match slot {
        None => Some("is missing".to_owned()),
        Some(slot) if slot.lost => {
            Some("has been invalidated by the server (max_slot_wal_keep_size)".to_owned())
        }
        Some(slot) if slot.confirmed > position.done => {
            Some(format!("was moved on to {} by somebody else", slot.confirmed))
        }
        // The server was restored or replaced: to go on from a place it has not reached would pass over all before it.
        Some(_) if position.done > end => {
            Some(format!("is of a server whose log ends at {end}, before that"))
        }
        Some(_) => None,
    });
    let mode = settings.snapshot_mode;
    let mends = matches!(mode, SnapshotMode::WhenNeeded | SnapshotMode::Always);
    match (gap, complete) {
        (Some(gap), Some(position)) if !mends => Err(Error::fatal(format!(
            "slot {:?} ({}) {gap}: changes since {} may be lost. To read all rows again, set \
             snapshot.mode=when_needed, which does so by itself whenever changes are lost; or delete this connector's \
             offsets",
            settings.slot, settings.server, position.done
        ))),
        (Some(gap), _) => {
            tracing::warn!(slot = %settings.slot, "the slot {gap}: changes are lost, and all rows are read again");
            Ok(Plan {
                drop_slot: slot.is_some_and(|slot| slot.lost),
                snapshot: true,
                resume: usable.map(from_slot),
            })
        }
        (None, Some(position)) => {
            let snapshot = mode == SnapshotMode::Always && !known.again;
            Ok(Plan {
                drop_slot: false,
                snapshot,
                resume: Some(position),
            })
        }
        (None, None) if mode == SnapshotMode::NoData => match (slot, usable) {
            (Some(_), None) => Err(Error::fatal(format!(
                "slot {:?} ({}) has been invalidated by the server (max_slot_wal_keep_size): drop it \
                 (pg_drop_replication_slot) to begin with a new one",
                settings.slot, settings.server
            ))),
            _ => Ok(Plan {
                drop_slot: false,
                snapshot: false,
                resume: usable.map(from_slot),
            }),
        },
        (None, None) => Ok(Plan {
            drop_slot: slot.is_some_and(|slot| slot.lost),
            snapshot: true,
            resume: usable.map(from_slot),
        }),
    }
}

/// The tables that are both selected and published, with their columns; says what is amiss with any.
async fn captured_tables(
    settings: &Settings,
    connection: &mut PgConnection,
    selected: &[Table],
    published: &[Published],
) -> Result<Vec<Table>> {
    let is_published = |table: &&Table| published.iter().any(|published| published.oid == table.oid);
    let oids: Vec<u32> = selected
        .iter()
        .filter(is_published)
        .map(|table| table.oid)
        .collect();
    let unpublished: Vec<String> = selected
        .iter()
        .filter(|table| !table.partitioned && !is_published(table) && table.ancestors.is_empty())
        .map(Table::full_name)
        .collect();
    if !unpublished.is_empty() {
        let names = unpublished.join(", ");
        let publication = &settings.publication;
        if oids.is_empty() && settings.publication_mode != PublicationMode::NoTables {
            return Err(Error::config(format!(
                "publication {publication:?} ({}) publishes none of the selected tables ({names}): ALTER PUBLICATION \
                 … ADD TABLE, or set publication.autocreate.mode=filtered",
                settings.server
            )));
        }
        tracing::warn!(%publication, "selected tables are not captured, for the publication does not publish them: {names}");
    }
    let tables = catalog::tables(connection, &oids)
        .await
        .map_err(|error| failure::sql(&settings.server, "reading the catalogs", &error))?;
    for fault in tables.iter().filter_map(Table::identity_fault) {
        tracing::warn!("{fault}");
    }
    Ok(tables)
}

async fn snapshot_without_slot(
    settings: &Settings,
    connection: &mut PgConnection,
    selected: Vec<Table>,
) -> Result<Begun> {
    // Without a publication to say so, partitions are read as what they are: tables.
    let tables: Vec<Table> = selected.into_iter().filter(|table| !table.partitioned).collect();
    preflight::check_readable(connection, settings, &tables).await?;
    let point = log_end(settings, connection).await?;
    let snapshot = snapshot::begin(settings, connection, &[], &tables, None).await?;
    Ok(Begun::Snapshot {
        snapshot,
        point,
        resume: Position {
            done: point,
            ..Position::default()
        },
    })
}

/// Where the server's log ends now.
async fn log_end(settings: &Settings, connection: &mut PgConnection) -> Result<Lsn> {
    let end: String = sqlx::query_scalar(
        "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(|error| failure::sql(&settings.server, "reading the log's end", &error))?;
    Ok(Lsn::parse(&end).unwrap_or(Lsn::ZERO))
}

/// Opens the stream. The session of a process that was killed may hold the slot for a moment: that is waited for.
async fn open(
    settings: &Settings,
    connection: &mut PgConnection,
    position: Position,
    durable: Lsn,
) -> Result<ReplicationClient> {
    let mut waits = [50, 100, 200, 400, 800, 1600, 3200].into_iter();
    loop {
        let config = connection::replication(settings, position.done, durable);
        let started = async {
            let mut client = ReplicationClient::connect_gated(config).await?;
            client.start().await?;
            client.wait_started().await?;
            Ok(client)
        };
        let error = match started.await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let in_use = failure::sqlstate(&error) == Some("55006");
        match waits.next() {
            Some(wait) if in_use => tokio::time::sleep(Duration::from_millis(wait)).await,
            _ => {
                let mut doing = format!("streaming from slot {:?}", settings.slot);
                if in_use
                    && let Some(Slot {
                        active_pid: Some(pid),
                        ..
                    }) = slot::find(connection, settings).await?
                {
                    doing = format!("{doing}, which process {pid} of the server reads");
                }
                return Err(failure::replication(&settings.server, doing, &error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::config_def::config_def;
    use tidewater_plugin_api::{Config, ErrorKind};

    fn settings(mode: &str) -> Settings {
        let map = [
            ("database.hostname", "h"),
            ("database.user", "u"),
            ("database.dbname", "d"),
            ("topic.prefix", "p"),
            ("snapshot.mode", mode),
        ];
        let map = map.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Settings::new(&Config::new(config_def(), map).unwrap()).unwrap()
    }

    fn at(done: u64) -> Position {
        Position {
            done: Lsn(done),
            ..Position::default()
        }
    }

    fn incomplete(done: u64) -> Position {
        Position {
            snapshot: SnapshotState::Incomplete,
            ..at(done)
        }
    }

    fn slot(confirmed: u64, lost: bool) -> Slot {
        Slot {
            confirmed: Lsn(confirmed),
            active_pid: None,
            lost,
        }
    }

    fn decided(
        mode: &str,
        position: Option<Position>,
        slot: Option<&Slot>,
    ) -> Result<(bool, bool, Option<u64>)> {
        let known = Known {
            position,
            ..Known::default()
        };
        let plan = plan(&settings(mode), known, slot, Lsn(100))?;
        Ok((
            plan.drop_slot,
            plan.snapshot,
            plan.resume.map(|position| position.done.0),
        ))
    }

    #[test]
    fn the_first_start_and_those_after() {
        assert_eq!(decided("initial", None, None).unwrap(), (false, true, None));
        assert_eq!(
            decided("initial", Some(at(9)), Some(&slot(5, false))).unwrap(),
            (false, false, Some(9))
        );
        assert_eq!(decided("never", None, None).unwrap(), (false, false, None));
        assert_eq!(
            decided("no_data", None, Some(&slot(5, false))).unwrap(),
            (false, false, Some(5))
        );
        assert_eq!(
            decided("always", Some(at(9)), Some(&slot(5, false))).unwrap(),
            (false, true, Some(9))
        );
    }

    #[test]
    fn a_position_the_server_has_not_reached_is_a_gap() {
        let error = decided("initial", Some(at(101)), Some(&slot(5, false))).unwrap_err();
        assert!(error.message.contains("log ends at 0/64"), "{error}");
        assert_eq!(
            decided("when_needed", Some(at(101)), Some(&slot(5, false))).unwrap(),
            (false, true, Some(5))
        );
    }

    #[test]
    fn a_snapshot_cut_short_begins_anew_and_keeps_the_slot_s_point() {
        assert_eq!(
            decided("initial", Some(incomplete(5)), Some(&slot(5, false))).unwrap(),
            (false, true, Some(5))
        );
        assert_eq!(
            decided("initial", None, Some(&slot(5, true))).unwrap(),
            (true, true, None)
        );
    }

    #[test]
    fn lost_changes_are_an_error_or_a_snapshot() {
        let (invalid, moved) = (slot(5, true), slot(10, false));
        for lost in [None, Some(&invalid), Some(&moved)] {
            for mode in ["initial", "no_data"] {
                let error = decided(mode, Some(at(9)), lost).unwrap_err();
                assert_eq!(error.kind, ErrorKind::Fatal);
                assert!(error.message.contains("when_needed"), "{error}");
            }
            assert!(decided("when_needed", Some(at(9)), lost).unwrap().1);
        }
        assert_eq!(
            decided("when_needed", Some(at(9)), Some(&slot(10, false))).unwrap(),
            (false, true, Some(10))
        );
    }
}
