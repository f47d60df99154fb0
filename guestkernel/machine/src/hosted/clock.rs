//! Time: simulated, so that a test takes the same course however busy the host is. It passes when
//! somebody waits for it, and a little whenever somebody looks.
//!
//! Each thread of the host has a time of its own: tests that run beside each other are boots of
//! different machines.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds that pass between two looks at the clock.
const TICK: u64 = 100;

/// When simulated machines boot: nanoseconds since 1970-01-01 00:00 UTC.
const BOOT: u64 = 1_700_000_000_000_000_000;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Nanoseconds since boot.
pub fn monotonic() -> u64 {
    NOW.set(NOW.get() + TICK);
    NOW.get()
}

/// Nanoseconds since 1970-01-01 00:00 UTC.
pub fn realtime() -> u64 {
    BOOT + monotonic()
}

/// Nanoseconds in which another thread of the host could have done something: real ones.
pub(crate) fn spinning() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Lets time pass until it is `deadline`.
pub(crate) fn advance(deadline: u64) {
    NOW.set(NOW.get().max(deadline));
}
