//! Compaction: of the records of each key the last stays, and what is deleted goes after its time.
//!
//! # A pass
//! Closed segments are compacted that lie wholly before the first open transaction, and are on disk. The offset of the
//! last record of each key is noted from the *dirty* part, which no pass has read yet; then all segments up to there are
//! written again without the records that have a later one, and small neighbours are made one. A pass takes as many keys
//! as there is memory for (invariant 6); what is left of the dirty part is for the next.
//!
//! A segment is replaced in the checkpoint, which is stored as a whole: until then the files it lists are all there, and
//! from then on those it does not list go. So a crash at any moment leaves the old segment or the new. Segments are
//! replaced in order of their offsets, so a record goes before the tombstone or the marker that speaks of it.
//!
//! # What goes, and what stays
//! - Records that a later record of their key supersedes; records of aborted transactions; markers, since nothing they
//!   speak of is left; tombstones, `delete.retention.ms` after they were compacted first.
//! - Everything else stays, at its offset, with its timestamp (invariant 10): records without a key too, which a
//!   compacted topic does not take, but which may be older than its setting.
//! - The offsets of what went belong to the batch before, or to one without records at the segment's begin: each batch
//!   still begins where the one before ends, and a reader set to an offset that went finds the next.
//!
//! # Readers
//! A reader goes on in the file it has open, and finds its offset again once the file was replaced. Aborted ranges are
//! forgotten once no segment has batches of them; a reader that meets a transactional batch in the part where none are
//! left is in a file that was replaced, and looks again.
//!
//! A damaged segment is set apart as when it is read; those before it are compacted, it and those after it are not,
//! because the damage may hide records that ought to go before others.

pub(crate) mod key_offsets;
mod output;
mod rewrite;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::batch::header::{BatchHeader, Defect};
use crate::error::{Error, Result};
use crate::log::checkpoint::SealedSegment;
use crate::log::compaction::key_offsets::KeyOffsets;
use crate::log::compaction::output::{MOST_OFFSETS, Output};
use crate::log::compaction::rewrite::{Rewriter, Rewritten, Rules};
use crate::log::index::NO_TIMESTAMP;
use crate::log::segment::{self, Scanner, SegmentName, log_path};
use crate::log::{Log, LogState, Status};

/// What compacting a log is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CleanerLimits<'a> {
    /// Most bytes for noting keys.
    pub(crate) key_bytes: usize,
    /// Set where it is to end as soon as possible.
    pub(crate) stop: &'a AtomicBool,
}

/// What compacting a log did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    pub(crate) passes: u32,
    /// Bytes of segments read to be written again.
    pub(crate) read: u64,
    /// Bytes of the segments in their place.
    pub(crate) written: u64,
}

/// The segments of a log that can be compacted.
#[derive(Debug)]
pub(crate) struct Workload {
    /// In order; those with dirty parts come last.
    segments: Vec<SealedSegment>,
    /// Everything before was read by a pass.
    cleaned: u64,
    clean_bytes: u64,
    pub(crate) dirty_bytes: u64,
    /// Tombstones may go, or dirty records have waited as long as is allowed.
    due: bool,
    /// Segments were replaced, and the checkpoint that says so could not be stored.
    unfinished: bool,
}

/// Why reading a segment ended.
enum Fault {
    Stored(Defect),
    Other(Error),
}

