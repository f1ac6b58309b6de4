//! Reading many partitions with one task: whichever has records is read next, and all of them are waited for at once.
//!
//! A partition that changes puts itself into the set's [`ReadyQueue`]; the set takes the first, reads a stretch of it,
//! and puts it back at the end. So partitions take turns, waiting costs nothing however many there are, and a change
//! costs the log the same however many are waited for.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::Arc;

use crate::batch::fetched::Fetched;
use crate::broker::Broker;
use crate::error::{Error, Result};
use crate::log::ready_queue::{Member, ReadyQueue, Subscriber};
use crate::reader::{Isolation, Reader, Start};
use crate::topic_partition::TopicPartition;

/// What is wrong with one partition of a [`ReaderSet`]; the others go on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("reading {partition}: {source}")]
pub struct PartitionError {
    /// The partition.
    pub partition: TopicPartition,
    /// What is wrong with it.
    pub source: Error,
}

/// Readers of many partitions, waited for together. [`Broker::reader_set`] makes one.
///
/// Partitions are added, removed, sought and paused between two calls of [`next`](Self::next), which may be dropped
/// at any await: a task that must do so while it waits selects between `next` and what tells it to.
///
/// ```
/// # use tidewater_broker::{BatchBuilder, Broker, BrokerOptions, Compression, Isolation, Start, TopicConfig};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let broker = Broker::open(BrokerOptions::new(dir.path()))?;
/// broker.create_topic("orders", TopicConfig::new(2)).await?;
/// let mut readers = broker.reader_set(Isolation::ReadCommitted);
/// for partition in 0..2 {
///     readers.add("orders", partition, Start::Earliest)?;
/// }
/// let mut batch = BatchBuilder::new(Compression::None);
/// batch.push(1_700_000_000_000, None, Some(b"apples"), &[]);
/// broker.append("orders", 1, batch).await?;
///
/// let (from, fetched) = readers.next(1 << 20).await?;
/// assert_eq!(from.to_string(), "orders-1");
/// assert_eq!(fetched.records().next().unwrap().value, Some(&b"apples"[..]));
/// assert_eq!((readers.position(&from), readers.lag(&from)), (Some(1), Some(0)));
/// # broker.close().await?; Ok(()) }
/// ```
pub struct ReaderSet {
    broker: Broker,
    isolation: Isolation,
    queue: Arc<ReadyQueue>,
    /// By token; a token is never used again, so that what is still in the queue of a removed one means nothing.
    entries: HashMap<u64, Entry>,
    tokens: BTreeMap<TopicPartition, u64>,
    next_token: u64,
    /// The one being read; it has been taken from the queue.
    current: Option<u64>,
}

struct Entry {
    partition: TopicPartition,
    reader: Reader,
    member: Arc<Member>,
    paused: bool,
    /// It gave an error and waits to be sought or removed.
    failed: bool,
}

impl std::fmt::Debug for ReaderSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderSet")
            .field("partitions", &self.tokens.keys())
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.reader.log.visible.unsubscribe(&self.member);
    }
}

impl ReaderSet {
    pub(crate) fn new(broker: Broker, isolation: Isolation) -> Self {
        Self {
            broker,
            isolation,
            queue: Arc::default(),
            entries: HashMap::new(),
            tokens: BTreeMap::new(),
            next_token: 0,
            current: None,
        }
    }

    /// Adds a partition. One that is in the set already is replaced, and begins at `from` again.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`], [`Error::OffsetOutOfRange`]; the set is as before.
    pub fn add(&mut self, topic: &str, partition: u32, from: impl Into<Start>) -> Result<TopicPartition> {
        let reader = self.broker.reader(topic, partition, from, self.isolation)?;
        let partition = TopicPartition {
            topic: Arc::clone(&reader.log.id.topic),
            partition,
        };
        self.remove(&partition);
        let token = self.next_token;
        self.next_token += 1;
        let member = Member::new(token);
        let subscriber = Subscriber::new(Arc::clone(&self.queue), Arc::clone(&member));
        reader.log.visible.subscribe(subscriber);
        let entry = Entry {
            partition: partition.clone(),
            reader,
            member,
            paused: false,
            failed: false,
        };
        self.ready(&entry);
        self.entries.insert(token, entry);
        self.tokens.insert(partition.clone(), token);
        Ok(partition)
    }

    /// Removes a partition; answers where it stood, `None` if it is not in the set.
    pub fn remove(&mut self, partition: &TopicPartition) -> Option<u64> {
        let token = self.tokens.remove(partition)?;
        let entry = self.entries.remove(&token)?;
        Some(entry.reader.position())
    }

