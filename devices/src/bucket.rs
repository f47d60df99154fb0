//! A token bucket: so much a second, and what was not used for a second or so at once.

use std::time::{Duration, Instant};

/// A bucket of tokens, full at first. Whoever takes more than there are leaves a debt, so that what is
/// larger than the bucket can be had at all.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// What fills an empty bucket.
    span: Duration,
    /// Tokens a second; not zero.
    rate: u64,
    /// When it is full, if nothing is taken until then.
    full: Option<Instant>,
}

impl Bucket {
    /// A bucket for `burst` tokens into which `rate` flow each second. A rate of zero is one.
    pub fn new(rate: u64, burst: u64) -> Self {
        let rate = rate.max(1);
        Self {
            span: time_for(burst, rate),
            rate,
            full: None,
        }
    }

    /// How long it takes from `now` on until there is a token; zero if there is one.
    pub fn wait(&self, now: Instant) -> Duration {
        let missing = self
            .full
            .map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        let one = time_for(1, self.rate);
        missing.saturating_add(one).saturating_sub(self.span)
    }

    /// Takes `count` tokens, whether there are as many or not.
    pub fn take(&mut self, count: u64, now: Instant) {
        let from = self.full.filter(|full| *full > now).unwrap_or(now);
        // One that is full in ages is not full before the end of time.
        self.full = from.checked_add(time_for(count, self.rate)).or(self.full);
    }

    /// Takes `count` tokens if there is one; whether there was.
    pub fn try_take(&mut self, count: u64, now: Instant) -> bool {
        let has_some = self.wait(now).is_zero();
        if has_some {
            self.take(count, now);
        }
        has_some
    }
}

/// How long `count` tokens take to flow.
fn time_for(count: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(count) * 1_000_000_000 / u128::from(rate);
    u64::try_from(nanoseconds).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_comes_in_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, 50);
        for _ in 0..50 {
            assert!(bucket.try_take(1, start));
        }
        // From here on each takes 10 ms.
        assert_eq!(bucket.wait(start), Duration::from_millis(10));
        let later = start + Duration::from_millis(10);
        assert!(bucket.try_take(1, later));
        assert!(!bucket.try_take(1, later));
        // It never holds more than a burst.
        let much_later = start + Duration::from_secs(3600);
        for _ in 0..50 {
            assert!(bucket.try_take(1, much_later));
        }
        assert!(!bucket.try_take(1, much_later));
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_paid_later() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1 << 20, 1 << 20);
        assert!(bucket.try_take(5 << 20, start));
        let wait = bucket.wait(start);
        assert!(wait > Duration::from_secs(4) && wait < Duration::from_millis(4001));
        assert!(!bucket.try_take(1, start + Duration::from_secs(4)));
        assert!(bucket.try_take(1, start + wait));
    }

    #[test]
    fn no_number_is_too_large() {
        let start = Instant::now();
        let mut bucket = Bucket::new(0, u64::MAX);
        bucket.take(u64::MAX, start);
        bucket.take(u64::MAX, start);
        assert!(bucket.wait(start) <= Duration::MAX);
    }
}
