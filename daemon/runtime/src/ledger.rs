//! What became of every record of a task (invariant 10): read = written + filtered + dead-lettered + dropped + in flight.

use parking_lot::Mutex;

/// The counters of one task, over all its lives in this process.
///
/// What is in flight is counted by itself, where records come and go, and not taken for the difference: so the books
/// can fail to balance, and say so.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<LedgerSnapshot>);

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LedgerSnapshot {
    /// Records taken from the plugin or from topics; those handed back after a failure are not counted.
    pub read: u64,
    /// Records that are durable in topics or in the target.
    pub written: u64,
    /// Records dropped on purpose.
    pub filtered: u64,
    /// Records sent to a dead-letter topic.
    pub dead_lettered: u64,
    /// Records that could not be taken further and were given up, as `errors.tolerance` without a dead-letter topic says.
    pub dropped: u64,
    /// Records between read and one of the others.
    pub in_flight: u64,
    /// Attempts after the first, over all batches.
    pub retried: u64,
}

impl LedgerSnapshot {
    /// Whether the books balance (invariant 10).
    pub fn balances(&self) -> bool {
        self.read == self.written + self.filtered + self.dead_lettered + self.dropped + self.in_flight
    }
}

/// What became of some records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Records that are durable where they were to go.
    pub written: u64,
    /// Records that a transform dropped.
    pub filtered: u64,
    /// Records that are durable in a dead-letter topic.
    pub dead_lettered: u64,
    /// Records that were given up.
    pub dropped: u64,
}

impl Fates {
    /// How many records that are.
    pub fn records(&self) -> u64 {
        self.written + self.filtered + self.dead_lettered + self.dropped
    }
}

impl std::ops::AddAssign for Fates {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.filtered += other.filtered;
        self.dead_lettered += other.dead_lettered;
        self.dropped += other.dropped;
    }
}

impl Ledger {
    /// Records were read.
    pub fn read(&self, records: u64) {
        self.book(|books| {
            books.read += records;
            books.in_flight += records;
        });
    }

    /// Records have met their fate.
    pub fn settle(&self, fates: Fates) {
        self.book(|books| {
            let records = fates.records();
            // A commit that outlived its task's life: what was handed back is written after all.
            let handed_back = records.saturating_sub(books.in_flight);
            books.read += handed_back;
            books.written += fates.written;
            books.filtered += fates.filtered;
            books.dead_lettered += fates.dead_lettered;
            books.dropped += fates.dropped;
            books.in_flight -= records - handed_back;
        });
    }

    /// A life of the task ended: what it had in flight is read again by the next.
    pub fn hand_back(&self) {
        self.book(|books| {
            books.read = books.read.saturating_sub(books.in_flight);
            books.in_flight = 0;
        });
    }

    /// A batch was tried again.
    pub fn retried(&self) {
        self.0.lock().retried += 1;
    }

    fn book(&self, entry: impl FnOnce(&mut LedgerSnapshot)) {
        let mut books = self.0.lock();
        entry(&mut books);
        debug_assert!(books.balances(), "invariant 10: {books:?}");
    }

    /// The counters now.
    pub fn snapshot(&self) -> LedgerSnapshot {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(records: u64) -> Fates {
        Fates {
            written: records,
            ..Fates::default()
        }
    }

    #[test]
    fn every_fate_counts() {
        let ledger = Ledger::default();
        ledger.read(10);
        ledger.settle(Fates {
            written: 1,
            filtered: 2,
            dead_lettered: 3,
            dropped: 3,
        });
        let end = ledger.snapshot();
        assert!(end.balances());
        assert_eq!(
            (
                end.written,
                end.filtered,
                end.dead_lettered,
                end.dropped,
                end.in_flight
            ),
            (1, 2, 3, 3, 1)
        );
    }

    #[test]
    fn books_balance_through_a_failed_life() {
        let ledger = Ledger::default();
        ledger.read(10);
        ledger.settle(written(7));
        assert_eq!(ledger.snapshot().in_flight, 3);
        ledger.hand_back();
        assert_eq!((ledger.snapshot().in_flight, ledger.snapshot().read), (0, 7));
        ledger.read(3);
        ledger.settle(written(3));
        let end = ledger.snapshot();
        assert!(end.balances());
        assert_eq!((end.read, end.written), (10, 10));
    }

    #[test]
    fn a_commit_that_outlives_its_life_is_in_the_books() {
        let ledger = Ledger::default();
        ledger.read(5);
        ledger.hand_back();
        ledger.settle(written(5));
        let end = ledger.snapshot();
        assert_eq!((end.read, end.written, end.in_flight), (5, 5, 0));
    }

    #[test]
    fn books_that_do_not_balance_say_so() {
        let odd = LedgerSnapshot {
            read: 3,
            written: 1,
            in_flight: 1,
            ..LedgerSnapshot::default()
        };
        assert!(!odd.balances());
    }
}
