//! `rate.limit.records` and `rate.limit.bytes`: how much a connector may move in a second, over all its tasks.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A limit that the tasks of a connector share. A batch goes through whole, and who moved it waits for as long as it would
/// have taken at the rate: so a batch larger than a second's worth passes too, and nothing is saved up while it is quiet.
#[derive(Debug)]
pub struct RateLimit {
    records: Option<Rate>,
    bytes: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    a_second: u64,
    /// When all that went through is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Rate {
    fn charge(&self, amount: u64, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(amount as f64 / self.a_second as f64);
        let mut paid = self.paid.lock();
        let until = paid.map_or(now, |paid| paid.max(now)) + takes;
        *paid = Some(until);
        until
    }
}

impl RateLimit {
    /// So many records and bytes a second; none is without limit.
    pub fn new(records: Option<u64>, bytes: Option<u64>) -> Self {
        let rate = |a_second: u64| Rate {
            a_second: a_second.max(1),
            paid: Mutex::default(),
        };
        Self {
            records: records.map(rate),
            bytes: bytes.map(rate),
        }
    }

    /// Takes note of a batch that goes through; the time before which its task must not move another, if there is one.
    pub fn charge(&self, records: u64, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        let records = self.records.as_ref().map(|rate| rate.charge(records, now));
        let bytes = self.bytes.as_ref().map(|rate| rate.charge(bytes as u64, now));
        records.max(bytes).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_share_the_rate_whatever_the_size_of_their_batches() {
        let limit = RateLimit::new(Some(100), None);
        let began = Instant::now();
        let task = async |batch: u64, batches: u32| {
            for _ in 0..batches {
                if let Some(until) = limit.charge(batch, 1 << 20) {
                    tokio::time::sleep_until(until).await;
                }
            }
        };
        tokio::join!(task(500, 3), task(10, 50));
        assert_eq!(began.elapsed().as_secs(), 20, "2,000 records at 100 a second");
    }

    #[tokio::test(start_paused = true)]
    async fn the_scarcer_of_the_two_counts_and_none_is_no_limit() {
        let both = RateLimit::new(Some(10), Some(1000));
        let now = Instant::now();
        assert_eq!(both.charge(10, 100), Some(now + Duration::from_secs(1)));
        assert_eq!(both.charge(0, 2900), Some(now + Duration::from_secs(3)));
        assert_eq!(RateLimit::new(None, None).charge(1 << 40, 1 << 40), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_saved_up_while_it_is_quiet() {
        let limit = RateLimit::new(Some(10), None);
        limit.charge(10, 0);
        tokio::time::sleep(Duration::from_hours(1)).await;
        let now = Instant::now();
        assert_eq!(limit.charge(10, 0), Some(now + Duration::from_secs(1)));
    }
}
