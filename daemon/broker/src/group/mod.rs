//! Consumer groups: what they have committed, who their members are, and reading as one of them.

pub(crate) mod administration;
pub(crate) mod assignor;
pub(crate) mod consumer;
pub(crate) mod coordinator;
pub(crate) mod description;
pub(crate) mod group_metadata;
pub(crate) mod membership;
pub(crate) mod offset_expiry;
pub(crate) mod offset_record;
pub(crate) mod offsets;
pub(crate) mod registry;
pub(crate) mod subscription;
