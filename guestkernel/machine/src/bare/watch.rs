//! The watchdog: a CPU whose kernel gets nowhere is noticed by another one.
//!
//! The kernel runs for moments, then enters a program or waits. At intervals some CPU looks at all
//! others ([`look`]). One that was in the kernel each time, and has neither run a task nor entered
//! a program meanwhile, is stuck, unless the host does not run it: so an interval counts only if
//! the CPU has taken the NMI that it was sent at the start. Intervals are counted, not time,
//! since the host may also suspend the whole VM.

use super::per_cpu::{self, PerCpu, offset};
use super::{clock, interrupt, smp};
use crate::stall::{self, Seconds};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Intervals without progress until a CPU is taken to be stuck.
const INTERVALS: u32 = 5;

/// Nanoseconds between two looks; 0 while the watchdog is off.
static INTERVAL: AtomicU64 = AtomicU64::new(0);
/// The time of the next look, on the monotonic clock; `u64::MAX` for never.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);

/// What the last look at a CPU has found.
struct Sample {
    beats: AtomicU64,
    /// NMIs that it had taken before it was sent the last one.
    nmis: AtomicU64,
    /// Intervals without progress.
    strikes: AtomicU32,
    /// The strike that is reported next.
    limit: AtomicU32,
}

static SAMPLES: [Sample; smp::MAX_CPUS] = [const {
    Sample {
        beats: AtomicU64::new(0),
        nmis: AtomicU64::new(0),
        strikes: AtomicU32::new(0),
        limit: AtomicU32::new(INTERVALS),
    }
}; smp::MAX_CPUS];

/// Starts to watch, if there are several CPUs; a CPU that is stuck for `threshold` nanoseconds is
/// reported.
pub(crate) fn start(threshold: u64) {
    if threshold == 0 || smp::cpu_count() == 1 {
        return;
    }
    let interval = (threshold / u64::from(INTERVALS)).max(1);
    INTERVAL.store(interval, Ordering::Relaxed);
    NEXT.store(clock::monotonic() + interval, Ordering::Relaxed);
}

/// Says that this CPU's kernel gets on.
#[inline]
pub fn progress() {
    // SAFETY: GS belongs to the kernel; others only read the field.
    unsafe {
        asm!("inc qword ptr gs:[{beats}]", beats = const offset::BEATS, options(nostack));
    }
}

/// When this CPU has to [`look`], at the latest.
#[inline]
pub(super) fn next() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

/// Sees to it that the timer interrupts the program that is about to be entered when it is time to
/// look.
#[inline]
pub(super) fn keep_timer() {
    // SAFETY: a field that only this CPU's kernel uses.
    let timer = unsafe { (*per_cpu::current()).timer };
    if timer == u64::MAX && next() != u64::MAX {
        interrupt::set_timer(None);
    }
}

/// Looks at the other CPUs, if it is time to.
pub(super) fn look() {
    /// Only one CPU looks at a time.
    static IS_LOOKING: AtomicBool = AtomicBool::new(false);
    let due = next();
    if due == u64::MAX {
        return;
    }
    let now = clock::monotonic();
    if now < due || IS_LOOKING.swap(true, Ordering::Acquire) {
        return;
    }
    NEXT.store(now + INTERVAL.load(Ordering::Relaxed), Ordering::Relaxed);
    for (number, cpu) in smp::others() {
        look_at(number, cpu);
    }
    IS_LOOKING.store(false, Ordering::Release);
}

fn look_at(number: u32, cpu: &PerCpu) {
    let sample = &SAMPLES[number as usize];
    let is_outside =
        cpu.is_waiting.load(Ordering::Relaxed) != 0 || cpu.in_program.load(Ordering::Relaxed) != 0;
    let beats = cpu.beats.load(Ordering::Relaxed);
    if sample.beats.swap(beats, Ordering::Relaxed) != beats || is_outside {
        sample.strikes.store(0, Ordering::Relaxed);
        sample.limit.store(INTERVALS, Ordering::Relaxed);
        return;
    }
    let nmis = cpu.nmi.count.load(Ordering::Relaxed);
    let strikes = sample.strikes.load(Ordering::Relaxed);
    if strikes > 0 && sample.nmis.load(Ordering::Relaxed) == nmis {
        // It has not run since. The NMI is still to come.
        return;
    }
    sample.nmis.store(nmis, Ordering::Relaxed);
    interrupt::send_nmi(number);
    sample.strikes.store(strikes + 1, Ordering::Relaxed);
    let limit = sample.limit.load(Ordering::Relaxed);
    if strikes < limit {
        return;
    }
    sample
        .limit
        .store(limit.saturating_mul(2), Ordering::Relaxed);
    let seconds = Seconds(u64::from(strikes) * INTERVAL.load(Ordering::Relaxed));
    stall::report(format_args!(
        "CPU {number} has been in the kernel for {seconds} s and gets nowhere"
    ));
}
