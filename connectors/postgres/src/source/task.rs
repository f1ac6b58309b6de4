//! The task: begins, takes the snapshot, streams, and acknowledges what is durable.
//!
//! Everything that waits for the server runs in a task of its own or is safe to drop, because the host drops a waiting
//! `poll` to deliver a `commit`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use pgwire_replication::{Lsn, ReplicationEvent};
use tidewater_plugin_api::{
    Error, ErrorKind, FrameBuilder, Result, SourcePosition, SourceTask, SourceTaskContext, async_trait,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::begin::{Begun, Known, begin};
use super::envelope::{Emitter, Operation, Origin};
use super::heartbeat::Heartbeat;
use super::position::{Position, SnapshotState};
use super::row::{Cells, Row, split_copy_line};
use super::settings::Settings;
use super::snapshot::{Chunk, Snapshot};
use super::stream::Stream;
use super::{connection, slot};

/// A batch is full with this many bytes, whatever the number of its records.
const BATCH_BYTES: usize = 4 << 20;
/// How long at most a batch waits for the rest of a transaction that is on its way.
const LINGER: Duration = Duration::from_millis(5);
/// A transaction with so many records in the batch is a large one: then rows are gathered for so long.
const MANY: usize = 64;
const GATHER: Duration = Duration::from_millis(1);
/// How long a stop waits for the session to end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What the task is about.
enum Phase {
    /// Nothing is open: the next poll begins again.
    Closed,
    Beginning(JoinHandle<Result<Begun>>),
    Snapshot(Box<Reading>),
    Streaming(Box<Stream>),
    /// The one snapshot that was wanted is done.
    Done,
}

/// A snapshot under way.
struct Reading {
    snapshot: Snapshot,
    /// Where it stands in the log, and when it began.
    point: Lsn,
    micros: i64,
    /// Where the stream goes on afterwards.
    resume: Position,
    /// The chunk in hand, and how many of its lines are done.
    chunk: Option<(Chunk, usize)>,
}

/// The task of `postgres-source`.
pub struct PostgresSourceTask {
    running: Option<Running>,
}

/// A task that has been started.
struct Running {
    settings: Arc<Settings>,
    phase: Phase,
    emitter: Emitter,
    /// How far records have been pushed; none before the first.
    position: Option<Position>,
    /// The position last given to a batch.
    stated: Option<Position>,
    stated_at: Instant,
    /// What is durable, and so acknowledged (invariant 3).
    durable: Lsn,
    /// Whether it has streamed.
    again: bool,
    heartbeat: Option<Heartbeat>,
    snapshot_rows: u64,
    filtered: u64,
    cells: Cells,
    unescaped: Vec<u8>,
}

impl PostgresSourceTask {
    /// A task that has not been started.
    pub fn new() -> Self {
        Self { running: None }
    }

    fn running(&mut self) -> Result<&mut Running> {
        self.running
            .as_mut()
            .ok_or_else(|| Error::fatal("postgres-source: the task has not been started"))
    }
}

impl Default for PostgresSourceTask {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl SourceTask for PostgresSourceTask {
    async fn start(&mut self, context: SourceTaskContext) -> Result<()> {
        let settings = Settings::new(&context.config).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Error::config(problems.join("; "))
        })?;
        let settings = Arc::new(settings);
        let stored = context.offset(&Position::partition(&settings.topic_prefix));
        let position = stored.and_then(Position::from_offset);
        let durable = position.filter(|position| position.snapshot == SnapshotState::Complete);
        let mut running = Running {
            emitter: Emitter::new(&settings),
            heartbeat: Heartbeat::new(&settings),
            phase: Phase::Closed,
            position,
            stated: position,
            stated_at: Instant::now(),
            durable: durable.map_or(Lsn::ZERO, |position| position.done),
            again: false,
            snapshot_rows: 0,
            filtered: 0,
            cells: Cells::new(),
            unescaped: Vec::new(),
            settings,
        };
        running.ready().await?;
        self.running = Some(running);
        Ok(())
    }

    async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let running = self.running()?;
        running.emitter.begin_batch();
        let polled = running.poll(batch).await;
        if let Err(error) = &polled {
            // What was pushed stands, and may be sent by the host whatever it makes of the error.
            running.state_position(batch);
            if error.kind == ErrorKind::Retriable {
                running.close();
            }
        }
        polled
    }

    async fn commit(&mut self, positions: &[SourcePosition]) -> Result<()> {
        let running = self.running()?;
        let partition = Position::partition(&running.settings.topic_prefix);
        for position in positions
            .iter()
            .filter(|position| position.partition == partition)
        {
            if let Some(position) = position.offset.as_ref().and_then(Position::from_offset)
                && position.snapshot == SnapshotState::Complete
            {
                // Of a transaction that is partly done nothing is acknowledged: it must come again.
                running.durable = running.durable.max(position.done);
            }
        }
        if let Phase::Streaming(stream) = &running.phase {
            stream.acknowledge(running.durable);
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        match std::mem::replace(&mut running.phase, Phase::Closed) {
            Phase::Streaming(mut stream) => {
                let _ = tokio::time::timeout(STOP_PATIENCE, stream.shut_down()).await; // it is dropped all the same
            }
            Phase::Beginning(beginning) => beginning.abort(),
            _ => {}
        }
        let settings = &running.settings;
        if settings.drop_slot_on_stop {
            let mut connection = connection::catalog(&settings.server).await?;
            slot::drop_slot(&mut connection, settings).await?;
        }
        Ok(())
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let Some(running) = &self.running else {
            return BTreeMap::new();
        };
        let mut metrics = BTreeMap::from([
            ("records".to_owned(), running.emitter.records as f64),
            ("snapshot_rows".to_owned(), running.snapshot_rows as f64),
            ("skipped_changes".to_owned(), running.filtered as f64),
        ]);
        if let Phase::Streaming(stream) = &running.phase {
            let lag = stream.log_end().0.saturating_sub(running.durable.0);
            metrics.insert("slot_lag_bytes".to_owned(), lag as f64);
            metrics.insert(
                "skipped_changes".to_owned(),
                (running.filtered + stream.filtered) as f64,
            );
        }
        metrics
    }
}