    /// Removes all partitions.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.entries.clear();
    }

    /// The partitions, in order.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.tokens.keys()
    }

    /// How many partitions there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no partition.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Continues a partition at `to`. Also takes up one again that gave an error.
    ///
    /// # Errors
    /// [`Error::NotAssigned`] if it is not in the set, and those of [`Reader::seek`]: it stays where it was.
    pub fn seek(&mut self, partition: &TopicPartition, to: impl Into<Start>) -> Result<()> {
        let to = to.into();
        let entry = self.entry_mut(partition).ok_or_else(|| Error::NotAssigned {
            partition: partition.clone(),
        })?;
        entry.reader.seek_to(to)?;
        entry.failed = false;
        self.wake(partition);
        Ok(())
    }

    /// Gives nothing of a partition until [`resume`](Self::resume). Answers whether it is in the set.
    pub fn pause(&mut self, partition: &TopicPartition) -> bool {
        self.entry_mut(partition)
            .map(|entry| entry.paused = true)
            .is_some()
    }

    /// Goes on with a paused partition where it stood. Answers whether it is in the set.
    pub fn resume(&mut self, partition: &TopicPartition) -> bool {
        let Some(entry) = self.entry_mut(partition) else {
            return false;
        };
        entry.paused = false;
        self.wake(partition);
        true
    }

    /// Whether a partition is paused; `None` if it is not in the set.
    pub fn is_paused(&self, partition: &TopicPartition) -> Option<bool> {
        Some(self.entry(partition)?.paused)
    }

    /// The offset a partition continues at; `None` if it is not in the set.
    pub fn position(&self, partition: &TopicPartition) -> Option<u64> {
        Some(self.entry(partition)?.reader.position())
    }

    /// How far a partition is behind, as [`Reader::lag`]; `None` if it is not in the set.
    pub fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        Some(self.entry(partition)?.reader.lag())
    }

    /// Whether a partition in the set can still be read.
    pub(crate) fn check(&self, partition: &TopicPartition) -> Result<()> {
        self.entry(partition).map_or(Ok(()), |entry| {
            let log = &entry.reader.log;
            log.readable(log.now().status)
        })
    }

    /// Waits until some partition has records, and gives them, `max_bytes` as in [`Reader::next`]. Partitions that
    /// have records take turns. A set that is empty, or all paused, waits for ever.
    ///
    /// May be dropped at any await without losing a record; one fetch is held in memory at a time.
    ///
    /// # Errors
    /// Names the partition it concerns: deleted, damaged, closed, or its position no longer kept. That partition gives
    /// nothing more until it is [sought](Self::seek) or removed and added; the others go on.
    pub async fn next(
        &mut self,
        max_bytes: usize,
    ) -> std::result::Result<(TopicPartition, Fetched), PartitionError> {
        loop {
            let token = match self.current {
                Some(token) => token,
                None => poll_fn(|context| self.queue.poll_pop(context)).await,
            };
            let Some(entry) = self.entries.get_mut(&token) else {
                self.current = None;
                continue;
            };
            if entry.paused || entry.failed {
                self.current = None;
                continue;
            }
            // Kept over the await: dropped there, the next call goes on with it.
            self.current = Some(token);
            let fetched = entry.reader.fetch(max_bytes).await;
            self.current = None;
            match fetched {
                Ok(None) => {}
                Ok(Some(fetched)) => {
                    // At the end, as there may be more; and if not, that is found out without reading.
                    self.queue.push(&entry.member);
                    return Ok((entry.partition.clone(), fetched));
                }
                Err(source) => {
                    entry.failed = true;
                    return Err(PartitionError {
                        partition: entry.partition.clone(),
                        source,
                    });
                }
            }
        }
    }

    fn entry(&self, partition: &TopicPartition) -> Option<&Entry> {
        self.entries.get(self.tokens.get(partition)?)
    }

    fn entry_mut(&mut self, partition: &TopicPartition) -> Option<&mut Entry> {
        self.entries.get_mut(self.tokens.get(partition)?)
    }

    fn wake(&self, partition: &TopicPartition) {
        if let Some(entry) = self.entry(partition) {
            self.ready(entry);
        }
    }

    /// Has a partition looked at in its turn.
    fn ready(&self, entry: &Entry) {
        // Nobody waits: whoever does has the set.
        drop(self.queue.push(&entry.member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, BrokerOptions, Compression, TopicConfig};
    use std::future::Future;
    use std::task::{Context, Waker};

    async fn broker(dir: &tempfile::TempDir, partitions: u32) -> Broker {
        let broker = Broker::open(BrokerOptions::new(dir.path())).unwrap();
        broker
            .create_topic("t", TopicConfig::new(partitions))
            .await
            .unwrap();
        broker
    }

    async fn append(broker: &Broker, topic: &str, partition: u32, value: &str) {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(1, None, Some(value.as_bytes()), &[]);
        broker.append(topic, partition, batch).await.unwrap();
    }

    fn values(fetched: &Fetched) -> Vec<String> {
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        fetched.records().map(|record| text(record.value)).collect()
    }

    /// One poll, as of a future that is then dropped.
    fn poll_and_drop<F: Future>(future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_task_is_woken_by_any_of_many() {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker(&dir, 50).await;
        let mut set = broker.reader_set(Isolation::ReadCommitted);
        for partition in 0..50 {
            set.add("t", partition, Start::Latest).unwrap();
        }
        let writer = {
            let broker = broker.clone();
            tokio::spawn(async move {
                for i in 0..200_u32 {
                    append(&broker, "t", i * 7 % 50, &i.to_string()).await;
                }
            })
        };
        let mut next = HashMap::new();
        for _ in 0..200 {
            // A call that is dropped where it waits loses nothing.
            let first = poll_and_drop(set.next(1));
            let (from, fetched) = match first {
                Some(fetched) => fetched.unwrap(),
                None => set.next(1).await.unwrap(),
            };
            let expected: &mut u32 = next.entry(from.partition).or_default();
            assert_eq!(fetched.next_offset(), u64::from(*expected) + 1, "{from}");
            *expected += 1;
        }
        assert_eq!(next.values().copied().collect::<Vec<_>>(), [4; 50]);
        writer.await.unwrap();
        assert!(poll_and_drop(set.next(1)).is_none());
        broker.close().await.unwrap();
    }

    #[tokio::test]
    async fn partitions_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker(&dir, 3).await;
        for i in 0..4 {
            for partition in 0..3 {
                append(&broker, "t", partition, &i.to_string()).await;
            }
        }
        let mut set = broker.reader_set(Isolation::ReadUncommitted);
        for partition in 0..3 {
            set.add("t", partition, Start::Earliest).unwrap();
        }
        let mut turns = Vec::new();
        for _ in 0..12 {
            turns.push(set.next(1).await.unwrap().0.partition);
        }
        assert_eq!(turns, [0, 1, 2].repeat(4));
    }

    #[tokio::test]
    async fn seek_pause_remove_and_add() {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker(&dir, 2).await;
        for value in ["a", "b"] {
            append(&broker, "t", 0, value).await;
        }
        let mut set = broker.reader_set(Isolation::ReadCommitted);
        let p0 = set.add("t", 0, Start::Earliest).unwrap();
        let p1 = set.add("t", 1, 0).unwrap();
        assert_eq!(set.lag(&p0), Some(2));
        assert_eq!(values(&set.next(1 << 20).await.unwrap().1), ["a", "b"]);
        set.seek(&p0, 1).unwrap();
        assert!(set.pause(&p0));
        assert!(poll_and_drop(set.next(1 << 20)).is_none(), "paused");
        append(&broker, "t", 0, "c").await;
        assert!(poll_and_drop(set.next(1 << 20)).is_none(), "still paused");
        assert!(set.resume(&p0));
        assert_eq!(values(&set.next(1 << 20).await.unwrap().1), ["b", "c"]);
        assert_eq!(set.remove(&p0), Some(3));
        append(&broker, "t", 0, "d").await;
        assert!(poll_and_drop(set.next(1 << 20)).is_none(), "removed");
        assert!(matches!(set.seek(&p0, 0), Err(Error::NotAssigned { partition }) if partition == p0));
        set.add("t", 0, Start::Latest).unwrap();
        append(&broker, "t", 0, "e").await;
        assert_eq!(values(&set.next(1 << 20).await.unwrap().1), ["e"]);
        assert_eq!(set.partitions().cloned().collect::<Vec<_>>(), [p0, p1]);
    }

    #[tokio::test]
    async fn a_deleted_topic_is_named_and_the_others_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker(&dir, 1).await;
        broker.create_topic("gone", TopicConfig::new(1)).await.unwrap();
        let mut set = broker.reader_set(Isolation::ReadCommitted);
        set.add("t", 0, Start::Earliest).unwrap();
        let gone = set.add("gone", 0, Start::Earliest).unwrap();
        let waiting = tokio::spawn(async move {
            let error = set.next(1).await.unwrap_err();
            (set, error)
        });
        broker.delete_topic("gone").await.unwrap();
        let (mut set, error) = waiting.await.unwrap();
        assert_eq!(error.partition, gone);
        assert!(matches!(error.source, Error::TopicDeleted { .. }), "{error}");
        append(&broker, "t", 0, "x").await;
        assert_eq!(values(&set.next(1).await.unwrap().1), ["x"]);
        broker.close().await.unwrap();
        let error = set.next(1).await.unwrap_err();
        assert!(matches!(error.source, Error::Closed), "{error}");
        assert!(poll_and_drop(set.next(1)).is_none(), "it is said once");
    }
}
