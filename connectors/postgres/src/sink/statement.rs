//! The SQL of the sink. Every statement writes many rows; they come as text, from array parameters or from a temporary
//! table that COPY has filled, and the target column's type is cast to.

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

/// Where a statement's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feed {
    /// One `text[]` parameter per column.
    Parameters,
    /// The column set's temporary table.
    Stage,
}

impl Target {
    /// The statement that does `action` with the columns of `set`.
    pub fn statement(&mut self, set: u32, action: Action, feed: Feed) -> Arc<str> {
        if let Some(known) = self.sets[set as usize].statements.get(&(action, feed)) {
            return known.clone();
        }
        let sql: Arc<str> = self.write_statement(set, action, feed).into();
        self.sets[set as usize]
            .statements
            .insert((action, feed), sql.clone());
        sql
    }

    fn write_statement(&self, set: u32, action: Action, feed: Feed) -> String {
        let Columns { key, rest } = &self.sets[set as usize].columns;
        let table = &self.name;
        let all = || key.iter().chain(rest);
        let count = key.len() + rest.len();
        let (from, value): (String, Box<dyn Fn(usize) -> String>) = match feed {
            Feed::Parameters => {
                let parameters: Vec<_> = (1..=count).map(|n| format!("${n}::text[]")).collect();
                let names: Vec<_> = (0..count).map(|n| format!("c{n}")).collect();
                let casts: Vec<_> = all().map(|&index| self.columns[index].cast.clone()).collect();
                (
                    format!("unnest({}) AS s({})", parameters.join(", "), names.join(", ")),
                    Box::new(move |n| format!("s.c{n}::{}", casts[n])),
                )
            }
            Feed::Stage => (
                format!(
                    "{} AS s",
                    self.sets[set as usize].stage.as_deref().unwrap_or_default()
                ),
                Box::new(|n| format!("s.c{n}")),
            ),
        };
        let values = (0..count).map(&value).collect::<Vec<_>>().join(", ");
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
                changes(&*value),
                same_key(&*value)
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
            Action::Delete => format!(
                "DELETE FROM {table} AS t USING {from} WHERE {}",
                same_key(&*value)
            ),
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

    /// Makes the temporary table `name` for the columns of `set`.
    pub fn stage_statement(&self, set: u32, name: &str) -> String {
        let Columns { key, rest } = &self.sets[set as usize].columns;
        let columns: Vec<_> = key
            .iter()
            .chain(rest)
            .enumerate()
            .map(|(n, &index)| format!("c{n} {}", self.columns[index].cast))
            .collect();
        format!(
            "CREATE TEMPORARY TABLE {name} ({}) ON COMMIT DELETE ROWS",
            columns.join(", ")
        )
    }
}
