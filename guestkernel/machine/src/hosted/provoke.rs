//! What a CPU can do wrong below the kernel: the one that there is has nobody to ignore.

/// Runs `busy`.
pub fn ignore_flushes(busy: fn()) {
    busy();
}

/// Does nothing.
pub fn send_nmis() {}

/// Does nothing.
pub fn machine_check() {}
