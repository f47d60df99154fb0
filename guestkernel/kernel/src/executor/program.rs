//! Sharing the CPU between programs: time slices, and the interrupts that a program must not keep
//! from coming.

use super::{cpus, devices, has_ready, has_waiting_threads, timer};
use machine::clock;

/// Nanoseconds that a thread runs at least before it gives way to others.
const SLICE: u64 = 2_000_000;

/// The time that a thread may use before others have their turn.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    end: u64,
}

impl Slice {
    /// One that starts at [`clock::monotonic`] time `now`. Slices end at multiples of their
    /// length, so that threads that take turns quickly do not set the timer each time.
    pub fn starting(now: u64) -> Self {
        Self {
            end: (now / SLICE + 2) * SLICE,
        }
    }

    /// One that ends at that time.
    #[inline]
    pub fn ending(end: u64) -> Self {
        Self { end }
    }

    /// When it ends, on the monotonic clock.
    #[inline]
    pub fn end(self) -> u64 {
        self.end
    }

    /// Whether it is over and somebody waits.
    #[inline]
    pub fn must_yield(self) -> bool {
        has_waiting_threads() && clock::monotonic() >= self.end
    }
}

/// Sees to the interrupts that are needed while a program runs, the one at the end of `slice`
/// included if anybody waits for that; true if a device has something already, and should be polled
/// before the program is entered.
#[inline]
pub fn prepare_program(slice: Slice) -> bool {
    let is_urgent = devices::is_urgent();
    let mut is_shared = has_ready();
    if !is_shared && machine::cpu_count() > 1 {
        match is_urgent {
            true => cpus::runs_unshared(),
            false => cpus::runs_unlimited(),
        }
        is_shared = has_ready();
    }
    if !is_urgent && !is_shared {
        return false;
    }
    if is_shared {
        cpus::is_busy();
    }
    let timer = is_urgent.then(timer::next_deadline).flatten();
    let slice_end = is_shared.then_some(slice.end);
    machine::interrupt::set_timer(timer.into_iter().chain(slice_end).min());
    is_urgent && devices::arm()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_of_a_bounded_length_and_end_together() {
        for now in [0, 1, SLICE - 1, SLICE, 5 * SLICE + 7] {
            let length = Slice::starting(now).end - now;
            assert!((SLICE..=2 * SLICE).contains(&length), "{now}: {length}");
        }
        assert_eq!(Slice::starting(1).end, Slice::starting(SLICE - 1).end);
    }
}
