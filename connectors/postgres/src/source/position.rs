//! How far the task has read, and its form as a source offset.
//!
//! PostgreSQL sends transactions whole, in the order of their commits, and begins anew with any that the slot has not
//! seen acknowledged. A position is therefore the end of the last transaction that is done, and how many changes of the
//! next one are (invariant 2: batches may end within a transaction). On a restart whole transactions before it are
//! dropped, and that many changes of the one in progress.

use pgwire_replication::Lsn;
use serde_json::{Map, Value as Json};
use tidewater_plugin_api::SourcePosition;

/// How far the task has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The end of the last transaction that is done: streaming goes on here, and up to here the slot may be acknowledged.
    pub(crate) done: Lsn,
    /// The transaction in progress.
    pub(crate) partial: Option<Partial>,
    /// The last change: where it is in the log, its transaction, and its time in microseconds since 1970.
    pub(crate) last: Option<Last>,
    pub(crate) snapshot: SnapshotState,
}

/// A transaction of which some changes are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partial {
    /// Where its commit record begins: what it is known by.
    pub(crate) commit: Lsn,
    /// How many of its changes are done, those included that no table of this connector's has.
    pub(crate) changes: u64,
}

/// The last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) lsn: Lsn,
    pub(crate) xid: u32,
    pub(crate) micros: i64,
}

/// How far the snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SnapshotState {
    /// Done, or none was wanted.
    #[default]
    Complete,
    /// Under way: after a restart it begins anew.
    Incomplete,
}

impl Position {
    /// The source partition of a server.
    pub(crate) fn partition(topic_prefix: &str) -> Map<String, Json> {
        Map::from_iter([("server".to_owned(), topic_prefix.into())])
    }

    /// The position as a source offset, in Debezium's names where it has one.
    pub(crate) fn to_source(self, topic_prefix: &str) -> SourcePosition {
        let mut offset = Map::new();
        let mut put = |name: &str, value: Json| offset.insert(name.to_owned(), value);
        put("lsn_commit", self.done.0.into());
        put("lsn", self.last.map_or(self.done, |last| last.lsn).0.into());
        if let Some(last) = self.last {
            put("lsn_proc", last.lsn.0.into());
            put("txId", last.xid.into());
            put("ts_usec", last.micros.into());
        }
        if let Some(partial) = self.partial {
            put("tx_commit_lsn", partial.commit.0.into());
            put("tx_changes", partial.changes.into());
        }
        if self.snapshot == SnapshotState::Incomplete {
            put("snapshot", "INITIAL".into());
            put("snapshot_completed", false.into());
        }
        SourcePosition {
            partition: Self::partition(topic_prefix),
            offset: Some(offset),
        }
    }

    /// Reads a source offset, this connector's or Debezium's; none where it is neither.
    pub(crate) fn from_offset(offset: &Map<String, Json>) -> Option<Self> {
        let lsn = |name: &str| offset.get(name).and_then(Json::as_u64).map(Lsn);
        let incomplete = offset.contains_key("snapshot")
            && offset.get("snapshot_completed").and_then(Json::as_bool) != Some(true);
        let last = lsn("lsn_proc").map(|lsn| Last {
            lsn,
            xid: offset.get("txId").and_then(Json::as_u64).unwrap_or(0) as u32,
            micros: offset.get("ts_usec").and_then(Json::as_i64).unwrap_or(0),
        });
        let changes = offset.get("tx_changes").and_then(Json::as_u64);
        Some(Self {
            done: lsn("lsn_commit").or_else(|| lsn("lsn"))?,
            partial: lsn("tx_commit_lsn")
                .zip(changes)
                .map(|(commit, changes)| Partial { commit, changes }),
            last,
            snapshot: if incomplete {
                SnapshotState::Incomplete
            } else {
                SnapshotState::Complete
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_from_its_offset() {
        let whole = Position {
            done: Lsn(100),
            partial: Some(Partial {
                commit: Lsn(300),
                changes: 7,
            }),
            last: Some(Last {
                lsn: Lsn(250),
                xid: 9,
                micros: -5,
            }),
            snapshot: SnapshotState::Complete,
        };
        let incomplete = Position {
            done: Lsn(5),
            snapshot: SnapshotState::Incomplete,
            ..Position::default()
        };
        for position in [whole, incomplete, Position::default()] {
            let source = position.to_source("shop");
            assert_eq!(source.partition, Position::partition("shop"));
            assert_eq!(Position::from_offset(&source.offset.unwrap()), Some(position));
        }
    }

    #[test]
    fn an_offset_of_debezium_is_taken_over() {
        let json = r#"{"lsn_proc":24023128,"lsn_commit":24023119,"lsn":24023128,"txId":555,"ts_usec":1}"#;
        let offset: Map<String, Json> = serde_json::from_str(json).unwrap();
        let position = Position::from_offset(&offset).unwrap();
        assert_eq!((position.done, position.partial), (Lsn(24_023_119), None));
        assert_eq!(position.snapshot, SnapshotState::Complete);
        assert_eq!(Position::from_offset(&Map::new()), None);
    }
}
