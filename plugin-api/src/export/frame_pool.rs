//! Buffers of frames that have come back from the host. Large ones are worth keeping: the allocator gives them back to
//! the kernel at once, and the next frame would fault every page in again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::abi::Buf;
use crate::frame::FrameBuilder;

/// Below this, allocating is as fast.
const MIN_BYTES: usize = 128 << 10;
/// Above this, keeping costs more memory than it is worth (invariant 6).
const MAX_BYTES: usize = 8 << 20;
/// One is being built while another is with the host.
const MAX_BUFFERS: usize = 2;

#[derive(Clone, Default)]
pub(crate) struct FramePool(Arc<Mutex<Vec<Vec<u8>>>>);

impl FramePool {
    /// Gives the builder a buffer, where there is one.
    pub(crate) fn supply(&self, builder: &mut FrameBuilder) {
        if builder.is_empty()
            && let Some(buffer) = self.0.lock().pop()
        {
            builder.reuse(buffer);
        }
    }

    /// The finished frame, whose buffer comes back here when the host is done with it.
    pub(crate) fn finish(&self, builder: &mut FrameBuilder) -> Buf {
        let frame = builder.finish_vec();
        if (MIN_BYTES..=MAX_BYTES).contains(&frame.capacity()) {
            Buf::from_owner(Pooled {
                frame,
                pool: self.clone(),
            })
        } else {
            Buf::from(frame)
        }
    }
}

struct Pooled {
    frame: Vec<u8>,
    pool: FramePool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock();
        if free.len() < MAX_BUFFERS {
            free.push(std::mem::take(&mut self.frame));
        }
    }
}
