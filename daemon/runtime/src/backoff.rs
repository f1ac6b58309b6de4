//! When to try again: exponential back-off with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doubles from a first delay to a greatest one; each delay is spread over its upper half, so that what failed
/// together does not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    greatest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Delays from `first` to `greatest`.
    pub fn new(first: Duration, greatest: Duration) -> Self {
        Self {
            first,
            greatest: greatest.max(first),
            attempts: 0,
        }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let full = self
            .first
            .saturating_mul(1 << self.attempts.min(20))
            .min(self.greatest);
        self.attempts = self.attempts.saturating_add(1);
        // A fresh hasher is randomly keyed: randomness enough to spread retries.
        let random = RandomState::new().hash_one(self.attempts) % 1000;
        full / 2 + full.mul_f64(0.5 * random as f64 / 1000.0)
    }

    /// How many delays were asked for since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_greatest_and_begins_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for full in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.next_delay();
            assert!(
                delay >= Duration::from_millis(full / 2) && delay <= Duration::from_millis(full),
                "{delay:?} of {full}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::MAX);
        backoff.attempts = u32::MAX - 1;
        backoff.next_delay();
        backoff.next_delay();
        assert_eq!(backoff.attempts(), u32::MAX);
    }
}
