//! What a directory shows, by the batch or transaction it belongs to, as the values tell.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::hash;
use crate::ledger::number;

/// What shows, by what it belongs to.
#[derive(Default)]
pub struct Shown {
    values: HashSet<u64>,
    /// How many of a batch are there, and how many it has.
    pub batches: HashMap<String, (u64, u64)>,
    /// Likewise of a transaction, by writer and number.
    pub transactions: BTreeMap<(u64, u64), (u64, u64)>,
    /// By writer and number: where a batch begins, and what it has.
    pub numbered: BTreeMap<(u64, u64), (u64, Vec<String>)>,
}

impl Shown {
    pub fn note(&mut self, value: &str, offset: u64) {
        assert!(self.values.insert(hash(value)), "there twice: {value}");
        let fields: Vec<_> = value.split(' ').collect();
        match fields[..] {
            ["batch", name, _, count, _] => {
                let batch = self.batches.entry(name.to_owned()).or_default();
                *batch = (batch.0 + 1, number(count));
            }
            ["transaction", writer, n, total, ..] => {
                let key = (number(writer), number(n));
                let transaction = self.transactions.entry(key).or_default();
                *transaction = (transaction.0 + 1, number(total));
            }
            ["numbered", writer, n, ..] => {
                let key = (number(writer), number(n));
                let batch = self.numbered.entry(key).or_insert((offset, Vec::new()));
                assert_eq!(batch.0 + batch.1.len() as u64, offset, "a batch is in one piece");
                batch.1.push(value.to_owned());
            }
            _ => panic!("this was not to be: {value}"),
        }
    }
}
