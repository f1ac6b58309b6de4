//! Retention: what of a log goes, from its beginning, and where the log starts then.
//!
//! # What goes
//! Whole segments, the oldest first, of topics whose `cleanup.policy` has `delete`; as in Kafka the active one, too, if
//! all before it go. A segment goes if the log without it still has `retention.bytes`, or if it is older than
//! `retention.ms`. None goes that has an offset at or above the high watermark, or one of a transaction that has no
//! marker yet. Segments that are set apart as damaged count and go like others. [`Log::delete_records`] moves the start
//! to any offset up to the high watermark, also inside a segment, which stays until the start is behind it.
//!
//! # How old a segment is
//! As old as its greatest timestamp, as in Kafka. If that lies in the future, or there is none, as old as its last
//! write: one record with a wrong timestamp would keep everything behind it for ever.
//!
//! That is asked of two clocks, and the younger age counts: the wall clock, and the wall clock as it would be had nobody
//! set it since the segment was written (or the log opened, if that was later). What is deleted too early is lost, what
//! is deleted too late takes space for a while. So if the wall clock jumps:
//! - forward, nothing is older for it than by the monotonic clock: not what was there before the jump, not what comes
//!   after. Time the machine slept does not count either, until the log is opened again;
//! - back, what is there is kept until the clock comes to where it was. A log that is opened while the clock shows an
//!   earlier time than the last write counts from then on.
//!
//! A clock that is wrong when the log is opened is believed: nothing says that it is.
//!
//! # How it goes
//! Readers see the new start first; they get [`Error::OffsetOutOfRange`] before it, wherever they were. Then the
//! checkpoint is stored that does without the segments, then their files are removed: a crash leaves the files and an
//! earlier start, or the new one. Aborted ranges before the start are forgotten after readers see it, and they look at
//! it after they used the ranges.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::log::checkpoint::SealedSegment;
use crate::log::visibility::News;
use crate::log::{Log, LogState, Visible};
use crate::topic_settings::TopicSettings;

/// Up to where [`Broker::delete_records`](crate::Broker::delete_records) deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteBefore {
    /// The records before this offset.
    Offset(u64),
    /// All that are acknowledged: Kafka's offset −1.
    HighWatermark,
}

impl From<u64> for DeleteBefore {
    fn from(offset: u64) -> Self {
        Self::Offset(offset)
    }
}

impl Log {
    /// Does what is due: closes the active segment if it is old enough, and removes what goes by time and size. `due` is
    /// when that was to be, by the agenda.
    pub(crate) fn keep(self: &Arc<Self>, due: Instant) {
        let (now, settings) = (Moment::now(self.flusher.clock.as_ref()), self.settings());
        let mut state = self.state.lock();
        if state.look_at != Some(due) {
            return;
        }
        state.look_at = None;
        // A log that takes no writes stores no checkpoints: nothing can go.
        if self.writable(&state).is_err() {
            return;
        }
        if state.active.position > 0 && self.roll_due(&mut state, 0, now.wall_ms) {
            // What went wrong was reported.
            if self.roll_quiet(&mut state).is_err() {
                return;
            }
            self.schedule(&mut state);
        }
        let start = state.retained_from(&settings, now);
        let news = start.map(|start| self.advance(&mut state, start));
        self.note_next(&mut state, &settings, now);
        drop(state);
        drop(news);
    }

    /// The log is looked at as soon as possible.
    pub(crate) fn note_now(self: &Arc<Self>, state: &mut LogState) {
        let now = self.flusher.clock.monotonic();
        self.flusher.agenda.note(self, state, now);
    }

    /// A log was opened: it is looked at if it has anything.
    pub(crate) fn note_opened(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.size() > 0 {
            self.note_now(&mut state);
        }
    }

    /// A segment was begun: there is more than before, and this one is to be closed some day.
    pub(crate) fn note_segment(self: &Arc<Self>, state: &mut LogState, now: Instant) {
        if state.sealed.is_empty() {
            let wall_ms = state.active.written_ms;
            self.note_next(state, &self.settings(), Moment { wall_ms, at: now });
        } else {
            self.flusher.agenda.note(self, state, now);
        }
    }

    /// Notes when something is due next.
    fn note_next(self: &Arc<Self>, state: &mut LogState, settings: &TopicSettings, now: Moment) {
        let roll = (state.active.position > 0).then(|| {
            let begun = state.active.begun_ms.min(now.wall_ms);
            begun
                .saturating_add(settings.roll_ms())
                .saturating_sub(now.wall_ms)
        });
        let oldest = state.segments().next().filter(|_| settings.cleanup_policy.delete);
        let expiry = oldest.and_then(|oldest| {
            // What should go and did not is held by a transaction, or not synced yet, or too young by the wall clock,
            // which may be set again any time.
            let over = |kept: u64| state.size() - oldest.size >= kept;
            if settings.retention_bytes.is_some_and(over) {
                return Some(0);
            }
            let kept = settings.retention_ms?;
            Some(
                kept.saturating_sub(state.steady_age(&oldest, now))
                    .saturating_add(1),
            )
        });
        let Some(wait) = roll.into_iter().chain(expiry).min() else {
            return;
        };
        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
        if let Some(due) = now.at.checked_add(wait) {
            self.flusher.agenda.note(self, state, due);
        }
    }

