//! Waits that must be short: noticing when one is not.
//!
//! What is waited for may be held by a CPU that the host does not run, and the host may suspend the
//! whole VM. So only time is counted in which the waiter itself spins: a jump of the clock between
//! two looks counts as a moment.

use crate::backend;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Spins between two looks at the clock.
const SPINS: u32 = 1 << 10;
/// Nanoseconds that pass between two looks at the most, if the waiter was not stopped meanwhile.
const MOMENT: u64 = 10_000_000;

/// Nanoseconds of spinning that are reported.
static THRESHOLD: AtomicU64 = AtomicU64::new(5_000_000_000);
static PANICS: AtomicBool = AtomicBool::new(false);
static REPORTS: AtomicU32 = AtomicU32::new(0);

/// Makes a CPU that spins for `threshold` nanoseconds report that; if `panics`, and end the VM.
/// A threshold of 0 turns that off.
pub(crate) fn configure(threshold: u64, panics: bool) {
    THRESHOLD.store(threshold, Ordering::Relaxed);
    PANICS.store(panics, Ordering::Relaxed);
}

/// Prints a stall with what all CPUs do, and ends the VM if that was asked for.
#[cold]
pub(crate) fn report(what: fmt::Arguments<'_>) {
    backend::report::stall(what, PANICS.load(Ordering::Relaxed));
    REPORTS.fetch_add(1, Ordering::Release);
}

/// How many stalls were reported.
pub(crate) fn reports() -> u32 {
    REPORTS.load(Ordering::Acquire)
}

/// Nanoseconds, shown as seconds with a decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) u64);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0 / 100_000_000;
        write!(formatter, "{}.{}", tenths / 10, tenths % 10)
    }
}

/// One wait.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    spins: u32,
    /// When the clock was looked at last; 0 before the first time.
    last: u64,
    waited: u64,
    /// Spinning until the next report; 0 before it is known.
    limit: u64,
}

impl Patience {
    /// At its beginning.
    #[inline]
    pub(crate) const fn new() -> Self {
        Self {
            spins: 0,
            last: 0,
            waited: 0,
            limit: 0,
        }
    }

    /// Lets a moment pass; true if the wait should be reported: when it is too long, and whenever it
    /// has become twice as long.
    #[inline]
    pub(crate) fn spin(&mut self) -> bool {
        core::hint::spin_loop();
        self.spins += 1;
        self.spins.is_multiple_of(SPINS) && self.look(backend::clock::spinning())
    }

    #[cold]
    fn look(&mut self, now: u64) -> bool {
        if self.last != 0 {
            self.waited += now.saturating_sub(self.last).min(MOMENT);
        }
        self.last = now;
        if self.limit == 0 {
            self.limit = match THRESHOLD.load(Ordering::Relaxed) {
                0 => u64::MAX,
                threshold => threshold,
            };
        }
        backend::smp::relax();
        let is_over = self.waited >= self.limit;
        if is_over {
            self.limit = self.limit.saturating_mul(2);
        }
        is_over
    }

    /// Seconds of spinning so far.
    pub(crate) fn seconds(&self) -> Seconds {
        Seconds(self.waited)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::hosted::report::reports;

    /// Waits for a report with `text` in it.
    pub(crate) fn await_report(text: &str) {
        configure(20_000_000, false);
        while !reports().iter().any(|report| report.contains(text)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_time_spent_spinning_counts() {
        let limit = 100 * MOMENT;
        let mut patience = Patience {
            limit,
            ..Patience::new()
        };
        let mut now = 1;
        assert!(!patience.look(now));
        // The VM was suspended for an hour.
        now += 3_600_000_000_000;
        assert!(!patience.look(now));
        assert_eq!(patience.waited, MOMENT);
        let mut reports = 0;
        for _ in 0..400 {
            now += MOMENT;
            reports += u32::from(patience.look(now));
        }
        // After 100, 200 and 400 moments.
        assert_eq!(reports, 3);
        assert_eq!(patience.seconds().to_string(), "4.0");
    }
}
