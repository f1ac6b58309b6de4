//! What became of every record of a task (invariant 10): read = written + filtered + dead-lettered + in flight.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one task, from its first start in this process on.
#[derive(Debug, Default)]
pub struct Ledger {
    read: AtomicU64,
    written: AtomicU64,
    filtered: AtomicU64,
    dead_lettered: AtomicU64,
    returned: AtomicU64,
    retried: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LedgerSnapshot {
    /// Records taken from the plugin or from topics, those handed back after a failure not counted.
    pub read: u64,
    /// Records that are durable in topics or were accepted by the target.
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
        self.read.fetch_add(records, Relaxed);
    }

    /// Records reached their destination.
    pub fn written(&self, records: u64) {
        self.written.fetch_add(records, Relaxed);
    }

    /// Records were dropped on purpose.
    pub fn filtered(&self, records: u64) {
        self.filtered.fetch_add(records, Relaxed);
    }

    /// A life of the task ended with records in flight: the next life reads them again.
    pub fn hand_back(&self) {
        self.returned.fetch_add(self.snapshot().in_flight, Relaxed);
    }

    /// A batch was tried again.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    /// The counters now. `read` is loaded last, so a concurrent write never makes `in_flight` negative.
    pub fn snapshot(&self) -> LedgerSnapshot {
        let (written, filtered) = (self.written.load(Relaxed), self.filtered.load(Relaxed));
        let (dead_lettered, returned) = (self.dead_lettered.load(Relaxed), self.returned.load(Relaxed));
        let retried = self.retried.load(Relaxed);
        let read = self.read.load(Relaxed).saturating_sub(returned);
        let in_flight = read.saturating_sub(written + filtered + dead_lettered);
        LedgerSnapshot { read, written, filtered, dead_lettered, in_flight, retried }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_balance_through_a_failed_life() {
        let ledger = Ledger::default();
        ledger.read(10);
        ledger.written(6);
        ledger.filtered(1);
        assert_eq!(ledger.snapshot().in_flight, 3);
        ledger.hand_back();
        assert_eq!((ledger.snapshot().in_flight, ledger.snapshot().read), (0, 7));
        ledger.read(3);
        ledger.written(3);
        let end = ledger.snapshot();
        assert!(end.balances());
        assert_eq!((end.read, end.written), (10, 9));
    }
}
