//! Whether two CPUs' time-stamp counters agree, and a clock that does not go back if they do not.

use crate::lock::Mutex;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Readings that each CPU takes: some ten microseconds.
const READINGS: u32 = 400;

/// What both CPUs do at the same time: each reads its counter after the other's last reading, so it
/// may not read less.
pub(crate) struct WarpCheck {
    arrived: AtomicU32,
    left: AtomicU32,
    state: Mutex<State>,
}

struct State {
    last: u64,
    warp: u64,
}

impl WarpCheck {
    /// One that nobody has begun.
    pub(crate) const fn new() -> Self {
        Self {
            arrived: AtomicU32::new(0),
            left: AtomicU32::new(0),
            state: Mutex::new(State { last: 0, warp: 0 }),
        }
    }

    /// Takes part, with `read` to read this CPU's counter; gives by how many cycles one has seen the
    /// other's go back, at the most.
    pub(crate) fn run(&self, read: impl Fn() -> u64) -> u64 {
        meet(&self.arrived);
        for _ in 0..READINGS {
            let mut state = self.state.lock();
            let now = read();
            state.warp = state.warp.max(state.last.saturating_sub(now));
            state.last = now;
        }
        meet(&self.left);
        self.state.lock().warp
    }
}

/// Waits for the other.
fn meet(count: &AtomicU32) {
    count.fetch_add(1, Ordering::AcqRel);
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

    /// Checks a counter against another that is `behind` it.
    fn warp(behind: u64) -> u64 {
        let counter = Arc::new(AtomicU64::new(1_000_000));
        let check = Arc::new(WarpCheck::new());
        let other = {
            let (counter, check) = (counter.clone(), check.clone());
            thread::spawn(move || check.run(|| counter.fetch_add(1, Ordering::SeqCst) - behind))
        };
        let own = check.run(|| counter.fetch_add(1, Ordering::SeqCst));
        assert_eq!(own, other.join().unwrap());
        own
    }

    #[test]
    fn counters_that_agree_do_not_warp() {
        assert_eq!(warp(0), 0);
    }

    #[test]
    fn a_counter_that_is_behind_is_noticed() {
        // Where one CPU has read all it wants before the host runs the other, nothing shows.
        let seen = (0..1000).map(|_| warp(100_000)).find(|warp| *warp > 0);
        let expected = 100_000 - 2 * u64::from(READINGS)..100_000;
        assert!(
            seen.is_some_and(|warp| expected.contains(&warp)),
            "{seen:?}"
        );
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let latest = Latest::new();
        assert_eq!([5, 3, 7, 6].map(|time| latest.at_least(time)), [5, 5, 7, 7]);
    }
}
