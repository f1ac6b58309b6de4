//! Commit to sink: how long after its commit in the source a row was committed in the target, by both servers' own clocks of
//! commits (`track_commit_timestamp`), which are one clock when both run on this machine.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, PgConnection};

use crate::error::{Error, Result};
use crate::stats::percentile;

/// The latencies of one table's rows, in microseconds, sorted.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    micros: Vec<i64>,
}

impl Latencies {
    /// Latencies of the rows of `table`, by their unique `key`, that were last written in the source between the two points of time
    /// (microseconds since 1970) and are in the target.
    pub async fn read(
        source: &mut PgConnection,
        target: &mut PgConnection,
        table: &str,
        key: &str,
        since: i64,
        until: i64,
    ) -> Result<Self> {
        let sql = format!(
            "SELECT * FROM (SELECT ({key})::text, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint AS at
               FROM {table}) t WHERE at BETWEEN {since} AND {until}"
        );
        let committed: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(source)
            .await
            .map_err(Error::sql(format!(
                "reading commit times of {table} in the source"
            )))?;
        let sql = format!(
            "SELECT ({key})::text, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM {table}"
        );
        let arrived: HashMap<String, Option<i64>> = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(target)
            .await
            .map_err(Error::sql(format!(
                "reading commit times of {table} in the target"
            )))?
            .into_iter()
            .collect();
        let mut micros: Vec<i64> = committed
            .iter()
            .filter_map(|(key, at)| Some((*arrived.get(key)?)? - at))
            .collect();
        micros.sort_unstable();
        Ok(Self { micros })
    }

    /// How many rows were measured.
    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// Whether none were.
    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }

    /// A percentile in milliseconds.
    pub fn millis(&self, percent: f64) -> Option<f64> {
        percentile(&self.micros, percent).map(|micros| micros as f64 / 1000.0)
    }
}

/// Now, as PostgreSQL counts for [`Latencies::read`].
pub fn now_micros() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}
