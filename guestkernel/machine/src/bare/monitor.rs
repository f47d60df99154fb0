//! Calls of the monitor: the privileged instructions that the kernel needs.

use core::arch::asm;

const WAIT: u64 = 0;
const LOAD_CR3: u64 = 1;
const WRMSR: u64 = 3;
const OUTS: u64 = 4;

/// Waits until an interrupt is latched.
pub(super) fn wait() {
    // SAFETY: waiting has no effect on memory but the latch, which is atomic.
    unsafe {
        asm!("call monitor_call", inout("rax") WAIT => _, out("rcx") _, out("rdx") _);
    }
}

/// Loads CR3, which also flushes the TLB.
///
/// # Safety
///
/// `root` must be the address of a page map that maps the kernel, and stay one while it is
/// loaded.
pub(super) unsafe fn load_cr3(root: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("call monitor_call", inout("rax") LOAD_CR3 => _, in("rdi") root, out("rcx") _, out("rdx") _);
    }
}

/// Writes a model-specific register.
///
/// # Safety
///
/// What the register then does must be sound.
pub(super) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("call monitor_call", inout("rax") WRMSR => _, in("ecx") register,
             in("rdi") value & 0xffff_ffff, in("rdx") value >> 32);
    }
}

/// Writes `bytes` to an I/O port, one after the other.
///
/// # Safety
///
/// What the device then does must be sound.
pub(super) unsafe fn write_port(port: u16, bytes: &[u8]) {
    // SAFETY: the caller's promise; the bytes are only read.
    unsafe {
        asm!("call monitor_call", inout("rax") OUTS => _, in("dx") port,
             inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _);
    }
}
