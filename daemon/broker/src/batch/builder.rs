//! Building batches: records are encoded as they are pushed, the header is filled in when the batch is appended.

use crate::batch::buffer_pool::WriteBuffer;
use crate::batch::compression::Compression;
use crate::batch::header::{
    CONTROL, CRC_START, HEADER_BYTES, LENGTH_END, LOG_APPEND_TIME, MAX_BATCH_BYTES, NO_PRODUCER, Outcome,
    TRANSACTIONAL, crc32c,
};
use crate::batch::varint;
use crate::error::{Error, Result};

/// Collects records into one batch, the unit that is appended, compressed, checksummed and read.
///
/// The buffer comes from a pool and goes back to it after the append, and pushing allocates nothing but the growth of
/// that buffer. Batches of 64 KiB to 1 MiB do well.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: WriteBuffer,
    compression: Compression,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// Some record has no key.
    keyless: bool,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        let mut buffer = WriteBuffer::take();
        buffer.resize(HEADER_BYTES, 0);
        Self {
            buffer,
            compression,
            count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            keyless: false,
        }
    }

    /// Adds a record. `timestamp` is in milliseconds since 1970; `None` is Kafka's null.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.keyless |= key.is_none();
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        self.count += 1;

        let mut body = 1 + varint::len(timestamp_delta) + varint::len(offset_delta);
        body += bytes_len(key) + bytes_len(value) + varint::len(headers.len() as i64);
        for (name, value) in headers {
            body += bytes_len(Some(name.as_bytes())) + bytes_len(*value);
        }

        let buffer = &mut *self.buffer;
        buffer.reserve(body + 10);
        varint::put(buffer, body as i64);
        let start = buffer.len();
        buffer.push(0);
        varint::put(buffer, timestamp_delta);
        varint::put(buffer, offset_delta);
        put_bytes(buffer, key);
        put_bytes(buffer, value);
        varint::put(buffer, headers.len() as i64);
        for (name, value) in headers {
            put_bytes(buffer, Some(name.as_bytes()));
            put_bytes(buffer, *value);
        }
        debug_assert_eq!(buffer.len() - start, body);
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, header included, before compression.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Compresses, fills in the header except for the base offset, and computes the CRC.
    pub(crate) fn seal(self, producer: Option<ProducerStamp>) -> Result<SealedBatch> {
        Ok(self.pack(None)?.stamp(producer))
    }

    /// Compresses: as the topic wants it where it has a codec of its own, else as the builder was made.
    pub(crate) fn pack(self, topic: Option<Compression>) -> Result<PackedBatch> {
        if self.count == 0 {
            return Err(Error::EmptyBatch);
        }
        let bytes = self.buffer.len();
        if bytes > MAX_BATCH_BYTES {
            return Err(Error::BatchTooLarge {
                bytes,
                limit: MAX_BATCH_BYTES,
            });
        }
        let codec = topic.unwrap_or(self.compression);
        let mut packed = PackedBatch {
            buffer: self.buffer,
            codec: Compression::None,
            count: self.count,
            times: (self.base_timestamp, self.max_timestamp),
            keyless: self.keyless,
        };
        if codec != Compression::None {
            let mut smaller = WriteBuffer::take();
            smaller.extend_from_slice(&packed.buffer[..HEADER_BYTES]);
            codec
                .compress(&packed.buffer[HEADER_BYTES..], &mut smaller)
                .map_err(|e| Error::Compress {
                    codec,
                    reason: e.to_string().into(),
                })?;
            // What does not shrink is stored as it is.
            if smaller.len() < packed.buffer.len() {
                packed.buffer = smaller;
                packed.codec = codec;
            }
        }
        Ok(packed)
    }
}

/// A batch compressed, without the fields that say who wrote it: compressing needs no lock, stamping is quick.
#[derive(Debug)]
pub(crate) struct PackedBatch {
    buffer: WriteBuffer,
    codec: Compression,
    count: u32,
    times: (i64, i64),
    keyless: bool,
}

impl PackedBatch {
    /// Bytes, header included.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Fills in the header except for the base offset, and computes the CRC.
    pub(crate) fn stamp(self, producer: Option<ProducerStamp>) -> SealedBatch {
        let stamp = producer.unwrap_or(ProducerStamp::NONE);
        let mut batch = SealedBatch::new(self.buffer, self.codec.bits(), self.count, self.times, stamp);
        batch.keyless = self.keyless;
        batch
    }
}

/// Who wrote a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// The producer's count of records in this partition before the batch.
    pub(crate) sequence: i32,
    /// Whether the batch belongs to a transaction.
    pub(crate) transactional: bool,
}

impl ProducerStamp {
    /// Of batches without producer id.
    pub(crate) const NONE: Self = Self {
        id: NO_PRODUCER,
        epoch: -1,
        sequence: -1,
        transactional: false,
    };
}

/// A batch ready to be written once it has its offset.
#[derive(Debug)]
pub(crate) struct SealedBatch {
    buffer: WriteBuffer,
    pub(crate) count: u32,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) producer: ProducerStamp,
    /// Some record has no key.
    pub(crate) keyless: bool,
}

