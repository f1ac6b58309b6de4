//! Carries the steps of a batch out.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection};

use super::batch::Batch;
use super::config::Settings;
use super::error::SinkError;
use super::rows::{CopyRows, ParameterRows};
use super::session::Session;
use super::statement::Action;
use super::steps::{Step, Steps, Work};

/// How much of COPY's text is gathered before it is sent: enough to keep the server busy while the next is written.
const COPY_CHUNK: usize = 256 * 1024;

/// What a batch changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows added or changed.
    pub written: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Tables emptied.
    pub truncated: u64,
}

/// Carries `steps` out within the transaction that is open.
pub async fn carry_out(
    session: &mut Session,
    settings: &Settings,
    batch: &Batch<'_>,
    steps: &Steps<'_>,
) -> Result<Changes, SinkError> {
    let mut changes = Changes::default();
    for step in &steps.steps {
        match &step.work {
            Work::Truncate => {
                let table = &session.catalog.targets[step.target].name;
                sqlx::query(AssertSqlSafe(format!("TRUNCATE TABLE {table}")))
                    .execute(&mut session.connection)
                    .await
                    .map_err(SinkError::database(format!("truncating table {table}")))?;
                changes.truncated += 1;
            }
            Work::Rows { action, .. } => {
                let count = rows(session, settings, batch, steps, step).await?;
                match action {
                    Action::Delete => changes.deleted += count,
                    _ => changes.written += count,
                }
            }
        }
    }
    Ok(changes)
}

async fn rows(
    session: &mut Session,
    settings: &Settings,
    batch: &Batch<'_>,
    steps: &Steps<'_>,
    step: &Step,
) -> Result<u64, SinkError> {
    let Work::Rows {
        action,
        set,
        table,
        entries,
    } = &step.work
    else {
        return Ok(0);
    };
    let (action, set) = (*action, *set);
    let mut count = 0;
    for entries in entries.chunks(settings.batch_rows) {
        let target = &session.catalog.targets[step.target];
        let doing = doing(action, entries.len(), &target.name.to_string());
        let plans = &session.catalog.plans;
        let write = |entry: usize, rows: &mut CopyRows| {
            steps
                .write_entry(batch, plans, (*table, entry), action, rows)
                .map_err(SinkError::value(doing.clone()))
        };
        // Rows that are only inserted need no statement to decide anything about them.
        let copies = action == Action::Insert && target.takes_copy && entries.len() >= settings.copy_rows;
        count += if copies {
            let sql = target.copy_statement(set);
            copy(&mut session.connection, &sql, entries, write, &doing).await?
        } else {
            parameters(session, batch, steps, step, entries, &doing).await?
        };
    }
    Ok(count)
}

async fn copy(
    connection: &mut PgConnection,
    sql: &str,
    entries: &[usize],
    write: impl Fn(usize, &mut CopyRows) -> Result<(), SinkError>,
    doing: &str,
) -> Result<u64, SinkError> {
    let failed = || SinkError::database(doing);
    let mut rows = CopyRows::default();
    let mut copy = connection.copy_in_raw(sql).await.map_err(failed())?;
    for &entry in entries {
        if let Err(error) = write(entry, &mut rows) {
            copy.abort("a row cannot be written").await.map_err(failed())?;
            return Err(error);
        }
        if rows.text().len() >= COPY_CHUNK {
            copy.send(rows.text().as_slice()).await.map_err(failed())?;
            rows.text().clear();
        }
    }
    copy.send(rows.text().as_slice()).await.map_err(failed())?;
    copy.finish().await.map_err(failed())
}

async fn parameters(
    session: &mut Session,
    batch: &Batch<'_>,
    steps: &Steps<'_>,
    step: &Step,
    entries: &[usize],
    doing: &str,
) -> Result<u64, SinkError> {
    let Work::Rows {
        action, set, table, ..
    } = step.work
    else {
        return Ok(0);
    };
    let target = &mut session.catalog.targets[step.target];
    let columns = &target.sets[set as usize].columns;
    let mut rows = ParameterRows::new(columns.key.len() + columns.rest.len());
    for &entry in entries {
        steps
            .write_entry(batch, &session.catalog.plans, (table, entry), action, &mut rows)
            .map_err(SinkError::value(doing))?;
    }
    let failed = || SinkError::database(doing);
    let sql: Arc<str> = target.statement(set, action);
    let arguments = rows
        .arguments()
        .map_err(|error| failed()(sqlx::Error::Encode(error)))?;
    let done = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .execute(&mut session.connection)
        .await
        .map_err(failed())?;
    Ok(done.rows_affected())
}

fn doing(action: Action, rows: usize, table: &str) -> String {
    let what = match action {
        Action::Insert => "inserting",
        Action::Upsert | Action::ChangeOrAdd => "upserting",
        Action::Update => "updating",
        Action::Delete => "deleting",
    };
    let plural = if rows == 1 { "row" } else { "rows" };
    match action {
        Action::Update => format!("{what} {rows} {plural} of table {table}"),
        Action::Delete => format!("{what} {rows} {plural} from table {table}"),
        _ => format!("{what} {rows} {plural} into table {table}"),
    }
}
