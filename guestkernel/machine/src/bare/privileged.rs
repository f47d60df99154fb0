//! The privileged instructions that the kernel needs: executed at CPL 0 in mode `ring0`, asked of
//! the monitor in mode `shared`.

use super::boot;
use super::mode::is_ring0;
use super::per_cpu::offset;
use core::arch::asm;

const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

const WAIT: u64 = 0;
const WRMSR: u64 = 1;
const OUTS: u64 = 2;
const IN: u64 = 3;
const RESET: u64 = 4;
const INVLPG: u64 = 5;

/// Waits until an interrupt is latched.
pub(super) fn wait() {
    if is_ring0() {
        // SAFETY: interrupts are only latched; an interrupt between the look and the HLT ends the
        // HLT, since STI lets the first one in after the next instruction.
        unsafe {
            asm!(
                "cmp qword ptr gs:[{latched}], 0",
                "jne 2f",
                "sti",
                "hlt",
                "cli",
                "2:",
                latched = const offset::LATCHED,
            );
        }
        return;
    }
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
    if is_ring0() {
        // SAFETY: the caller's promise.
        unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        asm!("call switch_space", in("rdi") root);
    }
}

/// Takes the page at `address` out of the TLB.
pub(super) fn invalidate_page(address: u64) {
    if is_ring0() {
        // SAFETY: forgetting a translation is always sound.
        unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
        return;
    }
    // SAFETY: as above.
    unsafe {
        asm!("call monitor_call", inout("rax") INVLPG => _, in("rdi") address, out("rcx") _, out("rdx") _);
    }
}

/// Writes a model-specific register.
///
/// # Safety
///
/// What the register then does must be sound.
pub(super) unsafe fn write_msr(register: u32, value: u64) {
    let (low, high) = (value & 0xffff_ffff, value >> 32);
    if is_ring0() {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("wrmsr", in("ecx") register, in("rax") low, in("rdx") high,
                 options(nostack, preserves_flags));
        }
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        asm!("call monitor_call", inout("rax") WRMSR => _, in("ecx") register,
             in("rdi") low, in("rdx") high);
    }
}

/// Reads a model-specific register. Mode `ring0` only.
///
/// # Safety
///
/// The processor must have the register.
pub(super) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("rax") low, out("rdx") high,
             options(nomem, nostack, preserves_flags));
    }
    high << 32 | low
}

/// The program's GS base, which SWAPGS keeps while the kernel runs. Mode `ring0` only.
pub(super) fn program_gs_base() -> u64 {
    if !boot::has_fsgsbase() {
        // SAFETY: every x86-64 processor has it.
        return unsafe { read_msr(MSR_KERNEL_GS_BASE) };
    }
    let base: u64;
    // SAFETY: interrupts are disabled, and what comes all the same (NMI, machine check) does not
    // use GS before it has set it.
    unsafe {
        asm!("swapgs", "rdgsbase {}", "swapgs", out(reg) base,
             options(nomem, nostack, preserves_flags));
    }
    base
}

/// Sets what [`program_gs_base`] gives; it must be a canonical address.
pub(super) fn set_program_gs_base(base: u64) {
    if !boot::has_fsgsbase() {
        // SAFETY: the kernel does not use the register.
        return unsafe { write_msr(MSR_KERNEL_GS_BASE, base) };
    }
    // SAFETY: as above.
    unsafe {
        asm!("swapgs", "wrgsbase {}", "swapgs", in(reg) base,
             options(nomem, nostack, preserves_flags));
    }
}

/// Writes `bytes` to an I/O port, one after the other.
///
/// # Safety
///
/// What the device then does must be sound.
pub(super) unsafe fn write_port(port: u16, bytes: &[u8]) {
    if is_ring0() {
        // SAFETY: the caller's promise; the bytes are only read.
        unsafe {
            asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _,
                 inout("rcx") bytes.len() => _, options(nostack, preserves_flags, readonly));
        }
        return;
    }
    // SAFETY: the caller's promise; the bytes are only read.
    unsafe {
        asm!("call monitor_call", inout("rax") OUTS => _, in("dx") port,
             inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _);
    }
}

/// Reads a byte from an I/O port.
///
/// # Safety
///
/// What the device then does must be sound.
pub(super) unsafe fn read_port(port: u16) -> u8 {
    let byte: u64;
    if is_ring0() {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("in al, dx", in("dx") port, inout("rax") 0u64 => byte,
                 options(nostack, preserves_flags));
        }
    } else {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("call monitor_call", inout("rax") IN => byte, in("dx") port, out("rcx") _);
        }
    }
    byte as u8
}

/// What LIDT takes.
#[repr(C, packed)]
pub(super) struct GatePointer {
    /// The offset of the table's last byte.
    pub(super) limit: u16,
    /// The table's address.
    pub(super) base: u64,
}

/// Loads the interrupt descriptor table. Mode `ring0` only.
///
/// # Safety
///
/// `pointer` must describe gates that stay as they are.
pub(super) unsafe fn load_gates(pointer: &GatePointer) {
    // SAFETY: the caller's promise.
    unsafe { asm!("lidt [{}]", in(reg) &raw const *pointer, options(nostack, preserves_flags)) }
}

/// Makes the CPU triple-fault.
pub(super) fn reset() -> ! {
    if is_ring0() {
        // SAFETY: nothing runs after this. Without gates the breakpoint faults until the CPU
        // gives up.
        unsafe {
            load_gates(&GatePointer { limit: 0, base: 0 });
            asm!("int3", options(noreturn));
        }
    }
    // SAFETY: as above; the monitor does the same.
    unsafe { asm!("call monitor_call", "2: jmp 2b", in("rax") RESET, options(noreturn)) }
}
