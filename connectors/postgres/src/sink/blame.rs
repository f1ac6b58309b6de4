//! Names what is wrong with a record that Postgres refused: its key, and the column where that can be found out.

use sqlx::AssertSqlSafe;

use super::batch::Batch;
use super::error::{SinkError, told};
use super::rows::{ParameterRows, RowWriter, key_cells};
use super::session::Session;
use super::statement::Action;
use super::steps::{Steps, Work};
use super::target::Target;

/// Why Postgres refused the one record of `batch`. The transaction has been rolled back.
pub async fn reason(
    session: &mut Session,
    batch: &Batch<'_>,
    steps: &Steps<'_>,
    error: &SinkError,
) -> String {
    let text = match error {
        SinkError::Database { doing, source } => format!("{doing}: {}", told(source)),
        other => other.to_string(),
    };
    let Some((target, set, action, place)) = steps.steps.iter().find_map(|step| match &step.work {
        Work::Rows {
            action,
            set,
            table,
            entries,
        } => Some((step.target, *set, *action, (*table, *entries.first()?))),
        Work::Truncate => None,
    }) else {
        return text;
    };
    let key = &batch.keys[batch.tables[place.0].1.entries[place.1].key.clone()];
    let key = shown_key(&session.catalog.targets[target], set, key);
    let mut row = ParameterRows::new(session.catalog.targets[target].sets[set as usize].columns.len());
    if steps
        .write_entry(batch, &session.catalog.plans, place, action, &mut row)
        .is_err()
    {
        return format!("{text}{key}");
    }
    let column = match error.code().as_deref() {
        _ if action == Action::Delete => None,
        Some("22001") => too_long(&session.catalog.targets[target], set, &text),
        Some(code) if code.starts_with("22") => unreadable(session, target, set, &row, code).await,
        _ => None,
    };
    match column {
        Some(column) => format!("{text}; column: {column}{key}"),
        None => format!("{text}{key}"),
    }
}

fn shown_key(target: &Target, set: u32, key: &[u8]) -> String {
    let columns = &target.sets[set as usize].columns.key;
    let parts: Vec<_> = columns
        .iter()
        .zip(key_cells(key))
        .map(|(&column, cell)| {
            format!(
                "{}={}",
                target.columns[column].name,
                String::from_utf8_lossy(cell)
            )
        })
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("; key: {}", parts.join(", "))
    }
}

/// The column whose declared type, length included, the message names; none where several have it.
fn too_long(target: &Target, set: u32, message: &str) -> Option<String> {
    let columns = &target.sets[set as usize].columns;
    let mut named = columns
        .key
        .iter()
        .chain(&columns.rest)
        .map(|&column| &target.columns[column])
        .filter(|column| column.declared.contains('(') && message.contains(&column.declared));
    match (named.next(), named.next()) {
        (Some(column), None) => Some(column.name.clone()),
        _ => None,
    }
}

/// The first column whose value Postgres cannot read as the column's type.
async fn unreadable(
    session: &mut Session,
    target: usize,
    set: u32,
    row: &ParameterRows,
    code: &str,
) -> Option<String> {
    let target = &session.catalog.targets[target];
    let columns = &target.sets[set as usize].columns;
    for (&column, cell) in columns.key.iter().chain(&columns.rest).zip(row.first_row()) {
        let column = &target.columns[column];
        let mut value = ParameterRows::new(1);
        match cell {
            None => continue,
            Some(cell) => value
                .value(|out| {
                    out.extend_from_slice(cell);
                    Ok(())
                })
                .ok()?,
        }
        let sql = format!("SELECT ($1::text[])[1]::{} IS NULL", column.cast);
        let tried = sqlx::query_with(AssertSqlSafe(sql), value.arguments().ok()?)
            .persistent(false)
            .execute(&mut session.connection)
            .await
            .map_err(SinkError::database(""));
        if tried.is_err_and(|error| error.code().as_deref() == Some(code)) {
            return Some(column.name.clone());
        }
    }
    None
}
