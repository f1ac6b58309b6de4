//! Records as they are read: borrowed views into the bytes of a batch.
//!
//! The bytes are described in [`layout`](crate::layout#records).

use crate::batch::header::Defect;
use crate::batch::varint;

/// One record, borrowed from the [`Fetched`](crate::Fetched) it is in.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Its offset in the partition.
    pub offset: u64,
    /// Milliseconds since 1970, as the writer gave it.
    pub timestamp: i64,
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is Kafka's null, a tombstone where topics are compacted.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> RecordView<'a> {
    /// The headers in their order.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }
}

/// Iterates over the headers of a record: name and value.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    data: &'a [u8],
    left: u32,
}

#[expect(
    clippy::copy_iterator,
    reason = "a view into the fetched bytes, copied with its record"
)]
impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let name = take_bytes(&mut self.data)??;
        let value = take_bytes(&mut self.data)?;
        Some((std::str::from_utf8(name).ok()?, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// A varint length and that many bytes; `Some(None)` for length −1, `None` if malformed.
#[inline]
#[expect(clippy::option_option, reason = "null and malformed are different answers")]
fn take_bytes<'a>(data: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint::take(data)?;
    if len == -1 {
        return Some(None);
    }
    let (bytes, rest) = data.split_at_checked(usize::try_from(len).ok()?)?;
    *data = rest;
    Some(Some(bytes))
}

/// Iterates over the records of one batch's (uncompressed) record section.
#[derive(Debug, Clone)]
pub(crate) struct Records<'a> {
    data: &'a [u8],
    left: u32,
    base_offset: u64,
    base_timestamp: i64,
    /// With log-append time, the one timestamp of all records.
    append_time: Option<i64>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(
        data: &'a [u8],
        count: u32,
        base_offset: u64,
        base_timestamp: i64,
        append_time: Option<i64>,
    ) -> Self {
        Self {
            data,
            left: count,
            base_offset,
            base_timestamp,
            append_time,
        }
    }

    #[inline]
    fn parse(&mut self) -> Option<RecordView<'a>> {
        let mut body = take_bytes(&mut self.data)??;
        let (_attributes, rest) = body.split_first()?;
        body = rest;
        let timestamp_delta = varint::take(&mut body)?;
        let offset_delta = varint::take(&mut body)?;
        let key = take_bytes(&mut body)?;
        let value = take_bytes(&mut body)?;
        let headers = u32::try_from(varint::take(&mut body)?).ok()?;
        Some(RecordView {
            offset: self.base_offset.checked_add(u64::try_from(offset_delta).ok()?)?,
            timestamp: self
                .append_time
                .unwrap_or(self.base_timestamp.wrapping_add(timestamp_delta)),
            key,
            value,
            headers: Headers {
                data: body,
                left: headers,
            },
        })
    }

    /// The next record, and its bytes with their length.
    pub(crate) fn next_with_bytes(&mut self) -> Option<(RecordView<'a>, &'a [u8])> {
        let before = self.data;
        let record = self.next()?;
        Some((record, &before[..before.len() - self.data.len()]))
    }

    /// Walks all records once, so that iterating over them later cannot fail: their offsets rise and lie up to
    /// `last_offset`. Answers how many are at `from` or after it.
    pub(crate) fn validate(mut self, last_offset: u64, from: u64) -> Result<usize, Defect> {
        let count = self.left;
        let mut least = self.base_offset;
        let mut wanted = 0;
        for i in 0..count {
            let offset = self.check().ok_or(Defect::Record(i))?;
            if !(least..=last_offset).contains(&offset) {
                return Err(Defect::Record(i));
            }
            least = offset + 1;
            wanted += usize::from(offset >= from);
        }
        if self.data.is_empty() {
            Ok(wanted)
        } else {
            Err(Defect::Record(count))
        }
    }

    /// The offset of the next record, if all of it is well formed: what [`parse`](Self::parse) does, without keeping
    /// what it finds.
    #[inline]
    fn check(&mut self) -> Option<u64> {
        let (_attributes, mut body) = take_bytes(&mut self.data)??.split_first()?;
        varint::take(&mut body)?;
        let offset_delta = varint::take(&mut body)?;
        take_bytes(&mut body)?;
        take_bytes(&mut body)?;
        let left = u32::try_from(varint::take(&mut body)?).ok()?;
        if left > 0 {
            let mut headers = Headers { data: body, left };
            if headers.by_ref().count() != left as usize {
                return None;
            }
            body = headers.data;
        }
        let offset = self.base_offset.checked_add(u64::try_from(offset_delta).ok()?)?;
        body.is_empty().then_some(offset)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordView<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        self.parse()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records without key, value and headers, with these offset deltas.
    fn records(deltas: &[i64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for delta in deltas {
            varint::put(&mut bytes, (5 + varint::len(*delta)) as i64);
            bytes.push(0);
            varint::put(&mut bytes, 0);
            varint::put(&mut bytes, *delta);
            for field in [-1, -1, 0] {
                varint::put(&mut bytes, field);
            }
        }
        bytes
    }

    #[test]
    fn offsets_rise_and_lie_within_the_batch() {
        let check = |deltas: &[i64], from| {
            let bytes = records(deltas);
            Records::new(&bytes, deltas.len() as u32, 100, 0, None).validate(200, from)
        };
        assert_eq!(check(&[0, 1, 2], 0), Ok(3));
        assert_eq!(check(&[3, 70, 100], 103), Ok(3));
        assert_eq!(check(&[3, 70, 100], 104), Ok(2));
        assert_eq!(check(&[3, 70, 100], 201), Ok(0));
        assert_eq!(check(&[], 0), Ok(0));
        assert_eq!(check(&[3, 3], 0), Err(Defect::Record(1)));
        assert_eq!(check(&[3, 2], 0), Err(Defect::Record(1)));
        assert_eq!(check(&[3, 101], 0), Err(Defect::Record(1)));
        assert_eq!(check(&[-1], 0), Err(Defect::Record(0)));
    }
}
