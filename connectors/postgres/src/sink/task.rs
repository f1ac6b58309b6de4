//! The task: its life, and what becomes of a batch.
//!
//! A batch is one transaction on the target: the offsets move first, which also proves that this instance is still the
//! live one; then the rows; then the commit. Records below the stored offset are passed over, so a batch that comes again
//! is there once, whatever became of the first attempt (invariants 4, 5 and 9).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidewater_plugin_api::{
    AssignedPartition, Error, Frame, PutReport, Result, SinkTask, SinkTaskContext, TopicPartition,
    TopicPartitionOffset, async_trait,
};

use super::batch::Batch;
use super::blame;
use super::collect::{Collector, place};
use super::config::Settings;
use super::error::{Class, SinkError};
use super::offsets::Offsets;
use super::session::Session;
use super::steps::Steps;
use super::write::{self, Changes};

/// A task of `postgres-sink`.
#[derive(Debug, Default)]
pub struct PostgresSinkTask {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    settings: Arc<Settings>,
    offsets: Offsets,
    application: String,
    /// None until the first call that needs it, and after the connection was lost. It is taken out for the time of a
    /// call, so that a call that is cancelled half-way leaves no session in an unknown state.
    session: Option<Session>,
    owned: Vec<Owned>,
    counters: Counters,
}

#[derive(Debug)]
struct Owned {
    partition: TopicPartition,
    topic_id: String,
    /// The next offset to write; none where nothing was ever written.
    next: Option<u64>,
}

#[derive(Debug, Default)]
struct Counters {
    changes: Changes,
    transactions: u64,
    redelivered: u64,
    passed_over: u64,
    one_by_one: u64,
    connections: u64,
}

/// How far a frame goes beyond what is written.
struct Progress {
    /// By record: whether it is new.
    fresh: Vec<bool>,
    /// By owned partition: the offset after its last new record.
    next: Vec<Option<u64>>,
    records: u64,
}

/// How a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The last state of each key, many rows a statement.
    Sets,
    /// One record after the other: where constraints do not allow the former.
    OneByOne,
    /// The same with a savepoint before each, to find the records that are refused.
    Apart,
}

#[async_trait]
impl SinkTask for PostgresSinkTask {
    async fn start(&mut self, context: SinkTaskContext) -> Result<()> {
        let settings = Settings::read(&context.config).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Error::config(problems.join("; "))
        })?;
        let mut running = Running {
            offsets: Offsets::new(
                settings.offsets_table.clone(),
                &context.connector,
                context.generation,
            ),
            application: format!("tidewater {} {}", context.connector, context.task),
            settings: Arc::new(settings),
            session: None,
            owned: Vec::new(),
            counters: Counters::default(),
        };
        let connected = running.connect().await;
        running.session = Some(connected.map_err(|error| running.told(error))?);
        self.running = Some(running);
        Ok(())
    }

    async fn open(&mut self, partitions: &[AssignedPartition]) -> Result<Vec<TopicPartitionOffset>> {
        let running = self.running()?;
        let opened = running.open(partitions).await;
        opened.map_err(|error| running.told(error))
    }

    async fn put(&mut self, batch: &Frame) -> Result<PutReport> {
        let running = self.running()?;
        // A server that is gone without a word never answers; dropping the call drops its session.
        let limit = running.settings.write_timeout;
        let written = tokio::time::timeout(limit, Box::pin(running.put(batch))).await;
        let silent = |_| Err(SinkError::Silent(limit.as_millis()));
        written
            .unwrap_or_else(silent)
            .map_err(|error| running.told(error))?;
        Ok(PutReport {
            durable: true,
            ..PutReport::default()
        })
    }

    async fn flush(&mut self) -> Result<()> {
        // Every put is durable when it returns.
        Ok(())
    }

    async fn close(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let running = self.running()?;
        running
            .owned
            .retain(|owned| !partitions.contains(&owned.partition));
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some(session) = self.running.take().and_then(|running| running.session) {
            // The session ends either way; saying good-bye only spares the server a line in its log.
            let _ = sqlx::Connection::close(session.connection).await;
        }
        Ok(())
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let Some(Running { counters, .. }) = &self.running else {
            return BTreeMap::new();
        };
        [
            ("rows-written", counters.changes.written),
            ("rows-deleted", counters.changes.deleted),
            ("tables-truncated", counters.changes.truncated),
            ("transactions", counters.transactions),
            ("records-redelivered", counters.redelivered),
            ("records-passed-over", counters.passed_over),
            ("batches-one-by-one", counters.one_by_one),
            ("connections", counters.connections),
        ]
        .map(|(name, count)| (name.to_owned(), count as f64))
        .into()
    }
}

impl PostgresSinkTask {
    fn running(&mut self) -> Result<&mut Running> {
        self.running
            .as_mut()
            .ok_or_else(|| Error::fatal("postgres-sink: the task was called before its start"))
    }
}

impl Running {
    fn told(&self, error: SinkError) -> Error {
        error.into_plugin(&self.settings.server())
    }

