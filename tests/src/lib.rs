//! End to end: the built daemon and real servers. The tests are in `tests/`, one file a capability; the demo and the benchmarks are
//! the binaries in `src/bin/`.
//!
//! | Module | What it holds |
//! |---|---|
//! | [`work_dir`] | the temporary folder a run lives in |
//! | [`child`], [`output`] | a child process, its memory and processor time; what it writes, awaited line by line |
//! | [`built`] | the daemon and connectors as cargo builds them |
//! | [`daemon`], [`daemon_log`] | the daemon as a process; its log, its tasks' ledgers |
//! | [`connector_file`] | connector files for the test's servers |
//! | [`postgres`] | a throwaway PostgreSQL |
//! | [`shop`] | the sample database, its live load and the audit of what changed |
//! | [`arrivals`] | waiting for rows in a target without polling |
//! | [`compare`], [`settle`] | two databases row by row, at once or when they have settled |
//! | [`topics`], [`books`] | a stopped daemon's topics, held against the audit of the source |
//! | [`stand`] | shop, mirror, file and the daemon between them |
//! | [`small_disk`] | a file system to be filled |
//! | [`bystander`] | a pipeline beside the one in trouble, which must not notice |
//! | [`lines`] | what a file sink writes |
//! | [`interrupt`] | Ctrl-C, awaited |
//! | [`progress`], [`table`] | what a run is doing, and its figures, for a person |
//! | [`latency`], [`stats`] | commit-to-sink latency; percentiles |

pub mod arrivals;
pub mod books;
pub mod built;
pub mod bystander;
pub mod child;
pub mod compare;
pub mod connector_file;
pub mod daemon;
pub mod daemon_log;
pub mod error;
pub mod interrupt;
pub mod latency;
pub mod lines;
pub mod output;
pub mod postgres;
pub mod progress;
pub mod settle;
pub mod shop;
pub mod small_disk;
pub mod stand;
pub mod stats;
pub mod table;
pub mod topics;
pub mod work_dir;

pub use error::{Error, Result};
