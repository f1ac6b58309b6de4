//! A source task, from `poll` to `commit`:
//!
//! 1. the plugin's `poll` gives a frame of records and the positions they reach;
//! 2. records are transformed and converted, and each finds its partition, or becomes a dead letter;
//! 3. records, positions and dead letters become durable and visible in one transaction (invariants 1 and 2);
//! 4. only then is the plugin told, and may release its own source (invariant 3).
//!
//! While one transaction commits, what is polled meanwhile is converted and gathered for the next, up to a bound in bytes
//! (invariant 6): the slower the disk, the larger the transactions. They commit one after the other, so order is kept
//! (invariant 5).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tidewater_plugin_api::{Frame, SourcePosition};
use tidewater_plugin_host::{PluginError, SourceTaskHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{PartitionBatch, Producer};
use crate::error::{Error, Result};
use crate::ledger::{Fates, Ledger};
use crate::offsets::OffsetStore;
use crate::pause::Pause;
use crate::rate_limit::RateLimit;
use crate::retry::{Retry, Waited};
use crate::source_way::{Carried, SourceWay};

/// One life of a source task.
pub struct SourceTask {
    /// The connector's name.
    pub connector: String,
    /// The plugin's half, started.
    pub plugin: Arc<SourceTaskHandle>,
    /// Where positions are stored.
    pub offsets: Arc<OffsetStore>,
    /// Accounts for every record (invariant 10).
    pub ledger: Arc<Ledger>,
    /// What stands between the plugin and the log.
    pub way: SourceWay,
    /// How much the connector may move.
    pub limit: Arc<RateLimit>,
    /// How long a transaction waits for more, unless it is full.
    pub linger: Duration,
    /// When and how to try again what may heal.
    pub retry: Retry,
    /// Whether to rest.
    pub pause: Pause,
}

/// Bytes of records, before compression, at which a transaction is full.
const TRANSACTION_BYTES: usize = 4 << 20;

/// What is to commit in one transaction: polled frames, converted.
struct Batch {
    frames: Vec<Frame>,
    partitions: Vec<PartitionBatch>,
    fates: Fates,
    /// When it goes out, full or not.
    due: Instant,
}

impl Batch {
    fn new(due: Instant) -> Self {
        Self {
            frames: Vec::new(),
            partitions: Vec::new(),
            fates: Fates::default(),
            due,
        }
    }

    fn add(&mut self, frame: Frame, carried: Carried) {
        self.frames.push(frame);
        self.partitions.extend(carried.batches);
        self.fates += carried.fates;
    }

    /// The frames count too: they are kept until the commit, and most of their records may have been filtered.
    fn has_room(&self) -> bool {
        let records: usize = self.partitions.iter().map(|batch| batch.records.bytes()).sum();
        let frames: usize = self.frames.iter().map(|frame| frame.bytes().len()).sum();
        records < TRANSACTION_BYTES && frames < 2 * TRANSACTION_BYTES
    }

    fn is_due(&self) -> bool {
        !self.has_room() || self.due <= Instant::now()
    }
}

/// How far `frames` reach: the last position of each source partition.
fn positions(frames: &[Frame]) -> Vec<SourcePosition> {
    let mut reached: Vec<SourcePosition> = Vec::new();
    for position in frames.iter().flat_map(Frame::positions) {
        match reached
            .iter_mut()
            .find(|known| known.partition == position.partition)
        {
            Some(known) => known.offset.clone_from(&position.offset),
            None => reached.push(position.clone()),
        }
    }
    reached
}

/// What became of a batch, with the producer that wrote it.
type Committed = (Box<dyn Producer>, Vec<Frame>, Result<()>);
type Committing = BoxFuture<'static, Committed>;

impl SourceTask {
    /// Runs until `stop`, or an error that neither the plugin nor the log recovers from by itself.
    pub async fn run(mut self, producer: Box<dyn Producer>, stop: &CancellationToken) -> Result<()> {
        let mut committing = None;
        let outcome = self.drive(producer, &mut committing, stop).await;
        // A commit that is under way ends in the log with us or without. Its outcome must be known before the task's next
        // life asks for its positions, else that would read the same records again.
        if let Some(last) = committing {
            let (_, _, _known) = last.await;
        }
        outcome
    }

    async fn drive(
        &mut self,
        producer: Box<dyn Producer>,
        committing: &mut Option<Committing>,
        stop: &CancellationToken,
    ) -> Result<()> {
        // Until then the connector has moved what it may (rate.limit.*).
        let mut paid_at = None;
        let mut poll = self.next_poll(paid_at);
        let mut waiting: Option<Batch> = None;
        let mut idle_producer = Some(producer);
        let mut stopping = false;

        loop {
            // A batch that waits goes out once it is due and the one before it is done (invariant 5).
            if waiting
                .as_ref()
                .is_some_and(|batch| stopping || self.pause.is_wanted() || batch.is_due())
                && let Some(producer) = idle_producer.take()
                && let Some(batch) = waiting.take()
            {
                *committing = Some(self.commit(producer, batch));
            }
            let due = waiting.as_ref().map(|batch| batch.due);
            if stopping && committing.is_none() {
                return Ok(());
            }
            let rests = self.pause.is_wanted() && committing.is_none() && waiting.is_none();
            self.pause.resting(rests);
            tokio::select! {
                biased;
                (producer, frames, outcome) = pending_or(committing) => {
                    *committing = None;
                    match outcome {
                        Ok(()) => {
                            self.retry.succeeded();
                            self.acknowledge(&positions(&frames), stop).await?;
                            idle_producer = Some(producer);
                        }
                        Err(error) if error.is_retriable() => {
                            self.ledger.retried();
                            match self.retry.wait(&error, stop).await {
                                Waited::Again => {}
                                // Nothing of the batch is visible; it is read again next time.
                                Waited::Stop => return Ok(()),
                                Waited::TooLong => return Err(error),
                            }
                            let mut again = Batch::new(Instant::now());
                            for frame in frames {
                                self.carry(frame, &mut again, stop).await?;
                            }
                            *committing = Some(self.commit(producer, again));
                        }
                        Err(error) => return Err(error),
                    }
                }
                // What was polled is finished; nothing more is polled.
                () = stop.cancelled(), if !stopping => stopping = true,
                // A poll that is dropped loses nothing: what was read comes with the next.
                () = self.pause.changed() => poll = self.next_poll(paid_at),
                () = until(due), if due.is_some() && committing.is_none() => {}
                polled = &mut poll, if !stopping && waiting.as_ref().is_none_or(Batch::has_room) => {
                    paid_at = None;
                    match polled.map_err(Error::from) {
                        // Nothing to read, and nothing to remember.
                        Ok(frame) if frame.is_empty() && frame.positions().is_empty() => self.retry.succeeded(),
                        Ok(frame) => {
                            self.retry.succeeded();
                            self.ledger.read(frame.len() as u64);
                            paid_at = self.limit.charge(frame.len() as u64, frame.bytes().len());
                            let due = Instant::now() + self.linger;
                            self.carry(frame, waiting.get_or_insert_with(|| Batch::new(due)), stop).await?;
                            // A source that never pauses leaves the thread to others too.
                            tokio::task::yield_now().await;
                        }
                        Err(error) if error.is_retriable() => {
                            self.ledger.retried();
                            tokio::select! {
                                waited = self.retry.wait(&error, stop) => {
                                    if waited == Waited::TooLong {
                                        return Err(error);
                                    }
                                }
                                () = self.pause.changed() => {}
                            }
                        }
                        Err(error) => return Err(error),
                    }
                    poll = self.next_poll(paid_at);
                }
            }
        }
    }

    /// The next poll, which begins once what went through before is paid for; none that ends while the task is to rest.
    fn next_poll(&self, paid_at: Option<Instant>) -> BoxFuture<'static, Result<Frame, PluginError>> {
        if self.pause.is_wanted() {
            return Box::pin(std::future::pending());
        }
        let plugin = self.plugin.clone();
        Box::pin(async move {
            until(paid_at).await;
            plugin.poll().await
        })
    }

    /// Carries a frame to the log's door and adds it to `batch`.
    async fn carry(&mut self, frame: Frame, batch: &mut Batch, stop: &CancellationToken) -> Result<()> {
        loop {
            match self.way.carry(&frame).await {
                Ok(carried) => {
                    batch.add(frame, carried);
                    return Ok(());
                }
                Err(error)
                    if error.is_retriable() && self.retry.wait(&error, stop).await == Waited::Again =>
                {
                    self.ledger.retried();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Commits a batch, with the record of its positions, so that they hold for what they cover and no more (invariant 2).
    /// It runs by itself, so that its outcome is noted whatever becomes of this life.
    fn commit(&self, mut producer: Box<dyn Producer>, batch: Batch) -> Committing {
        let (offsets, ledger, connector) =
            (self.offsets.clone(), self.ledger.clone(), self.connector.clone());
        let commit = tokio::spawn(async move {
            let Batch {
                frames,
                mut partitions,
                fates,
                due: _,
            } = batch;
            let reached = positions(&frames);
            partitions.extend(offsets.batch(&connector, &reached));
            let outcome = producer.commit(partitions).await;
            if outcome.is_ok() {
                ledger.settle(fates);
                offsets.committed(&connector, &reached);
            }
            (producer, frames, outcome)
        });
        Box::pin(async move {
            match commit.await {
                Ok(committed) => committed,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The process is on its way out.
                    Err(_) => std::future::pending().await,
                },
            }
        })
    }

    /// Tells the plugin what is durable: it may now acknowledge its own source (invariant 3).
    async fn acknowledge(&mut self, positions: &[SourcePosition], stop: &CancellationToken) -> Result<()> {
        if positions.is_empty() {
            return Ok(());
        }
        loop {
            match self.plugin.commit(positions).await.map_err(Error::from) {
                Ok(()) => return Ok(()),
                // Not told in the end: the source repeats what is then known to be here already.
                Err(error) if error.is_retriable() => match self.retry.wait(&error, stop).await {
                    Waited::Again => {}
                    Waited::Stop => return Ok(()),
                    Waited::TooLong => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits for `time`, where there is one.
pub(crate) async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time).await;
    }
}

/// The future in `slot`, or one that never ends.
pub(crate) async fn pending_or<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