    /// A new session; the partitions are claimed anew, as nobody knows what became of a commit whose answer was lost.
    async fn connect(&mut self) -> Result<Session, SinkError> {
        let mut session = Session::connect(&self.settings, &self.application).await?;
        self.counters.connections += 1;
        self.offsets.prepare(&mut session.connection).await?;
        if !self.owned.is_empty() {
            let assigned = |owned: &Owned| owned.partition.clone().assigned(&owned.topic_id);
            let partitions: Vec<_> = self.owned.iter().map(assigned).collect();
            let positions = self.offsets.claim(&mut session.connection, &partitions).await?;
            for (owned, position) in self.owned.iter_mut().zip(positions) {
                owned.next = position;
            }
        }
        Ok(session)
    }

    async fn take_session(&mut self) -> Result<Session, SinkError> {
        match self.session.take() {
            Some(session) if !session.catalog.is_full() => Ok(session),
            _ => self.connect().await,
        }
    }

    async fn open(
        &mut self,
        partitions: &[AssignedPartition],
    ) -> Result<Vec<TopicPartitionOffset>, SinkError> {
        self.owned.retain(|owned| {
            !partitions
                .iter()
                .any(|assigned| assigned.partition == owned.partition)
        });
        let mut session = self.take_session().await?;
        let positions = self.offsets.claim(&mut session.connection, partitions).await?;
        self.session = Some(session);
        let mut answer = Vec::new();
        for (AssignedPartition { partition, topic_id }, next) in partitions.iter().zip(positions) {
            self.owned.push(Owned {
                partition: partition.clone(),
                topic_id: topic_id.clone(),
                next,
            });
            answer.extend(next.map(|offset| TopicPartitionOffset {
                partition: partition.clone(),
                offset,
            }));
        }
        Ok(answer)
    }

