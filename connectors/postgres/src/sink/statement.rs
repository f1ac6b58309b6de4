//! The SQL of the sink. Every statement writes many rows; they come as text, in one array parameter per column, and are
//! cast to the target columns' own types.
//!
//! A temporary table that COPY fills was measured against the arrays, and lost: no faster in batches of 5,000 rows, slower
//! in smaller ones, as emptying it costs milliseconds at each commit, and without statistics on it deletes scanned the
//! whole target.

use std::fmt::Write as _;
use std::sync::Arc;

use super::identifier::quoted;
use super::target::{Columns, Target};

/// What a statement does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Adds them.
    Insert,
    /// Changes those that are there and adds the others.
    Upsert,
    /// Changes those that are there first, and adds the others then: for rows that lack a column which a new row must
    /// have. ON CONFLICT would refuse those even where the row is there, as NOT NULL is checked before the conflict.
    ChangeOrAdd,
    /// Changes those that are there.
    Update,
    /// Deletes those that are there.
    Delete,
}

impl Target {
    /// The statement that does `action` with the columns of `set`.
    pub fn statement(&mut self, set: u32, action: Action) -> Arc<str> {
        if let Some(known) = self.sets[set as usize].statements.get(&action) {
            return known.clone();
        }
        let sql: Arc<str> = self.write_statement(set, action).into();
        self.sets[set as usize].statements.insert(action, sql.clone());
        sql
    }

    fn write_statement(&self, set: u32, action: Action) -> String {
        let Columns { key, rest } = &self.sets[set as usize].columns;
        let table = &self.name;
        let all = || key.iter().chain(rest);
        let count = key.len() + rest.len();
        let parameters: Vec<_> = (1..=count).map(|n| format!("${n}::text[]")).collect();
        let names: Vec<_> = (0..count).map(|n| format!("c{n}")).collect();
        let from = format!("unnest({}) AS s({})", parameters.join(", "), names.join(", "));
        let casts: Vec<_> = all().map(|&index| &self.columns[index].cast).collect();
        let value = |n: usize| format!("s.c{n}::{}", casts[n]);
        let values = (0..count).map(value).collect::<Vec<_>>().join(", ");
        let same_key = |value: &dyn Fn(usize) -> String| {
            let equal: Vec<_> = key
                .iter()
                .enumerate()
                .map(|(n, &index)| format!("t.{} = {}", quoted(&self.columns[index].name), value(n)))
                .collect();
            equal.join(" AND ")
        };
        let changes = |value: &dyn Fn(usize) -> String| {
            let changes: Vec<_> = rest
                .iter()
                .enumerate()
                .filter(|&(_, &index)| !self.columns[index].identity_always)
                .map(|(n, &index)| {
                    format!("{} = {}", quoted(&self.columns[index].name), value(key.len() + n))
                })
                .collect();
            changes.join(", ")
        };
        let overriding = if all().any(|&index| self.columns[index].identity_always) {
            " OVERRIDING SYSTEM VALUE"
        } else {
            ""
        };
        let insert = format!("INSERT INTO {table} AS t ({}){overriding}", self.names(all()));
        let on_conflict = || {
            let changes: Vec<_> = rest
                .iter()
                .filter(|&&index| !self.columns[index].identity_always)
                .map(|&index| {
                    let name = quoted(&self.columns[index].name);
                    format!("{name} = EXCLUDED.{name}")
                })
                .collect();
            let mut sql = format!(" ON CONFLICT ({}) DO ", self.names(key));
            if changes.is_empty() {
                sql.push_str("NOTHING");
            } else {
                let _ = write!(sql, "UPDATE SET {}", changes.join(", "));
            }
            sql
        };
        match action {
            Action::Insert => format!("{insert} SELECT {values} FROM {from}"),
            Action::Upsert => format!("{insert} SELECT {values} FROM {from}{}", on_conflict()),
            Action::Update => format!(
                "UPDATE {table} AS t SET {} FROM {from} WHERE {}",
                changes(&value),
                same_key(&value)
            ),
            Action::ChangeOrAdd => {
                let named: Vec<_> = (0..count).map(|n| format!("{} AS c{n}", value(n))).collect();
                let plain = |n: usize| format!("r.c{n}");
                let keys: Vec<_> = (0..key.len()).map(|n| format!("r.c{n}")).collect();
                let same: Vec<_> = (0..key.len()).map(|n| format!("d.c{n} = r.c{n}")).collect();
                let plains: Vec<_> = (0..count).map(plain).collect();
                let (changes, keys) = (changes(&plain), keys.join(", "));
                let there = if changes.is_empty() {
                    format!("SELECT {keys} FROM {table} AS t, r WHERE {}", same_key(&plain))
                } else {
                    format!(
                        "UPDATE {table} AS t SET {changes} FROM r WHERE {} RETURNING {keys}",
                        same_key(&plain)
                    )
                };
                format!(
                    "WITH r AS MATERIALIZED (SELECT {} FROM {from}), d AS ({there}) \
                     {insert} SELECT {} FROM r WHERE NOT EXISTS (SELECT FROM d WHERE {}){}",
                    named.join(", "),
                    plains.join(", "),
                    same.join(" AND "),
                    on_conflict()
                )
            }
            Action::Delete => format!("DELETE FROM {table} AS t USING {from} WHERE {}", same_key(&value)),
        }
    }

    /// The COPY that takes rows with the columns of `set` straight into the table.
    pub fn copy_statement(&self, set: u32) -> String {
        let Columns { key, rest } = &self.sets[set as usize].columns;
        format!(
            "COPY {} ({}) FROM STDIN",
            self.name,
            self.names(key.iter().chain(rest))
        )
    }
}
