//! How the kernel is entered: the one thing that differs by host. Decided by the boot code.

use super::boot;
use crate::Mode;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
pub(super) use ringlet_abi::EMULATED_CYCLES;

static IS_RING0: AtomicBool = AtomicBool::new(false);

/// The mode that the kernel runs in.
pub fn mode() -> Mode {
    if is_ring0() {
        Mode::Ring0
    } else {
        Mode::Shared
    }
}

/// Whether the host emulates CPL 0, so that mode `ring0` is out of the question.
pub fn is_cpl0_emulated() -> bool {
    boot::loop_cycles() >= EMULATED_CYCLES
}

#[inline]
pub(super) fn is_ring0() -> bool {
    IS_RING0.load(Ordering::Relaxed)
}

/// Finds out at which level the boot code has started us.
pub(super) fn initialise() -> Mode {
    let selector: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cs", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    IS_RING0.store(selector & 3 == 0, Ordering::Relaxed);
    mode()
}
