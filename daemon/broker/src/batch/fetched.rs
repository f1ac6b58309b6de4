//! What a read gives: the bytes of some batches, checked, and the records in them.

use std::ops::Range;
use std::slice;

use bytes::Bytes;

use crate::batch::compression::{Compression, Inflated};
use crate::batch::header::{
    BatchHeader, COMPRESSION_MASK, Defect, HEADER_BYTES, LOG_APPEND_TIME, MAX_BATCH_BYTES,
};
use crate::batch::record::{RecordView, Records};

/// Records read at one go. Everything is checked when it is read: iterating cannot fail.
#[derive(Debug, Clone)]
pub struct Fetched {
    data: Bytes,
    /// The records of the compressed batches, decompressed, one batch after the other.
    inflated: Bytes,
    batches: Vec<BatchSpan>,
    /// Records before are not wanted: the reader began within a batch.
    from: u64,
    /// Records from there on.
    len: usize,
    next: u64,
}

#[derive(Debug, Clone)]
struct BatchSpan {
    header: BatchHeader,
    /// Where the records are: in `inflated` if compressed, else in `data`.
    records: Range<usize>,
}

impl BatchSpan {
    fn compressed(&self) -> bool {
        self.header.attributes & COMPRESSION_MASK != 0
    }
}

impl Fetched {
    /// The records in order of their offsets, borrowed from this.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        Walk {
            fetched: self,
            batches: self.batches.iter(),
            records: Records::new(&[], 0, 0, 0, None),
        }
    }

    fn batch_records(&self, span: &BatchSpan) -> Records<'_> {
        let bytes = if span.compressed() {
            &self.inflated
        } else {
            &self.data
        };
        let header = &span.header;
        let append_time = (header.attributes & LOG_APPEND_TIME != 0).then_some(header.max_timestamp);
        let records = &bytes[span.records.clone()];
        Records::new(
            records,
            header.count,
            header.base_offset,
            header.base_timestamp,
            append_time,
        )
    }

    /// How many records [`records`](Self::records) gives.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; a reader never gives that.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The batches as they are stored, with those that [`records`](Self::records) leaves out: markers, aborted ones,
    /// and records before the position the reader was set to.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The offset to go on at.
    pub fn next_offset(&self) -> u64 {
        self.next
    }
}

/// Iterates over the records of a [`Fetched`]. Written out: this is the innermost loop of whoever reads, and
/// `flat_map` with `skip_while` takes twice as long.
struct Walk<'a> {
    fetched: &'a Fetched,
    batches: slice::Iter<'a, BatchSpan>,
    records: Records<'a>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordView<'a>> {
        loop {
            match self.records.next() {
                Some(record) if record.offset >= self.fetched.from => return Some(record),
                Some(_) => {}
                None => self.records = self.fetched.batch_records(self.batches.next()?),
            }
        }
    }
}

/// Gathers batches into a [`Fetched`].
pub(crate) struct Gather {
    batches: Vec<BatchSpan>,
    inflated: Vec<u8>,
    budget: usize,
    from: u64,
    len: usize,
}

/// Whether a batch was taken.
pub(crate) enum Taken {
    Yes,
    /// It would go over the budget of decompressed bytes.
    Full,
}

impl Gather {
    /// `budget` bounds the decompressed bytes, the first batch aside; records before `from` are not wanted.
    pub(crate) fn new(budget: usize, from: u64) -> Self {
        Self {
            batches: Vec::new(),
            inflated: Vec::new(),
            budget,
            from,
            len: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Adds the batch at `start` of `data`, whose CRC is checked already.
    pub(crate) fn take(&mut self, header: BatchHeader, data: &[u8], start: usize) -> Result<Taken, Defect> {
        let body = start + HEADER_BYTES..start + header.length;
        let codec = Compression::from_bits(header.attributes & COMPRESSION_MASK)?;
        let records = if codec == Compression::None {
            body.clone()
        } else {
            let before = self.inflated.len();
            let first = self.batches.is_empty();
            let limit = if first {
                MAX_BATCH_BYTES
            } else {
                self.budget.saturating_sub(before)
            };
            match codec.decompress(&data[body.clone()], &mut self.inflated, limit)? {
                Inflated::Whole => before..self.inflated.len(),
                Inflated::OverLimit if first => return Err(Defect::TooLarge),
                Inflated::OverLimit => return Ok(Taken::Full),
            }
        };
        let before = if codec == Compression::None {
            self.inflated.len()
        } else {
            records.start
        };
        let span = BatchSpan { header, records };
        let bytes = if span.compressed() {
            &self.inflated[..]
        } else {
            data
        };
        let records = Records::new(
            &bytes[span.records.clone()],
            header.count,
            header.base_offset,
            0,
            None,
        );
        let wanted = records.validate(header.last_offset(), self.from)?;
        // Compaction may have left none at or after the reader's place.
        if wanted > 0 {
            self.len += wanted;
            self.batches.push(span);
        } else {
            self.inflated.truncate(before);
        }
        Ok(Taken::Yes)
    }

    pub(crate) fn finish(self, data: Bytes, next: u64) -> Fetched {
        Fetched {
            data,
            inflated: self.inflated.into(),
            batches: self.batches,
            from: self.from,
            len: self.len,
            next,
        }
    }
}
