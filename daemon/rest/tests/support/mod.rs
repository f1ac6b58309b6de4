//! A log for the API to serve.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::Arc;

use tidewater_broker::BrokerOptions;
use tidewater_runtime::broker::Broker;
use tidewater_runtime::embedded::EmbeddedBroker;

pub fn broker(dir: &tempfile::TempDir) -> Arc<dyn Broker> {
    let log = tidewater_broker::Broker::open(BrokerOptions::new(dir.path().join("data"))).unwrap();
    Arc::new(EmbeddedBroker::new(log))
}
