//! Batches: records become one, and are read out of it again.

pub(crate) mod buffer_pool;
pub(crate) mod builder;
pub(crate) mod compression;
pub(crate) mod fetched;
pub(crate) mod header;
pub(crate) mod record;
pub(crate) mod snappy;
pub(crate) mod varint;
