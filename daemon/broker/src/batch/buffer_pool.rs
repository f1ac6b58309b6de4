//! Recycled byte buffers: the hot paths of writing and reading batches allocate nothing in steady state.
//!
//! What the pools retain while idle is capped, so they cost a fixed amount of memory (invariant 6).

use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

/// Most bytes one pool keeps while nobody uses them.
const RETAINED_BYTES: usize = 8 << 20;
/// A single buffer above this size is given back to the allocator.
const LARGEST_RETAINED: usize = 2 << 20;

pub(crate) struct BufferPool {
    free: Mutex<Free>,
}

struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// Buffers batches are built in.
pub(crate) static WRITE_BUFFERS: BufferPool = BufferPool::new();
/// Buffers batches are read into.
pub(crate) static READ_BUFFERS: BufferPool = BufferPool::new();

impl BufferPool {
    const fn new() -> Self {
        Self {
            free: Mutex::new(Free {
                buffers: Vec::new(),
                bytes: 0,
            }),
        }
    }

    fn take(&self) -> Vec<u8> {
        let mut free = self.free.lock();
        let buffer = free.buffers.pop().unwrap_or_default();
        free.bytes -= buffer.capacity();
        buffer
    }

    fn give(&self, buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 || capacity > LARGEST_RETAINED {
            return;
        }
        let mut free = self.free.lock();
        if free.bytes + capacity <= RETAINED_BYTES {
            free.bytes += capacity;
            free.buffers.push(buffer);
        }
    }
}

/// A buffer of [`WRITE_BUFFERS`], empty at first, given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer(Vec<u8>);

impl WriteBuffer {
    pub(crate) fn take() -> Self {
        let mut buffer = WRITE_BUFFERS.take();
        buffer.clear();
        Self(buffer)
    }
}

impl Deref for WriteBuffer {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for WriteBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for WriteBuffer {
    fn drop(&mut self) {
        WRITE_BUFFERS.give(std::mem::take(&mut self.0));
    }
}

/// A buffer of [`READ_BUFFERS`] with `len` bytes to read into; it becomes the owner of a `bytes::Bytes`.
///
/// The vector stays initialised over its whole length between uses, so that reusing it needs no zeroing.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    buffer: Vec<u8>,
    len: usize,
}

impl ReadBuffer {
    pub(crate) fn take(len: usize) -> Self {
        let mut buffer = READ_BUFFERS.take();
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        Self { buffer, len }
    }

    /// Shortens the readable part to what was read.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.len]
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        READ_BUFFERS.give(std::mem::take(&mut self.buffer));
    }
}
