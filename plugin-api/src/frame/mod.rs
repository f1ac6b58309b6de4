//! The frame: a batch in one buffer, without pointers, that crosses the plugin boundary as it is.
//!
//! # Layout
//! All integers are little-endian; offsets count from the start of the frame, but those in descriptors from the
//! start of the arena.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `TWFRAME1` |
//! | 8..10, 10..12 | `u16` version (1), `u16` size of a descriptor |
//! | 12..16 | `u32` records |
//! | 16..24 | `u32` offset and length of the arena |
//! | 24..28 | `u32` offset of the descriptors |
//! | 28..36 | `u32` offset and count of the schema table: Connect's JSON schemas |
//! | 36..44 | `u32` offset and count of the topic table |
//! | 44..52 | `u32` offset and count of the position table: [`SourcePosition`](crate::SourcePosition)s as JSON |
//! | 52..64 | zero |
//!
//! An entry of a table is a `u32` length and that many bytes. A descriptor is [`DESCRIPTOR_SIZE`] bytes, or more from
//! a later version, whose additions stand at the end:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8, 8..16, 16..24 | `u32` offset and length of the key, the value and the headers; length `u32::MAX` is null |
//! | 24..32 | `i64` timestamp in milliseconds since 1970, `i64::MIN` is none |
//! | 32..40 | `i64` offset in the partition, -1 is none |
//! | 40..46 | `u16` topic, key schema, value schema: entries of the tables; `u16::MAX` is no schema |
//! | 46..48 | `u16` one more than the topic the record was read from, where that is another one; zero is the same |
//! | 48..52 | `i32` partition, -1 is none |
//! | 52..56 | zero |
//!
//! Headers are a `u32` count, then for each a `u32` length and the name, a `u16` schema, a `u32` length (`u32::MAX` is
//! null) and the value. Values are encoded as [`crate::value`] says.

mod build;
mod read;

pub use build::{FrameBuilder, RecordBuilder};
pub use read::{Frame, FrameError, Header, Headers, Record, SchemaCache};

const MAGIC: &[u8; 8] = b"TWFRAME1";
const HEADER_SIZE: usize = 64;
/// The size of a descriptor in bytes.
pub const DESCRIPTOR_SIZE: usize = 56;
const NONE: u32 = u32::MAX;
const NO_SCHEMA: u16 = u16::MAX;

/// A topic within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(u16);

/// A schema within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SchemaId(u16);

impl SchemaId {
    /// No schema: values carry tags.
    pub const NONE: SchemaId = SchemaId(NO_SCHEMA);
}

#[derive(Clone, Copy)]
struct Descriptor {
    key: (u32, u32),
    value: (u32, u32),
    headers: (u32, u32),
    timestamp: i64,
    offset: i64,
    topic: u16,
    key_schema: u16,
    value_schema: u16,
    /// One more than the topic the record was read from; zero where that is `topic`.
    original_topic: u16,
    partition: i32,
}

impl Descriptor {
    fn write(&self, out: &mut Vec<u8>) {
        for (start, length) in [self.key, self.value, self.headers] {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
        }
        out.extend_from_slice(&self.timestamp.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        for id in [
            self.topic,
            self.key_schema,
            self.value_schema,
            self.original_topic,
        ] {
            out.extend_from_slice(&id.to_le_bytes());
        }
        out.extend_from_slice(&self.partition.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    fn read(bytes: &[u8]) -> Self {
        let pair = |at| (u32_at(bytes, at), u32_at(bytes, at + 4));
        Self {
            key: pair(0),
            value: pair(8),
            headers: pair(16),
            timestamp: i64::from_le_bytes(array_at(bytes, 24)),
            offset: i64::from_le_bytes(array_at(bytes, 32)),
            topic: u16::from_le_bytes(array_at(bytes, 40)),
            key_schema: u16::from_le_bytes(array_at(bytes, 42)),
            value_schema: u16::from_le_bytes(array_at(bytes, 44)),
            original_topic: u16::from_le_bytes(array_at(bytes, 46)),
            partition: i32::from_le_bytes(array_at(bytes, 48)),
        }
    }
}

/// The `N` bytes at `at`; callers have checked that they are there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}
