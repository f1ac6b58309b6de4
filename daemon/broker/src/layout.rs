//! The files, byte by byte. This module holds documentation only.
//!
//! ```text
//! lock                                the pid of the process that has the directory open, with blanks; the lock itself is flock(2)
//! format                              "tidewater-log 1\n"; a newer number is refused
//! topics/<topic id>/topic.json        id, name, partitions, settings, checksum; the topic exists once this file does
//! topics/<topic id>.deleted/          a deleted topic whose files are not all removed yet
//! topics/<topic id>/<partition>/
//!     00000000000000000000.log        a segment: batches, one after the other; named by the offset of its first record
//!     00000000000000000000.index      its sparse index by offset and time
//!     00000000000000000000-1.log      a compacted segment: the number after the dash is its generation
//!     00000000000000000000-1.index    its sparse offset index
//!     00000000000000000000-2.cleaned  a compacted segment being written; removed at the next start
//!     checkpoint                      up to where the log is known to be on disk, and the state there
//! transactions/                       the transaction log: a log like that of a partition
//! ```
//! All integers are big-endian.
//!
//! # Topics
//! `topic.json` is JSON: `crc32c`, 8 hexadecimal digits, and `topic`, of which it is the CRC-32C when that is written
//! without spaces and with its keys in the order `name`, `id` (UUID), `partitions` (number), `settings` (name to value,
//! by name).
//!
//! # Batches
//! Kafka's record batch, magic 2.
//!
//! | bytes | field | here |
//! |---|---|---|
//! | 0..8 | base offset | set when appended; not under the CRC |
//! | 8..12 | batch length | bytes after this field; not under the CRC |
//! | 12..16 | partition leader epoch | always 0: one broker leads for ever; not under the CRC |
//! | 16 | magic | 2; not under the CRC |
//! | 17..21 | CRC-32C | of bytes 21 to the end |
//! | 21..23 | attributes | bits 0-2 compression (0 none, 1 gzip, 2 snappy, 3 LZ4, 4 zstd), 3 log-append time, 4 transactional, 5 control, 6 delete horizon |
//! | 23..27 | last offset delta | record count − 1; after compaction up to the offset before the next batch |
//! | 27..35 | base timestamp | of the first record, milliseconds since 1970; with bit 6, until when the tombstones of the batch stay |
//! | 35..43 | max timestamp | |
//! | 43..51 | producer id | −1 where the producer does not number its batches |
//! | 51..53 | producer epoch | −1 without producer id |
//! | 53..57 | base sequence | the instance's count of records in this partition before, modulo 2^31; −1 without producer id and in markers |
//! | 57..61 | record count | 0 where compaction left no record |
//! | 61.. | records | compressed as the attributes say |
//!
//! Compressed records are, as Kafka's Java client writes them: gzip, one member; snappy, the framing of snappy-java
//! (`82` "SNAPPY" `00`, two versions of 4 bytes, then for each 32 KiB a length of 4 bytes and a raw block); LZ4, one frame
//! of independent 64 KiB blocks; zstd, one frame. Records that do not shrink are stored as they are.
//!
//! A *marker* ends a transaction: a batch with the transactional and control bits and one record, whose key is version
//! 0 (i16) and type (i16; 0 abort, 1 commit), and whose value is version 0 (i16) and coordinator epoch 0 (i32).
//!
//! # Compacted segments
//! Batches without the records that went. A batch keeps its base offset, its codec and its kind of timestamp; its last
//! offset is that before the next batch, so the offsets of its records may rise in steps and end before it, and the
//! first may lie after its base. Bits 4 and 5 are never set, producer id, epoch and base sequence are −1. Offsets before
//! the first batch that stays belong to a batch of record count 0 and timestamps −1.
//!
//! # Records
//! A sequence of zigzag varints and bytes:
//!
//! | field | |
//! |---|---|
//! | varint | bytes of the record after this field |
//! | 1 byte | attributes, 0 |
//! | varint | timestamp − base timestamp |
//! | varint | offset − base offset |
//! | varint, bytes | length of the key and the key; −1 for none |
//! | varint, bytes | length of the value and the value; −1 for none |
//! | varint | header count; then for each: |
//! | varint, bytes | length of the name and the name, UTF-8 |
//! | varint, bytes | length of the value and the value; −1 for none |
//!
//! # Indexes
//! Entries of 20 bytes:
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | base offset of a batch − base offset of the segment |
//! | 4..8 | byte position of the batch |
//! | 8..16 | the greatest timestamp of the batches before it (i64) |
//! | 16..20 | CRC-32C of the base offset of the segment (u64) and bytes 0 to 16 |
//!
//! Offsets and positions rise, timestamps do not fall. An entry for each batch that begins at least
//! `index.interval.bytes` after the entry before, or after the segment's begin. Kafka's two files, for offsets and for
//! times, in one. Not synced; a missing, short or wrong index is rebuilt.
//!
//! # Checkpoints
//! CRC-32C of the rest as 8 hexadecimal digits, a newline, then JSON:
//!
//! | key | |
//! |---|---|
//! | `log_start` | the first offset kept, which may lie inside the first segment, or inside a batch |
//! | `durable` | `{offset, segment, position}`: everything before is on disk |
//! | `active` | `{max_timestamp, begun_ms}` of that segment, up to there: the greatest timestamp, when its first batch was written |
//! | `sealed` | the closed segments: `{base, next, size, generation, max_timestamp, written_ms, tombstones}`: first offset, offset after the last, bytes, how often compacted, the greatest timestamp, when its last batch was written, from when on some of its tombstones may go (left out if it has none, or was not compacted) |
//! | `open` | `[producer id, {epoch, first: {offset, segment, position}}]` for each transaction without marker |
//! | `producers` | `[producer id, {epoch, last_ms, batches: [{first, last, base, next}]}]` for each producer that numbers its batches: the epoch, when it last wrote (milliseconds since 1970), and of its last five batches the sequence of the first and last record, the offset of the first and that after the last |
//! | `aborted` | `{producer_id, first, last, stable}`, the fields of Kafka's transaction index |
//! | `cleaned` | compaction has read everything before this offset |
//! | `plain` | before this offset compaction left no transactional batch, and `aborted` nothing of them |
//!
//! # The transaction log
//! Its records have no key. Their values:
//!
//! | kind | byte 0 | then |
//! |---|---|---|
//! | reset | 0 | next producer id (i64): all records before are void, what still holds follows in the same batch |
//! | producer | 1 | producer id (i64), epoch (i16), transactional id (UTF-8, to the end) |
//! | commit | 2 | transaction, partition count (u32), partitions |
//! | abort | 3 | transaction: a commit record before does not count |
//! | ids | 4 | next producer id (i64): those below are taken |
//! | forget | 5 | transactional id (UTF-8, to the end), which expired |
//!
//! A transaction is producer id (i64), epoch (i16) and its number under that epoch (u64). A partition is topic id (16
//! bytes), partition (u32), the transaction's first offset there (u64), batch count (u32), and for each batch that was
//! not known to be durable: base offset (u64), last offset (u64), CRC (u32).
//!
//! # Group offsets
//! Kafka's records, in the topic `__consumer_offsets`. Key: version 1 (i16), group and topic (i16 length and UTF-8
//! each), partition (i32). Value: version 3 (i16), offset (i64), leader epoch −1 (i32), metadata (i16 length and
//! UTF-8), commit timestamp in milliseconds (i64); null where the offset is deleted. Read, too: key version 0 and value
//! versions 0 to 2, which have no leader epoch.
