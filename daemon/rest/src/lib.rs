//! Kafka Connect's REST API, and what Tidewater has beyond it.
//!
//! The map, in the order a call meets it:
//!
//! - [`listener`]: addresses, TLS; [`access`]: who may call what;
//! - [`api`]: the routes together, limits, the OpenAPI document;
//! - `connectors`, `control`, `offsets`, `status`: Kafka Connect's API of connectors and tasks; `plugins`, [`catalog`]: what is
//!   installed, and what a configuration amounts to; [`loggers`]; `health`;
//! - `topics`, `records`, `groups`: the log; `metrics`: figures for Prometheus;
//! - [`error`]: what a call that fails answers; `extract`: what handlers take from a call; `scalar`: text of any scalar.

pub mod access;
pub mod api;
pub mod catalog;
mod connectors;
mod control;
pub mod error;
mod extract;
mod groups;
mod health;
pub mod listener;
pub mod loggers;
mod metrics;
mod offsets;
mod plugins;
mod records;
mod scalar;
mod status;
mod topics;
