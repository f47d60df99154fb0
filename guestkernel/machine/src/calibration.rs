//! The frequency of a cycle counter, measured against a slower counter of known frequency.
//!
//! The CPU may be taken away at any time, for much longer than the measurement takes, if it is a
//! virtual one. A look at both counters that took long says little about either, so it is the
//! quickest looks that count; and while nobody looks, the slower counter can wrap.

/// A look at both counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The cycle counter before the other one was read.
    pub(crate) before: u64,
    /// The slower counter, which counts down and wraps.
    pub(crate) count: u16,
    /// The cycle counter after that.
    pub(crate) after: u64,
}

impl Look {
    fn cycles(self) -> u64 {
        self.after.saturating_sub(self.before)
    }

    fn middle(self) -> u64 {
        self.before + self.cycles() / 2
    }
}

/// A measurement.
#[derive(Debug)]
pub(crate) struct Calibration {
    /// The slower counter's frequency, in Hz.
    frequency: u64,
    /// Ticks of the slower counter to measure for.
    ticks: u64,
    /// Cycles between two looks beyond which the slower counter may have wrapped.
    longest_gap: u64,
    start: Option<Look>,
    last: Option<Look>,
    /// Looks since the first, and ticks since `start`.
    looks: u32,
    passed: u64,
}

/// Looks of which the quickest is the start.
const LOOKS_AT_START: u32 = 16;

impl Calibration {
    /// One against a counter of `frequency` Hz, for `ticks` of it.
    pub(crate) fn new(frequency: u64, ticks: u64, longest_gap: u64) -> Self {
        Self {
            frequency,
            ticks,
            longest_gap,
            start: None,
            last: None,
            looks: 0,
            passed: 0,
        }
    }

    /// Takes a look into account; the cycle counter's frequency, in Hz, once it is known.
    pub(crate) fn add(&mut self, look: Look) -> Option<u64> {
        match self.last.replace(look) {
            Some(last) if look.after.saturating_sub(last.before) <= self.longest_gap => {
                self.passed += u64::from(last.count.wrapping_sub(look.count));
            }
            _ => {
                self.start = None;
                self.looks = 0;
            }
        }
        self.looks += 1;
        let start = match self.start {
            Some(start) if self.looks > LOOKS_AT_START || start.cycles() <= look.cycles() => start,
            _ => {
                self.passed = 0;
                *self.start.insert(look)
            }
        };
        // A slow look at the end would spoil it just as one at the start.
        if self.passed < self.ticks || look.cycles() > 2 * start.cycles() {
            return None;
        }
        let cycles = u128::from(look.middle() - start.middle());
        Some((cycles * u128::from(self.frequency) / u128::from(self.passed)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREQUENCY: u64 = 1_000_000;
    const TICKS: u64 = 10_000;
    /// A microsecond's cycles at 3 GHz, the frequency to be found.
    const PER_TICK: u64 = 3000;
    const GAP: u64 = 20_000_000;

    /// A look at cycle `at` that takes `cycles`; the slower counter is read in the middle.
    fn look(at: u64, cycles: u64) -> Look {
        Look {
            before: at,
            count: (u64::MAX - (at + cycles / 2) / PER_TICK) as u16,
            after: at + cycles,
        }
    }

    /// Looks every 2 µs, each for 1 µs, but for what `disturb` makes of them; the result and when
    /// it came.
    fn measure(mut disturb: impl FnMut(u32, &mut u64) -> u64) -> (u64, u64) {
        let mut calibration = Calibration::new(FREQUENCY, TICKS, GAP);
        let mut now = 123_456_789;
        for number in 0..1_000_000 {
            let cycles = PER_TICK + disturb(number, &mut now);
            if let Some(frequency) = calibration.add(look(now, cycles)) {
                return (frequency, now);
            }
            now += cycles + PER_TICK;
        }
        panic!("no result");
    }

    #[track_caller]
    fn check(disturb: impl FnMut(u32, &mut u64) -> u64) {
        let (frequency, _) = measure(disturb);
        let right = FREQUENCY * PER_TICK;
        assert!(frequency.abs_diff(right) < right / 1000, "{frequency} Hz");
    }

    #[test]
    fn looks_without_disturbance_give_the_frequency() {
        check(|_, _| 0);
    }

    #[test]
    fn slow_looks_at_the_start_and_the_end_do_not_count() {
        check(|number, _| if number == 0 { 3_000_000 } else { 0 });
        check(|number, _| if number % 3 == 0 { 100 * PER_TICK } else { 0 });
    }

    #[test]
    fn a_pause_that_hides_a_wrap_starts_it_again() {
        // 65536 ticks and some are 66 ms.
        check(|number, now| {
            if number == 1000 {
                *now += 70_000 * PER_TICK;
            }
            0
        });
    }

    #[test]
    fn shorter_pauses_do_not_matter() {
        check(|number, now| {
            if number % 500 == 0 {
                *now += GAP / 2;
            }
            0
        });
    }
}
