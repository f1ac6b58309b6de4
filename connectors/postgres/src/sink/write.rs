//! Carries the steps of a batch out.

use sqlx::{AssertSqlSafe, PgConnection};

use super::batch::Batch;
use super::config::Settings;
use super::error::SinkError;
use super::rows::{CopyRows, ParameterRows};
use super::session::Session;
use super::statement::Action;
use super::steps::{Step, Steps, Work};
use super::text::TextError;

/// How much of COPY's text is gathered before it is sent: enough to keep the server busy while the next is written.
const COPY_CHUNK: usize = 256 * 1024;
/// How much one statement's parameters hold before it is sent, however few rows that is (invariant 6).
const STATEMENT_BYTES: usize = 16 * 1024 * 1024;

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
    let target = &mut session.catalog.targets[step.target];
    let plans = &session.catalog.plans;
    let connection = &mut session.connection;
    let (name, columns) = (target.name.to_string(), target.sets[set as usize].columns.len());
    // Rows that are only inserted need no statement to decide anything about them.
    if action == Action::Insert && target.takes_copy && entries.len() >= settings.copy_rows {
        let doing = doing(action, entries.len(), &name);
        let write = |entry: usize, rows: &mut CopyRows| {
            steps.write_entry(batch, plans, (*table, entry), action, rows)
        };
        return copy(connection, &target.copy_statement(set), entries, write, &doing).await;
    }
    let sql = target.statement(set, action);
    let mut rows = ParameterRows::new(columns);
    let mut count = 0;
    for (index, &entry) in entries.iter().enumerate() {
        steps
            .write_entry(batch, plans, (*table, entry), action, &mut rows)
            .map_err(SinkError::value(doing(action, 1, &name)))?;
        let is_last = index + 1 == entries.len();
        if is_last || rows.len() >= settings.batch_rows || rows.bytes() >= STATEMENT_BYTES {
            let failed = || SinkError::database(doing(action, rows.len(), &name));
            let arguments = rows
                .arguments()
                .map_err(|error| failed()(sqlx::Error::Encode(error)))?;
            let done = sqlx::query_with(AssertSqlSafe(sql.clone()), arguments)
                .execute(&mut *connection)
                .await;
            count += done.map_err(failed())?.rows_affected();
            rows.clear();
        }
    }
    Ok(count)
}

async fn copy(
    connection: &mut PgConnection,
    sql: &str,
    entries: &[usize],
    write: impl Fn(usize, &mut CopyRows) -> Result<(), TextError>,
    doing: &str,
) -> Result<u64, SinkError> {
    let failed = || SinkError::database(doing);
    let mut rows = CopyRows::default();
    let mut copy = connection.copy_in_raw(sql).await.map_err(failed())?;
    for &entry in entries {
        if let Err(error) = write(entry, &mut rows) {
            copy.abort("a row cannot be written").await.map_err(failed())?;
            return Err(SinkError::value(doing)(error));
        }
        if rows.text().len() >= COPY_CHUNK {
            copy.send(rows.text().as_slice()).await.map_err(failed())?;
            rows.text().clear();
        }
    }
    copy.send(rows.text().as_slice()).await.map_err(failed())?;
    copy.finish().await.map_err(failed())
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
