//! What each CPU is doing, so that one that waits is told of new work, and only then.
//!
//! A CPU that finds nothing to do says so and then looks again; whoever queues something first
//! queues it and then looks who waits: one of the two sees the other. A CPU that polls sees the
//! queue by itself; one that has halted, or runs a program without a time limit, is interrupted.

use crate::sync::{AtomicU8, Ordering, fence};

/// CPUs that are told apart.
const MAX_CPUS: usize = 64;

/// It runs the kernel, or a program until its time slice is over: it will look at the queues.
const BUSY: u8 = 0;
/// It looks at the queues all the time.
const POLLING: u8 = 1;
/// It waits for an interrupt.
const HALTED: u8 = 2;
/// It runs a program, and nothing makes it look at the queues.
const UNLIMITED: u8 = 3;

/// It runs a program until a device or a timer interrupts it, if one ever does. What any CPU may
/// run need not wait for that, since whoever queues it can run it too.
const UNSHARED: u8 = 4;

/// What one CPU does. In a cache line of its own, since its CPU looks at it often.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct CpuState(AtomicU8);

impl CpuState {
    /// A CPU that starts.
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self(AtomicU8::new(BUSY))
    }

    /// As above; loom's atomics are not made at compile time.
    #[cfg(loom)]
    fn new() -> Self {
        Self(AtomicU8::new(BUSY))
    }

    /// The CPU is about to do that; it has to look at the queues afterwards, before it does it.
    fn set(&self, state: u8) {
        if self.0.load(Ordering::Relaxed) != state {
            self.0.store(state, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
    }

    /// Takes the CPU out of a state in which it waits; true if it was in it.
    fn rouse(&self, state: u8) -> bool {
        self.0.load(Ordering::Relaxed) == state
            && self
                .0
                .compare_exchange(state, BUSY, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(not(loom))]
static STATES: [CpuState; MAX_CPUS] = [const { CpuState::new() }; MAX_CPUS];
#[cfg(loom)]
static STATES: spin::Lazy<[CpuState; MAX_CPUS]> =
    spin::Lazy::new(|| core::array::from_fn(|_| CpuState::new()));

fn own() -> &'static CpuState {
    &STATES[machine::current_cpu() as usize % MAX_CPUS]
}

/// This CPU looks at the queues all the time from now on.
pub(super) fn polls() {
    own().set(POLLING);
}

/// This CPU is about to halt, and looks at the queues once more before.
pub(super) fn halts() {
    own().set(HALTED);
}

/// This CPU is about to run a program for as long as it likes, and looks at the queues once
/// more before.
#[inline]
pub(super) fn runs_unlimited() {
    own().set(UNLIMITED);
}

/// This CPU is about to run a program until something interrupts it, and looks at the queues once
/// more before.
#[inline]
pub(super) fn runs_unshared() {
    own().set(UNSHARED);
}

/// This CPU will look at the queues.
#[inline]
pub(super) fn is_busy() {
    own().set(BUSY);
}

fn state(number: u32) -> &'static CpuState {
    &STATES[number as usize % MAX_CPUS]
}

fn others() -> impl Iterator<Item = u32> {
    let this = machine::current_cpu();
    (0..machine::cpu_count()).filter(move |number| *number != this)
}

/// Something was queued that any CPU may run: sees to it that one looks.
pub(super) fn notify_one() {
    if machine::cpu_count() == 1 {
        return;
    }
    fence(Ordering::SeqCst);
    if others().any(|number| state(number).rouse(POLLING)) {
        return;
    }
    for waiting in [HALTED, UNLIMITED] {
        if let Some(number) = others().find(|number| state(*number).rouse(waiting)) {
            machine::kick(number);
            return;
        }
    }
}

/// Something was queued that CPU `number` has to run: sees to it that it looks.
pub(super) fn notify(number: u32) {
    if number == machine::current_cpu() {
        return;
    }
    fence(Ordering::SeqCst);
    let state = state(number);
    if !state.rouse(POLLING)
        && [HALTED, UNLIMITED, UNSHARED]
            .into_iter()
            .any(|of| state.rouse(of))
    {
        machine::kick(number);
    }
}

/// The CPU of the set that has least to do.
pub(super) fn choose(allowed: u64) -> u32 {
    let members = || (0..machine::cpu_count()).filter(move |number| allowed >> number & 1 != 0);
    let is_waiting =
        |number: &u32| matches!(state(*number).0.load(Ordering::Relaxed), POLLING | HALTED);
    let this = machine::current_cpu();
    members()
        .find(is_waiting)
        .or_else(|| members().find(|number| *number == this))
        .or_else(|| members().next())
        .unwrap_or(this)
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use alloc::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    #[test]
    fn a_cpu_that_halts_sees_what_is_queued_or_is_roused() {
        loom::model(|| {
            let state = Arc::new(CpuState::new());
            let queued = Arc::new(AtomicBool::new(false));
            let other = {
                let (state, queued) = (state.clone(), queued.clone());
                thread::spawn(move || {
                    queued.store(true, Ordering::Release);
                    fence(Ordering::SeqCst);
                    state.rouse(HALTED)
                })
            };
            state.set(HALTED);
            let has_seen = queued.load(Ordering::Acquire);
            assert!(other.join().unwrap() || has_seen);
        });
    }
}
