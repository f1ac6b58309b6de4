//! The statements that a batch takes, in an order that is right.
//!
//! Deletions come before writes, so that what a deleted row held is free for others; deletions begin with the tables
//! that refer to others and writes with those referred to, so that foreign keys hold. Where that still meets a
//! constraint on the way, as when two rows swap a unique value, Postgres refuses the statement, and the batch is written
//! one record after the other instead: the source's own order is always right. Deferrable constraints wait for the
//! commit in any case.
//!
//! What a target does on its own account is its own: where its foreign keys cascade or its triggers write while the
//! source's do not, they see the last states of a batch and not each change.

use std::collections::HashMap;

use tidewater_plugin_api::ValueRef;
use tidewater_plugin_api::value::DecodeError;

use super::batch::{Batch, Entry, TableBatch};
use super::catalog::{Catalog, Plan};
use super::config::InsertMode;
use super::placeholder::Placeholder;
use super::rows::RowWriter;
use super::statement::Action;
use super::target::{Columns, Target};
use super::text::{Form, TextError};

/// One kind of change to one table.
#[derive(Debug)]
pub struct Step {
    /// The table's position in the catalogue.
    pub target: usize,
    /// What to do.
    pub work: Work,
}

/// What a step does.
#[derive(Debug)]
pub enum Work {
    /// Empties the table.
    Truncate,
    /// Writes or deletes rows.
    Rows {
        /// What the statement does.
        action: Action,
        /// The columns it writes.
        set: u32,
        /// The table's place in the batch.
        table: usize,
        /// Which of the table's entries.
        entries: Vec<usize>,
    },
}

/// The steps of a batch.
#[derive(Debug, Default)]
pub struct Steps<'a> {
    /// In order.
    pub steps: Vec<Step>,
    /// The values of entries that several rows of the batch make up, by the table's place and the entry; in the order
    /// of the step's columns.
    merged: HashMap<(usize, usize), Vec<Cell<'a>>>,
}

/// A value, and where the way to write it is found.
#[derive(Clone, Copy, Debug)]
struct Cell<'a> {
    column: usize,
    plan: usize,
    field: usize,
    value: ValueRef<'a>,
}

impl<'a> Steps<'a> {
    /// The steps for `batch`.
    pub fn of(
        batch: &Batch<'a>,
        catalog: &mut Catalog,
        mode: InsertMode,
        placeholder: &Placeholder,
    ) -> Result<Self, DecodeError> {
        let mut steps = Self::default();
        let order = referred_first(batch, catalog);
        for &table in &order {
            let (target, TableBatch { truncated, .. }) = batch.tables[table];
            if truncated {
                steps.steps.push(Step {
                    target,
                    work: Work::Truncate,
                });
            }
        }
        if mode == InsertMode::Insert {
            for &table in &order {
                steps.in_turn(batch, catalog, table, placeholder)?;
            }
            return Ok(steps);
        }
        for &table in order.iter().rev() {
            let entries = &batch.tables[table].1.entries;
            steps.deletes(
                batch,
                catalog,
                table,
                (0..entries.len()).filter(|&e| entries[e].deleted),
            );
        }
        for &table in &order {
            let count = batch.tables[table].1.entries.len();
            steps.writes(batch, catalog, table, 0..count, mode, placeholder)?;
        }
        Ok(steps)
    }

    /// Where rows are only ever inserted, what a table's records do is done in turn.
    fn in_turn(
        &mut self,
        batch: &Batch<'a>,
        catalog: &mut Catalog,
        table: usize,
        placeholder: &Placeholder,
    ) -> Result<(), DecodeError> {
        let entries = &batch.tables[table].1.entries;
        let mut start = 0;
        while start < entries.len() {
            let deletes = entries[start].deleted;
            let length = entries[start..]
                .iter()
                .take_while(|entry| entry.deleted == deletes)
                .count();
            let run = start..start + length;
            start = run.end;
            if deletes {
                self.deletes(batch, catalog, table, run);
            } else {
                self.writes(batch, catalog, table, run, InsertMode::Insert, placeholder)?;
            }
        }
        Ok(())
    }

    fn deletes(
        &mut self,
        batch: &Batch<'a>,
        catalog: &Catalog,
        table: usize,
        which: impl Iterator<Item = usize>,
    ) {
        let (target, TableBatch { entries, .. }) = &batch.tables[table];
        for entry in which {
            let set = catalog.plans[entries[entry].plan].key_set;
            self.add(*target, Action::Delete, set, table, entry);
        }
    }

    fn writes(
        &mut self,
        batch: &Batch<'a>,
        catalog: &mut Catalog,
        table: usize,
        which: impl Iterator<Item = usize>,
        mode: InsertMode,
        placeholder: &Placeholder,
    ) -> Result<(), DecodeError> {
        let (target, TableBatch { entries, .. }) = &batch.tables[table];
        let Catalog { targets, plans, .. } = catalog;
        let mut last = None;
        for entry in which {
            let Some(row) = entries[entry].row.map(|row| batch.rows[row]) else {
                continue;
            };
            let set = if row.partial || row.earlier.is_some() {
                let cells = merge(batch, plans, &entries[entry], placeholder)?;
                let key_set = &targets[*target].sets[plans[row.plan].key_set as usize];
                let key = key_set.columns.key.clone();
                let set = targets[*target].set(Columns {
                    key,
                    rest: cells.iter().map(|cell| cell.column).collect(),
                });
                self.merged.insert((table, entry), cells);
                set
            } else {
                plans[row.plan].full_set
            };
            let action = match last {
                Some((known, action)) if known == set => action,
                _ => action(&targets[*target], set, mode),
            };
            last = Some((set, action));
            if let Some(action) = action {
                self.add(*target, action, set, table, entry);
            }
        }
        Ok(())
    }

