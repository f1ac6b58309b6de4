//! Reading a partition, from some offset on, waiting for what is not there yet.
//!
//! A reader keeps its place in the file, so that following a log costs no search; it looks at what is visible without
//! a lock, reads a stretch of the file, and checks each batch. It never sees bytes that are not durable (invariant 1).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::batch::buffer_pool::ReadBuffer;
use crate::batch::fetched::{Fetched, Gather, Taken};
use crate::batch::header::{BatchHeader, Defect, HEADER_BYTES};
use crate::error::{Error, Result};
use crate::log::read::Cursor;
use crate::log::segment::{self, SegmentName};
use crate::log::{Log, Visible};

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At this offset.
    Offset(u64),
    /// At the first record there is.
    Earliest,
    /// After the last record visible to the reader's isolation.
    Latest,
    /// At the first record whose timestamp is at or after this one, milliseconds since 1970; as [`Latest`](Self::Latest)
    /// if there is none. Finding it reads the file on the calling thread.
    Timestamp(i64),
}

impl From<u64> for Start {
    fn from(offset: u64) -> Self {
        Self::Offset(offset)
    }
}

/// Which records a reader gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions and those outside transactions, up to the last stable offset.
    ReadCommitted,
    /// All durable ones, those of open and aborted transactions too.
    ReadUncommitted,
}

/// Reads one partition in order.
pub struct Reader {
    pub(crate) log: Arc<Log>,
    /// The version of what is visible that was seen last.
    seen: u64,
    isolation: Isolation,
    position: u64,
    cursor: Option<Cursor>,
}

/// A stretch of a file to be read.
struct Plan {
    cursor: Cursor,
    /// Bytes the segment has for us from the cursor on.
    available: u64,
    /// Batches from here on are not for us yet.
    limit: u64,
    len: usize,
}

/// What a stretch of a file gave.
enum Step {
    Records(Fetched),
    /// Batches, but no record for us.
    Skipped,
    /// The file was replaced by compaction, and what is known of transactions does not speak of it any more.
    Replaced,
    /// The first batch has this many bytes.
    Longer(usize),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("topic", &self.log.id.topic)
            .field("partition", &self.log.id.partition)
            .field("position", &self.position)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(log: Arc<Log>, start: Start, isolation: Isolation) -> Result<Self> {
        let mut reader = Self {
            log,
            seen: 0,
            isolation,
            position: 0,
            cursor: None,
        };
        reader.seek_to(start)?;
        Ok(reader)
    }

    /// As [`seek`](Self::seek), to any start.
    pub(crate) fn seek_to(&mut self, start: Start) -> Result<()> {
        let now = self.look()?;
        self.position = match start {
            Start::Offset(offset) => return self.seek(offset),
            Start::Earliest => now.log_start,
            Start::Latest => self.limit_in(&now),
            Start::Timestamp(timestamp) => {
                let limit = self.limit_in(&now);
                self.log.offset_for_time(timestamp, limit)?.unwrap_or(limit)
            }
        };
        self.cursor = None;
        Ok(())
    }

    /// The offset the next call continues at: behind everything given so far, and behind what was passed over.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The end of what this reader may see now: the last stable offset or the high watermark, as its isolation says.
    pub fn limit(&self) -> u64 {
        self.limit_in(&self.log.now())
    }

    /// How many offsets that are still kept lie between the position and [`limit`](Self::limit): 0 for a reader that has
    /// caught up.
    pub fn lag(&self) -> u64 {
        let now = self.log.now();
        self.limit_in(&now)
            .saturating_sub(self.position.max(now.log_start))
    }

