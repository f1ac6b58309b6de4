//! What a partition knows of transactions: which are open in it, and which of its ranges were aborted.
//!
//! The state follows from the batches alone: a transactional batch opens the transaction of its producer, a marker
//! ends it. Checkpoints keep it so that opening a log need not read all of it.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::batch::header::{BatchHeader, Outcome};

/// A place in a log: an offset and where its batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) offset: u64,
    /// Base offset of the segment.
    pub(crate) segment: u64,
    /// Byte in the segment.
    pub(crate) position: u64,
}

/// A transaction with batches in the partition and no marker yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenTransaction {
    pub(crate) epoch: i16,
    pub(crate) first: Mark,
    /// Its outcome is durable (or it is aborted) and only the marker is still to be written.
    #[serde(skip)]
    pub(crate) decided: bool,
    /// When its first batch was written, if that was since the log was opened.
    #[serde(skip)]
    pub(crate) begun: Option<Instant>,
}

/// A range of a producer's batches that readers of committed data skip. The fields are those of Kafka's transaction
/// index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AbortedRange {
    pub(crate) producer_id: i64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The last stable offset once this transaction had ended: all later entries begin at or after it.
    pub(crate) stable: u64,
}

/// The open transactions by producer id.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenTransactions(pub(crate) BTreeMap<i64, OpenTransaction>);

impl OpenTransactions {
    /// Where the oldest undecided transaction begins.
    pub(crate) fn oldest(&self) -> Option<Mark> {
        self.0
            .values()
            .filter(|open| !open.decided)
            .map(|open| open.first)
            .min_by_key(|mark| mark.offset)
    }

    /// Follows a batch that was written (or found) at `mark`. Answers the range it aborts, if any.
    pub(crate) fn follow(&mut self, header: &BatchInfo, mark: Mark) -> Option<AbortedRange> {
        match header.kind {
            BatchKind::Plain => None,
            BatchKind::Data => {
                let first = OpenTransaction {
                    epoch: header.producer_epoch,
                    first: mark,
                    decided: false,
                    begun: None,
                };
                self.0.entry(header.producer_id).or_insert(first);
                None
            }
            BatchKind::Marker(outcome) => {
                let open = self.0.remove(&header.producer_id)?;
                // A decided one was entered in the list of aborted ranges when it was decided.
                (outcome == Outcome::Abort && !open.decided).then(|| AbortedRange {
                    producer_id: header.producer_id,
                    first: open.first.offset,
                    last: mark.offset,
                    stable: self.oldest().map_or(mark.offset + 1, |oldest| oldest.offset),
                })
            }
        }
    }
}

/// What [`OpenTransactions::follow`] needs of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchInfo {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// The sequence of the first record, −1 for none.
    pub(crate) base_sequence: i32,
    pub(crate) last_offset_delta: u32,
    pub(crate) kind: BatchKind,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum BatchKind {
    Plain,
    /// Data of a transaction.
    Data,
    Marker(Outcome),
}

impl BatchInfo {
    /// From a stored batch.
    pub(crate) fn of(header: &BatchHeader, batch: &[u8]) -> Self {
        let kind = match (header.is_control(), header.is_transactional()) {
            (true, _) => Outcome::of_marker(batch).map_or(BatchKind::Plain, BatchKind::Marker),
            (false, true) => BatchKind::Data,
            (false, false) => BatchKind::Plain,
        };
        Self {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_offset_delta: header.last_offset_delta,
            kind,
        }
    }
}

/// The aborted ranges of a partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct AbortedRanges {
    /// By rising last offset.
    pub(crate) ranges: Vec<AbortedRange>,
    /// Compaction left no transactional batch before this offset, and the ranges there are forgotten. Whoever finds
    /// one there reads a file that was replaced.
    pub(crate) plain: u64,
}

impl AbortedRanges {
    /// Whether the batch of a producer at `offset`, which lies below the last stable offset, was aborted.
    pub(crate) fn contain(&self, producer_id: i64, offset: u64) -> bool {
        for range in &self.ranges[self.ranges.partition_point(|range| range.last < offset)..] {
            if range.producer_id == producer_id && range.first <= offset {
                return true;
            }
            if range.stable > offset {
                return false;
            }
        }
        false
    }

    /// The log begins at `log_start`: nobody reads what was aborted before.
    pub(crate) fn prune(&mut self, log_start: u64) {
        self.ranges.retain(|range| range.last >= log_start);
    }

    /// No segment has a transactional batch before `offset` any more.
    pub(crate) fn forget_before(&mut self, offset: u64) {
        self.ranges.retain(|range| range.last >= offset);
        self.plain = self.plain.max(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(producer_id: i64, kind: BatchKind) -> BatchInfo {
        BatchInfo {
            producer_id,
            producer_epoch: 0,
            base_sequence: -1,
            last_offset_delta: 0,
            kind,
        }
    }

    fn mark(offset: u64) -> Mark {
        Mark {
            offset,
            segment: 0,
            position: offset * 100,
        }
    }

    #[test]
    fn interleaved_transactions() {
        let mut open = OpenTransactions::default();
        let mut aborted = AbortedRanges::default();
        let mut follow = |open: &mut OpenTransactions, id, kind, at| {
            aborted.ranges.extend(open.follow(&info(id, kind), mark(at)));
        };
        follow(&mut open, 1, BatchKind::Data, 10);
        follow(&mut open, 2, BatchKind::Data, 20);
        follow(&mut open, -1, BatchKind::Plain, 25);
        follow(&mut open, 1, BatchKind::Data, 30);
        assert_eq!(open.oldest().unwrap().offset, 10);
        follow(&mut open, 2, BatchKind::Marker(Outcome::Abort), 40);
        assert_eq!(open.oldest().unwrap().offset, 10);
        follow(&mut open, 1, BatchKind::Marker(Outcome::Abort), 50);
        assert!(open.oldest().is_none());
        follow(&mut open, 1, BatchKind::Data, 60);
        follow(&mut open, 1, BatchKind::Marker(Outcome::Commit), 70);
        follow(&mut open, 1, BatchKind::Data, 80);
        follow(&mut open, 1, BatchKind::Marker(Outcome::Abort), 90);

        assert_eq!(
            aborted.ranges[0].stable, 10,
            "producer 1 was still open when 2 aborted"
        );
        let skipped = |id| {
            (0..100)
                .step_by(10)
                .filter(|at| aborted.contain(id, *at))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            skipped(1),
            [10, 20, 30, 40, 50, 80, 90],
            "found although a shorter range ended before"
        );
        assert_eq!(skipped(2), [20, 30, 40]);
        assert!(skipped(3).is_empty());
    }
}
