//! What a CPU can do wrong below the kernel: the one that there is has nobody to ignore.

/// Waits until `is_over`.
pub fn ignore_flushes(is_over: impl Fn() -> bool) {
    while !is_over() {
        core::hint::spin_loop();
    }
}

/// Does nothing.
pub fn send_nmis() {}