    /// Continues at `offset`, which lies between the start of the log and its high watermark.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`], and the reader stays where it was.
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        let now = self.look()?;
        if offset < now.log_start || offset > now.high.offset {
            return Err(self.out_of_range(offset, &now));
        }
        self.position = offset;
        self.cursor = None;
        Ok(())
    }

    /// Waits until there are records, and gives them: batches of at most `max_bytes` together, stored and
    /// decompressed size each, or one larger batch.
    ///
    /// Waits without polling, and may be dropped at any await without losing a record.
    ///
    /// # Errors
    /// [`Error::TopicDeleted`] and [`Error::Closed`] also wake a waiting reader; [`Error::Corrupt`] if what is
    /// stored is damaged.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Fetched> {
        loop {
            if let Some(fetched) = self.fetch(max_bytes).await? {
                return Ok(fetched);
            }
            self.log.visible.changed(self.seen).await;
        }
    }

    /// Gives the records there are now, `None` if there are none. Waits for the disk alone, and may be dropped at any
    /// await without losing a record.
    pub(crate) async fn fetch(&mut self, max_bytes: usize) -> Result<Option<Fetched>> {
        loop {
            let now = self.look_ahead()?;
            if self.limit_in(&now) <= self.position {
                return Ok(None);
            }
            if self.cursor.is_none() {
                let (log, position) = (Arc::clone(&self.log), self.position);
                let located = blocking(move || log.locate(position)).await;
                self.cursor = Some(self.explain(located)?);
            }
            let Some(mut plan) = self.plan(&now, max_bytes) else {
                continue;
            };
            loop {
                let data = read(&plan).await?;
                match self.digest(&plan, data, max_bytes)? {
                    Step::Records(fetched) => return Ok(Some(fetched)),
                    Step::Skipped | Step::Replaced => break,
                    Step::Longer(len) => plan.len = len,
                }
            }
        }
    }

    /// Gives the records there are now, `None` if there are none. Reads the file on the calling thread.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&mut self, max_bytes: usize) -> Result<Option<Fetched>> {
        loop {
            let now = self.look_ahead()?;
            if self.limit_in(&now) <= self.position {
                return Ok(None);
            }
            if self.cursor.is_none() {
                let located = self.log.locate(self.position);
                self.cursor = Some(self.explain(located)?);
            }
            let Some(mut plan) = self.plan(&now, max_bytes) else {
                continue;
            };
            loop {
                let data = read_here(&plan.cursor, plan.len)?;
                match self.digest(&plan, data, max_bytes)? {
                    Step::Records(fetched) => return Ok(Some(fetched)),
                    Step::Skipped | Step::Replaced => break,
                    Step::Longer(len) => plan.len = len,
                }
            }
        }
    }

    /// What is visible now; marks it as seen, so that waiting waits for a change after it.
    fn look(&mut self) -> Result<Visible> {
        let (now, seen) = self.log.visible.look();
        self.seen = seen;
        self.log.readable(now.status)?;
        Ok(now)
    }

    /// What is visible now, where the position is still kept.
    fn look_ahead(&mut self) -> Result<Visible> {
        let now = self.look()?;
        if self.position < now.log_start {
            Err(self.out_of_range(self.position, &now))
        } else {
            Ok(now)
        }
    }

    fn out_of_range(&self, offset: u64, now: &Visible) -> Error {
        Error::OffsetOutOfRange {
            topic: self.log.id.topic.to_string(),
            partition: self.log.id.partition,
            offset,
            log_start: now.log_start,
            end: now.high.offset,
        }
    }

    /// An error while the topic was being deleted comes from that.
    fn explain<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.look()?;
        }
        result
    }

    fn limit_in(&self, now: &Visible) -> u64 {
        match self.isolation {
            Isolation::ReadCommitted => now.stable.offset,
            Isolation::ReadUncommitted => now.high.offset,
        }
    }

    /// What to read next; `None` if the segment is read to its end, and the next is to be found.
    fn plan(&mut self, now: &Visible, max_bytes: usize) -> Option<Plan> {
        let limit = match self.isolation {
            Isolation::ReadCommitted => now.stable,
            Isolation::ReadUncommitted => now.high,
        };
        let cursor = self.cursor.clone()?;
        // The position of a limit is one in a segment as it was written. A segment that was compacted since lies
        // wholly before what is stable, and one that was replaced is found again by offset.
        let end = if cursor.segment == SegmentName::written(limit.segment) {
            limit.position
        } else {
            self.log.sealed_size(cursor.segment).unwrap_or(cursor.position)
        };
        if cursor.position >= end {
            self.cursor = None;
            return None;
        }
        let available = end - cursor.position;
        let len = available.min(max_bytes.max(HEADER_BYTES) as u64) as usize;
        Some(Plan {
            cursor,
            available,
            limit: limit.offset,
            len,
        })
    }

    /// Checks the batches read and moves on behind them.
    fn digest(&mut self, plan: &Plan, buffer: ReadBuffer, max_bytes: usize) -> Result<Step> {
        let bytes = buffer.as_ref();
        let mut cursor = plan.cursor.clone();
        let mut gather = Gather::new(max_bytes, self.position);
        let mut at = 0;
        let mut position = self.position;
        let (mut records, mut taken) = (0, 0);
        while at < bytes.len() && cursor.expected < plan.limit {
            let header = match BatchHeader::check(&bytes[at..], Some(cursor.expected)) {
                Ok(header) => header,
                // More than was read, or damaged: what is before it comes first, and the next read begins with it.
                Err(_) if at > 0 => break,
                Err(Defect::Short { need, have })
                    if need as u64 <= plan.available && have < need && have == plan.len =>
                {
                    return Ok(Step::Longer(need));
                }
                Err(defect) => return Err(self.log.corrupt_batch(&cursor, &defect)),
            };
            let judged = self.isolation == Isolation::ReadCommitted && header.is_transactional();
            let mut wanted = !header.is_control() && header.count > 0;
            if wanted && judged {
                let aborted = self.log.aborted.read();
                if header.base_offset < aborted.plain {
                    self.cursor = None;
                    return Ok(Step::Replaced);
                }
                wanted = !aborted.contain(header.producer_id, header.base_offset);
            }
            if wanted {
                match gather.take(header, bytes, at) {
                    Ok(Taken::Yes) => {
                        records += u64::from(header.count);
                        taken += header.length as u64;
                    }
                    Ok(Taken::Full) => break,
                    Err(defect) => return Err(self.log.corrupt_batch(&cursor, &defect)),
                }
            }
            at += header.length;
            cursor.position += header.length as u64;
            cursor.expected = header.next_offset();
            position = cursor.expected;
        }
        self.position = position;
        self.cursor = Some(cursor);
        if gather.is_empty() {
            return Ok(Step::Skipped);
        }
        self.log.counters.fetched(records, taken);
        let data = Bytes::from_owner(buffer).slice(..at);
        Ok(Step::Records(gather.finish(data, position)))
    }
}

