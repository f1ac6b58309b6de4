//! The locks and atomics of the concurrent core: [`progress`](crate::log::progress),
//! [`visibility`](crate::log::visibility), [`ready_queue`](crate::log::ready_queue),
//! `work_queue` and `in_flight` take theirs from here and from nowhere else.
//!
//! `tests/interleavings.rs` compiles those files a second time, in a crate whose `sync` module has shuttle's types
//! under the same names: so `cargo test` explores their interleavings with no flag and no other build.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) use parking_lot::{Condvar, Mutex};
