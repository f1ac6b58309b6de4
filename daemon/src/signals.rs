//! Signals that end the daemon.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Failure, Result};

/// SIGTERM and SIGINT, each of which asks for an end in order.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals from now on.
    pub fn take() -> Result<Self> {
        let take = |kind| {
            signal(kind).map_err(|error| Failure::environment(format!("cannot handle signals: {error}")))
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// As [`next`](Self::next), but passes over those that come before `pause` is over.
    pub async fn next_after(&mut self, pause: Duration) -> &'static str {
        let from = Instant::now() + pause;
        loop {
            let name = self.next().await;
            if Instant::now() >= from {
                return name;
            }
        }
    }
}