/// Reads what is in the page cache at once, and the rest on a thread for blocking work.
async fn read(plan: &Plan) -> Result<ReadBuffer> {
    let mut buffer = ReadBuffer::take(plan.len);
    match plan
        .cursor
        .file
        .read_cached_at(buffer.as_mut(), plan.cursor.position)
    {
        Ok(n) if n == plan.len => return Ok(buffer),
        // Part of it was there: enough if it holds a whole batch.
        Ok(n) if n >= HEADER_BYTES => {
            let whole = BatchHeader::parse(&buffer.as_ref()[..n], None).is_ok_and(|h| h.length <= n);
            if whole {
                buffer.truncate(n);
                return Ok(buffer);
            }
        }
        // Not there, or not to be told: the read that may wait says what is wrong.
        Ok(_) | Err(_) => {}
    }
    let (cursor, len) = (plan.cursor.clone(), plan.len);
    blocking(move || read_here(&cursor, len)).await
}

fn read_here(cursor: &Cursor, len: usize) -> Result<ReadBuffer> {
    let mut buffer = ReadBuffer::take(len);
    let read = segment::read_at(cursor.file.as_ref(), buffer.as_mut(), cursor.position)
        .map_err(|e| Error::io("read", &cursor.path, e))?;
    buffer.truncate(read);
    Ok(buffer)
}

/// Runs `work` where it may block: on tokio's threads for that, or here if there is no runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let Ok(runtime) = Handle::try_current() else {
        return work();
    };
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels it.
            Err(e) => Err(Error::io(
                "read",
                std::path::Path::new("log"),
                io::Error::other(e),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::log::compaction::CleanerLimits;
    use crate::{BatchBuilder, Broker, BrokerOptions, Compression, TopicConfig};

    fn batch(key: &str) -> BatchBuilder {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(1, Some(key.as_bytes()), Some(&[b'v'; 300]), &[]);
        batch
    }

    /// What a reader reads may be replaced, and the aborted range forgotten, before it looks whether it was aborted.
    #[tokio::test]
    async fn a_segment_compacted_while_it_is_read_shows_nothing_aborted() {
        let dir = tempfile::tempdir().unwrap();
        let options = BrokerOptions {
            segment_bytes: 2_000,
            ..BrokerOptions::new(dir.path())
        };
        let broker = Broker::open(options).unwrap();
        let settings = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        let config = TopicConfig {
            settings,
            ..TopicConfig::new(1)
        };
        broker.create_topic("t", config).await.unwrap();
        let producer = broker.producer("p").await.unwrap();
        let mut aborted = producer.begin().unwrap();
        aborted.append("t", 0, batch("aborted")).await.unwrap();
        aborted.abort().await.unwrap();
        broker.append("t", 0, batch("stays")).await.unwrap();
        let log = broker.log("t", 0).unwrap();
        while log.state.lock().sealed.len() < 2 {
            broker.append("t", 0, batch("filler")).await.unwrap();
        }

        let mut reader = broker.reader("t", 0, 0, Isolation::ReadCommitted).unwrap();
        let now = reader.look_ahead().unwrap();
        reader.cursor = Some(log.locate(0).unwrap());
        let plan = reader.plan(&now, 10_000).unwrap();
        let stop = AtomicBool::new(false);
        let limits = CleanerLimits {
            key_bytes: 10_000,
            stop: &stop,
        };
        assert_eq!(log.compact(limits).unwrap().passes, 1);
        let data = read_here(&plan.cursor, plan.len).unwrap();
        assert!(matches!(reader.digest(&plan, data, 10_000), Ok(Step::Replaced)));
        let fetched = reader.try_next(10_000).unwrap().unwrap();
        assert_eq!(fetched.records().next().unwrap().key, Some(&b"stays"[..]));
    }
}
