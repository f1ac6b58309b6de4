//! Compression of a batch's records: Kafka's LZ4, which is the standard LZ4 frame with independent 64 KiB blocks.

use std::cell::RefCell;
use std::io::{Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::batch::header::{Defect, MAX_BATCH_BYTES};

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 frames.
    Lz4,
}

thread_local! {
    /// The encoder's tables and block buffers, about 200 KiB, are kept from batch to batch.
    static ENCODER: RefCell<FrameEncoder<Vec<u8>>> = RefCell::new(FrameEncoder::with_frame_info(
        FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB),
        Vec::new(),
    ));
}

/// Appends `records` (not empty) as one LZ4 frame to `out`.
pub(crate) fn lz4_compress(records: &[u8], out: &mut Vec<u8>) {
    ENCODER.with_borrow_mut(|encoder| {
        std::mem::swap(encoder.get_mut(), out);
        let written = encoder
            .write_all(records)
            .and_then(|()| Ok(encoder.try_finish()?));
        std::mem::swap(encoder.get_mut(), out);
        debug_assert!(written.is_ok(), "writing to a vector cannot fail: {written:?}");
    });
}

/// Appends what the LZ4 frame `data` holds to `out`, refusing more than [`MAX_BATCH_BYTES`].
pub(crate) fn lz4_decompress(data: &[u8], out: &mut Vec<u8>) -> Result<(), Defect> {
    let before = out.len();
    FrameDecoder::new(data)
        .take(MAX_BATCH_BYTES as u64 + 1)
        .read_to_end(out)
        .map_err(|_| Defect::Decompress)?;
    if out.len() - before > MAX_BATCH_BYTES {
        Err(Defect::Decompress)
    } else {
        Ok(())
    }
}
