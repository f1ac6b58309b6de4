//! The Connect runtime: connectors, tasks, converters and offsets around a log of topics.
//!
//! The map, in the order a record meets it:
//!
//! - [`config`]: connector files and worker settings;
//! - [`worker`]: the one process; owns the connectors and what they share;
//! - [`control`]: what a connector can be asked, and why that may be refused; [`connector`]: the actor that does it;
//!   [`connector_life`], [`task_life`]: what it has run; [`supervision`], [`restart_policy`]: one life after another;
//!   [`pause`]: rest on demand; [`offset_change`]: where a stopped connector goes on;
//! - [`source_task`]: plugin `poll` → [`source_way`]: transforms, then [`record_encoder`] → one transaction of records,
//!   positions and dead letters → plugin `commit`;
//! - [`broker`]: the log as the runtime knows it, a trait; [`embedded`] is the log in this process; [`administration`]: the
//!   log for those who look after it;
//! - [`sink_task`]: committed batches → [`sink_way`]: [`record_decoder`], then transforms → plugin `put` → offsets;
//!   [`start_offset`]: where it begins;
//! - [`partitioner`], [`topic_rules`]: where a source's record goes, and what its topic is created with;
//! - [`record_errors`]: what is done about a record that cannot be taken further ([`failure`]), and [`dead_letters`];
//! - [`rate_limit`]: how much a connector may move in a second;
//! - [`converter`]: between typed values and the bytes of topics, for both ways; [`record_fault`]: a record that has no way;
//! - [`config_store`], [`offsets`], [`status`], [`schema_store`]: state kept in topics, in Kafka Connect's own record formats;
//! - [`ledger`]: what became of every record; [`retry`], [`backoff`]: trying again, and when.

pub mod administration;
pub mod backoff;
pub mod broker;
pub mod config;
pub mod config_store;
pub mod connector;
pub mod connector_life;
pub mod control;
pub mod converter;
pub mod dead_letters;
pub mod embedded;
mod embedded_administration;
pub mod error;
pub mod failure;
pub mod ledger;
pub mod offset_change;
pub mod offsets;
pub mod partitioner;
pub mod pause;
pub mod rate_limit;
pub mod record_decoder;
pub mod record_encoder;
pub mod record_errors;
pub mod record_fault;
pub mod restart_policy;
pub mod retry;
pub mod schema_store;
pub mod sink_task;
pub mod sink_way;
pub mod source_task;
pub mod source_way;
pub mod start_offset;
pub mod state_topic;
pub mod status;
pub mod supervision;
pub mod task_life;
pub mod topic_rules;
pub mod worker;

pub use control::ControlError;
pub use error::{Error, Result};
pub use worker::Worker;
