//! What a CPU does when nothing is ready: it polls for a while, then halts.
//!
//! How long it polls adapts to what it waits for, as KVM's halt polling does: a halt costs a few
//! traps and an interrupt, some 50 µs where CPL 0 is emulated, so polling pays when the device
//! answers soon, and only then.

use super::{devices, poll_devices, timer};
use core::sync::atomic::{AtomicU64, Ordering};
use machine::clock::monotonic;

/// The longest and the shortest time, in nanoseconds, that is polled for.
const LONGEST: u64 = 400_000;
const SHORTEST: u64 = 25_000;

/// How long is polled for now.
static WINDOW: AtomicU64 = AtomicU64::new(LONGEST);

/// Returns when there may be something to do.
pub(super) fn wait() {
    if !devices::in_flight() {
        if !devices::arm() {
            machine::interrupt::wait(timer::next_deadline());
        }
        return;
    }
    let start = monotonic();
    let window = WINDOW.load(Ordering::Relaxed);
    if poll_until(start + window) {
        return;
    }
    if !devices::arm() {
        machine::interrupt::wait(timer::next_deadline());
    }
    WINDOW.store(adapted(window, monotonic() - start), Ordering::Relaxed);
}

/// Polls devices and timers; true when one had something, false at monotonic time `end`.
fn poll_until(end: u64) -> bool {
    loop {
        for _ in 0..16 {
            if poll_devices() {
                return true;
            }
            core::hint::spin_loop();
        }
        if timer::fire() {
            return true;
        }
        if monotonic() >= end {
            return false;
        }
    }
}

/// The window after a wait of `waited` that the current one did not suffice for.
fn adapted(window: u64, waited: u64) -> u64 {
    if waited < LONGEST {
        (2 * waited).clamp(SHORTEST, LONGEST)
    } else {
        (window / 2).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_what_is_waited_for() {
        let mut window = LONGEST;
        for _ in 0..10 {
            window = adapted(window, 10_000_000);
        }
        assert_eq!(window, SHORTEST);
        // A device that answers after 60 µs is worth polling for.
        window = adapted(window, 60_000);
        assert!(window > 60_000);
        assert_eq!(adapted(LONGEST, LONGEST - 1), LONGEST);
    }
}
