//! What a partition knows of the producers that number their batches: enough to tell a batch sent again from a new one,
//! and to see that none is missing.
//!
//! A producer counts the records it sends to a partition; a batch carries the count before it, its *base sequence*. The
//! rules are Kafka's (KIP-98), sequences count modulo 2^31:
//!
//! | the batch | answer |
//! |---|---|
//! | follows the last one | written |
//! | is one of the last [`KEPT`] | not written again; the offsets it has |
//! | is older than those | [`Error::DuplicateSequence`] |
//! | leaves a gap, or overlaps the last one | [`Error::OutOfOrderSequence`] |
//! | has a lower epoch | [`Error::InvalidProducerEpoch`] |
//! | has a higher epoch | written if its sequence is 0, and what was kept is void |
//! | is of a producer nothing is known of | written, whatever its sequence |
//!
//! The last rule is Kafka's since version 2.4: state is dropped when a producer was silent for
//! [`producer_id_expiration`](crate::BrokerOptions::producer_id_expiration), and a producer that goes on after that must
//! not be stuck for ever. So a batch sent again is recognised for that long and no longer.
//!
//! The state follows from the batches, checkpoints keep it, and after a crash it is followed again from there.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::batch::builder::ProducerStamp;
use crate::batch::header::NO_PRODUCER;
use crate::error::{Error, Result};
use crate::log::transaction_state::{BatchInfo, BatchKind};

/// Batches that are recognised when they are sent again, per producer and partition: as many as Kafka's clients have
/// under way at most.
pub(crate) const KEPT: usize = 5;

/// Sequences are below this.
const MODULUS: i64 = 1 << 31;

/// `sequence + records`, as sequences count.
pub(crate) fn sequence_after(sequence: i32, records: u32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) % MODULUS) as i32
}

/// The producers of a partition by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Producers(BTreeMap<i64, ProducerLog>);

/// What is known of one producer. An entry of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerLog {
    epoch: i16,
    /// When it last wrote, milliseconds since 1970 by the clock of the broker.
    last_ms: i64,
    /// The last batches of the epoch, oldest first.
    batches: VecDeque<Numbered>,
}

/// Where a numbered batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered {
    /// The sequence of the first record.
    first: i32,
    /// The sequence of the last.
    last: i32,
    /// The offset of the first record.
    pub(crate) base: u64,
    /// The offset after the last.
    pub(crate) next: u64,
}

impl Producers {
    pub(crate) fn restore(entries: Vec<(i64, ProducerLog)>) -> Self {
        Self(entries.into_iter().collect())
    }

