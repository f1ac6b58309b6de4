//! Opening a log: trust what the checkpoint covers, read and check what comes after it, cut the torn tail.
//!
//! Everything acknowledged is whole, and files are synced in order, so the first batch that is not whole is where the
//! crash tore the log: it and what follows were never acknowledged, and are cut. Damage *before* the checkpoint is
//! another matter, since those bytes were on disk: that segment is set apart and reported, never cut.
//!
//! The checkpoint also says which files there are: a compacted segment counts once it is listed, and what it replaced
//! does not count any more. Without a checkpoint the highest generation counts; it got its name when it was whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};

use crate::batch::header::NO_PRODUCER;
use crate::clock::Moment;
use crate::disk::durable_file::{create_dir, sync_dir};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::log::active_file::ActiveFile;
use crate::log::checkpoint::{ActiveTimes, Checkpoint, SealedSegment, Stored};
use crate::log::flusher::Flusher;
use crate::log::index::{NO_TIMESTAMP, SegmentIndex};
use crate::log::producers::Producers;
use crate::log::progress::Progress;
use crate::log::segment::{self, Scanner, SegmentName, index_path, log_path};
use crate::log::transaction_state::{AbortedRanges, BatchInfo, BatchKind, Mark, OpenTransactions};
use crate::log::visibility::Visibility;
use crate::log::{ActiveSegment, Log, LogId, LogState, Status, SyncState, Visible};
use crate::metrics::counters::LogCounters;
use crate::recovery_report::RecoveryAction;
use crate::topic_settings::{Durability, TopicSettings};

/// What opening a log found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) actions: Vec<RecoveryAction>,
    pub(crate) scanned_bytes: u64,
    /// Everything before was covered by the checkpoint, or lies before what can only have been on disk: whether a
    /// transaction is whole does not depend on what is found of it there.
    pub(crate) trusted: u64,
    /// The transactional batches found after `trusted`, by base offset: last offset and CRC.
    pub(crate) batches: BTreeMap<u64, (u64, u32)>,
}

/// A segment that was read.
struct Scanned {
    /// Up to its last whole batch.
    segment: ActiveSegment,
    /// The offset after that.
    end: u64,
    /// Where bytes follow that are no batch: why, and the size of the file.
    defect: Option<(String, u64)>,
}

/// A log being opened.
struct Opening<'a> {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    settings: Arc<TopicSettings>,
    flusher: &'a Flusher,
    log_start: u64,
    sealed: Vec<SealedSegment>,
    /// Of the segment of the checkpoint's end, up to there.
    active: ActiveTimes,
    open: OpenTransactions,
    producers: Producers,
    aborted: AbortedRanges,
    cleaned: u64,
    quarantined: BTreeMap<SegmentName, Arc<str>>,
    /// Files that others stand for.
    superseded: Vec<SegmentName>,
    found: Recovered,
    /// No checkpoint tells what was durable: damage is cut only at the very end.
    lenient: bool,
    /// There are files whose names were not durable when the checkpoint was written.
    new_names: bool,
}

impl Log {
    /// Opens the log in `dir`, creating it if there is none.
    pub(crate) fn open(
        dir: PathBuf,
        id: LogId,
        settings: Arc<TopicSettings>,
        flusher: &Arc<Flusher>,
    ) -> Result<(Arc<Self>, Recovered)> {
        let (disk, opened) = (Arc::clone(&flusher.disk), Moment::now(flusher.clock.as_ref()));
        create_dir(disk.as_ref(), &dir)?;
        let found = Recovered {
            actions: Vec::new(),
            scanned_bytes: 0,
            trusted: 0,
            batches: BTreeMap::new(),
        };
        let mut opening = Opening {
            disk,
            dir,
            settings,
            flusher,
            log_start: 0,
            sealed: Vec::new(),
            active: ActiveTimes {
                max_timestamp: NO_TIMESTAMP,
                begun_ms: flusher.clock.now_ms(),
            },
            open: OpenTransactions::default(),
            producers: Producers::default(),
            aborted: AbortedRanges::default(),
            cleaned: 0,
            quarantined: BTreeMap::new(),
            superseded: Vec::new(),
            found,
            lenient: false,
            new_names: false,
        };
        let (todo, start) = opening.load()?;
        let (active, end) = opening.scan(&todo, start)?;
        let scanned = opening.found.scanned_bytes;
        if scanned > 0 && opening.new_names {
            // Transactions are decided by what was found: the names of its files must stay too.
            sync_dir(opening.disk.as_ref(), &opening.dir)?;
            opening.new_names = false;
        }
        opening.remove_superseded()?;
        let durable = Mark {
            offset: end,
            segment: active.base,
            position: active.position,
        };
        let sync = SyncState {
            dir_changed: opening.new_names,
            // What was read is simply read again if there is another crash before the next checkpoint.
            since_checkpoint: scanned,
            checkpoint_due: !opening.found.actions.is_empty(),
            stored_start: opening.log_start,
            ..SyncState::default()
        };
        let state = LogState {
            sealed: opening.sealed,
            active,
            log_start: opening.log_start,
            cleaned: opening.cleaned,
            end,
            progress: Progress::new(durable, opening.settings.durability == Durability::Os),
            open: opening.open,
            producers: opening.producers,
            pending_markers: std::collections::VecDeque::new(),
            sync,
            status: Status::Live,
            failed: None,
            quarantined: opening.quarantined,
            opened,
            look_at: None,
        };
        let visible = Visible {
            log_start: state.log_start,
            high: durable,
            stable: durable,
            status: Status::Live,
        };
        let log = Self {
            id,
            disk: opening.disk,
            dir: opening.dir,
            settings: RwLock::new(opening.settings),
            going: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            flusher: Arc::clone(flusher),
            state: Mutex::new(state),
            compacting: Mutex::new(()),
            aborted: RwLock::new(opening.aborted),
            visible: Visibility::new(visible),
            counters: LogCounters::default(),
            recovery_share: flusher.recovery_budget.share(),
        };
        drop(log.publish(&log.state.lock()));
        let log = Arc::new(log);
        log.note_opened();
        log.recovery_share.has(scanned, &log);
        Ok((log, opening.found))
    }
}

