//! Compression of a batch's records: the five codecs of Kafka, in the encodings its Java client writes and reads.
//!
//! | codec | bits 0-2 of the attributes | encoding |
//! |---|---|---|
//! | `none` | 0 | the records as they are |
//! | `gzip` | 1 | RFC 1952, one member (read: any number) |
//! | `snappy` | 2 | the framing of snappy-java, see `snappy.rs` (read: also raw) |
//! | `lz4` | 3 | an LZ4 frame of independent 64 KiB blocks (read: any frame) |
//! | `zstd` | 4 | a Zstandard frame, level 3 (read: any number of frames) |
//!
//! Encoders are kept by the thread that used them, because making one costs more than compressing a small batch: 32 KiB
//! for snappy, 200 KiB for LZ4, 300 KiB for gzip, 1 to 2 MiB for Zstandard, and nothing for a codec that is not used.
//! Nothing is decompressed further than the caller allows, whatever the bytes claim (invariant 6).

use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};
use std::io::{Cursor, Read, Write};
use std::str::FromStr;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compress, Crc, FlushCompress, Status};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, InBuffer, OutBuffer};

use crate::batch::header::Defect;
use crate::batch::snappy;
use crate::error::{Error, Result};

#[cfg(test)]
mod tests;

/// How the records of a batch are compressed. Parses from and prints as Kafka's names of the codecs.
///
/// ```
/// # use tidewater_broker::Compression;
/// assert_eq!("zstd".parse::<Compression>().unwrap(), Compression::Zstd);
/// assert_eq!(Compression::Snappy.to_string(), "snappy");
/// assert!("brotli".parse::<Compression>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip, level 6: small and slow; for readers that know nothing else.
    Gzip,
    /// Snappy: fast, shrinks least.
    Snappy,
    /// LZ4: the fastest.
    Lz4,
    /// Zstandard, level 3: shrinks as well as gzip at several times its speed.
    Zstd,
}

/// How decompressing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inflated {
    Whole,
    /// There is more than the limit allows; nothing was added.
    OverLimit,
}

const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
/// A member begins with: magic number, deflate, no flags, no time, no extra flags, system unknown.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Output is made room for in steps of this size where it is not known how much there will be.
const STEP: usize = 64 << 10;
/// A Zstandard context above this size is not kept: frames of high levels ask for windows of up to 128 MiB.
const LARGEST_CONTEXT: usize = 2 << 20;

impl Compression {
    /// All of them, in the order of their codes in a batch.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Kafka's name: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Bits 0-2 of the attributes of a batch.
    pub(crate) fn bits(self) -> i16 {
        self as i16
    }

    /// The codec these bits stand for.
    pub(crate) fn from_bits(bits: i16) -> Result<Self, Defect> {
        let codec = usize::try_from(bits).ok().and_then(|bits| Self::ALL.get(bits));
        codec.copied().ok_or(Defect::Compression(bits))
    }

    /// Appends `records` (not empty) in compressed form to `out`. What was in `out` is untouched; an error is a
    /// failure of the library, and then what was added counts for nothing.
    pub(crate) fn compress(self, records: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::None => out.extend_from_slice(records),
            Self::Gzip => gzip(records, out)?,
            Self::Snappy => snappy::compress(records, out)?,
            Self::Lz4 => lz4(records, out)?,
            Self::Zstd => zstd(records, out)?,
        }
        Ok(())
    }

    /// Appends what `data` holds to `out` unless it is more than `limit` bytes. On an error or at the limit `out` is
    /// as before.
    pub(crate) fn decompress(self, data: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<Inflated, Defect> {
        let before = out.len();
        let result = match self {
            Self::None if data.len() > limit => Ok(Inflated::OverLimit),
            Self::None => {
                out.extend_from_slice(data);
                Ok(Inflated::Whole)
            }
            Self::Gzip => read_all(MultiGzDecoder::new(data), out, limit),
            Self::Snappy => snappy::decompress(data, out, limit),
            Self::Lz4 => read_all(FrameDecoder::new(data), out, limit),
            Self::Zstd => unzstd(data, out, limit),
        };
        if result != Ok(Inflated::Whole) {
            out.truncate(before);
        }
        result
    }
}