impl Running {
    /// Begins where nothing is open, and waits for it.
    async fn ready(&mut self) -> Result<()> {
        if matches!(self.phase, Phase::Closed) {
            let (settings, durable, again) = (self.settings.clone(), self.durable, self.again);
            let known = Known {
                position: self.position,
                durable,
                again,
            };
            self.phase = Phase::Beginning(tokio::spawn(async move { begin(&settings, known).await }));
        }
        let Phase::Beginning(beginning) = &mut self.phase else {
            return Ok(());
        };
        let begun = beginning.await;
        self.phase = Phase::Closed;
        match begun.map_err(|error| Error::retriable(format!("postgres-source: beginning: {error}")))?? {
            Begun::Snapshot {
                snapshot,
                point,
                resume,
            } => {
                // What was durable of another slot says nothing of one that begins before it (invariant 3).
                self.durable = self.durable.min(resume.done);
                self.position = Some(Position {
                    snapshot: SnapshotState::Incomplete,
                    ..resume
                });
                let reading = Reading {
                    snapshot,
                    point,
                    micros: now_micros(),
                    resume,
                    chunk: None,
                };
                self.phase = Phase::Snapshot(Box::new(reading));
            }
            Begun::Stream { client, position } => {
                self.durable = self.durable.min(position.done);
                self.position = Some(position);
                self.again = true;
                let stream = Stream::new(client, self.settings.clone());
                stream.acknowledge(self.durable);
                self.phase = Phase::Streaming(Box::new(stream));
            }
            Begun::Done => self.phase = Phase::Done,
        }
        Ok(())
    }

    /// Lets go of what is open; the next poll begins again from the position.
    fn close(&mut self) {
        if let Phase::Streaming(stream) = &self.phase {
            self.filtered += stream.filtered;
        }
        if !matches!(self.phase, Phase::Beginning(_) | Phase::Done) {
            self.phase = Phase::Closed;
        }
    }

    async fn poll(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        loop {
            match &mut self.phase {
                Phase::Closed | Phase::Beginning(_) => self.ready().await?,
                Phase::Snapshot(reading) => {
                    if reading.chunk.is_none() {
                        let Some(chunk) = reading.snapshot.next().await? else {
                            self.end_snapshot(batch);
                            return Ok(());
                        };
                        reading.chunk = Some((chunk, 0));
                    }
                    self.push_lines(batch)?;
                    if self.is_full(batch) {
                        self.state_position(batch);
                        return Ok(());
                    }
                }
                Phase::Streaming(_) => return self.poll_stream(batch).await,
                Phase::Done => {
                    tokio::time::sleep(self.settings.poll_interval).await;
                    return Ok(());
                }
            }
        }
    }

    fn is_full(&self, batch: &FrameBuilder) -> bool {
        batch.len() >= self.settings.max_batch || batch.bytes() >= BATCH_BYTES
    }

