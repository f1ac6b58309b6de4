//! A sink task, from committed batches to `put`:
//!
//! 1. readers wait on the task's partitions, all at once, for records that are committed (invariant 1);
//! 2. keys and values are converted and transformed, and gathered in frames;
//! 3. the plugin's `put` writes a frame; a retriable error brings the same frame again (invariant 5); records that it refuses
//!    become dead letters, and the rest goes on;
//! 4. offsets are committed once the target says durable, and dead letters are, and no further (invariant 4).
//!
//! While one frame is put, the next are gathered, until one of them is full (invariant 6).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tidewater_broker::Fetched;
use tidewater_plugin_api::{ErrorKind, PutReport, TopicPartition, TopicPartitionOffset};
use tidewater_plugin_host::SinkTaskHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Reader, is_internal};
use crate::error::{Error, Result};
use crate::ledger::{Fates, Ledger};
use crate::pause::Pause;
use crate::rate_limit::RateLimit;
use crate::retry::{Retry, Waited};
use crate::sink_way::{Gathered, Put, SinkWay};
use crate::source_task::{pending_or, until};
use crate::start_offset::{OffsetReset, start_offset};

/// Bytes that all readers of a task together may hold.
const FETCH_BYTES: usize = 16 << 20;

/// One life of a sink task.
pub struct SinkTask {
    /// The consumer group, `connect-<connector>`.
    pub group: String,
    /// The plugin's half, started.
    pub plugin: Arc<SinkTaskHandle>,
    /// The log.
    pub broker: Arc<dyn Broker>,
    /// Which partitions are this task's.
    pub subscription: Subscription,
    /// Accounts for every record (invariant 10).
    pub ledger: Arc<Ledger>,
    /// What stands between the log and the plugin.
    pub way: SinkWay,
    /// How much the connector may move.
    pub limit: Arc<RateLimit>,
    /// When and how to try again what may heal.
    pub retry: Retry,
    /// Records at which a frame is full.
    pub max_records: usize,
    /// How often offsets are committed.
    pub commit_interval: Duration,
    /// Where to begin without an offset.
    pub reset: OffsetReset,
    /// Whether to rest.
    pub pause: Pause,
}

/// The topics of a connector and this task's share of their partitions.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Which topics.
    pub topics: Topics,
    /// This task's number.
    pub task: u32,
    /// How many tasks share the partitions.
    pub tasks: u32,
}

/// The topics a sink reads.
#[derive(Clone, Debug)]
pub enum Topics {
    /// These; the ones that are missing are read once they are there.
    Named(Vec<String>),
    /// All whose whole name matches.
    Matching(regex::Regex),
}

impl Subscription {
    /// This task's partitions among the topics that are there. Partitions are dealt out in order of topic and number, so
    /// every task comes to the same answer by itself.
    fn partitions(&self, broker: &dyn Broker) -> Vec<TopicPartition> {
        let mut topics = broker.topics();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        let wanted = |name: &String| match &self.topics {
            Topics::Named(names) => names.contains(name),
            Topics::Matching(pattern) => pattern.is_match(name) && !is_internal(name),
        };
        // A topic's partitions start at a place of their own, so that a new topic moves no partition of another.
        let mut mine = Vec::new();
        for topic in topics.into_iter().filter(|topic| wanted(&topic.name)) {
            let start = tidewater_broker::partition_for_key(topic.name.as_bytes(), self.tasks);
            for partition in 0..topic.partitions {
                if (start + partition) % self.tasks == self.task {
                    mine.push(TopicPartition {
                        topic: topic.name.clone(),
                        partition,
                    });
                }
            }
        }
        mine
    }
}

type Fetching = BoxFuture<'static, (Arc<TopicPartition>, Box<dyn Reader>, Result<Fetched>)>;
type Putting = BoxFuture<'static, (Put, Result<PutReport>)>;

/// What a life of the task has done so far.
#[derive(Default)]
struct Progress {
    assigned: Vec<TopicPartition>,
    /// The put that is on its way.
    putting: Option<Putting>,
    /// The next offset to commit per partition: everything before it was put.
    reached: BTreeMap<TopicPartition, u64>,
    /// Whether `reached` is ahead of what is committed.
    uncommitted: bool,
    /// Records written that the target has yet to be asked to make durable.
    unflushed: u64,
}

impl SinkTask {
    /// Runs until `stop`, or an error that neither the plugin nor the log recovers from by itself.
    pub async fn run(mut self, stop: &CancellationToken) -> Result<()> {
        let mut progress = Progress::default();
        let outcome = self.drive(&mut progress, stop).await;

        // Whatever ended the life, what was put counts: else the next life would write it again.
        if let Some(last) = progress.putting.take() {
            let (sent, report) = last.await;
            if let Err(error) = self.settle_last(sent, report, &mut progress).await
                && outcome.is_ok()
            {
                return Err(error);
            }
        }
        let committed = self.commit_offsets(&mut progress).await;
        outcome?;
        committed?;
        Ok(self.plugin.close(&progress.assigned).await?)
    }