    async fn put(&mut self, frame: &Frame) -> Result<(), SinkError> {
        let mut session = self.take_session().await?;
        let mut way = Way::Sets;
        let mut looked_again = false;
        loop {
            let progress = self.progress(frame)?;
            let written = self.write(&mut session, frame, &progress, way).await;
            let Err(error) = written else {
                self.session = Some(session);
                self.advance(&progress);
                return Ok(());
            };
            match error.class() {
                // The session is dropped, and with it whatever it had open.
                Class::Lost => return Err(error),
                Class::Data if way != Way::Apart => {
                    session.rollback().await?;
                    tracing::debug!(%error, "writing the batch one record after the other");
                    way = match way {
                        Way::Sets => Way::OneByOne,
                        Way::OneByOne | Way::Apart => Way::Apart,
                    };
                    self.counters.one_by_one += 1;
                }
                Class::Stale if !looked_again => {
                    tracing::info!(%error, "looking at the target's tables anew");
                    drop(session);
                    session = self.connect().await?;
                    looked_again = true;
                }
                _ => {
                    if session.rollback().await.is_ok() {
                        self.session = Some(session);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Which records of `frame` are new, and how far they go.
    fn progress(&self, frame: &Frame) -> Result<Progress, SinkError> {
        let mut progress = Progress {
            fresh: Vec::with_capacity(frame.len()),
            next: vec![None; self.owned.len()],
            records: 0,
        };
        let mut known: HashMap<(usize, u32), usize> = HashMap::new();
        for record in frame.records() {
            let (Some(partition), Some(offset)) = (record.partition(), record.offset()) else {
                return Err(SinkError::Call("a record has no partition or no offset"));
            };
            let owned = if let Some(&owned) = known.get(&(record.original_topic_index(), partition)) {
                owned
            } else {
                let owned = self.owned.iter().position(|owned| {
                    owned.partition.partition == partition && owned.partition.topic == record.original_topic()
                });
                let owned = owned.ok_or(SinkError::Call("a record is of a partition that is not open"))?;
                known.insert((record.original_topic_index(), partition), owned);
                owned
            };
            let written = progress.next[owned].or(self.owned[owned].next).unwrap_or(0);
            let fresh = offset >= written;
            if fresh {
                progress.next[owned] = Some(offset + 1);
                progress.records += 1;
            }
            progress.fresh.push(fresh);
        }
        Ok(progress)
    }

    fn advance(&mut self, progress: &Progress) {
        self.counters.redelivered += progress.fresh.len() as u64 - progress.records;
        for (owned, next) in self.owned.iter_mut().zip(&progress.next) {
            owned.next = next.or(owned.next);
        }
    }

    async fn write(
        &mut self,
        session: &mut Session,
        frame: &Frame,
        progress: &Progress,
        way: Way,
    ) -> Result<(), SinkError> {
        if progress.records == 0 {
            return Ok(());
        }
        let settings = self.settings.clone();
        let mut collector = Collector::new(frame, &settings);
        let mut prepared = None;
        if way == Way::Sets {
            let batch = collector
                .collect(session, 0..frame.len(), |index| progress.fresh[index])
                .await?;
            if batch.mixed_keys {
                collector.passed_over = 0;
            } else {
                let steps = Steps::of(
                    &batch,
                    &mut session.catalog,
                    settings.insert_mode,
                    &settings.placeholder,
                )
                .map_err(|error| SinkError::value("reading the batch")(error.into()))?;
                prepared = Some((batch, steps));
            }
        }
        self.begin(session, progress).await?;
        let changes = match &prepared {
            Some((batch, steps)) => write::carry_out(session, &settings, batch, steps).await?,
            None => one_by_one(session, &mut collector, frame, &settings, progress, way).await?,
        };
        sqlx::raw_sql("COMMIT")
            .execute(&mut session.connection)
            .await
            .map_err(SinkError::database(format!(
                "committing {} records",
                progress.records
            )))?;
        let counters = &mut self.counters;
        counters.changes.written += changes.written;
        counters.changes.deleted += changes.deleted;
        counters.changes.truncated += changes.truncated;
        counters.transactions += 1;
        counters.passed_over += collector.passed_over;
        Ok(())
    }

    /// Begins the transaction and moves the offsets in it; refused where another instance has taken over.
    async fn begin(&self, session: &mut Session, progress: &Progress) -> Result<(), SinkError> {
        let moved: Vec<_> = self
            .owned
            .iter()
            .zip(&progress.next)
            .filter_map(|(owned, next)| Some((&owned.partition, (*next)?)))
            .collect();
        let sql = self.offsets.begin_and_advance(moved.iter().copied());
        let changed = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut session.connection)
            .await
            .map_err(SinkError::database("moving the offsets"))?
            .rows_affected();
        if changed == moved.len() as u64 {
            Ok(())
        } else {
            Err(self.offsets.fenced(moved[0].0))
        }
    }
}

/// Writes the new records of `frame` in their own order. Apart, each has a savepoint, so that all that are refused are found
/// at once; nothing stays written then, since the offsets must not pass them before they are put aside (invariant 4).
async fn one_by_one(
    session: &mut Session,
    collector: &mut Collector<'_>,
    frame: &Frame,
    settings: &Settings,
    progress: &Progress,
    way: Way,
) -> Result<Changes, SinkError> {
    let apart = way == Way::Apart;
    let mut changes = Changes::default();
    let mut refused = Vec::new();
    for index in (0..frame.len()).filter(|&index| progress.fresh[index]) {
        if apart {
            savepoint(session, "SAVEPOINT record").await?;
        }
        match write_one(session, collector, frame, settings, index).await {
            Ok(done) => {
                if apart {
                    savepoint(session, "RELEASE SAVEPOINT record").await?;
                }
                changes.written += done.written;
                changes.deleted += done.deleted;
                changes.truncated += done.truncated;
            }
            Err(error) if apart && error.class() == Class::Data => {
                savepoint(session, "ROLLBACK TO SAVEPOINT record").await?;
                refused.push((index, error));
            }
            Err(error) => return Err(error),
        }
    }
    if refused.is_empty() {
        return Ok(changes);
    }
    session.rollback().await?;
    let mut told = Vec::with_capacity(refused.len());
    for (index, error) in refused {
        told.push((
            index,
            blamed(session, collector, frame, settings, index, error).await,
        ));
    }
    Err(SinkError::Refused(told))
}

async fn savepoint(session: &mut Session, statement: &'static str) -> Result<(), SinkError> {
    let done = sqlx::raw_sql(statement).execute(&mut session.connection).await;
    done.map(drop)
        .map_err(SinkError::database("writing one record after the other"))
}

/// Writes one record.
async fn write_one(
    session: &mut Session,
    collector: &mut Collector<'_>,
    frame: &Frame,
    settings: &Settings,
    index: usize,
) -> Result<Changes, SinkError> {
    let batch = collector.collect(session, index..index + 1, |_| true).await?;
    let steps = steps(session, frame, settings, index, &batch)?;
    write::carry_out(session, settings, &batch, &steps).await
}

fn steps<'a>(
    session: &mut Session,
    frame: &Frame,
    settings: &Settings,
    index: usize,
    batch: &Batch<'a>,
) -> Result<Steps<'a>, SinkError> {
    Steps::of(
        batch,
        &mut session.catalog,
        settings.insert_mode,
        &settings.placeholder,
    )
    .map_err(|error| SinkError::Unwritable {
        place: place(&frame.record(index)),
        reason: error.to_string(),
    })
}

/// Why a record is refused: its place, its key and the column, where that can be found out. The transaction has been rolled
/// back.
async fn blamed(
    session: &mut Session,
    collector: &mut Collector<'_>,
    frame: &Frame,
    settings: &Settings,
    index: usize,
    error: SinkError,
) -> String {
    if matches!(error, SinkError::Unwritable { .. }) {
        return error.to_string();
    }
    let place = place(&frame.record(index));
    let reason = match collector.collect(session, index..index + 1, |_| true).await {
        Ok(batch) => match steps(session, frame, settings, index, &batch) {
            Ok(steps) => blame::reason(session, &batch, &steps, &error).await,
            Err(_) => error.to_string(),
        },
        Err(_) => error.to_string(),
    };
    SinkError::Unwritable { place, reason }.to_string()
}