    /// The log begins at `start` from now on, which is not above the high watermark; the segments before it go with the
    /// next checkpoint. Readers are told when what is returned is dropped.
    fn advance<'a>(self: &'a Arc<Self>, state: &mut LogState, start: u64) -> News<'a, Visible> {
        if start == state.end && state.active.position > 0 {
            // If it cannot be closed it stays, and nobody sees what is in it.
            let _ = self.roll_quiet(state);
        }
        let gone: Vec<SealedSegment> = state.sealed.extract_if(.., |s| s.next <= start).collect();
        // Where a damaged log lacks offsets, it begins behind them.
        let first = state.segments().next().map_or(start, |first| first.base);
        state.log_start = state.log_start.max(start).max(first);
        for segment in &gone {
            state.quarantined.remove(&segment.name());
            state.sync.obsolete.push(segment.name());
        }
        let bytes = gone.iter().map(|segment| segment.size).sum();
        self.counters.removed(gone.len(), bytes);
        let news = self.publish(state);
        self.aborted.write().prune(state.log_start);
        state.sync.checkpoint_due = true;
        self.schedule(state);
        tracing::debug!(topic = %self.id.topic, partition = self.id.partition, log_start = state.log_start, bytes,
            "the log begins later");
        news
    }

    /// Forgets the closed segments that lie wholly before `offset`.
    pub(crate) fn drop_before(self: &Arc<Self>, offset: u64) {
        let mut state = self.state.lock();
        let gone = state.sealed.iter().take_while(|s| s.next <= offset);
        if let Some(start) = gone.map(|s| s.next).last() {
            let news = self.advance(&mut state, start);
            drop(state);
            drop(news);
        }
    }

    /// Deletes the records before an offset. Answers where the log begins then, once that is durable.
    pub(crate) async fn delete_records(self: &Arc<Self>, before: DeleteBefore) -> Result<u64> {
        let (log_start, stored) = {
            let mut state = self.state.lock();
            self.writable(&state)?;
            let high = state.progress.high().offset;
            let start = match before {
                DeleteBefore::Offset(offset) => offset,
                DeleteBefore::HighWatermark => high,
            };
            if start > high {
                return Err(Error::OffsetOutOfRange {
                    topic: self.id.topic.to_string(),
                    partition: self.id.partition,
                    offset: start,
                    log_start: state.log_start,
                    end: high,
                });
            }
            let news = (start > state.log_start).then(|| self.advance(&mut state, start));
            // Also one that was moved before, whose checkpoint is not stored yet.
            let stored = (state.log_start > state.sync.stored_start).then(|| {
                let (done, stored) = oneshot::channel();
                let told = move |result| {
                    // Nobody listens only if the future was dropped.
                    let _ = done.send(result);
                };
                state.sync.checkpoint_due = true;
                state.sync.after_checkpoint.push(Box::new(told));
                self.schedule(&mut state);
                stored
            });
            let log_start = state.log_start;
            drop(state);
            drop(news);
            (log_start, stored)
        };
        if let Some(stored) = stored {
            stored.await.map_err(|_| Error::Closed)??;
        }
        Ok(log_start)
    }
}

impl LogState {
    /// Bytes of its segments.
    pub(crate) fn size(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.size).sum::<u64>() + self.active.position
    }

    /// Its segments in order, the active one as if it were closed now; not if it is empty.
    fn segments(&self) -> impl Iterator<Item = SealedSegment> {
        let active = (self.active.position > 0).then(|| self.active.closed_at(self.end));
        self.sealed.iter().copied().chain(active)
    }

    /// Where the log begins once what goes by time and size is gone; `None` if nothing does.
    fn retained_from(&self, settings: &TopicSettings, now: Moment) -> Option<u64> {
        if !settings.cleanup_policy.delete {
            return None;
        }
        // Transactions that are decided and lack their marker count as open.
        let open = self.open.0.values().map(|open| open.first.offset).min();
        let limit = open.unwrap_or(u64::MAX).min(self.progress.high().offset);
        let mut size = self.size();
        let mut start = None;
        for segment in self.segments() {
            let over = settings
                .retention_bytes
                .is_some_and(|kept| size - segment.size >= kept);
            let old = settings
                .retention_ms
                .is_some_and(|kept| self.age(&segment, now) > kept);
            if segment.next > limit || !(over || old) {
                break;
            }
            size -= segment.size;
            start = Some(segment.next);
        }
        start
    }

    /// How old a segment is by both clocks, in milliseconds.
    fn age(&self, segment: &SealedSegment, now: Moment) -> i64 {
        age_at(segment, now.wall_ms).min(self.steady_age(segment, now))
    }

    /// How old a segment is by the clock nobody sets, in milliseconds: 0 or more.
    fn steady_age(&self, segment: &SealedSegment, now: Moment) -> i64 {
        let seen = segment.written_at.map_or(self.opened, |at| Moment {
            wall_ms: segment.written_ms,
            at,
        });
        age_at(segment, seen.steady_ms(now.at))
    }
}

/// How old a segment is when a clock shows `now_ms`.
fn age_at(segment: &SealedSegment, now_ms: i64) -> i64 {
    let stamped = (0..=now_ms).contains(&segment.max_timestamp);
    let since = if stamped {
        segment.max_timestamp
    } else {
        segment.written_ms
    };
    now_ms.saturating_sub(since)
}
