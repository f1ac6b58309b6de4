//! Consumer groups.

pub(crate) mod offsets;