    pub(crate) fn entries(&self) -> Vec<(i64, ProducerLog)> {
        self.0.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Whether a batch of `count` records may be written next; `Some` if it is there already.
    pub(crate) fn check(&self, batch: &ProducerStamp, count: u32) -> Result<Option<Numbered>> {
        if batch.id == NO_PRODUCER || batch.sequence < 0 {
            return Ok(None);
        }
        let Some(known) = self.0.get(&batch.id) else {
            return Ok(None);
        };
        if batch.epoch < known.epoch {
            return Err(Error::InvalidProducerEpoch {
                producer_id: batch.id,
                epoch: batch.epoch,
                current: known.epoch,
            });
        }
        let mut expected = 0;
        if batch.epoch == known.epoch {
            let last = sequence_after(batch.sequence, count.saturating_sub(1));
            let mut kept = known.batches.iter();
            if let Some(same) = kept.find(|kept| (kept.first, kept.last) == (batch.sequence, last)) {
                return Ok(Some(*same));
            }
            expected = known.expected();
        }
        // How far ahead of what is expected; behind it is the other half of the circle.
        let ahead = (i64::from(batch.sequence) - i64::from(expected)).rem_euclid(MODULUS);
        if ahead == 0 {
            return Ok(None);
        }
        let behind = MODULUS - ahead;
        if batch.epoch == known.epoch && behind <= MODULUS / 2 && i64::from(count) <= behind {
            return Err(Error::DuplicateSequence {
                producer_id: batch.id,
                sequence: batch.sequence,
                expected,
            });
        }
        Err(Error::OutOfOrderSequence {
            producer_id: batch.id,
            epoch: batch.epoch,
            expected,
            got: batch.sequence,
        })
    }

    /// Follows a batch that was written (or found) at offsets `base` to `next`.
    pub(crate) fn follow(&mut self, batch: &BatchInfo, base: u64, next: u64, now_ms: i64) {
        if batch.producer_id == NO_PRODUCER {
            return;
        }
        let numbered = batch.base_sequence >= 0 && !matches!(batch.kind, BatchKind::Marker(_));
        if !numbered && !self.0.contains_key(&batch.producer_id) {
            return;
        }
        let entry = self.0.entry(batch.producer_id).or_insert_with(|| ProducerLog {
            epoch: batch.producer_epoch,
            last_ms: now_ms,
            batches: VecDeque::new(),
        });
        entry.last_ms = now_ms;
        if batch.producer_epoch > entry.epoch {
            entry.epoch = batch.producer_epoch;
            entry.batches.clear();
        }
        if numbered && batch.producer_epoch == entry.epoch {
            if entry.batches.len() == KEPT {
                entry.batches.pop_front();
            }
            entry.batches.push_back(Numbered {
                first: batch.base_sequence,
                last: sequence_after(batch.base_sequence, batch.last_offset_delta),
                base,
                next,
            });
        }
    }

    /// Forgets the producers that were silent since before `before_ms`, except those `keep` says yes to.
    pub(crate) fn expire(&mut self, before_ms: i64, keep: impl Fn(i64) -> bool) {
        self.0.retain(|id, entry| entry.last_ms >= before_ms || keep(*id));
    }
}

impl ProducerLog {
    /// The sequence the next batch of this epoch must have.
    fn expected(&self) -> i32 {
        self.batches.back().map_or(0, |last| sequence_after(last.last, 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::header::Outcome;

    fn stamp(id: i64, epoch: i16, sequence: i32) -> ProducerStamp {
        ProducerStamp {
            id,
            epoch,
            sequence,
            transactional: false,
        }
    }

    fn info(batch: &ProducerStamp, count: u32) -> BatchInfo {
        BatchInfo {
            producer_id: batch.id,
            producer_epoch: batch.epoch,
            base_sequence: batch.sequence,
            last_offset_delta: count - 1,
            kind: BatchKind::Plain,
        }
    }

    /// Checks and, if it is new, follows; answers the offset it has.
    fn send(producers: &mut Producers, end: &mut u64, batch: ProducerStamp, count: u32) -> Result<u64> {
        if let Some(kept) = producers.check(&batch, count)? {
            assert_eq!(kept.next - kept.base, u64::from(count));
            return Ok(kept.base);
        }
        let base = *end;
        *end += u64::from(count);
        producers.follow(&info(&batch, count), base, *end, 0);
        Ok(base)
    }

    #[test]
    fn the_last_five_are_recognised_and_older_ones_refused() {
        let (mut producers, mut end) = (Producers::default(), 100);
        for i in 0..7 {
            assert_eq!(
                send(&mut producers, &mut end, stamp(1, 0, i * 3), 3).unwrap(),
                100 + i as u64 * 3
            );
        }
        for i in 2..7 {
            assert_eq!(
                send(&mut producers, &mut end, stamp(1, 0, i * 3), 3).unwrap(),
                100 + i as u64 * 3
            );
        }
        assert_eq!(end, 121, "nothing was written twice");
        let refused = producers.check(&stamp(1, 0, 3), 3);
        assert!(
            matches!(
                refused,
                Err(Error::DuplicateSequence {
                    sequence: 3,
                    expected: 21,
                    ..
                })
            ),
            "{refused:?}"
        );
        // The same begin, another end: no batch that was written.
        assert!(matches!(
            producers.check(&stamp(1, 0, 18), 2),
            Err(Error::DuplicateSequence { .. })
        ));
        // It begins before the end and ends behind it.
        assert!(matches!(
            producers.check(&stamp(1, 0, 18), 4),
            Err(Error::OutOfOrderSequence {
                expected: 21,
                got: 18,
                ..
            })
        ));
        assert!(matches!(
            producers.check(&stamp(1, 0, 22), 1),
            Err(Error::OutOfOrderSequence {
                expected: 21,
                got: 22,
                ..
            })
        ));
    }

    #[test]
    fn epochs_fence_and_begin_at_zero() {
        let (mut producers, mut end) = (Producers::default(), 0);
        send(&mut producers, &mut end, stamp(1, 3, 0), 5).unwrap();
        let fenced = producers.check(&stamp(1, 2, 5), 1);
        assert!(matches!(
            fenced,
            Err(Error::InvalidProducerEpoch {
                epoch: 2,
                current: 3,
                ..
            })
        ));
        assert!(matches!(
            producers.check(&stamp(1, 4, 5), 1),
            Err(Error::OutOfOrderSequence {
                expected: 0,
                got: 5,
                ..
            })
        ));
        assert!(matches!(
            producers.check(&stamp(1, 4, i32::MAX), 1),
            Err(Error::OutOfOrderSequence { expected: 0, .. })
        ));
        assert_eq!(send(&mut producers, &mut end, stamp(1, 4, 0), 5).unwrap(), 5);
        // The same sequence of the epoch before was another batch.
        assert!(producers.check(&stamp(1, 3, 0), 5).is_err());
    }

    #[test]
    fn a_marker_of_a_higher_epoch_fences_and_one_of_a_stranger_is_not_kept() {
        let mut producers = Producers::default();
        let mut marker = info(&stamp(1, 4, -1), 1);
        marker.kind = BatchKind::Marker(Outcome::Abort);
        producers.follow(&marker, 0, 1, 0);
        assert!(producers.entries().is_empty());
        producers.follow(&info(&stamp(1, 3, 0), 1), 1, 2, 0);
        producers.follow(&marker, 2, 3, 0);
        assert!(producers.check(&stamp(1, 3, 1), 1).is_err());
        assert!(producers.check(&stamp(1, 4, 0), 1).unwrap().is_none());
    }

    #[test]
    fn sequences_wrap() {
        let (mut producers, mut end) = (Producers::default(), 0);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        send(&mut producers, &mut end, stamp(1, 0, i32::MAX - 2), 2).unwrap();
        // MAX, 0, 1.
        assert_eq!(
            send(&mut producers, &mut end, stamp(1, 0, i32::MAX), 3).unwrap(),
            2
        );
        assert_eq!(send(&mut producers, &mut end, stamp(1, 0, 2), 1).unwrap(), 5);
        assert_eq!(
            send(&mut producers, &mut end, stamp(1, 0, i32::MAX), 3).unwrap(),
            2
        );
        assert!(matches!(
            producers.check(&stamp(1, 0, i32::MAX - 5), 1),
            Err(Error::DuplicateSequence { .. })
        ));
    }

    #[test]
    fn a_stranger_may_begin_anywhere_and_the_silent_are_forgotten() {
        let mut producers = Producers::default();
        assert!(producers.check(&stamp(9, 5, 77), 1).unwrap().is_none());
        for (id, at) in [(1, 10), (2, 20), (3, 30)] {
            producers.follow(&info(&stamp(id, 0, 0), 1), 0, 1, at);
        }
        producers.expire(20, |id| id == 1);
        assert_eq!(
            producers.entries().iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        producers.expire(21, |id| id == 1);
        assert_eq!(
            producers.entries().iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [1, 3]
        );
        assert!(producers.check(&stamp(2, 0, 77), 1).unwrap().is_none());
        assert!(producers.check(&stamp(3, 0, 77), 1).is_err());
    }

    /// What one producer did in a partition, with all its batches kept.
    #[derive(Debug, Default)]
    struct Model {
        epoch: i16,
        /// Sequence before wrapping, count and offset of the batches of the epoch.
        batches: Vec<(i64, u32, u64)>,
    }

    const START: i64 = MODULUS - 40;

    #[derive(Debug, Clone)]
    enum Step {
        /// The next batch.
        Next(u32),
        /// A batch again, counted from the last.
        Again(usize),
        /// Records left out.
        Gap(u32, u32),
        /// Some sequences before what is expected.
        Before(u32, u32),
        NewEpoch(u32),
        OldEpoch(u32),
        /// Written and read back.
        Checkpoint,
    }

    fn step() -> impl Strategy<Value = Step> {
        let count = 1..9_u32;
        prop_oneof![
            6 => count.clone().prop_map(Step::Next),
            4 => (0..9_usize).prop_map(Step::Again),
            1 => (1..100_000_u32, count.clone()).prop_map(|(gap, count)| Step::Gap(gap, count)),
            2 => (1..60_u32, count.clone()).prop_map(|(back, count)| Step::Before(back, count)),
            1 => count.clone().prop_map(Step::NewEpoch),
            1 => count.prop_map(Step::OldEpoch),
            1 => Just(Step::Checkpoint),
        ]
    }

    proptest! {
        /// Against a model that keeps everything and counts without wrapping.
        #[test]
        fn agrees_with_a_plain_model(steps in proptest::collection::vec(step(), 1..120)) {
            let (mut producers, mut end) = (Producers::default(), 0);
            // The first epoch begins close to where sequences wrap: the partition does not know the producer.
            let mut model = Model { epoch: 1, batches: Vec::new() };
            let mut begin = START;
            for step in steps {
                let expected = model.batches.last().map_or(begin, |(at, count, _)| at + i64::from(*count));
                let wrap = |at: i64| at.rem_euclid(MODULUS) as i32;
                let mut try_at = |model: &mut Model, at: i64, count: u32| {
                    let got = send(&mut producers, &mut end, stamp(7, model.epoch, wrap(at)), count);
                    let known = model.batches.iter().rev().take(KEPT).find(|b| (b.0, b.1) == (at, count)).copied();
                    match known {
                        Some((_, _, offset)) => prop_assert_eq!(got.unwrap(), offset),
                        None if at == expected || (model.batches.is_empty() && begin == START) => {
                            model.batches.push((at, count, got.unwrap()));
                        }
                        None if at < expected && at + i64::from(count) <= expected && begin != expected => {
                            prop_assert!(matches!(got, Err(Error::DuplicateSequence { .. })), "{:?}", got);
                        }
                        None => prop_assert!(matches!(got, Err(Error::OutOfOrderSequence { .. } | Error::DuplicateSequence { .. })), "{:?}", got),
                    }
                    Ok(())
                };
                match step {
                    Step::Next(count) => try_at(&mut model, expected, count)?,
                    Step::Again(back) => {
                        let Some((at, count, _)) = model.batches.iter().rev().nth(back).copied() else { continue };
                        try_at(&mut model, at, count)?;
                    }
                    Step::Gap(gap, count) if !model.batches.is_empty() => {
                        try_at(&mut model, expected + i64::from(gap), count)?;
                    }
                    Step::Before(back, count) if !model.batches.is_empty() => {
                        try_at(&mut model, expected - i64::from(back), count)?;
                    }
                    Step::NewEpoch(count) if !model.batches.is_empty() => {
                        model = Model { epoch: model.epoch + 1, batches: Vec::new() };
                        begin = 0;
                        let got = send(&mut producers, &mut end, stamp(7, model.epoch, 0), count);
                        model.batches.push((0, count, got.unwrap()));
                    }
                    Step::OldEpoch(count) if !model.batches.is_empty() => {
                        let got = producers.check(&stamp(7, model.epoch - 1, wrap(expected)), count);
                        let fenced = matches!(got, Err(Error::InvalidProducerEpoch { .. }));
                        prop_assert!(fenced, "{:?}", got);
                    }
                    Step::Checkpoint => {
                        let json = serde_json::to_vec(&producers.entries()).unwrap();
                        producers = Producers::restore(serde_json::from_slice(&json).unwrap());
                    }
                    _ => {}
                }
                let written: u64 = model.batches.iter().map(|b| u64::from(b.1)).sum();
                prop_assert!(end >= written);
            }
        }
    }
}
