//! Trying again, in place, what may heal by itself: a server that restarts, a disk that is full.

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Redactor;
use crate::error::Error;

/// How a task tries again.
pub struct Retry {
    backoff: Backoff,
    redactor: Redactor,
}

impl Retry {
    /// Tries again as `backoff` says; what is logged goes through `redactor` (invariant 8).
    pub fn new(backoff: Backoff, redactor: Redactor) -> Self {
        Self { backoff, redactor }
    }

    /// Says what failed and waits until it is time to try again; false where it is time to stop instead.
    pub async fn wait(&mut self, error: &Error, stop: &CancellationToken) -> bool {
        let delay = self.backoff.next_delay();
        let (attempt, retry_in_ms) = (self.backoff.attempts(), delay.as_millis() as u64);
        tracing::warn!(
            error = self.without_secrets(error),
            attempt,
            retry_in_ms,
            "will try again"
        );
        tokio::select! {
            () = tokio::time::sleep(delay) => !stop.is_cancelled(),
            () = stop.cancelled() => false,
        }
    }

    /// What `error` says, without secrets (invariant 8).
    pub fn without_secrets(&self, error: &Error) -> String {
        self.redactor.redact(&error.to_string())
    }

    /// The next failure begins with a short delay again.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
    }
}