impl Opening<'_> {
    /// Takes over the checkpoint. Answers the segments to read and where to begin in the first.
    fn load(&mut self) -> Result<(Vec<SegmentName>, Mark)> {
        let mut names = segment::list(self.disk.as_ref(), &self.dir)?;
        let first = names.first().map_or(0, |name| name.base);
        let checkpoint = match Checkpoint::load(self.disk.as_ref(), &self.dir)? {
            Stored::Good(checkpoint) => checkpoint,
            stored => {
                let lost = match stored {
                    Stored::Damaged(reason) => Some(reason),
                    // A log begins at 0 until a checkpoint says otherwise, and its first name is durable before there
                    // is a second.
                    _ if first > 0 => Some(format!(
                        "there is none, and the first segment begins at offset {first}; what was before is not there"
                    )),
                    _ => None,
                };
                if let Some(reason) = lost {
                    self.found.actions.push(RecoveryAction::CheckpointLost { reason });
                    self.lenient = true;
                }
                self.log_start = first;
                self.found.trusted = first;
                // The highest generation of a base is read first, the others only if that is damaged.
                names.sort_unstable_by_key(|name| (name.base, std::cmp::Reverse(name.generation)));
                return Ok((
                    names,
                    Mark {
                        offset: first,
                        segment: first,
                        position: 0,
                    },
                ));
            }
        };
        self.log_start = checkpoint.log_start;
        self.open = OpenTransactions(checkpoint.open.into_iter().collect());
        self.producers = Producers::restore(checkpoint.producers);
        self.aborted = AbortedRanges {
            ranges: checkpoint.aborted,
            plain: checkpoint.plain,
        };
        self.cleaned = checkpoint.cleaned;
        self.sealed = checkpoint.sealed;
        let now = self.flusher.clock.now_ms();
        for sealed in &mut self.sealed {
            // A clock that was set back begins the count anew.
            sealed.written_ms = sealed.written_ms.min(now);
        }
        self.active = checkpoint.active;
        self.found.trusted = checkpoint.durable.offset;
        for sealed in self.sealed.clone() {
            let size = self.disk.size(&log_path(&self.dir, sealed.name())).ok();
            if size != Some(sealed.size) {
                self.quarantine_size(sealed.name(), size, sealed.size);
            }
        }
        let start = checkpoint.durable;
        let mut todo = Vec::new();
        for name in names {
            if self.is_listed(name) {
                continue;
            }
            if name.generation == 0 && name.base >= start.segment {
                todo.push(name);
            } else if name.generation > 0 || name.base < self.log_start || self.is_covered(name) {
                self.superseded.push(name);
            }
        }
        let written = SegmentName::written(start.segment);
        let size = self.disk.size(&log_path(&self.dir, written)).ok();
        if size.is_some_and(|size| size >= start.position) {
            return Ok((todo, start));
        }
        if start.position == 0 && todo.is_empty() {
            // An empty log whose first segment was never written to.
            return Ok((todo, start));
        }
        // Durable bytes are gone. Their offsets were seen and are not given out again; the size they had is kept, so
        // that the next start finds the same.
        self.quarantine_size(written, size, start.position);
        todo.retain(|name| name.base > start.segment);
        let next = todo
            .first()
            .map_or(start.offset, |name| name.base.max(start.offset));
        self.sealed.push(SealedSegment {
            base: start.segment,
            next,
            size: start.position,
            generation: 0,
            max_timestamp: self.active.max_timestamp,
            written_ms: self.flusher.clock.now_ms(),
            written_at: None,
            tombstones: None,
        });
        Ok((
            todo,
            Mark {
                offset: next,
                segment: next,
                position: 0,
            },
        ))
    }

    fn is_listed(&self, name: SegmentName) -> bool {
        let at = self.sealed.binary_search_by_key(&name.base, |sealed| sealed.base);
        at.is_ok_and(|at| self.sealed[at].generation == name.generation)
    }

    /// Whether a closed segment covers where this one begins.
    fn is_covered(&self, name: SegmentName) -> bool {
        self.sealed
            .iter()
            .any(|sealed| (sealed.base..sealed.next).contains(&name.base))
    }

    /// Not while a segment is missing or short: what is listed may be a checkpoint's of before they were replaced, and
    /// what it does not know all there is of their records.
    fn remove_superseded(&self) -> Result<()> {
        if self.superseded.is_empty() || !self.quarantined.is_empty() {
            return Ok(());
        }
        // The process may have died between the rename of the checkpoint that does without them and its sync.
        sync_dir(self.disk.as_ref(), &self.dir)?;
        for name in &self.superseded {
            tracing::info!(path = %log_path(&self.dir, *name).display(), "removing a segment that is replaced");
            segment::remove(self.disk.as_ref(), &self.dir, *name)?;
        }
        Ok(())
    }

    fn open(&self, file: &ActiveFile, path: &Path) -> Result<Arc<dyn DiskFile>> {
        file.open(self.disk.as_ref(), path, &self.flusher.open_files)
            .map_err(|e| Error::io("open", path, e))
    }

    fn quarantine_size(&mut self, name: SegmentName, size: Option<u64>, expected: u64) {
        let reason = match size {
            None => "the file is missing".to_owned(),
            Some(size) => format!("it has {size} bytes and had {expected} when it was last synced"),
        };
        self.quarantine(name, reason);
    }

    fn quarantine(&mut self, name: SegmentName, reason: String) {
        self.quarantined.insert(name, reason.as_str().into());
        let file = log_path(&self.dir, name);
        self.found
            .actions
            .push(RecoveryAction::SegmentQuarantined { file, reason });
    }

    /// Reads and checks the segments from `start` on; what is torn is cut. Answers the active segment and the end.
    fn scan(&mut self, todo: &[SegmentName], start: Mark) -> Result<(ActiveSegment, u64)> {
        // The one read last, and its generation.
        let mut last: Option<(ActiveSegment, u32)> = None;
        let mut expected = start.offset;
        for (i, name) in todo.iter().copied().enumerate() {
            let base = name.base;
            if (base > start.segment || last.is_some()) && base != expected {
                if base < expected && last.as_ref().is_some_and(|(_, generation)| *generation > 0) {
                    self.superseded.push(name);
                    continue;
                }
                if !self.lenient {
                    self.remove_from(&todo[i..])?;
                    break;
                }
                // A whole segment is missing; reading its offsets says so.
                expected = base;
                self.nothing_is_known_before(base);
            }
            if let Some((closed, generation)) = last.take() {
                self.seal(closed, generation, expected);
            }
            let from = if base == start.segment { start.position } else { 0 };
            let Scanned {
                mut segment,
                end,
                defect,
            } = self.scan_segment(name, from, expected)?;
            if let Some((reason, size)) = defect {
                let next = todo.get(i + 1).map(|next| next.base);
                if next == Some(base) {
                    // What it was made from is still there.
                    let file = segment.path;
                    tracing::warn!(path = %file.display(), reason, "damaged, an earlier generation is taken");
                    self.found
                        .actions
                        .push(RecoveryAction::SegmentRemoved { file, bytes: size });
                    self.superseded.push(name);
                    continue;
                }
                // A compacted segment was on disk before it got its name.
                if name.generation > 0 || (self.lenient && next.is_some()) {
                    expected = next.unwrap_or(end);
                    segment.position = size;
                    self.nothing_is_known_before(expected);
                    self.quarantine(name, reason);
                    last = Some((segment, name.generation));
                    continue;
                }
                self.cut(&segment, size, end, reason)?;
                self.remove_from(&todo[i + 1..])?;
                expected = end;
                last = Some((segment, 0));
                break;
            }
            expected = end;
            last = Some((segment, name.generation));
        }
        match last {
            Some((active, 0)) => return Ok((active, expected)),
            Some((closed, generation)) => self.seal(closed, generation, expected),
            None => {}
        }
        let interval = self.settings.index_interval_bytes;
        Ok((ActiveSegment::missing(&self.dir, expected, interval), expected))
    }

    /// Reads one segment from byte `from`.
    fn scan_segment(&mut self, name: SegmentName, from: u64, expected: u64) -> Result<Scanned> {
        let base = name.base;
        let path = log_path(&self.dir, name);
        let read_failed = |e| Error::io("read", &path, e);
        let size = self.disk.size(&path).map_err(read_failed)?;
        self.new_names |= from == 0;
        let interval = self.settings.index_interval_bytes;
        let (mut index, begun_ms) = if from > 0 {
            let path = index_path(&self.dir, name);
            let mut index = SegmentIndex::load(self.disk.as_ref(), &path, base, interval, from);
            index.set_max_timestamp(self.active.max_timestamp);
            index.forget_stored();
            (index, self.active.begun_ms)
        } else {
            (SegmentIndex::new(base, interval), self.flusher.clock.now_ms())
        };
        let file = ActiveFile::existing();
        if from > 0 && from == size {
            // Nothing came after the checkpoint: it is opened once it is needed.
            let segment = ActiveSegment {
                base,
                file,
                path,
                position: from,
                begun_ms,
                written_ms: self.flusher.clock.now_ms(),
                written_at: None,
                index,
            };
            return Ok(Scanned {
                segment,
                end: expected,
                defect: None,
            });
        }
        let opened = self.open(&file, &path)?;
        let mut scanner = Scanner::new(opened.as_ref(), from, size, expected);
        let mut defect = None;
        while let Some(batch) = scanner.next().map_err(read_failed)? {
            let (position, header) = match batch {
                Ok(found) => found,
                Err(e) => {
                    defect = Some((e.to_string(), size));
                    break;
                }
            };
            index.note(header.base_offset, position, header.max_timestamp);
            let info = BatchInfo::of(&header, scanner.batch());
            let mark = Mark {
                offset: header.base_offset,
                segment: base,
                position,
            };
            if let Some(range) = self.open.follow(&info, mark) {
                self.aborted.ranges.push(range);
            }
            // Silent from now on at the earliest: the clock may have been another when it was written.
            self.producers.follow(
                &info,
                header.base_offset,
                header.next_offset(),
                self.flusher.clock.now_ms(),
            );
            if matches!(info.kind, BatchKind::Data) && header.producer_id != NO_PRODUCER {
                self.found
                    .batches
                    .insert(header.base_offset, (header.last_offset(), header.crc));
            }
        }
        let (position, end) = (scanner.position(), scanner.expected());
        if name.generation > 0 {
            // Nothing in it says who wrote it.
            self.nothing_is_known_before(end);
        }
        self.found.scanned_bytes += position - from;
        if position > from {
            // What was read may be in the page cache alone: it counts only once it is on disk.
            opened.sync_data().map_err(|e| Error::io("sync", &path, e))?;
        }
        Ok(Scanned {
            segment: ActiveSegment {
                base,
                file,
                path,
                position,
                begun_ms,
                written_ms: self.flusher.clock.now_ms(),
                written_at: None,
                index,
            },
            end,
            defect,
        })
    }

    /// What producers wrote before `offset`, there is no telling: it was compacted, is damaged or missing. Of one that
    /// wrote there and before it would be known what came before, and what it sends next would seem to leave a gap; of
    /// one that nothing is known of all is taken. A transaction is not torn because its batches are not found there.
    fn nothing_is_known_before(&mut self, offset: u64) {
        self.producers = Producers::default();
        self.found.trusted = self.found.trusted.max(offset);
    }

    fn seal(&mut self, mut closed: ActiveSegment, generation: u32, next: u64) {
        let sealed = SealedSegment {
            generation,
            ..closed.closed_at(next)
        };
        let path = index_path(&self.dir, sealed.name());
        if let Err(e) = closed.index.store(self.disk.as_ref(), &path) {
            tracing::debug!(path = %closed.path.display(), error = %e, "index not written");
        }
        self.sealed.push(sealed);
    }

    fn cut(&mut self, segment: &ActiveSegment, size: u64, offset: u64, reason: String) -> Result<()> {
        let position = segment.position;
        let file = self.open(&segment.file, &segment.path)?;
        file.set_len(position)
            .and_then(|()| file.sync_data())
            .map_err(|e| Error::io("cut the torn end of", &segment.path, e))?;
        let (file, bytes) = (segment.path.clone(), size - position);
        self.found.actions.push(RecoveryAction::TailCut {
            file,
            position,
            bytes,
            offset,
            reason,
        });
        Ok(())
    }

    fn remove_from(&mut self, names: &[SegmentName]) -> Result<()> {
        for name in names {
            let file = log_path(&self.dir, *name);
            let bytes = self.disk.size(&file).unwrap_or(0);
            segment::remove(self.disk.as_ref(), &self.dir, *name)?;
            self.found
                .actions
                .push(RecoveryAction::SegmentRemoved { file, bytes });
        }
        if names.is_empty() {
            Ok(())
        } else {
            sync_dir(self.disk.as_ref(), &self.dir)
        }
    }
}
