//! A batch on its way to rows: for each table the last state of each key, so that one statement can write them all.
//!
//! A row that lacks columns, because a large value did not change or because its schema has fewer fields, keeps what the
//! rows before it in the batch said of them. A key that was deleted and written again is deleted and then added, so that
//! columns which the records do not know start anew.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};
use tidewater_plugin_api::value::StructRef;

/// A row that a record wrote.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The plan it is written by.
    pub plan: usize,
    /// The values.
    pub values: StructRef<'a>,
    /// Whether some values stand for what did not change.
    pub partial: bool,
    /// The names of further columns that were not sent, in [`Batch::unavailable`].
    pub unavailable: Option<usize>,
    /// The row of the same key before it, where it may hold what this one lacks.
    pub earlier: Option<usize>,
}

/// What is to become of one key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The encoded key, in [`Batch::keys`].
    pub key: Range<usize>,
    /// A plan that knows the key's columns.
    pub plan: usize,
    /// Whether it is deleted (first).
    pub deleted: bool,
    /// The row it then has, in [`Batch::rows`].
    pub row: Option<usize>,
}

/// What is to become of one table.
#[derive(Debug, Default)]
pub struct TableBatch {
    /// Whether it is emptied first.
    pub truncated: bool,
    /// The set of the key's columns.
    key_set: Option<u32>,
    /// What becomes of its keys; or, where rows are only ever inserted, what happens in turn.
    pub entries: Vec<Entry>,
    index: HashTable<usize>,
}

/// How writes of one key come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Not at all: each is a row of its own.
    Each,
    /// The last one counts.
    Last,
    /// The last one counts, but none after a deletion: what is gone cannot be changed.
    LastUnlessGone,
}

/// A batch.
pub struct Batch<'a> {
    /// The tables, by their position in the catalogue, in the order they first come up.
    pub tables: Vec<(usize, TableBatch)>,
    /// All rows.
    pub rows: Vec<Row<'a>>,
    /// All keys.
    pub keys: Vec<u8>,
    /// Names of columns that were not sent.
    pub unavailable: Vec<Vec<&'a str>>,
    /// Whether some table's records have keys of different columns; states of keys cannot be told apart then, and the
    /// records must be written one by one.
    pub mixed_keys: bool,
    reduction: Reduction,
    hasher: DefaultHashBuilder,
    /// By a table's position in the catalogue, its position in `tables`.
    places: Vec<Option<usize>>,
}

/// The key of a record, encoded at the end of [`Batch::keys`].
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table it is a key of.
    pub target: usize,
    /// The plan it was encoded by.
    pub plan: usize,
    /// The set of its columns.
    pub set: u32,
    /// Where it begins.
    pub start: usize,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub fn new(reduction: Reduction) -> Self {
        Self {
            tables: Vec::new(),
            rows: Vec::new(),
            keys: Vec::new(),
            unavailable: Vec::new(),
            mixed_keys: false,
            reduction,
            hasher: DefaultHashBuilder::default(),
            places: Vec::new(),
        }
    }

    fn table(&mut self, target: usize) -> usize {
        if self.places.len() <= target {
            self.places.resize(target + 1, None);
        }
        *self.places[target].get_or_insert_with(|| {
            self.tables.push((target, TableBatch::default()));
            self.tables.len() - 1
        })
    }

    /// The table is emptied: what came before no longer matters.
    pub fn truncate(&mut self, target: usize) {
        let table = self.table(target);
        self.tables[table].1 = TableBatch {
            truncated: true,
            ..TableBatch::default()
        };
    }

    /// The row of `key` is gone.
    pub fn delete(&mut self, key: Key) {
        let (table, entry) = self.entry(key);
        let entry = &mut self.tables[table].1.entries[entry];
        entry.deleted = true;
        entry.row = None;
    }

    /// The row of `key` is now `values`; some of them are placeholders where it is `partial`, and the columns named in
    /// `unavailable` were not sent either.
    pub fn write(&mut self, key: Key, values: StructRef<'a>, partial: bool, unavailable: Vec<&'a str>) {
        let (table, entry) = self.entry(key);
        let entry = &mut self.tables[table].1.entries[entry];
        if entry.deleted && self.reduction == Reduction::LastUnlessGone {
            return;
        }
        let partial = partial || !unavailable.is_empty();
        let unavailable = (!unavailable.is_empty()).then(|| {
            self.unavailable.push(unavailable);
            self.unavailable.len() - 1
        });
        let earlier = match entry.row {
            Some(last) if partial || self.rows[last].plan != key.plan => Some(last),
            // A whole row of the same columns takes the last one's place; what stands behind that may hold others.
            Some(last) => self.rows[last].earlier,
            None => None,
        };
        self.rows.push(Row {
            plan: key.plan,
            values,
            partial,
            unavailable,
            earlier,
        });
        entry.row = Some(self.rows.len() - 1);
        entry.plan = key.plan;
    }

    /// Table and entry of a key; a new entry where it has none yet. The bytes of a key are kept only once.
    fn entry(&mut self, key: Key) -> (usize, usize) {
        let table = self.table(key.target);
        let TableBatch {
            entries,
            index,
            key_set,
            ..
        } = &mut self.tables[table].1;
        self.mixed_keys |= *key_set.get_or_insert(key.set) != key.set;
        let range = key.start..self.keys.len();
        let keyless = range.is_empty();
        if !keyless && self.reduction != Reduction::Each {
            let bytes = &self.keys[range.clone()];
            let hash = self.hasher.hash_one(bytes);
            let known = index.find(hash, |&entry| &self.keys[entries[entry].key.clone()] == bytes);
            if let Some(&known) = known {
                self.keys.truncate(key.start);
                return (table, known);
            }
            index.insert_unique(hash, entries.len(), |&entry| {
                self.hasher.hash_one(&self.keys[entries[entry].key.clone()])
            });
        }
        entries.push(Entry {
            key: range,
            plan: key.plan,
            deleted: false,
            row: None,
        });
        (table, entries.len() - 1)
    }
}
