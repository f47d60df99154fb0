//! What a CPU can do wrong below the kernel: see `kernel/src/provoke.rs`.

use super::{clock, per_cpu};
use core::sync::atomic::Ordering;

/// Claims for so many nanoseconds to run a program, and takes no interrupt meanwhile.
pub fn ignore_flushes(nanoseconds: u64) {
    // SAFETY: an atomic field.
    let in_program = unsafe { &(*per_cpu::current()).in_program };
    in_program.store(1, Ordering::SeqCst);
    clock::spin(nanoseconds);
    in_program.store(0, Ordering::SeqCst);
}
