//! Consumer groups: what they have committed, who their members are, and reading as one of them.

pub(crate) mod administration;
pub(crate) mod offset_record;
pub(crate) mod offsets;