impl From<Defect> for Fault {
    fn from(defect: Defect) -> Self {
        Self::Stored(defect)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Workload {
    /// Whether compacting is worth it: the dirty part is large enough, or something is due.
    pub(crate) fn is_worthwhile(&self, min_dirty_millionths: u32) -> bool {
        let all = u128::from(self.clean_bytes) + u128::from(self.dirty_bytes);
        let dirty = u128::from(self.dirty_bytes) * 1_000_000;
        self.due
            || self.unfinished
            || (self.dirty_bytes > 0 && dirty >= all * u128::from(min_dirty_millionths))
    }

    fn end(&self) -> u64 {
        self.segments.last().map_or(self.cleaned, |s| s.next)
    }

    fn dirty(&self) -> impl Iterator<Item = &SealedSegment> {
        self.segments.iter().filter(|s| s.next > self.cleaned)
    }
}

impl Log {
    /// What there is to compact.
    pub(crate) fn workload(&self) -> Result<Workload> {
        let (now, settings) = (self.now_ms(), self.settings());
        let state = self.state.lock();
        self.writable(&state)?;
        // Transactions that are decided and lack their marker count as open: what the marker says is not on disk.
        let open = state.open.0.values().map(|open| open.first.offset).min();
        let limit = open.unwrap_or(u64::MAX).min(state.progress.durable().offset);
        let youngest = now.saturating_sub(settings.min_compaction_lag_ms);
        let oldest = now.saturating_sub(settings.max_compaction_lag_ms);
        let mut work = Workload {
            segments: Vec::new(),
            cleaned: state.cleaned,
            clean_bytes: 0,
            dirty_bytes: 0,
            due: false,
            unfinished: !state.sync.obsolete.is_empty(),
        };
        for segment in &state.sealed {
            let dirty = segment.next > state.cleaned;
            if segment.next > limit
                || state.quarantined.contains_key(&segment.name())
                || (dirty && settings.min_compaction_lag_ms > 0 && age_from(segment) > youngest)
            {
                break;
            }
            if dirty {
                work.dirty_bytes += segment.size;
                work.due |= age_from(segment) <= oldest;
            } else {
                work.clean_bytes += segment.size;
            }
            work.due |= segment.tombstones.is_some_and(|until| until <= now);
            work.segments.push(*segment);
        }
        Ok(work)
    }

    /// Compacts what there is, in as many passes as it takes.
    ///
    /// On an error the log is as it was, or partly compacted, and good either way.
    pub(crate) fn compact(self: &Arc<Self>, limits: CleanerLimits<'_>) -> Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        let Some(_one_at_a_time) = self.compacting.try_lock() else {
            return Ok(cleaned);
        };
        loop {
            let work = self.workload()?;
            if work.unfinished {
                let stored = self.ask_for_checkpoint(&mut self.state.lock());
                stored.recv().map_err(|_| Error::Closed)??;
            }
            if work.dirty_bytes == 0 && !work.due {
                return Ok(cleaned);
            }
            let mut pass = Pass {
                log: self,
                limits,
                rewriter: Rewriter::default(),
                cleaned: &mut cleaned,
            };
            match pass.run(&work) {
                Ok(end) if end < work.end() => {}
                Ok(_) => return Ok(cleaned),
                // Retention was faster, or the topic is gone: there is nothing to be done about it.
                Err(_) if !self.still_has(&work.segments) => return Ok(cleaned),
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether none of these was replaced or removed, apart from compaction itself.
    fn still_has(&self, segments: &[SealedSegment]) -> bool {
        let state = self.state.lock();
        let first = segments.first().map_or(0, |s| s.base);
        state.status == Status::Live && state.sealed.first().is_some_and(|s| s.base <= first)
    }

    /// Puts a compacted segment in the place of those it was made from, and returns once a checkpoint says so.
    fn replace(self: &Arc<Self>, old: &[SealedSegment], new: SealedSegment) -> Result<()> {
        let stored = {
            let mut state = self.state.lock();
            self.writable(&state)?;
            let at = state.sealed.partition_point(|s| s.base < new.base);
            let range = at..(at + old.len()).min(state.sealed.len());
            if state.sealed[range.clone()] != *old {
                drop(state);
                segment::remove(self.disk.as_ref(), &self.dir, new.name())?;
                return Err(Error::Closed);
            }
            state.sealed.splice(range, [new]);
            for name in old.iter().map(SealedSegment::name) {
                state.quarantined.remove(&name);
                state.sync.obsolete.push(name);
            }
            self.ask_for_checkpoint(&mut state)
        };
        stored.recv().map_err(|_| Error::Closed)?
    }

    /// The next checkpoint is due now; tells when it is stored.
    fn ask_for_checkpoint(self: &Arc<Self>, state: &mut LogState) -> mpsc::Receiver<Result<()>> {
        let (done, stored) = mpsc::channel();
        let told = move |result| {
            // The receiver waits for it.
            let _ = done.send(result);
        };
        state.sync.checkpoint_due = true;
        state.sync.after_checkpoint.push(Box::new(told));
        self.schedule(state);
        stored
    }

    /// A pass is complete: everything before `cleaned` was read by one, and below `plain` no segment has a
    /// transactional batch.
    fn note_pass(self: &Arc<Self>, cleaned: u64, plain: u64) -> Result<()> {
        let stored = {
            let mut state = self.state.lock();
            self.writable(&state)?;
            state.cleaned = state.cleaned.max(cleaned);
            // Under the lock of the state: a checkpoint has both or neither.
            self.aborted.write().forget_before(plain);
            self.ask_for_checkpoint(&mut state)
        };
        stored.recv().map_err(|_| Error::Closed)?
    }
}

/// Since when the youngest record of a closed segment is there: its timestamp, unless that lies in the future.
fn age_from(segment: &SealedSegment) -> i64 {
    segment.max_timestamp.min(segment.written_ms)
}

struct Pass<'a> {
    log: &'a Arc<Log>,
    limits: CleanerLimits<'a>,
    rewriter: Rewriter,
    cleaned: &'a mut Cleaned,
}

/// What stays of some segments.
#[derive(Default)]
struct Kept {
    /// They are not just as they were.
    changed: bool,
    /// Records that do not stay.
    removed: u64,
    /// From when on the first tombstone may go.
    tombstones: Option<i64>,
}

impl Pass<'_> {
    /// Answers the offset up to which the pass came.
    fn run(&mut self, work: &Workload) -> Result<u64> {
        let (keys, end) = self.note_keys(work)?;
        let mut todo = work.segments.iter().take_while(|s| s.base < end).peekable();
        while let Some(first) = todo.next() {
            let name = SegmentName {
                base: first.base,
                generation: first.generation + 1,
            };
            let mut output = Output::create(self.log, name)?;
            let mut sources = vec![*first];
            let mut kept = Kept::default();
            let mut source = first;
            loop {
                self.rewrite(source, &keys, &mut output, &mut kept)?;
                self.cleaned.read += source.size;
                let room = self.log.settings().segment_bytes.saturating_sub(output.size());
                let fits = |next: &&SealedSegment| {
                    next.base == source.next && next.size <= room && next.next - first.base <= MOST_OFFSETS
                };
                let Some(next) = todo.next_if(fits) else { break };
                sources.push(*next);
                source = next;
            }
            if !kept.changed && sources.len() == 1 && kept.tombstones == first.tombstones {
                continue;
            }
            let size = output.finish(source.next)?;
            let new = SealedSegment {
                base: first.base,
                next: source.next,
                size,
                generation: name.generation,
                max_timestamp: sources
                    .iter()
                    .map(|s| s.max_timestamp)
                    .max()
                    .unwrap_or(NO_TIMESTAMP),
                written_ms: source.written_ms,
                written_at: source.written_at,
                tombstones: kept.tombstones,
            };
            self.log.replace(&sources, new)?;
            self.cleaned.written += size;
            let before = sources.iter().map(|s| s.size).sum();
            self.log.counters.compacted(before, size, kept.removed);
        }
        let plain = work
            .segments
            .iter()
            .rev()
            .find(|s| s.base < end)
            .map_or(0, |s| s.next);
        self.log.note_pass(end, plain)?;
        self.cleaned.passes += 1;
        self.log.counters.compaction_passed();
        Ok(end)
    }

    /// Notes the last offset of the keys in the dirty part, up to the offset answered.
    fn note_keys(&mut self, work: &Workload) -> Result<(KeyOffsets, u64)> {
        let offsets: u64 = work.dirty().map(|s| s.next - s.base.max(work.cleaned)).sum();
        let mut keys = KeyOffsets::new(offsets, self.limits.key_bytes);
        let mut full = None;
        for segment in work.dirty() {
            let rewriter = &mut self.rewriter;
            read(self.log, segment, self.limits.stop, |header, batch| {
                if header.last_offset() < work.cleaned || !stays(self.log, header) {
                    return Ok(ControlFlow::Continue(()));
                }
                let note = |key: &[u8], offset| offset < work.cleaned || keys.note(key, offset);
                full = rewriter.keys(header, batch, note)?;
                Ok(full.map_or(ControlFlow::Continue(()), |_| ControlFlow::Break(())))
            })?;
            if let Some(end) = full {
                return Ok((keys, end));
            }
        }
        Ok((keys, work.end()))
    }

    /// Writes what stays of a segment.
    fn rewrite(
        &mut self,
        segment: &SealedSegment,
        keys: &KeyOffsets,
        output: &mut Output<'_>,
        kept: &mut Kept,
    ) -> Result<()> {
        let rules = Rules {
            keys,
            now: self.log.now_ms(),
            delete_retention_ms: self.log.settings().delete_retention_ms,
        };
        let rewriter = &mut self.rewriter;
        read(self.log, segment, self.limits.stop, |header, batch| {
            // Empty batches are made again where they are needed.
            if header.count == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            if !stays(self.log, header) {
                kept.changed = true;
                kept.removed += u64::from(if header.is_control() { 0 } else { header.count });
                return Ok(ControlFlow::Continue(()));
            }
            match rewriter.rewrite(header, batch, &rules)? {
                Rewritten::Gone => {
                    kept.changed = true;
                    kept.removed += u64::from(header.count);
                }
                Rewritten::Kept {
                    changed: differs,
                    records,
                    tombstones: until,
                } => {
                    kept.changed |= differs;
                    kept.removed += u64::from(header.count - records);
                    kept.tombstones = kept.tombstones.into_iter().chain(until).min();
                    output.push(header.base_offset, rewriter.batch())?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Whether a batch has records that count: no marker, not aborted, and not before the log's start. All that is compacted
/// is decided.
fn stays(log: &Log, header: &BatchHeader) -> bool {
    let aborted = || log.aborted.read().contain(header.producer_id, header.base_offset);
    header.count > 0
        && !header.is_control()
        && !(header.is_transactional() && aborted())
        // Looked at last: what was aborted before it may be forgotten.
        && header.last_offset() >= log.now().log_start
}

/// Calls `each` with the batches of a segment in order. What is damaged is set apart.
fn read(
    log: &Log,
    segment: &SealedSegment,
    stop: &AtomicBool,
    mut each: impl FnMut(&BatchHeader, &[u8]) -> Result<ControlFlow<()>, Fault>,
) -> Result<()> {
    let path = log_path(&log.dir, segment.name());
    let file = segment::open(log.disk.as_ref(), &path)?;
    let mut scanner = Scanner::new(file.as_ref(), 0, segment.size, segment.base);
    let corrupt =
        |position, offset, reason: &str| Err(log.corrupt(segment.name(), &path, position, offset, reason));
    while let Some(batch) = scanner.next().map_err(|e| Error::io("read", &path, e))? {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let (position, header) = match batch {
            Ok(found) => found,
            Err(defect) => return corrupt(scanner.position(), scanner.expected(), &defect.to_string()),
        };
        match each(&header, scanner.batch()) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(Fault::Other(e)) => return Err(e),
            Err(Fault::Stored(defect)) => {
                return corrupt(position, header.base_offset, &defect.to_string());
            }
        }
    }
    if scanner.expected() != segment.next {
        let reason = format!("it ends before offset {}", segment.next);
        return corrupt(scanner.position(), scanner.expected(), &reason);
    }
    Ok(())
}
