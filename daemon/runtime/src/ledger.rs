//! What became of every record of a task (invariant 10): read = written + filtered + dead-lettered + in flight.

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
    /// Records between read and one of the others.
    pub in_flight: u64,
    /// Attempts after the first, over all batches.
    pub retried: u64,
}

impl LedgerSnapshot {
    /// Whether the books balance (invariant 10).
    pub fn balances(&self) -> bool {
        self.read == self.written + self.filtered + self.dead_lettered + self.in_flight
    }
}

impl Ledger {
    /// Records were read.
    pub fn read(&self, records: u64) {
        let mut books = self.0.lock();
        books.read += records;
        books.in_flight += records;
    }

    /// Records are durable where they were to go.
    pub fn written(&self, records: u64) {
        let mut books = self.0.lock();
        // A commit that outlived its task's life: what was handed back is written after all.
        let handed_back = records.saturating_sub(books.in_flight);
        books.read += handed_back;
        books.written += records;
        books.in_flight -= records - handed_back;
    }

    /// A life of the task ended: what it had in flight is read again by the next.
    pub fn hand_back(&self) {
        let mut books = self.0.lock();
        books.read = books.read.saturating_sub(books.in_flight);
        books.in_flight = 0;
    }

    /// A batch was tried again.
    pub fn retried(&self) {
        self.0.lock().retried += 1;
    }

    /// The counters now.
    pub fn snapshot(&self) -> LedgerSnapshot {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_balance_through_a_failed_life() {
        let ledger = Ledger::default();
        ledger.read(10);
        ledger.written(7);
        assert_eq!(ledger.snapshot().in_flight, 3);
        ledger.hand_back();
        assert_eq!((ledger.snapshot().in_flight, ledger.snapshot().read), (0, 7));
        ledger.read(3);
        ledger.written(3);
        let end = ledger.snapshot();
        assert!(end.balances());
        assert_eq!((end.read, end.written), (10, 10));
    }

    #[test]
    fn a_commit_that_outlives_its_life_is_in_the_books() {
        let ledger = Ledger::default();
        ledger.read(5);
        ledger.hand_back();
        ledger.written(5);
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
