//! Time: the TSC, scaled as kvmclock says (Linux `Documentation/virt/kvm/x86/msr.rst`) or, without
//! it, by a frequency that is measured at boot.

use super::{IMAGE_BASE, privileged, rtc, tsc};
use crate::tsc_sync::Latest;
use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicBool, AtomicI8, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;
/// KVM_FEATURE_CLOCKSOURCE2 in leaf 0x40000001.
const FEATURE_CLOCKSOURCE2: u32 = 1 << 3;

/// PVCLOCK_TSC_STABLE_BIT of the flags.
const TSC_STABLE: u8 = 1;

/// `struct pvclock_vcpu_time_info`, which the host writes.
#[repr(C, align(32))]
struct SystemTime {
    version: AtomicU32,
    padding: u32,
    tsc_timestamp: AtomicU64,
    system_time: AtomicU64,
    multiplier: AtomicU32,
    shift: AtomicI8,
    flags: AtomicU8,
}

/// `struct pvclock_wall_clock`, which the host writes once.
#[repr(C, align(32))]
struct WallClock {
    version: AtomicU32,
    seconds: AtomicU32,
    nanoseconds: AtomicU32,
}

static SYSTEM_TIME: SystemTime = SystemTime {
    version: AtomicU32::new(0),
    padding: 0,
    tsc_timestamp: AtomicU64::new(0),
    system_time: AtomicU64::new(0),
    multiplier: AtomicU32::new(0),
    shift: AtomicI8::new(0),
    flags: AtomicU8::new(0),
};

/// Whether times are compared with [`LATEST`].
static IS_BOUNDED: AtomicBool = AtomicBool::new(false);
static LATEST: Latest = Latest::new();

static WALL_CLOCK: WallClock = WallClock {
    version: AtomicU32::new(0),
    seconds: AtomicU32::new(0),
    nanoseconds: AtomicU32::new(0),
};

/// Asks the host to keep the clock in memory, or sets it by other clocks.
///
/// # Panics
///
/// If the machine has no clock that this kernel knows.
pub(super) fn initialise(kvm_features: u32) {
    if kvm_features & FEATURE_CLOCKSOURCE2 != 0 {
        let physical = |address: u64| address - IMAGE_BASE;
        // SAFETY: the host writes to the two statics, whose fields are atomic.
        unsafe {
            privileged::write_msr(MSR_WALL_CLOCK, physical((&raw const WALL_CLOCK) as u64));
            privileged::write_msr(
                MSR_SYSTEM_TIME,
                physical((&raw const SYSTEM_TIME) as u64) | 1,
            );
        }
    } else {
        set_by_hardware();
    }
    assert!(
        SYSTEM_TIME.multiplier.load(Ordering::Relaxed) != 0,
        "the host offers no clock: neither kvmclock nor a TSC of known frequency nor a PIT"
    );
}

/// Describes the TSC in the form that kvmclock has.
fn set_by_hardware() {
    const NANOSECONDS: u128 = 1_000_000_000;
    let Some(hz) = tsc::frequency() else { return };
    // nanoseconds = (cycles << shift) * multiplier >> 32, the multiplier as large as it can be.
    let mut shift = 0;
    let scaled = |shift: i8| (NANOSECONDS << 32 >> shift) / u128::from(hz);
    while scaled(shift) > u128::from(u32::MAX) {
        shift += 1;
    }
    SYSTEM_TIME.shift.store(shift, Ordering::Relaxed);
    SYSTEM_TIME.tsc_timestamp.store(cycles(), Ordering::Relaxed);
    SYSTEM_TIME
        .multiplier
        .store(scaled(shift) as u32, Ordering::Relaxed);
    let seconds = rtc::seconds().unwrap_or(0);
    WALL_CLOCK.seconds.store(seconds as u32, Ordering::Relaxed);
}

/// Whether the host says that the CPUs' TSCs agree.
pub(super) fn is_the_same_everywhere() -> bool {
    SYSTEM_TIME.flags.load(Ordering::Relaxed) & TSC_STABLE != 0
}

/// Has no CPU see an earlier time than another has seen: their TSCs differ.
pub(super) fn never_go_back() {
    IS_BOUNDED.store(true, Ordering::Relaxed);
}

/// The TSC after all that was read before.
pub(super) fn ordered_cycles() -> u64 {
    // SAFETY: LFENCE is there on every x86-64.
    unsafe { _mm_lfence() };
    cycles()
}

fn cycles() -> u64 {
    // SAFETY: RDTSC is there on every x86-64 and is not disabled for CPL 3.
    unsafe { _rdtsc() }
}

/// Nanoseconds, for who spins and tells how long.
pub(crate) fn spinning() -> u64 {
    monotonic()
}

/// Nanoseconds since boot.
#[inline]
pub fn monotonic() -> u64 {
    loop {
        let version = SYSTEM_TIME.version.load(Ordering::Acquire);
        let timestamp = SYSTEM_TIME.tsc_timestamp.load(Ordering::Relaxed);
        let base = SYSTEM_TIME.system_time.load(Ordering::Relaxed);
        let multiplier = SYSTEM_TIME.multiplier.load(Ordering::Relaxed);
        let shift = SYSTEM_TIME.shift.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if version & 1 != 0 || version != SYSTEM_TIME.version.load(Ordering::Relaxed) {
            core::hint::spin_loop();
            continue;
        }
        let delta = cycles().saturating_sub(timestamp);
        let shifted = if shift >= 0 {
            delta << (shift as u32 & 63)
        } else {
            delta >> (shift.unsigned_abs() & 63)
        };
        let scaled = ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64;
        let time = base + scaled;
        if IS_BOUNDED.load(Ordering::Relaxed) {
            return LATEST.at_least(time);
        }
        return time;
    }
}

/// Lets `nanoseconds` pass.
pub(super) fn spin(nanoseconds: u64) {
    let end = monotonic() + nanoseconds;
    while monotonic() < end {
        core::hint::spin_loop();
    }
}

/// Nanoseconds since 1970-01-01 00:00 UTC.
pub fn realtime() -> u64 {
    let seconds = WALL_CLOCK.seconds.load(Ordering::Relaxed);
    let nanoseconds = WALL_CLOCK.nanoseconds.load(Ordering::Relaxed);
    u64::from(seconds) * 1_000_000_000 + u64::from(nanoseconds) + monotonic()
}
