//! What a CPU can do wrong below the kernel: the one that there is has nobody to ignore.

/// Does nothing.
pub fn ignore_flushes(_nanoseconds: u64) {}

/// Does nothing.
pub fn send_nmis() {}

/// Does nothing.
pub fn machine_check() {}