impl SealedBatch {
    fn new(
        mut buffer: WriteBuffer,
        attributes: i16,
        count: u32,
        (base_timestamp, max_timestamp): (i64, i64),
        producer: ProducerStamp,
    ) -> Self {
        let attributes = attributes | if producer.transactional { TRANSACTIONAL } else { 0 };
        let length = (buffer.len() - LENGTH_END) as i32;
        buffer[8..12].copy_from_slice(&length.to_be_bytes());
        buffer[12..16].copy_from_slice(&0_i32.to_be_bytes());
        buffer[16] = 2;
        buffer[21..23].copy_from_slice(&attributes.to_be_bytes());
        buffer[23..27].copy_from_slice(&(count as i32 - 1).to_be_bytes());
        buffer[27..35].copy_from_slice(&base_timestamp.to_be_bytes());
        buffer[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
        buffer[57..61].copy_from_slice(&(count as i32).to_be_bytes());
        let mut batch = Self {
            buffer,
            count,
            crc: 0,
            attributes,
            producer,
            keyless: false,
        };
        batch.set_producer(producer);
        batch
    }

    /// Sets who wrote the batch, and computes the CRC.
    fn set_producer(&mut self, producer: ProducerStamp) {
        self.producer = producer;
        self.buffer[43..51].copy_from_slice(&producer.id.to_be_bytes());
        self.buffer[51..53].copy_from_slice(&producer.epoch.to_be_bytes());
        self.buffer[53..57].copy_from_slice(&producer.sequence.to_be_bytes());
        self.crc = crc32c(&self.buffer[CRC_START..]);
        self.buffer[17..21].copy_from_slice(&self.crc.to_be_bytes());
    }

    /// Gives a batch that is not written yet another sequence.
    pub(crate) fn set_sequence(&mut self, sequence: i32) {
        if sequence != self.producer.sequence {
            self.set_producer(ProducerStamp {
                sequence,
                ..self.producer
            });
        }
    }

    /// The control batch that ends a transaction in a partition: key {version 0, type}, value {version 0, coordinator
    /// epoch 0}.
    pub(crate) fn marker(producer_id: i64, epoch: i16, outcome: Outcome, timestamp: i64) -> Self {
        let mut builder = BatchBuilder::new(Compression::None);
        let mut key = [0; 4];
        key[2..].copy_from_slice(&outcome.control_type().to_be_bytes());
        builder.push(timestamp, Some(&key), Some(&[0; 6]), &[]);
        let stamp = ProducerStamp {
            id: producer_id,
            epoch,
            sequence: -1,
            transactional: true,
        };
        Self::new(builder.buffer, CONTROL, 1, (timestamp, timestamp), stamp)
    }

    /// Gives all records the time of the append in place of their own, as Kafka does: by a bit and the greatest
    /// timestamp in the header.
    pub(crate) fn set_append_time(&mut self, now_ms: i64) {
        self.attributes |= LOG_APPEND_TIME;
        self.buffer[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        self.buffer[35..43].copy_from_slice(&now_ms.to_be_bytes());
        self.crc = crc32c(&self.buffer[CRC_START..]);
        self.buffer[17..21].copy_from_slice(&self.crc.to_be_bytes());
    }

    pub(crate) fn set_base_offset(&mut self, offset: u64) {
        self.buffer[..8].copy_from_slice(&offset.to_be_bytes());
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The greatest timestamp of its records, as the header has it.
    pub(crate) fn max_timestamp(&self) -> i64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.buffer[35..43]);
        i64::from_be_bytes(bytes)
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }
}

#[inline]
fn bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(bytes.len() as i64) + bytes.len())
}

