//! Holding what readers get against the model.

use std::collections::BTreeMap;

use super::{Row, Run, START, TOMBSTONE_MS};
use crate::{Isolation, Reader, Start};

/// What a reader gets of a record.
type Shown = (u64, String, Option<String>, i64);

fn shown(reader: &mut Reader, max_bytes: usize) -> Option<Vec<Shown>> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let fetched = reader.try_next(max_bytes).unwrap()?;
    let rows = fetched
        .records()
        .map(|r| (r.offset, text(r.key.unwrap()), r.value.map(text), r.timestamp));
    Some(rows.collect())
}

impl Run {
    fn committed(&self, row: &Row) -> bool {
        row.transaction.is_none_or(|t| self.outcomes[t] == Some(true))
    }

    fn read(&self, from: u64, isolation: Isolation) -> Vec<Shown> {
        let mut reader = self.broker.reader("t", 0, from, isolation).unwrap();
        let mut rows = Vec::new();
        while let Some(more) = shown(&mut reader, 700) {
            assert!(!more.is_empty());
            rows.extend(more);
        }
        assert_eq!(reader.lag(), 0, "a reader from {from} is stranded");
        rows
    }

    /// What is read is of what was written, in order.
    fn check_rows(&self, shown: &[Shown]) {
        assert!(shown.is_sorted_by(|a, b| a.0 < b.0), "offsets rise");
        for (offset, key, value, timestamp) in shown {
            let row = self.rows.get(offset);
            let same = row.is_some_and(|r| (&r.key, &r.value, &r.timestamp) == (key, value, timestamp));
            assert!(same, "{offset} {key} {value:?}, and {row:?} was written");
        }
    }

    /// Holds what readers get against the model; answers what those of committed data get.
    pub(super) fn check(&self) -> Vec<Shown> {
        let (shown, cleaned) = (self.read(0, Isolation::ReadCommitted), self.cleaned());
        self.check_rows(&shown);
        let there = |offset: &u64| shown.binary_search_by_key(offset, |shown| shown.0).is_ok();
        let stable = self.broker.offsets("t", 0).unwrap().last_stable;
        let (mut last, mut last_cleaned) = (BTreeMap::new(), BTreeMap::new());
        for (offset, row) in self.rows.range(..stable).filter(|(_, row)| self.committed(row)) {
            last.insert(&row.key, (offset, row));
            if *offset < cleaned {
                last_cleaned.insert(&row.key, offset);
            } else {
                // A round that was broken off may have come further than it says.
                let may_go = self.broken_off && row.earliest.is_some();
                assert!(
                    there(offset) || may_go,
                    "{offset} went and was read by no round: {row:?}"
                );
            }
        }
        for (offset, row) in last.values() {
            let may_go = row
                .earliest
                .is_some_and(|since| since + TOMBSTONE_MS <= self.last_round);
            assert!(
                there(offset) || may_go,
                "the last of its key went: {offset} {row:?}"
            );
        }
        for (offset, key, ..) in &shown {
            assert!(self.committed(&self.rows[offset]), "{offset} was not committed");
            assert!(
                *offset >= cleaned || last_cleaned[key] == offset,
                "{offset} of {key} has a later one at {}",
                last_cleaned[key]
            );
        }
        let all = self.read(0, Isolation::ReadUncommitted);
        self.check_rows(&all);
        assert!(
            shown.iter().all(|row| all.contains(row)),
            "readers of all see what others see"
        );
        for (offset, ..) in all.iter().take_while(|row| row.0 < cleaned) {
            assert!(there(offset), "{offset} was aborted, and a round has read it");
        }
        // From anywhere, and by time.
        let end = self.end();
        for from in (0..=stable).step_by(1 + end as usize / 7) {
            let rest = shown.partition_point(|row| row.0 < from);
            assert_eq!(self.read(from, Isolation::ReadCommitted), shown[rest..]);
        }
        for ms in [0, 500, 2_000] {
            let timestamp = START + ms;
            let found = self
                .broker
                .log("t", 0)
                .unwrap()
                .offset_for_time(timestamp, self.broker.offsets("t", 0).unwrap().high_watermark);
            let first = all.iter().find(|row| row.3 >= timestamp).map(|row| row.0);
            assert_eq!(found.unwrap(), first, "the first from {timestamp} on");
        }
        shown
    }

    /// The reader that was there goes on: in order, with nothing left out that is there now.
    pub(super) fn follow(&mut self, reads: usize, max_bytes: usize) {
        let mut reader = self.reader.take().unwrap_or_else(|| {
            let end = self.broker.offsets("t", 0).unwrap().high_watermark;
            let start = Start::Offset(self.followed.min(end));
            self.broker
                .reader("t", 0, start, Isolation::ReadCommitted)
                .unwrap()
        });
        let from = reader.position();
        let mut got = Vec::new();
        for _ in 0..reads {
            let Some(more) = shown(&mut reader, max_bytes) else {
                break;
            };
            got.extend(more);
        }
        self.check_rows(&got);
        for (offset, ..) in &got {
            assert!(*offset >= from && self.committed(&self.rows[offset]));
        }
        let there = self.read(from, Isolation::ReadCommitted);
        let due = there.iter().take_while(|row| row.0 < reader.position());
        for row in due {
            assert!(got.contains(row), "a reader from {from} on has not seen {row:?}");
        }
        self.followed = reader.position();
        self.reader = Some(reader);
    }
}
