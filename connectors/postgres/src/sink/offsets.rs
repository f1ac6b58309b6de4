//! How far each partition is written, kept in the target and moved in the transaction of the rows themselves: so every
//! record is written exactly once, and the offset never passes a record that is not there (invariant 4).
//!
//! Each row carries the generation of the task that wrote it last. A task stamps its own when it opens a partition, and
//! afterwards moves the offset only where its stamp still stands: an instance from before is fenced (invariant 9).

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tidewater_plugin_api::{AlteredOffset, AssignedPartition, TopicPartition};

use super::error::SinkError;
use super::identifier::{TableName, literal, quoted};

/// The offsets of one connector.
#[derive(Clone, Debug)]
pub struct Offsets {
    table: TableName,
    connector: String,
    generation: i64,
}

impl Offsets {
    /// The offsets that `connector` keeps in `table`, for its life `generation`.
    pub fn new(table: TableName, connector: &str, generation: u64) -> Self {
        Self {
            table,
            connector: connector.to_owned(),
            // Lives are counted; they do not come near the limit.
            generation: i64::try_from(generation).unwrap_or(i64::MAX),
        }
    }

    /// Makes the table where it is missing. The right to make one is not needed where it is there.
    pub async fn prepare(&self, connection: &mut PgConnection) -> Result<(), SinkError> {
        let table = &self.table;
        let failed = || SinkError::database(format!("preparing the offsets table {table} (offsets.table)"));
        let there = sqlx::query("SELECT 1 WHERE pg_catalog.to_regclass($1) IS NOT NULL")
            .bind(table.to_string())
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed())?;
        if there.is_some() {
            return Ok(());
        }
        let mut transaction = connection.begin().await.map_err(failed())?;
        let mut statements = vec![
            "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('tidewater definitions', 0))".to_owned(),
        ];
        statements.extend(
            table
                .schema
                .as_ref()
                .map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema))),
        );
        // Room on each page for the next version of a row, which changes with every batch.
        statements.push(format!(
            "CREATE TABLE IF NOT EXISTS {table} (connector text NOT NULL, topic text NOT NULL, partition integer NOT NULL, \
             topic_id text NOT NULL, next_offset bigint, generation bigint NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(), \
             PRIMARY KEY (connector, topic, partition)) WITH (fillfactor = 40)"
        ));
        for statement in statements {
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await
                .map_err(failed())?;
        }
        transaction.commit().await.map_err(failed())
    }

    /// Takes the partitions over for this generation and answers where each goes on, in their order; none for one that
    /// was never written, or only from another topic of the same name. Waits for a transaction that an earlier instance has open on them, so what it answers is final.
    pub async fn claim(
        &self,
        connection: &mut PgConnection,
        partitions: &[AssignedPartition],
    ) -> Result<Vec<Option<u64>>, SinkError> {
        let table = &self.table;
        let failed = || SinkError::database(format!("taking over the offsets in {table}"));
        let mut transaction = connection.begin().await.map_err(failed())?;
        let topics: Vec<&str> = partitions
            .iter()
            .map(|assigned| &*assigned.partition.topic)
            .collect();
        let ids: Vec<&str> = partitions.iter().map(|assigned| &*assigned.topic_id).collect();
        let numbers: Vec<i32> = partitions
            .iter()
            .map(|assigned| assigned.partition.partition as i32)
            .collect();
        // In the order of the key, so that two tasks never wait for each other.
        let sql = format!(
            "INSERT INTO {table} AS o (connector, topic, partition, topic_id, generation) \
             SELECT $1, p.topic, p.partition, p.topic_id, $5 \
             FROM unnest($2::text[], $3::int4[], $4::text[]) AS p(topic, partition, topic_id) ORDER BY 2, 3 \
             ON CONFLICT (connector, topic, partition) DO UPDATE SET generation = EXCLUDED.generation, updated_at = now(), \
             next_offset = CASE WHEN o.topic_id = EXCLUDED.topic_id THEN o.next_offset END, topic_id = EXCLUDED.topic_id \
             WHERE o.generation <= EXCLUDED.generation RETURNING topic, partition, next_offset"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&self.connector)
            .bind(&topics)
            .bind(&numbers)
            .bind(&ids)
            .bind(self.generation)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed())?;
        let answers: Vec<Option<Option<u64>>> = partitions
            .iter()
            .map(|AssignedPartition { partition, .. }| {
                rows.iter()
                    .find(|row| {
                        row.get::<&str, _>(0) == partition.topic
                            && row.get::<i32, _>(1) == partition.partition as i32
                    })
                    .map(|row| {
                        row.get::<Option<i64>, _>(2)
                            .and_then(|next| u64::try_from(next).ok())
                    })
            })
            .collect();
        if let Some(index) = answers.iter().position(Option::is_none) {
            transaction.rollback().await.map_err(failed())?;
            return Err(self.fenced(&partitions[index].partition));
        }
        transaction.commit().await.map_err(failed())?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Sets offsets by hand, while no task runs. One that was left behind is fenced by it, as by a task's next life.
    pub async fn alter(
        &self,
        connection: &mut PgConnection,
        altered: &[AlteredOffset],
    ) -> Result<(), SinkError> {
        let table = &self.table;
        let of = |altered: &AlteredOffset| altered.partition.clone();
        let topics: Vec<String> = altered.iter().map(|to| of(to).partition.topic).collect();
        let numbers: Vec<i32> = altered
            .iter()
            .map(|to| of(to).partition.partition as i32)
            .collect();
        let ids: Vec<String> = altered.iter().map(|to| of(to).topic_id).collect();
        // Offsets are counted; they do not come near the limit.
        let offsets: Vec<Option<i64>> = altered
            .iter()
            .map(|to| to.offset.map(|offset| i64::try_from(offset).unwrap_or(i64::MAX)))
            .collect();
        let sql = format!(
            "INSERT INTO {table} AS o (connector, topic, partition, topic_id, next_offset, generation) \
             SELECT $1, p.topic, p.partition, p.topic_id, p.next_offset, 0 \
             FROM unnest($2::text[], $3::int4[], $4::text[], $5::int8[]) AS p(topic, partition, topic_id, next_offset) \
             ORDER BY 2, 3 \
             ON CONFLICT (connector, topic, partition) DO UPDATE SET generation = o.generation + 1, updated_at = now(), \
             next_offset = EXCLUDED.next_offset, topic_id = EXCLUDED.topic_id"
        );
        sqlx::query(AssertSqlSafe(sql))
            .bind(&self.connector)
            .bind(&topics)
            .bind(&numbers)
            .bind(&ids)
            .bind(&offsets)
            .execute(connection)
            .await
            .map(drop)
            .map_err(SinkError::database(format!("changing the offsets in {table}")))
    }

    /// The SQL that begins a batch's transaction and moves the offsets of its partitions; it changes as many rows as
    /// there are partitions, or this instance is fenced. It is sent in one go, as each round trip counts.
    pub fn begin_and_advance<'a>(&self, progress: impl Iterator<Item = (&'a TopicPartition, u64)>) -> String {
        let values: Vec<_> = progress
            .map(|(partition, next)| {
                format!("({}, {}, {next})", literal(&partition.topic), partition.partition)
            })
            .collect();
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET CONSTRAINTS ALL DEFERRED; \
             UPDATE {} AS o SET next_offset = p.next, updated_at = now() \
             FROM (VALUES {}) AS p(topic, partition, next) \
             WHERE o.connector = {} AND o.topic = p.topic AND o.partition = p.partition AND o.generation = {}",
            self.table,
            values.join(", "),
            literal(&self.connector),
            self.generation
        )
    }

    /// Says who has taken over.
    pub fn fenced(&self, partition: &TopicPartition) -> SinkError {
        SinkError::Fenced(format!(
            "another instance of connector {} has taken over topic {}, partition {}: the generation in {} is not this \
             instance's {}. This instance stops",
            self.connector, partition.topic, partition.partition, self.table, self.generation
        ))
    }
}
