//! postgres-source: PostgreSQL changes into topics.
//!
//! The map, in the order of a task's life:
//!
//! - [`connector`], [`config_def`], [`settings`], [`table_filter`]: the class and what it is told;
//! - [`task`]: the life itself; [`begin`]: what comes first, and from where;
//! - [`preflight`], [`publication`], [`slot`]: what must hold or is made on the server;
//! - [`snapshot`]: all rows at one point of the log; [`stream`]: the changes from that point on, out of [`pgoutput`]'s
//!   messages;
//! - [`catalog`], [`type_catalog`]: what the catalogs tell; [`relation`]: a table with its schemas; [`codec`]: from text to
//!   typed values; [`row`]: the text's cells;
//! - [`envelope`]: the records; [`position`]: how far they reach; [`heartbeat`]: signs of life;
//! - [`connection`], [`failure`]: sessions with the server, and what can go wrong with them.
#![allow(rustdoc::private_intra_doc_links)] // the map is for readers of the code

mod begin;
mod catalog;
mod codec;
mod config_def;
mod connection;
mod connector;
mod envelope;
mod failure;
mod heartbeat;
mod pgoutput;
mod position;
mod preflight;
mod publication;
mod relation;
mod row;
mod settings;
mod slot;
mod snapshot;
mod stream;
mod table_filter;
mod task;
mod type_catalog;

pub use connector::PostgresSource;
pub use task::PostgresSourceTask;
