//! What a CPU can do wrong below the kernel: see `kernel/src/provoke.rs`.

use super::{interrupt, per_cpu, smp};
use core::sync::atomic::Ordering;

/// Claims to run a program while it runs `busy`, and takes no interrupt meanwhile.
pub fn ignore_flushes(busy: fn()) {
    // SAFETY: an atomic field.
    let in_program = unsafe { &(*per_cpu::current()).in_program };
    in_program.store(1, Ordering::SeqCst);
    busy();
    in_program.store(0, Ordering::SeqCst);
}

/// Sends every other CPU an NMI, wherever it is.
pub fn send_nmis() {
    for (number, _) in smp::others() {
        interrupt::send_nmi(number);
    }
}

/// Raises a machine check, as far as software can.
pub fn machine_check() {
    // SAFETY: the handler ends the VM; at CPL 3 it is a general protection fault.
    unsafe { core::arch::asm!("int 18") };
}