    async fn drive(&mut self, progress: &mut Progress, stop: &CancellationToken) -> Result<()> {
        let mut topic_changes = self.broker.topic_changes();
        let mut fetches: FuturesUnordered<Fetching> = FuturesUnordered::new();
        self.assign(&mut progress.assigned, &mut fetches).await?;

        let mut gathered = Gathered::new(self.max_records);
        let mut commit_due =
            tokio::time::interval_at(Instant::now() + self.commit_interval, self.commit_interval);
        commit_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut commit_wanted = false;
        // A record that cannot be converted ends the life, but first all before it are put.
        let mut failed = None;
        // Until then the connector has moved what it may (rate.limit.*).
        let mut paid_at: Option<Instant> = None;
        // What is to be put again.
        let mut held: Option<Put> = None;
        let mut rests = false;

        while !stop.is_cancelled() {
            let to_rest = self.pause.is_wanted();
            if progress.putting.is_none() {
                if std::mem::take(&mut commit_wanted) || (to_rest && !rests) {
                    self.commit_offsets(progress).await?;
                }
                if to_rest {
                    // What is gathered waits: a target that is down must not keep a task from resting.
                } else if let Some(again) = held.take() {
                    progress.putting = Some(self.put(again));
                } else if paid_at.is_none_or(|paid| paid <= Instant::now())
                    && let Some(next) = gathered.take()
                {
                    let bytes = next.frame.as_ref().map_or(0, Bytes::len);
                    paid_at = self.limit.charge(next.fates.records(), bytes);
                    progress.putting = Some(self.put(next));
                }
            }
            rests = to_rest && progress.putting.is_none();
            self.pause.resting(rests);
            if progress.putting.is_none()
                && !to_rest
                && gathered.is_empty()
                && let Some(error) = failed.take()
            {
                return Err(error);
            }
            let room = failed.is_none() && gathered.has_room() && !to_rest;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.pause.changed() => {}
                (sent, outcome) = pending_or(&mut progress.putting) => {
                    progress.putting = None;
                    match outcome {
                        Err(error) if error.is_retriable() => {
                            self.ledger.retried();
                            let waited = tokio::select! {
                                waited = self.retry.wait(&error, stop) => waited,
                                // Put at once when it is over, or kept while the task rests.
                                () = self.pause.changed() => Waited::Again,
                            };
                            match waited {
                                Waited::Again => held = Some(sent),
                                Waited::Stop => {}
                                Waited::TooLong => return Err(error),
                            }
                        }
                        outcome => {
                            self.retry.succeeded();
                            let again = self.settle(sent, outcome, progress).await?;
                            progress.putting = again.map(|again| self.put(again));
                        }
                    }
                }
                () = until(paid_at), if progress.putting.is_none() && !gathered.is_empty() && !to_rest => {}
                _ = commit_due.tick(), if !commit_wanted => commit_wanted = true,
                changed = topic_changes.changed() => {
                    if changed.is_ok() {
                        self.assign(&mut progress.assigned, &mut fetches).await?;
                    }
                }
                Some((partition, reader, fetched)) = fetches.next(), if room => {
                    let taken = fetched.and_then(|fetched| {
                        self.way.gather(&partition, &fetched, &mut gathered, &self.ledger)?;
                        gathered.reached(&partition, reader.position());
                        Ok(())
                    });
                    match taken {
                        Ok(()) => fetches.push(fetch(partition, reader, progress.assigned.len())),
                        Err(error) => failed = Some(error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes over the partitions that are new to this task.
    async fn assign(
        &mut self,
        assigned: &mut Vec<TopicPartition>,
        fetches: &mut FuturesUnordered<Fetching>,
    ) -> Result<()> {
        let mut new = self.subscription.partitions(&*self.broker);
        new.retain(|partition| !assigned.contains(partition));
        if new.is_empty() {
            return Ok(());
        }
        let mut owned = Vec::with_capacity(new.len());
        for partition in &new {
            let topic = self.broker.topic(&partition.topic);
            let topic = topic
                .ok_or_else(|| Error::State(format!("topic {} was deleted meanwhile", partition.topic)))?;
            owned.push(partition.clone().assigned(topic.id));
        }
        let kept: BTreeMap<_, _> = self
            .plugin
            .open(&owned)
            .await?
            .into_iter()
            .map(|kept| (kept.partition, kept.offset))
            .collect();
        let committed = self.broker.group_offsets(&self.group);
        let count = assigned.len() + new.len();
        for partition in new {
            let (start, end) = self.broker.bounds(&partition)?;
            // The target's own word goes before ours: it was written with the rows.
            let known = kept
                .get(&partition)
                .or_else(|| committed.get(&partition))
                .copied();
            let offset = start_offset(&partition, known, (start, end), self.reset)?;
            tracing::debug!(
                topic = partition.topic,
                partition = partition.partition,
                offset,
                "partition assigned"
            );
            let reader = self.broker.reader(&partition, offset)?;
            fetches.push(fetch(Arc::new(partition.clone()), reader, count));
            assigned.push(partition);
        }
        Ok(())
    }

    /// Sends a frame on its way: first its dead letters become durable, as the plugin may pass them in its own transaction
    /// (invariant 4).
    fn put(&self, mut sent: Put) -> Putting {
        let (plugin, broker) = (self.plugin.clone(), self.broker.clone());
        let dead_letter_topic = self.way.dead_letter_topic();
        Box::pin(async move {
            if let Some(topic) = dead_letter_topic
                && let Err(error) = SinkWay::bury(&broker, &topic, &mut sent).await
            {
                return (sent, Err(error));
            }
            let outcome = match &sent.frame {
                Some(frame) => plugin.put(frame.clone()).await.map_err(Error::from),
                None => Ok(PutReport {
                    durable: sent.durable,
                    ..PutReport::default()
                }),
            };
            (sent, outcome)
        })
    }

    /// Takes note of what became of a put that is not simply tried again; what is still to be done of it.
    async fn settle(
        &mut self,
        mut sent: Put,
        outcome: Result<PutReport>,
        progress: &mut Progress,
    ) -> Result<Option<Put>> {
        match outcome {
            Ok(report) if report.failed.is_empty() => {
                self.note(sent, &report, progress);
                Ok(None)
            }
            // The others are written; these become durable before offsets pass them.
            Ok(report) => {
                self.way.refuse(&*self.broker, &mut sent, &report.failed).await?;
                sent.frame = None;
                sent.durable = report.durable;
                Ok(Some(sent))
            }
            // Nothing is written: the rest comes again.
            Err(Error::Plugin(refused))
                if refused.kind == ErrorKind::Refused && !refused.records.is_empty() =>
            {
                self.ledger.retried();
                self.way
                    .refuse(&*self.broker, &mut sent, &refused.records)
                    .await?;
                Ok(Some(sent))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes note of what became of a put whose life has ended. Records that were refused in a batch that was written must
    /// not be lost with it; where nothing was written, the next life sees to all of it.
    async fn settle_last(
        &mut self,
        sent: Put,
        outcome: Result<PutReport>,
        progress: &mut Progress,
    ) -> Result<()> {
        let written = outcome.is_ok();
        if let Some(again) = self.settle(sent, outcome, progress).await?
            && written
        {
            let (sent, outcome) = self.put(again).await;
            self.note(sent, &outcome?, progress);
        }
        Ok(())
    }

    /// Takes note of a put that succeeded.
    fn note(&self, sent: Put, report: &PutReport, progress: &mut Progress) {
        progress.reached.extend(sent.reached);
        progress.uncommitted = true;
        progress.unflushed += sent.fates.written;
        self.ledger.settle(Fates {
            written: 0,
            ..sent.fates
        });
        if report.durable {
            self.written(progress);
        }
    }

    /// Takes note that what was put is durable.
    fn written(&self, progress: &mut Progress) {
        self.ledger.settle(Fates {
            written: std::mem::take(&mut progress.unflushed),
            ..Fates::default()
        });
    }

    /// Commits offsets up to what is durable in the target (invariant 4). What may heal is tried again at the next time;
    /// until then a restart repeats some records in a target that keeps no offsets.
    async fn commit_offsets(&mut self, progress: &mut Progress) -> Result<()> {
        if !progress.uncommitted {
            return Ok(());
        }
        match self.flush_and_commit(progress).await {
            Err(error) if error.is_retriable() => {
                tracing::warn!(
                    error = self.retry.without_secrets(&error),
                    "offsets not committed; will try again"
                );
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn flush_and_commit(&mut self, progress: &mut Progress) -> Result<()> {
        if progress.unflushed > 0 {
            self.plugin.flush().await?;
            self.written(progress);
        }
        let next = |(partition, &offset): (&TopicPartition, &u64)| TopicPartitionOffset {
            partition: partition.clone(),
            offset,
        };
        let offsets: Vec<_> = progress.reached.iter().map(next).collect();
        self.broker.commit_group_offsets(&self.group, &offsets).await?;
        progress.uncommitted = false;
        Ok(())
    }
}

fn fetch(partition: Arc<TopicPartition>, mut reader: Box<dyn Reader>, partitions: usize) -> Fetching {
    let bytes = (FETCH_BYTES / partitions.max(1)).clamp(64 << 10, 1 << 20);
    Box::pin(async move {
        let fetched = reader.next(bytes).await;
        (partition, reader, fetched)
    })
}
