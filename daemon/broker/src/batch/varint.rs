//! Zigzag variable-length integers, the encoding of the fields of a Kafka record.

/// Appends `value` in zigzag varint form (1 to 10 bytes).
#[inline]
pub(crate) fn put(buf: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        buf.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    buf.push(rest as u8);
}

/// The number of bytes [`put`] writes for `value`.
#[inline]
pub(crate) fn len(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    // ceil(significant bits / 7), and at least one byte.
    (70 - (zigzag | 1).leading_zeros() as usize) / 7
}

/// Takes one varint off the front of `data`; `None` if it is cut short or longer than 64 bits.
///
/// One and two bytes, nearly all there are, go without a loop: walking records is mostly this.
#[inline]
pub(crate) fn take(data: &mut &[u8]) -> Option<i64> {
    let bytes = *data;
    let first = *bytes.first()?;
    if first < 0x80 {
        *data = &bytes[1..];
        return Some(unzigzag(u64::from(first)));
    }
    let second = *bytes.get(1)?;
    if second < 0x80 {
        *data = &bytes[2..];
        return Some(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7));
    }
    take_long(data)
}

#[inline(never)]
fn take_long(data: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, byte) in data.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *data = &data[i + 1..];
            return Some(unzigzag(value));
        }
    }
    None
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_knows_its_length() {
        for value in [
            0,
            1,
            -1,
            63,
            64,
            -64,
            -65,
            8191,
            8192,
            i64::from(i32::MAX),
            i64::MIN,
            i64::MAX,
        ] {
            let mut buf = Vec::new();
            put(&mut buf, value);
            assert_eq!(buf.len(), len(value), "length of {value}");
            let mut data = &buf[..];
            assert_eq!(take(&mut data), Some(value));
            assert!(data.is_empty());
            assert_eq!(take(&mut &buf[..buf.len() - 1]), None, "a cut varint is refused");
        }
    }

    #[test]
    fn matches_the_bytes_of_the_protocol() {
        for (value, bytes) in [(0, &[0u8][..]), (-1, &[1]), (1, &[2]), (300, &[0xd8, 0x04])] {
            let mut buf = Vec::new();
            put(&mut buf, value);
            assert_eq!(buf, bytes);
        }
    }
}