    /// Pushes lines of the chunk in hand until it is done or the batch is full.
    fn push_lines(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let Phase::Snapshot(reading) = &mut self.phase else {
            return Ok(());
        };
        let Some((chunk, done)) = &mut reading.chunk else {
            return Ok(());
        };
        let relation = &mut reading.snapshot.relations[chunk.relation];
        while let Some(line) = chunk.lines.get(*done) {
            if batch.len() >= self.settings.max_batch || batch.bytes() >= BATCH_BYTES {
                return Ok(());
            }
            let buffer = split_copy_line(line, &mut self.unescaped, &mut self.cells);
            let row = Row {
                buffer,
                cells: &self.cells,
            };
            let origin = Origin {
                micros: reading.micros,
                snapshot: chunk.marker(*done),
                last_commit: None,
                lsn: reading.point,
                xid: None,
            };
            self.emitter.row(batch, relation, Operation::Read, row, origin)?;
            *done += 1;
            self.snapshot_rows += 1;
        }
        reading.chunk = None;
        Ok(())
    }

    fn end_snapshot(&mut self, batch: &mut FrameBuilder) {
        if let Phase::Snapshot(reading) = &self.phase {
            let resume = reading.resume;
            tracing::info!(
                rows = self.snapshot_rows,
                "the snapshot is complete; streaming goes on from {}",
                resume.done
            );
            self.position = Some(resume);
            self.again = true; // whatever snapshot.mode says, this life has had its snapshot
            self.phase = Phase::Closed;
            self.state_position(batch);
        }
    }

    async fn poll_stream(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let deadline = Instant::now() + self.settings.poll_interval;
        let mut yielded = false;
        let mut linger: Option<Instant> = None;
        loop {
            if let Some(heartbeat) = &mut self.heartbeat
                && heartbeat.beat().await
            {
                self.emitter.heartbeat(batch)?;
            }
            let (Phase::Streaming(stream), Some(position)) = (&mut self.phase, &mut self.position) else {
                return Ok(());
            };
            stream.settle().await?;
            // Everything that is there now. Unconstrained: tokio would else feign an empty queue now and then.
            while let Some(event) = tokio::task::unconstrained(stream.next()).now_or_never() {
                yielded = false;
                stream.handle(event?, batch, &mut self.emitter, position)?;
                stream.settle().await?;
                if batch.len() >= self.settings.max_batch || batch.bytes() >= BATCH_BYTES {
                    self.state_position(batch);
                    return Ok(());
                }
            }
            // The queue is short: let the session's worker, on this same thread, see to its socket before the batch is
            // called complete.
            if !batch.is_empty() && !yielded {
                yielded = true;
                tokio::task::yield_now().await;
                continue;
            }
            let now = Instant::now();
            let moved = self.stated != Some(*position);
            // An idle source stores its position now and then; at once where the server waits for it, to shut down.
            let due = moved && (stream.was_asked() || now >= self.stated_at + self.settings.status_interval);
            // A transaction comes without a pause, so its rest is worth a moment's wait: far fewer batches.
            let lingers =
                !batch.is_empty() && stream.in_transaction() && now < *linger.get_or_insert(now + LINGER);
            if due || (!batch.is_empty() && !lingers) {
                self.state_position(batch);
                return Ok(());
            }
            if now >= deadline && !lingers {
                return stream.check_alive().await;
            }
            if lingers && batch.len() >= MANY {
                // Waking for each row costs more than the rows: let them gather, in the queue and then in the socket.
                tokio::time::sleep(GATHER).await;
                yielded = false;
                continue;
            }
            let mut wake = deadline;
            if lingers {
                wake = linger.unwrap_or(now);
            } else if moved {
                wake = wake.min(self.stated_at + self.settings.status_interval);
            }
            if let Some(heartbeat) = &self.heartbeat {
                wake = wake.min(heartbeat.next());
            }
            let event: Option<Result<ReplicationEvent>> = tokio::select! {
                event = stream.next() => Some(event),
                () = tokio::time::sleep_until(wake) => None,
            };
            if let Some(event) = event {
                stream.handle(event?, batch, &mut self.emitter, position)?;
            }
        }
    }

    /// Gives the batch the position, where it has moved.
    fn state_position(&mut self, batch: &mut FrameBuilder) {
        if let Some(position) = self.position
            && self.stated != Some(position)
        {
            batch.position(position.to_source(&self.settings.topic_prefix));
            self.stated = Some(position);
            self.stated_at = Instant::now();
        }
    }
}

fn now_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros() as i64
}
