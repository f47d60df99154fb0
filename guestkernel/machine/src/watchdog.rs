//! Noticing that the kernel is stuck: on a lock, on a CPU that does not flush its TLB, or anywhere.

use crate::backend::watch;
use crate::stall;
use core::time::Duration;

/// Starts to watch. What takes `threshold` is reported on the serial port, with a backtrace of
/// every CPU; if `panics`, and the VM ended. Zero turns that off. Locks, which are held for moments,
/// are reported after half of it.
pub fn start(threshold: Duration, panics: bool) {
    let threshold = u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX);
    stall::configure(threshold / 2, panics);
    watch::start(threshold);
}

/// How many times something was reported.
pub fn reports() -> u32 {
    stall::reports()
}
