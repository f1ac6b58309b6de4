//! One batch without the records nobody needs any more.
//!
//! A record that stays keeps its offset, its timestamp and its bytes; its batch keeps its base offset, its codec and its
//! kind of timestamp. What was transactional becomes plain, since it is committed, and who wrote it is forgotten: the
//! state of producers is not made from compacted segments. So a batch all of whose records stay is copied as it is.
//!
//! *Tombstones.* The first time a batch with tombstones is compacted it is noted in it until when they stay, in Kafka's
//! way: bit 6 of the attributes, and that time in place of the base timestamp, to which the timestamps of the records
//! are then relative.

use crate::batch::compression::{Compression, Inflated};
use crate::batch::header::{
    BatchHeader, COMPRESSION_MASK, DELETE_HORIZON, Defect, HEADER_BYTES, LENGTH_END, LOG_APPEND_TIME,
    MAX_BATCH_BYTES, NO_PRODUCER, TRANSACTIONAL,
};
use crate::batch::record::Records;
use crate::batch::varint;
use crate::log::compaction::key_offsets::KeyOffsets;

/// What decides whether a record stays.
pub(crate) struct Rules<'a> {
    pub(crate) keys: &'a KeyOffsets,
    /// Milliseconds since 1970.
    pub(crate) now: i64,
    pub(crate) delete_retention_ms: i64,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// No record stays.
    Gone,
    /// It is in [`Rewriter::batch`].
    Kept {
        /// It is not just as it was.
        changed: bool,
        /// Its records.
        records: u32,
        /// Until when its tombstones stay, if it has some.
        tombstones: Option<i64>,
    },
}

/// Rewrites batches, in buffers that are used again.
#[derive(Default)]
pub(crate) struct Rewriter {
    inflated: Vec<u8>,
    kept: Vec<u8>,
    batch: Vec<u8>,
}

/// The records of a batch that stay.
struct Kept {
    count: u32,
    max_timestamp: i64,
    tombstones: bool,
}

impl Rewriter {
    /// The batch last kept, whole but for its last offset delta and its CRC.
    pub(crate) fn batch(&mut self) -> &mut Vec<u8> {
        &mut self.batch
    }

    /// Applies the rules to a batch of records, whose CRC is checked already.
    pub(crate) fn rewrite(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        rules: &Rules<'_>,
    ) -> Result<Rewritten, Defect> {
        let codec = Compression::from_bits(header.attributes & COMPRESSION_MASK)?;
        let body = inflate(codec, &batch[HEADER_BYTES..], &mut self.inflated)?;
        let kept = sift(header, body, rules, &mut self.kept)?;
        if kept.count == 0 {
            return Ok(Rewritten::Gone);
        }
        let noted = header.delete_horizon();
        let horizon = noted.unwrap_or_else(|| rules.now.saturating_add(rules.delete_retention_ms));
        let note = kept.tombstones && noted.is_none();
        let whole = kept.count == header.count;

        self.batch.clear();
        self.batch.extend_from_slice(&batch[..HEADER_BYTES]);
        let mut attributes = header.attributes & !TRANSACTIONAL;
        if note {
            let shift = header.base_timestamp.wrapping_sub(horizon);
            self.inflated.clear();
            shift_timestamps(&self.kept, kept.count, shift, &mut self.inflated);
            attributes |= DELETE_HORIZON;
            put(&mut self.batch, 27, horizon.to_be_bytes());
            std::mem::swap(&mut self.kept, &mut self.inflated);
        }
        if whole && !note {
            self.batch.extend_from_slice(&batch[HEADER_BYTES..]);
        } else if !deflate(codec, &self.kept, &mut self.batch) {
            attributes &= !COMPRESSION_MASK;
        }
        if !whole && header.attributes & LOG_APPEND_TIME == 0 {
            put(&mut self.batch, 35, kept.max_timestamp.to_be_bytes());
        }
        let length = (self.batch.len() - LENGTH_END) as i32;
        put(&mut self.batch, 8, length.to_be_bytes());
        put(&mut self.batch, 21, attributes.to_be_bytes());
        put(&mut self.batch, 43, NO_PRODUCER.to_be_bytes());
        put(&mut self.batch, 51, (-1_i16).to_be_bytes());
        put(&mut self.batch, 53, (-1_i32).to_be_bytes());
        put(&mut self.batch, 57, kept.count.to_be_bytes());
        Ok(Rewritten::Kept {
            changed: !whole || note || header.is_transactional(),
            records: kept.count,
            tombstones: kept.tombstones.then_some(horizon),
        })
    }

