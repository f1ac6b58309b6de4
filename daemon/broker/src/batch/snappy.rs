//! Snappy as Kafka's Java client writes it: the framing of snappy-java (once xerial), not that of the Snappy project.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | `82 53 4e 41 50 50 59 00`, "SNAPPY" in between |
//! | 8..12 | version, 1 |
//! | 12..16 | oldest version that can read it, 1 |
//! | then, for each block: | |
//! | 4 | bytes of the block |
//! | … | a raw Snappy block, of 32 KiB of input except for the last |
//!
//! Some clients write one raw block without framing (librdkafka); that is read too. The two version fields are not
//! looked at, since clients are known that write them in the wrong byte order.

use std::cell::RefCell;

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use crate::batch::compression::Inflated;
use crate::batch::header::Defect;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const BLOCK: usize = 32 << 10;
/// No element of a Snappy block stands for more bytes than this for each of its own.
const LARGEST_RATIO: usize = 64;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

/// Appends `records` as a framed stream to `out`.
pub(crate) fn compress(records: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    out.extend_from_slice(&HEADER);
    ENCODER.with_borrow_mut(|encoder| {
        for block in records.chunks(BLOCK) {
            let start = out.len() + 4;
            out.resize(start + max_compress_len(block.len()), 0);
            let bytes = encoder.compress(block, &mut out[start..])?;
            out[start - 4..start].copy_from_slice(&(bytes as u32).to_be_bytes());
            out.truncate(start + bytes);
        }
        Ok(())
    })
}

/// Appends what `data` holds to `out`, up to `limit` bytes of it.
pub(crate) fn decompress(data: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<Inflated, Defect> {
    if !data.starts_with(&MAGIC) {
        return block(data, out, limit);
    }
    let mut rest = data.get(HEADER.len()..).ok_or(Defect::Decompress)?;
    let mut left = limit;
    while !rest.is_empty() {
        let (bytes, after) = rest.split_first_chunk::<4>().ok_or(Defect::Decompress)?;
        let bytes = u32::from_be_bytes(*bytes) as usize;
        let (compressed, after) = after.split_at_checked(bytes).ok_or(Defect::Decompress)?;
        let before = out.len();
        if block(compressed, out, left)? == Inflated::OverLimit {
            return Ok(Inflated::OverLimit);
        }
        left -= out.len() - before;
        rest = after;
    }
    Ok(Inflated::Whole)
}

fn block(data: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<Inflated, Defect> {
    let claimed = decompress_len(data).map_err(|_| Defect::Decompress)?;
    // A claim that cannot be true is found before memory is taken for it.
    if claimed > data.len().saturating_mul(LARGEST_RATIO) {
        return Err(Defect::Decompress);
    }
    if claimed > limit {
        return Ok(Inflated::OverLimit);
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let written = Decoder::new().decompress(data, &mut out[start..]);
    match written {
        Ok(bytes) if bytes == claimed => Ok(Inflated::Whole),
        _ => Err(Defect::Decompress),
    }
}
