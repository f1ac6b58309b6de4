//! Transactions over many partitions: who may write, what is durable about it, and how it is decided.

pub(crate) mod commit;
pub(crate) mod description;
pub(crate) mod expiry;
pub(crate) mod log;
pub(crate) mod producer;
pub(crate) mod producer_state;
pub(crate) mod record;
pub(crate) mod recovery;