    /// Calls `each` with the key and the offset of each record that has a key, until it answers `false`; then that is
    /// the offset answered.
    pub(crate) fn keys(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        mut each: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<Option<u64>, Defect> {
        let codec = Compression::from_bits(header.attributes & COMPRESSION_MASK)?;
        let body = inflate(codec, &batch[HEADER_BYTES..], &mut self.inflated)?;
        let records = Records::new(
            body,
            header.count,
            header.base_offset,
            header.base_timestamp,
            None,
        );
        records.clone().validate(header.last_offset(), 0)?;
        for record in records {
            if let Some(key) = record.key
                && !each(key, record.offset)
            {
                return Ok(Some(record.offset));
            }
        }
        Ok(None)
    }
}

/// A batch without records from `base` on, whole but for its last offset delta and its CRC.
pub(crate) fn empty_batch(base: u64, batch: &mut Vec<u8>) {
    batch.clear();
    batch.resize(HEADER_BYTES, 0);
    put(batch, 0, base.to_be_bytes());
    put(batch, 8, ((HEADER_BYTES - LENGTH_END) as i32).to_be_bytes());
    batch[16] = 2;
    // Kafka's "no timestamp".
    put(batch, 27, (-1_i64).to_be_bytes());
    put(batch, 35, (-1_i64).to_be_bytes());
    put(batch, 43, NO_PRODUCER.to_be_bytes());
    put(batch, 51, (-1_i16).to_be_bytes());
    put(batch, 53, (-1_i32).to_be_bytes());
}

/// Writes a field of a header.
pub(crate) fn put<const N: usize>(batch: &mut [u8], at: usize, field: [u8; N]) {
    batch[at..at + N].copy_from_slice(&field);
}

fn inflate<'a>(codec: Compression, body: &'a [u8], inflated: &'a mut Vec<u8>) -> Result<&'a [u8], Defect> {
    if codec == Compression::None {
        return Ok(body);
    }
    inflated.clear();
    match codec.decompress(body, inflated, MAX_BATCH_BYTES)? {
        Inflated::Whole => Ok(inflated),
        Inflated::OverLimit => Err(Defect::TooLarge),
    }
}

/// Appends the records to the batch. `false` if they are stored as they are, because they do not shrink.
fn deflate(codec: Compression, records: &[u8], batch: &mut Vec<u8>) -> bool {
    let before = batch.len();
    if codec != Compression::None {
        let packed = codec.compress(records, batch);
        if packed.is_ok() && batch.len() - before < records.len() {
            return true;
        }
        batch.truncate(before);
    }
    batch.extend_from_slice(records);
    false
}

/// Takes over the records that stay.
fn sift(header: &BatchHeader, body: &[u8], rules: &Rules<'_>, out: &mut Vec<u8>) -> Result<Kept, Defect> {
    let mut records = Records::new(
        body,
        header.count,
        header.base_offset,
        header.base_timestamp,
        None,
    );
    records.clone().validate(header.last_offset(), 0)?;
    let expired = header
        .delete_horizon()
        .is_some_and(|horizon| horizon <= rules.now);
    let mut kept = Kept {
        count: 0,
        max_timestamp: i64::MIN,
        tombstones: false,
    };
    out.clear();
    while let Some((record, bytes)) = records.next_with_bytes() {
        // Nothing supersedes a record without a key: a topic that was not compacted before may have some.
        let tombstone = record.key.is_some() && record.value.is_none();
        let superseded = record
            .key
            .is_some_and(|key| rules.keys.has_later(key, record.offset));
        if superseded || (tombstone && expired) {
            continue;
        }
        out.extend_from_slice(bytes);
        kept.count += 1;
        kept.max_timestamp = kept.max_timestamp.max(record.timestamp);
        kept.tombstones |= tombstone;
    }
    Ok(kept)
}

/// Copies records, with `shift` added to their timestamp deltas.
fn shift_timestamps(mut records: &[u8], count: u32, shift: i64, out: &mut Vec<u8>) {
    for _ in 0..count {
        // They were walked before: nothing of this fails.
        let Some(length) = varint::take(&mut records).and_then(|length| usize::try_from(length).ok()) else {
            return;
        };
        let (body, rest) = records.split_at(length);
        records = rest;
        let (attributes, mut fields) = body.split_at(1);
        let before = fields.len();
        let delta = varint::take(&mut fields).unwrap_or_default();
        let shifted = delta.wrapping_add(shift);
        let length = length - (before - fields.len()) + varint::len(shifted);
        varint::put(out, length as i64);
        out.extend_from_slice(attributes);
        varint::put(out, shifted);
        out.extend_from_slice(fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::builder::{BatchBuilder, ProducerStamp, SealedBatch};
    use crate::batch::header::{CRC_START, crc32c};

    const DAY: i64 = 86_400_000;

    type Row = (u64, i64, Option<String>, Option<String>);

    fn batch(codec: Compression) -> SealedBatch {
        let mut builder = BatchBuilder::new(codec);
        let long = "v".repeat(300);
        builder.push(1_000, Some(b"a"), Some(long.as_bytes()), &[("h", Some(b"x"))]);
        builder.push(5_000, Some(b"b"), Some(long.as_bytes()), &[]);
        builder.push(900, Some(b"c"), None, &[]);
        builder.push(1_003, None, Some(b"no key"), &[]);
        builder.push(1_004, Some(b"d"), Some(long.as_bytes()), &[]);
        let stamp = ProducerStamp {
            id: 7,
            epoch: 1,
            sequence: 3,
            transactional: true,
        };
        let mut batch = builder.seal(Some(stamp)).unwrap();
        batch.set_base_offset(100);
        batch
    }

    /// What the output does to a batch.
    fn finish(batch: &mut [u8], last_offset_delta: i32) -> BatchHeader {
        put(batch, 23, last_offset_delta.to_be_bytes());
        let crc = crc32c(&batch[CRC_START..]);
        put(batch, 17, crc.to_be_bytes());
        BatchHeader::check(batch, None).unwrap()
    }

    fn rows(batch: &[u8]) -> Vec<Row> {
        let header = BatchHeader::check(batch, None).unwrap();
        let codec = Compression::from_bits(header.attributes & COMPRESSION_MASK).unwrap();
        let mut inflated = Vec::new();
        let body = inflate(codec, &batch[HEADER_BYTES..], &mut inflated).unwrap();
        let records = Records::new(
            body,
            header.count,
            header.base_offset,
            header.base_timestamp,
            None,
        );
        assert_eq!(
            records.clone().validate(header.last_offset(), 0),
            Ok(header.count as usize)
        );
        let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
        records
            .map(|r| (r.offset, r.timestamp, text(r.key), text(r.value)))
            .collect()
    }

    fn keys(later: &[&str]) -> KeyOffsets {
        let mut keys = KeyOffsets::new(10, usize::MAX);
        for key in later {
            assert!(keys.note(key.as_bytes(), 1_000));
        }
        keys
    }

    fn rules(keys: &KeyOffsets, now: i64) -> Rules<'_> {
        Rules {
            keys,
            now,
            delete_retention_ms: DAY,
        }
    }

    #[test]
    fn what_stays_keeps_offset_time_and_bytes_in_every_codec() {
        for codec in Compression::ALL {
            let source = batch(codec);
            let before = rows(source.bytes());
            let header = BatchHeader::check(source.bytes(), Some(100)).unwrap();
            let keys = keys(&["b"]);
            let mut rewriter = Rewriter::default();
            let rewritten = rewriter
                .rewrite(&header, source.bytes(), &rules(&keys, 10 * DAY))
                .unwrap();
            let kept = Rewritten::Kept {
                changed: true,
                records: 4,
                tombstones: Some(11 * DAY),
            };
            assert_eq!(rewritten, kept, "{codec}");
            let after = finish(rewriter.batch(), 9);
            assert_eq!(
                (after.base_offset, after.next_offset(), after.count),
                (100, 110, 4)
            );
            assert_eq!((after.producer_id, after.producer_epoch), (-1, -1));
            assert!(!after.is_transactional());
            assert_eq!(after.max_timestamp, 1_004, "that of what stays");
            assert_eq!(after.delete_horizon(), Some(11 * DAY));
            assert_eq!(after.attributes & COMPRESSION_MASK, codec.bits());
            let expected: Vec<_> = before.into_iter().filter(|row| row.0 != 101).collect();
            assert_eq!(rows(rewriter.batch()), expected);

            // The tombstones go when their time has come, and nothing else.
            let once = rewriter.batch().clone();
            let again = rewriter
                .rewrite(&after, &once, &rules(&keys, 11 * DAY - 1))
                .unwrap();
            let same = Rewritten::Kept {
                changed: false,
                records: 4,
                tombstones: Some(11 * DAY),
            };
            assert_eq!(again, same);
            finish(rewriter.batch(), 9);
            assert_eq!(*rewriter.batch(), once);
            let last = rewriter.rewrite(&after, &once, &rules(&keys, 11 * DAY)).unwrap();
            let kept = Rewritten::Kept {
                changed: true,
                records: 3,
                tombstones: None,
            };
            assert_eq!(last, kept);
            finish(rewriter.batch(), 9);
            let expected: Vec<_> = expected.into_iter().filter(|row| row.0 != 102).collect();
            assert_eq!(rows(rewriter.batch()), expected);
        }
    }

    #[test]
    fn the_timestamp_of_the_log_stays() {
        let mut source = batch(Compression::None).bytes().to_vec();
        put(&mut source, 21, LOG_APPEND_TIME.to_be_bytes());
        put(&mut source, 35, 77_i64.to_be_bytes());
        let header = finish(&mut source, 4);
        let keys = keys(&["a", "b"]);
        let mut rewriter = Rewriter::default();
        rewriter.rewrite(&header, &source, &rules(&keys, DAY)).unwrap();
        let after = finish(rewriter.batch(), 4);
        assert_eq!((after.max_timestamp, after.count), (77, 3));
        assert_eq!(after.attributes, LOG_APPEND_TIME | DELETE_HORIZON);
    }

    #[test]
    fn a_batch_that_stays_whole_is_copied_and_one_that_does_not_is_gone() {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        builder.push(5, Some(b"a"), Some(&[b'x'; 500]), &[]);
        builder.push(6, Some(b"b"), Some(&[b'x'; 500]), &[]);
        let source = builder.seal(None).unwrap();
        let header = BatchHeader::check(source.bytes(), Some(0)).unwrap();
        let mut rewriter = Rewriter::default();
        let none = keys(&[]);
        let rewritten = rewriter
            .rewrite(&header, source.bytes(), &rules(&none, 0))
            .unwrap();
        let kept = Rewritten::Kept {
            changed: false,
            records: 2,
            tombstones: None,
        };
        assert_eq!(rewritten, kept);
        assert_eq!(*rewriter.batch(), source.bytes());
        let all = keys(&["a", "b"]);
        let rewritten = rewriter
            .rewrite(&header, source.bytes(), &rules(&all, 0))
            .unwrap();
        assert_eq!(rewritten, Rewritten::Gone);
    }

    #[test]
    fn an_empty_batch_covers_offsets() {
        let mut batch = Vec::new();
        empty_batch(40, &mut batch);
        let header = finish(&mut batch, 9);
        assert_eq!(
            (header.base_offset, header.next_offset(), header.count),
            (40, 50, 0)
        );
        assert_eq!((header.max_timestamp, header.producer_id), (-1, NO_PRODUCER));
    }
}
