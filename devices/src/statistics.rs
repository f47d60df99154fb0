//! What a device has done, counted for those who want to see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows. Relaxed: nothing is ordered by it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of the classes of latencies, in microseconds.
pub const LATENCY_BOUNDS: [u64; 15] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000,
    10_000_000,
];

/// How long requests took.
#[derive(Debug, Default)]
pub struct Latencies {
    /// By class; what took longer than all bounds is in the last.
    classes: [Counter; LATENCY_BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Latencies {
    /// Counts a request that took so long.
    pub fn note(&self, elapsed: Duration) {
        let microseconds = elapsed.as_micros();
        let class = LATENCY_BOUNDS.partition_point(|bound| u128::from(*bound) < microseconds);
        self.classes[class].add(1);
        self.nanoseconds.add(elapsed.as_nanos() as u64);
    }

    /// Requests in each class.
    pub fn classes(&self) -> [u64; LATENCY_BOUNDS.len() + 1] {
        self.classes.each_ref().map(Counter::get)
    }

    /// The sum of all latencies.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.get())
    }
}

/// What a device, or one of its streams, has done.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Requests that read from the host.
    pub reads: Counter,
    /// Requests that write to the host.
    pub writes: Counter,
    /// Other requests.
    pub others: Counter,
    /// Requests that failed.
    pub errors: Counter,
    /// Bytes that the guest got.
    pub read_bytes: Counter,
    /// Bytes that the guest gave.
    pub written_bytes: Counter,
    /// From when the device takes a request to when it gives it back.
    pub latencies: Latencies,
    /// Calls of the host's io_uring_enter(2).
    pub ring_enters: Counter,
    /// Operations given to the host's io_uring.
    pub ring_submissions: Counter,
    /// Operations that it has completed.
    pub ring_completions: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_counted_by_class() {
        let latencies = Latencies::default();
        for microseconds in [0, 10, 11, 10_000_000, 10_000_001] {
            latencies.note(Duration::from_micros(microseconds));
        }
        let classes = latencies.classes();
        assert_eq!((classes[0], classes[1]), (2, 1));
        assert_eq!(classes[LATENCY_BOUNDS.len() - 1..], [1, 1]);
        assert_eq!(latencies.sum(), Duration::from_micros(20_000_022));
    }
}
