//! The watchdog: with one CPU there is nobody to watch.

/// Starts to watch.
pub(crate) fn start(_threshold: u64) {}

/// Says that the kernel gets on.
pub fn progress() {}
