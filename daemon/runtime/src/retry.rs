//! Trying again, in place, what may heal by itself: a server that restarts, a disk that is full.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Redactor;
use crate::error::Error;

/// How a task tries again.
pub struct Retry {
    backoff: Backoff,
    redactor: Redactor,
    timeout: Option<Duration>,
    /// When what now fails began to fail.
    since: Option<Instant>,
}

/// What follows a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It is time to try again.
    Again,
    /// It is time to stop instead.
    Stop,
    /// `errors.retry.timeout` is over: the error is one to fail with.
    TooLong,
}

impl Retry {
    /// Tries again as `backoff` says, for as long as `timeout`, or for ever; what is logged goes through `redactor`
    /// (invariant 8).
    pub fn new(backoff: Backoff, timeout: Option<Duration>, redactor: Redactor) -> Self {
        Self {
            backoff,
            redactor,
            timeout,
            since: None,
        }
    }

    /// Says what failed and waits until it is time to try again.
    pub async fn wait(&mut self, error: &Error, stop: &CancellationToken) -> Waited {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
            self.succeeded();
            return Waited::TooLong;
        }
        let mut delay = self.backoff.next_delay();
        if let Some(timeout) = self.timeout {
            delay = delay.min(timeout.saturating_sub(since.elapsed()));
        }
        let (attempt, retry_in_ms) = (self.backoff.attempts(), delay.as_millis() as u64);
        tracing::warn!(
            error = self.without_secrets(error),
            attempt,
            retry_in_ms,
            "will try again"
        );
        tokio::select! {
            biased;
            () = stop.cancelled() => Waited::Stop,
            () = tokio::time::sleep(delay) => Waited::Again,
        }
    }

    /// What `error` says, without secrets (invariant 8).
    pub fn without_secrets(&self, error: &Error) -> String {
        self.redactor.redact(&error.to_string())
    }

    /// The next failure begins with a short delay again.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(timeout: Option<Duration>) -> Retry {
        let backoff = Backoff::new(Duration::from_millis(300), Duration::from_mins(1));
        Retry::new(backoff, timeout, Redactor::default())
    }

    fn error() -> Error {
        Error::State("the server restarts".into())
    }

    #[tokio::test(start_paused = true)]
    async fn tries_for_as_long_as_allowed_and_then_once_more() {
        let stop = CancellationToken::new();
        let mut retry = retry(Some(Duration::from_secs(10)));
        let began = Instant::now();
        let mut attempts = 0;
        while retry.wait(&error(), &stop).await == Waited::Again {
            attempts += 1;
        }
        assert_eq!(began.elapsed().as_secs(), 10);
        assert!((5..=7).contains(&attempts), "{attempts}");
        assert_eq!(retry.wait(&error(), &stop).await, Waited::Again, "begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn not_at_all_or_for_ever() {
        let stop = CancellationToken::new();
        assert_eq!(
            retry(Some(Duration::ZERO)).wait(&error(), &stop).await,
            Waited::TooLong
        );
        let mut patient = retry(None);
        for _ in 0..1000 {
            assert_eq!(patient.wait(&error(), &stop).await, Waited::Again);
        }
        stop.cancel();
        assert_eq!(patient.wait(&error(), &stop).await, Waited::Stop);
    }
}
