//! Sharing the CPU between programs: time slices, and the interrupts that a program must not keep
//! from coming.

use super::{SCHEDULER, devices, has_waiting_threads, has_work, interrupt, this_cpu, timer};
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

    /// When to look next whether somebody waits: at its end or, if that has passed and nobody could
    /// be fetched from where he waits, when another one would end.
    fn next_end(self) -> u64 {
        let now = clock::monotonic();
        match self.end > now {
            true => self.end,
            false => Self::starting(now).end,
        }
    }

    /// Whether it is over and somebody waits, here or, if this CPU then fetches it, elsewhere. Asked
    /// if [`has_waiting_threads`](super::has_waiting_threads).
    pub fn must_yield(self) -> bool {
        clock::monotonic() >= self.end && balance()
    }
}

#[cold]
fn balance() -> bool {
    let (must_yield, interrupted) = SCHEDULER.balance(this_cpu());
    interrupt(interrupted);
    must_yield
}

/// Sees to the interrupts that are needed while a program runs, the one at the end of `slice`
/// included if anybody waits for that; true if there is something to do already, and [`poll`] should
/// be called before the program is entered. `is_shared` says whether threads waited just now, or work
/// did.
///
/// [`poll`]: super::poll
#[inline]
pub fn prepare_program(slice: Slice, mut is_shared: bool) -> bool {
    let is_urgent = devices::is_urgent();
    let is_alone = machine::cpu_count() == 1;
    if !is_shared && !is_alone {
        SCHEDULER.runs_unlimited(this_cpu());
        if has_work() {
            return true;
        }
        is_shared = has_waiting_threads();
    }
    // A timer that nobody waits for may become urgent on another CPU, to which its thread has gone.
    let mut deadline = match is_urgent || !is_alone {
        true => timer::next_deadline(),
        false => None,
    };
    if !is_urgent && !is_shared && deadline.is_none() {
        return false;
    }
    if is_shared {
        SCHEDULER.note_busy(this_cpu());
        let end = slice.next_end();
        deadline = Some(deadline.map_or(end, |deadline| deadline.min(end)));
    }
    machine::interrupt::set_timer(deadline);
    is_urgent && devices::arm_for_program()
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
