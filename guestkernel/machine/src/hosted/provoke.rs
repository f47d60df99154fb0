//! What a CPU can do wrong below the kernel: the one that there is has nobody to ignore.

/// Does nothing.
pub fn ignore_flushes(_nanoseconds: u64) {}
