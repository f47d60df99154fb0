//! Whether two CPUs' time-stamp counters agree, and a clock that does not go back if they do not.

use crate::lock::Mutex;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Readings that each CPU takes: some ten microseconds.
const READINGS: u32 = 200;

/// What both CPUs do at the same time: each reads its counter after the other's last reading, so it
/// may not read less.
pub(crate) struct WarpCheck {
    arrived: AtomicU32,
    left: AtomicU32,
    state: Mutex<Comparison>,
}

struct Comparison {
    last: u64,
    warp: u64,
}

impl Comparison {
    fn add(&mut self, now: u64) {
        self.warp = self.warp.max(self.last.saturating_sub(now));
        self.last = now;
    }
}

impl WarpCheck {
    /// One that nobody has begun.
    pub(crate) const fn new() -> Self {
        Self {
            arrived: AtomicU32::new(0),
            left: AtomicU32::new(0),
            state: Mutex::new(Comparison { last: 0, warp: 0 }),
        }
    }

    /// Takes part, with `read` to read this CPU's counter. Does not wait for the other to have done so.
    pub(crate) fn take_part(&self, read: impl Fn() -> u64) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        wait_for_both(&self.arrived);
        for _ in 0..READINGS {
            let mut state = self.state.lock();
            state.add(read());
        }
        self.left.fetch_add(1, Ordering::AcqRel);
    }

    /// By how many cycles one has seen the other's counter go back, at the most; once both have taken
    /// part.
    pub(crate) fn warp(&self) -> u64 {
        wait_for_both(&self.left);
        self.state.lock().warp
    }
}

fn wait_for_both(count: &AtomicU32) {
    while count.load(Ordering::Acquire) < 2 {
        core::hint::spin_loop();
    }
}

/// The latest time that any CPU has seen.
pub(crate) struct Latest(AtomicU64);

impl Latest {
    /// None so far.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// `time`, or what another CPU has seen if that is later.
    pub(crate) fn at_least(&self, time: u64) -> u64 {
        self.0.fetch_max(time, Ordering::AcqRel).max(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn counters_that_agree_do_not_warp() {
        let counter = Arc::new(AtomicU64::new(0));
        let check = Arc::new(WarpCheck::new());
        let other = {
            let (counter, check) = (counter.clone(), check.clone());
            thread::spawn(move || check.take_part(|| counter.fetch_add(1, Ordering::SeqCst)))
        };
        check.take_part(|| counter.fetch_add(1, Ordering::SeqCst));
        assert_eq!(check.warp(), 0);
        other.join().unwrap();
    }

    #[test]
    fn a_counter_that_is_behind_is_noticed() {
        let mut state = Comparison { last: 0, warp: 0 };
        // Two CPUs in turn, the second 100 behind.
        for now in [1000, 910, 1020, 930, 1055] {
            state.add(now);
        }
        assert_eq!(state.warp, 90);
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let latest = Latest::new();
        assert_eq!([5, 3, 7, 6].map(|time| latest.at_least(time)), [5, 5, 7, 7]);
    }
}
