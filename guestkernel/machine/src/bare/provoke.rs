//! What a CPU can do wrong below the kernel: see `kernel/src/provoke.rs`.

use super::{interrupt, per_cpu, smp};
use core::sync::atomic::Ordering;

/// Claims to run the program that another CPU runs, and takes no interrupt, until `is_over`.
pub fn ignore_flushes(is_over: impl Fn() -> bool) {
    // SAFETY: atomic fields.
    let own = unsafe { &*per_cpu::current() };
    let before = own.root.load(Ordering::Relaxed);
    own.in_program.store(1, Ordering::SeqCst);
    while !is_over() {
        if let Some((_, other)) = smp::others().next() {
            let root = other.root.load(Ordering::Relaxed);
            own.root.store(root, Ordering::Relaxed);
        }
        core::hint::spin_loop();
    }
    own.root.store(before, Ordering::Relaxed);
    own.in_program.store(0, Ordering::SeqCst);
}

/// Sends every other CPU an NMI, wherever it is.
pub fn send_nmis() {
    for (number, _) in smp::others() {
        interrupt::send_nmi(number);
    }
}