#[inline]
fn put_bytes(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(buffer, -1),
        Some(bytes) => {
            varint::put(buffer, bytes.len() as i64);
            buffer.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::header::{BatchHeader, Defect};
    use crate::batch::record::Records;

    fn sample(compression: Compression) -> SealedBatch {
        let mut builder = BatchBuilder::new(compression);
        for i in 0..50_i64 {
            builder.push(
                1_000 + i,
                Some(b"key"),
                Some(&[b'v'; 200]),
                &[("h", None), ("name", Some(b"x"))],
            );
        }
        builder.push(900, None, None, &[]);
        let mut batch = builder
            .seal(Some(ProducerStamp {
                id: 7,
                epoch: 2,
                sequence: 5,
                transactional: true,
            }))
            .unwrap();
        batch.set_base_offset(1 << 33);
        batch
    }

    #[test]
    fn a_sealed_batch_reads_back() {
        let batch = sample(Compression::None);
        let header = BatchHeader::check(batch.bytes(), Some(1 << 33)).unwrap();
        assert_eq!(
            (header.count, header.producer_id, header.producer_epoch),
            (51, 7, 2)
        );
        assert_eq!((header.base_timestamp, header.max_timestamp), (1_000, 1_049));
        let records = Records::new(
            &batch.bytes()[HEADER_BYTES..],
            51,
            header.base_offset,
            1_000,
            None,
        );
        assert_eq!(records.clone().validate(header.last_offset(), 0).unwrap(), 51);
        let all: Vec<_> = records.collect();
        assert_eq!(all.len(), 51);
        assert_eq!((all[50].offset, all[50].timestamp), ((1 << 33) + 50, 900));
        assert_eq!(
            (all[50].key, all[50].value, all[50].headers().len()),
            (None, None, 0)
        );
        let headers: Vec<_> = all[3].headers().collect();
        assert_eq!(headers, [("h", None), ("name", Some(&b"x"[..]))]);
    }

    #[test]
    fn each_codec_packs_what_the_others_unpack_to() {
        let plain = sample(Compression::None);
        for codec in [
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let packed = sample(codec);
            assert!(packed.bytes().len() < plain.bytes().len() / 4, "{codec}");
            let header = BatchHeader::check(packed.bytes(), None).unwrap();
            assert_eq!(header.attributes & 7, codec.bits());
            let mut out = Vec::new();
            codec
                .decompress(&packed.bytes()[HEADER_BYTES..], &mut out, usize::MAX)
                .unwrap();
            assert_eq!(out, plain.bytes()[HEADER_BYTES..], "{codec}");
            // The encoder is reused: the next batch must not depend on the one before.
            assert_eq!(sample(codec).bytes(), packed.bytes(), "{codec}");
        }
    }

    #[test]
    fn the_codec_of_the_topic_goes_before_that_of_the_builder() {
        let attributes = |builder: Compression, topic| {
            let mut batch = BatchBuilder::new(builder);
            batch.push(0, None, Some(&[b'x'; 1_000]), &[]);
            batch.pack(topic).unwrap().stamp(None).attributes
        };
        assert_eq!(attributes(Compression::Gzip, None), 1);
        assert_eq!(attributes(Compression::Gzip, Some(Compression::Zstd)), 4);
        assert_eq!(attributes(Compression::Gzip, Some(Compression::None)), 0);
    }

    #[test]
    fn what_does_not_shrink_is_stored_plain() {
        for codec in Compression::ALL {
            let mut builder = BatchBuilder::new(codec);
            builder.push(0, None, Some(b"x"), &[]);
            let batch = builder.seal(None).unwrap();
            assert_eq!(batch.attributes, 0);
        }
    }

    #[test]
    fn the_marker_is_kafkas() {
        let marker = SealedBatch::marker(3, 1, Outcome::Commit, 5);
        assert_eq!(Outcome::of_marker(marker.bytes()), Some(Outcome::Commit));
        assert_eq!(marker.bytes().len(), 78);
        assert_eq!(i16::from_be_bytes([marker.bytes()[21], marker.bytes()[22]]), 0x30);
        assert_eq!(
            Outcome::of_marker(SealedBatch::marker(3, 1, Outcome::Abort, 5).bytes()),
            Some(Outcome::Abort)
        );
    }

    #[test]
    fn an_empty_batch_is_refused() {
        assert!(matches!(
            BatchBuilder::new(Compression::None).seal(None),
            Err(Error::EmptyBatch)
        ));
    }

    #[test]
    fn a_batch_may_have_fewer_records_than_offsets() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(1, Some(b"k"), Some(b"value"), &[]);
        builder.push(2, Some(b"k"), Some(b"value"), &[]);
        let batch = builder.seal(None).unwrap();
        let parse = |count: i32, delta: i32, records: bool| {
            let mut bytes = batch.bytes().to_vec();
            bytes[23..27].copy_from_slice(&delta.to_be_bytes());
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            if !records {
                bytes[8..12].copy_from_slice(&((HEADER_BYTES - LENGTH_END) as i32).to_be_bytes());
            }
            BatchHeader::parse(&bytes, None).map(|header| header.next_offset())
        };
        assert_eq!(parse(2, 1, true), Ok(2));
        assert_eq!(parse(2, 90, true), Ok(91));
        assert_eq!(parse(0, 90, false), Ok(91));
        for (count, delta, records) in [
            (2, 0, true),
            (0, 1, true),
            (-1, 1, true),
            (1, -1, true),
            (0, -1, false),
        ] {
            let defect = parse(count, delta, records);
            assert_eq!(defect, Err(Defect::Count { count, delta }));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(1, Some(b"k"), Some(b"value"), &[]);
        builder.push(2, Some(b"k"), Some(b"value"), &[]);
        let mut batch = builder
            .seal(Some(ProducerStamp {
                id: 7,
                epoch: 2,
                sequence: 5,
                transactional: true,
            }))
            .unwrap();
        batch.set_base_offset(42);
        let good = batch.bytes().to_vec();
        assert!(BatchHeader::check(&good, Some(42)).is_ok());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Bytes of a following batch, which a wrong length could reach into.
            bad.extend_from_slice(&good);
            assert!(
                BatchHeader::check(&bad, Some(42)).is_err(),
                "bit {bit} went unnoticed"
            );
        }
        assert!(matches!(
            BatchHeader::check(&good[..70], Some(42)),
            Err(Defect::Short { .. })
        ));
    }
}
