//! Time as the broker sees it: behind a trait, so that tests decide what time it is.
//!
//! There are two times. The wall clock stamps records and tells how old they are; it may jump in either direction when
//! somebody sets it. The monotonic clock measures waits and time-outs, and only goes forward.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Where a broker takes the time from.
pub trait Clock: Debug + Send + Sync {
    /// The wall clock: milliseconds since 1970. May be earlier than what was answered before.
    fn now_ms(&self) -> i64;
    /// The monotonic clock, for waits and time-outs.
    fn monotonic(&self) -> Instant;
}

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// On the wall clock: milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// On the monotonic clock.
    pub(crate) at: Instant,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self {
            wall_ms: clock.now_ms(),
            at: clock.monotonic(),
        }
    }

    /// What the wall clock would show at `now` had nobody set it since this moment.
    pub(crate) fn steady_ms(&self, now: Instant) -> i64 {
        let passed = now.saturating_duration_since(self.at).as_millis();
        self.wall_ms
            .saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
    }
}

/// The clocks of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as i64)
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// Clocks that stand still until they are set, for tests and simulations.
///
/// A broker that runs on them does its periodic work when told to: move the clock, then call
/// [`Broker::run_housekeeping_now`](crate::Broker::run_housekeeping_now).
#[derive(Debug)]
pub struct ManualClock {
    times: Mutex<(i64, Instant)>,
}

impl ManualClock {
    /// Clocks that show `now_ms`, milliseconds since 1970.
    pub fn new(now_ms: i64) -> Self {
        Self {
            times: Mutex::new((now_ms, Instant::now())),
        }
    }

    /// Time passes: both clocks go forward.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times.lock();
        times.0 = times
            .0
            .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        times.1 += by;
    }

    /// Somebody sets the wall clock, forward or back; the monotonic clock does not notice.
    pub fn set_wall_clock(&self, now_ms: i64) {
        self.times.lock().0 = now_ms;
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.times.lock().0
    }

    fn monotonic(&self) -> Instant {
        self.times.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_may_go_back_and_the_monotonic_clock_may_not() {
        let clock = ManualClock::new(1_000);
        let begun = clock.monotonic();
        clock.advance(Duration::from_millis(500));
        clock.set_wall_clock(3);
        assert_eq!(clock.now_ms(), 3);
        assert_eq!(clock.monotonic() - begun, Duration::from_millis(500));
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        assert!(SystemClock.now_ms() > 1_600_000_000_000);
    }
}
