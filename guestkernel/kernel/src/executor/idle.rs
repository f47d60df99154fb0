//! What a CPU does when nothing is ready: it polls for a while, then halts.
//!
//! How long it polls adapts to what it waits for, as KVM's halt polling does: a halt costs a few
//! traps and an interrupt, some 50 µs where CPL 0 is emulated, so polling pays when the device
//! answers soon, and only then.

use super::{MAX_CPUS, SCHEDULER, devices, has_ready, poll_devices, steal_work, this_cpu, timer};
use crate::globals::global;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use machine::clock::monotonic;

/// The longest and the shortest time, in nanoseconds, that is polled for.
const LONGEST: u64 = 400_000;
const SHORTEST: u64 = 25_000;

/// How long one CPU polls for now. In a cache line of its own.
#[repr(align(64))]
struct Window(AtomicU64);

global! {
    /// By CPU number.
    static WINDOWS: [Window; MAX_CPUS] = [const { Window(AtomicU64::new(LONGEST)) }; MAX_CPUS];
}

global! {
    /// Whether an idle CPU polls the devices. One does; the others watch their queues only, so that
    /// they do not take the devices' locks from each other and from those who submit requests.
    static IS_POLLED: AtomicBool = AtomicBool::new(false);
}

/// The duty to poll the devices.
struct PollDuty(());

impl PollDuty {
    /// Takes the duty, unless another CPU has it. Relaxed: the devices have their own locks, so
    /// nothing is ordered by it.
    fn take() -> Option<Self> {
        let is_free = !IS_POLLED.load(Ordering::Relaxed);
        (is_free && !IS_POLLED.swap(true, Ordering::Relaxed)).then(|| Self(()))
    }
}

impl Drop for PollDuty {
    fn drop(&mut self) {
        IS_POLLED.store(false, Ordering::Relaxed);
    }
}

/// Returns when there may be something to do, or `is_woken` says so.
pub(super) fn wait(is_woken: impl Fn() -> bool) {
    let this = this_cpu();
    // What another CPU queues comes soon, or not at all; what a device does, soon.
    let is_expecting = devices::in_flight() || machine::cpu_count() > 1;
    if !is_expecting {
        halt(this, is_woken);
        return;
    }
    let window = &WINDOWS[this as usize % MAX_CPUS].0;
    let length = window.load(Ordering::Relaxed);
    let start = monotonic();
    SCHEDULER.polls(this);
    if !poll_until(start + length, &is_woken) {
        halt(this, is_woken);
        window.store(adapted(length, monotonic() - start), Ordering::Relaxed);
    }
    SCHEDULER.note_busy(this);
}

/// Waits for an interrupt, unless there is something to do.
fn halt(this: u32, is_woken: impl Fn() -> bool) {
    SCHEDULER.halts(this);
    if !has_ready() && !is_woken() && !steal_work() && !devices::arm() {
        machine::interrupt::wait(timer::next_deadline());
    }
    SCHEDULER.note_busy(this);
}

/// Polls devices, timers and queues; true when one had something, false at monotonic time `end`.
fn poll_until(end: u64, is_woken: &impl Fn() -> bool) -> bool {
    let mut duty = None;
    loop {
        duty = duty.or_else(PollDuty::take);
        for _ in 0..16 {
            if duty.is_some() && poll_devices() || has_ready() || is_woken() {
                return true;
            }
            core::hint::spin_loop();
        }
        if timer::fire() || steal_work() {
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