impl Display for Compression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Kafka's names, in lower case as Kafka has them.
    fn from_str(text: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|codec| codec.name() == text);
        named.ok_or_else(|| Error::InvalidOption {
            name: "compression.type",
            value: text.to_owned(),
            allowed: "none, gzip, snappy, lz4 or zstd",
        })
    }
}

thread_local! {
    static GZIP: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static LZ4: RefCell<FrameEncoder<Vec<u8>>> = RefCell::new(FrameEncoder::with_frame_info(
        FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB),
        Vec::new(),
    ));
    static ZSTD: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static UNZSTD: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

fn gzip(records: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut encoder = GZIP
        .take()
        .unwrap_or_else(|| Compress::new(flate2::Compression::new(GZIP_LEVEL), false));
    encoder.reset();
    out.extend_from_slice(&GZIP_HEADER);
    loop {
        // One byte in hand, so that a full buffer does not look like an encoder that is stuck.
        out.reserve(STEP.min(records.len()) + 64);
        let rest = &records[encoder.total_in() as usize..];
        if encoder.compress_vec(rest, out, FlushCompress::Finish)? == Status::StreamEnd {
            break;
        }
    }
    let mut crc = Crc::new();
    crc.update(records);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    GZIP.set(Some(encoder));
    Ok(())
}

fn lz4(records: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    LZ4.with_borrow_mut(|encoder| {
        std::mem::swap(encoder.get_mut(), out);
        let written = encoder
            .write_all(records)
            .and_then(|()| Ok(encoder.try_finish()?));
        std::mem::swap(encoder.get_mut(), out);
        written
    })
}

fn zstd(records: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut context = match ZSTD.take() {
        Some(context) => context,
        None => new_zstd()?,
    };
    out.reserve(zstd_safe::compress_bound(records.len()));
    let mut cursor = Cursor::new(std::mem::take(out));
    cursor.set_position(cursor.get_ref().len() as u64);
    let written = context.compress2(&mut cursor, records);
    *out = cursor.into_inner();
    written.map_err(|code| std::io::Error::other(zstd_safe::get_error_name(code)))?;
    if context.sizeof() <= LARGEST_CONTEXT {
        ZSTD.set(Some(context));
    }
    Ok(())
}

fn new_zstd() -> std::io::Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or(std::io::ErrorKind::OutOfMemory)?;
    context
        .set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL))
        .map_err(|code| std::io::Error::other(zstd_safe::get_error_name(code)))?;
    Ok(context)
}

/// Reads a decoder to its end, or one byte beyond the limit.
fn read_all(decoder: impl Read, out: &mut Vec<u8>, limit: usize) -> Result<Inflated, Defect> {
    let before = out.len();
    decoder
        .take((limit as u64).saturating_add(1))
        .read_to_end(out)
        .map_err(|_| Defect::Decompress)?;
    Ok(if out.len() - before > limit {
        Inflated::OverLimit
    } else {
        Inflated::Whole
    })
}

fn unzstd(data: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<Inflated, Defect> {
    // What the frame claims to hold is believed up to the limit only; memory is used as it fills.
    let claimed = zstd_safe::get_frame_content_size(data).map_err(|_| Defect::Decompress)?;
    if claimed.is_some_and(|claimed| claimed > limit as u64) {
        return Ok(Inflated::OverLimit);
    }
    let before = out.len();
    out.reserve(claimed.map_or_else(|| STEP.max(data.len()), |claimed| claimed as usize));
    let mut context = match UNZSTD.take() {
        Some(context) => context,
        None => DCtx::try_create().ok_or(Defect::Decompress)?,
    };
    let mut input = InBuffer::around(data);
    loop {
        let (taken, start) = (input.pos(), out.len());
        let left = context
            .decompress_stream(&mut OutBuffer::around_pos(out, start), &mut input)
            // The context is dropped with its error.
            .map_err(|_| Defect::Decompress)?;
        if out.len() - before > limit {
            return Ok(Inflated::OverLimit);
        }
        let all_taken = input.pos() == data.len();
        if left == 0 && all_taken {
            break;
        }
        if out.len() == out.capacity() {
            out.reserve(STEP.max(out.len() - before));
        } else if input.pos() == taken && out.len() == start {
            // Room and bytes are there, and nothing moves: the frame is cut short.
            return Err(Defect::Decompress);
        }
    }
    if context.sizeof() <= LARGEST_CONTEXT {
        UNZSTD.set(Some(context));
    }
    Ok(Inflated::Whole)
}