    /// Adds an entry to the step that does the same with others, where that is among the last of its table.
    fn add(&mut self, target: usize, action: Action, set: u32, table: usize, entry: usize) {
        for step in self.steps.iter_mut().rev() {
            match &mut step.work {
                // Keys are different within a run of deletes or of writes, so groups may be filled in any order.
                Work::Rows {
                    action: known_action,
                    set: known_set,
                    table: known_table,
                    entries,
                } if *known_table == table
                    && (*known_action == Action::Delete) == (action == Action::Delete) =>
                {
                    if *known_action == action && *known_set == set {
                        entries.push(entry);
                        return;
                    }
                }
                _ => break,
            }
        }
        self.steps.push(Step {
            target,
            work: Work::Rows {
                action,
                set,
                table,
                entries: vec![entry],
            },
        });
    }

    /// Writes the cells of one entry.
    pub fn write_entry(
        &self,
        batch: &Batch<'a>,
        plans: &[Plan],
        (table, entry): (usize, usize),
        action: Action,
        rows: &mut impl RowWriter,
    ) -> Result<(), TextError> {
        let Entry { key, row, .. } = &batch.tables[table].1.entries[entry];
        rows.key(&batch.keys[key.clone()]);
        if action == Action::Delete {
            rows.end_row();
            return Ok(());
        }
        let mut cell = |form: &Form, value: ValueRef<'_>| {
            if value.is_null() {
                rows.null();
                Ok(())
            } else {
                rows.value(|out| form.write(value, out))
            }
        };
        if let Some(cells) = self.merged.get(&(table, entry)) {
            for found in cells {
                if let Some(field) = &plans[found.plan].fields[found.field] {
                    cell(&field.form, found.value)?;
                }
            }
        } else if let Some(row) = row.map(|row| batch.rows[row]) {
            for (field, part) in plans[row.plan].fields.iter().zip(row.values.iter()) {
                let (_, value) = part?;
                if let Some(field) = field {
                    cell(&field.form, value)?;
                }
            }
        }
        rows.end_row();
        Ok(())
    }
}

/// What writing the columns of `set` takes; none where there would be nothing to change.
fn action(target: &Target, set: u32, mode: InsertMode) -> Option<Action> {
    let columns = &target.sets[set as usize].columns;
    let changes = columns
        .rest
        .iter()
        .any(|&column| !target.columns[column].identity_always);
    match mode {
        InsertMode::Insert => Some(Action::Insert),
        InsertMode::Update => changes.then_some(Action::Update),
        InsertMode::Upsert if target.lacks(columns) => Some(Action::ChangeOrAdd),
        InsertMode::Upsert => Some(Action::Upsert),
    }
}

/// The latest value of each column that the rows of one key say anything of.
fn merge<'a>(
    batch: &Batch<'a>,
    plans: &[Plan],
    entry: &Entry,
    placeholder: &Placeholder,
) -> Result<Vec<Cell<'a>>, DecodeError> {
    let mut cells: Vec<Cell<'a>> = Vec::new();
    let mut next = entry.row;
    while let Some(row) = next.map(|row| batch.rows[row]) {
        for (index, part) in row.values.iter().enumerate() {
            let (named, value) = part?;
            let Some(field) = &plans[row.plan].fields[index] else {
                continue;
            };
            let unsent = row
                .unavailable
                .is_some_and(|names| batch.unavailable[names].contains(&&*named.name));
            let known = cells.iter().any(|cell| cell.column == field.column);
            let unchanged = unsent || (row.partial && placeholder.is(value));
            if !known && !unchanged {
                cells.push(Cell {
                    column: field.column,
                    plan: row.plan,
                    field: index,
                    value,
                });
            }
        }
        next = row.earlier;
    }
    // One order for one set of columns, whatever rows they came from.
    cells.sort_by_key(|cell| cell.column);
    Ok(cells)
}

/// The batch's tables, those that foreign keys refer to before those that refer.
fn referred_first(batch: &Batch<'_>, catalog: &Catalog) -> Vec<usize> {
    let by_oid: HashMap<u32, usize> = batch
        .tables
        .iter()
        .enumerate()
        .map(|(table, (target, _))| (catalog.targets[*target].oid, table))
        .collect();
    let mut order = Vec::with_capacity(batch.tables.len());
    let mut seen = vec![false; batch.tables.len()];
    for start in 0..batch.tables.len() {
        // Depth first; a table is put down once all it refers to are. A cycle is cut where it closes.
        let mut stack = vec![(start, false)];
        while let Some((table, done)) = stack.pop() {
            if done {
                order.push(table);
            } else if !std::mem::replace(&mut seen[table], true) {
                stack.push((table, true));
                let target = &catalog.targets[batch.tables[table].0];
                stack.extend(
                    target
                        .references
                        .iter()
                        .filter_map(|oid| by_oid.get(oid))
                        .filter(|&&referred| !seen[referred])
                        .map(|&referred| (referred, false)),
                );
            }
        }
    }
    order
}
