//! Flags of the processor that a kernel must not run with, or that a program must not get.

use crate::Case;
use crate::code;
use std::arch::asm;

const TRAP: u64 = 1 << 8;
const DIRECTION: u64 = 1 << 10;
const NESTED: u64 = 1 << 14;
const ALIGNMENT: u64 = 1 << 18;
const IDENTIFICATION: u64 = 1 << 21;
const PRIVILEGE: u64 = 3 << 12;
const INTERRUPT: u64 = 1 << 9;

pub(crate) const CASES: &[Case] = &[
    ("flag-direction", || keeps(DIRECTION)),
    ("flag-nested-task", || keeps(NESTED)),
    ("flag-alignment", || keeps(ALIGNMENT)),
    ("flag-identification", || keeps(IDENTIFICATION)),
    ("flags-all", || {
        keeps(DIRECTION | NESTED | ALIGNMENT | IDENTIFICATION)
    }),
    ("flag-privilege", port_with_privilege),
    ("flag-interrupt", interrupts_stay_enabled),
    ("flags-by-iret", port_after_iret),
    ("misaligned", misaligned),
    ("misaligned-stack", misaligned_stack),
    ("trap", || trap(Trapped::Nop)),
    ("trap-system-call", || trap(Trapped::SystemCall)),
    ("trap-system-calls", trap_after_many_system_calls),
    ("trap-page-fault", || trap(Trapped::PageFault)),
    ("trap-after-load-ss", || trap(Trapped::LoadSs)),
];

/// Makes system calls, takes a page fault and interrupts with `flags` set; they are set still.
fn keeps(flags: u64) -> bool {
    let page = code::map_low(1);
    let after: u64;
    // SAFETY: the flags are as before when compiled code goes on; the page is nobody else's; the
    // stack below is not used by a function that has one.
    unsafe {
        asm!(
            "pushfq",
            "mov rdi, [rsp]",
            "or [rsp], {flags}",
            "popfq",
            "2: mov eax, 39",                           // getpid
            "syscall",
            "dec r8d",
            "jnz 2b",
            "mov byte ptr [rsi], 1",
            "mov ecx, 20000000",
            "3: dec ecx",
            "jnz 3b",
            "pushfq",
            "pop {after}",
            "push rdi",
            "popfq",
            flags = in(reg) flags, after = lateout(reg) after, in("rsi") page,
            out("rdi") _, inout("r8d") 100 => _, out("rax") _, out("rcx") _, out("r11") _,
        );
    }
    after & flags == flags
}

/// Sets the I/O privilege level, which has no effect, and uses a port.
fn port_with_privilege() -> bool {
    // SAFETY: the process ends.
    unsafe {
        asm!("pushfq", "or [rsp], {flags}", "popfq", "in al, dx", flags = in(reg) PRIVILEGE,
             in("dx") 0x3f8_u16, out("al") _);
    }
    true
}

/// Clears the interrupt flag, which has no effect.
fn interrupts_stay_enabled() -> bool {
    let after: u64;
    // SAFETY: nothing changes.
    unsafe {
        asm!("pushfq", "and [rsp], {flags}", "popfq", "pushfq", "pop {after}",
             flags = in(reg) !INTERRUPT, after = lateout(reg) after);
    }
    after & INTERRUPT != 0
}

/// Returns from an interrupt that there was not, with other flags than a program has, and uses a
/// port.
fn port_after_iret() -> bool {
    // SAFETY: the process ends.
    unsafe {
        asm!(
            "mov {stack}, rsp",
            "mov {segment:e}, ss",
            "push {segment}",
            "push {stack}",
            "push {flags}",
            "mov {segment:e}, cs",
            "push {segment}",
            "lea {segment}, [rip + 2f]",
            "push {segment}",
            "iretq",
            "2: in al, dx",
            stack = out(reg) _, segment = out(reg) _, flags = in(reg) PRIVILEGE | NESTED | 2,
            in("dx") 0x3f8_u16, out("al") _,
        );
    }
    true
}

/// Loads from an odd address with alignment checks.
fn misaligned() -> bool {
    let words = [0_u64; 2];
    // SAFETY: the process ends.
    unsafe {
        asm!("pushfq", "or [rsp], {flags}", "popfq", "mov rax, [{words} + 1]",
             flags = in(reg) ALIGNMENT, words = in(reg) &raw const words, out("rax") _);
    }
    true
}

/// Enters the kernel with a misaligned stack and alignment checks, then uses the stack.
fn misaligned_stack() -> bool {
    // SAFETY: the process ends.
    unsafe {
        asm!("pushfq", "or [rsp], {flags}", "popfq", "sub rsp, 129", "2: mov eax, 39", "syscall",
             "dec r8d", "jnz 2b", "push rax", flags = in(reg) ALIGNMENT, inout("r8d") 100 => _,
             out("rax") _, out("rcx") _, out("r11") _);
    }
    true
}

/// What follows the instruction that sets the trap flag.
enum Trapped {
    Nop,
    SystemCall,
    PageFault,
    LoadSs,
}

/// Single-steps itself.
fn trap(what: Trapped) -> bool {
    let page = code::map_low(1);
    // SAFETY: the process ends.
    unsafe {
        match what {
            Trapped::Nop => {
                asm!("pushfq", "or [rsp], {f}", "popfq", "nop", "nop", f = in(reg) TRAP)
            }
            Trapped::SystemCall => {
                asm!("pushfq", "or [rsp], {f}", "mov eax, 39", "popfq", "syscall",
                "nop", "nop", f = in(reg) TRAP, out("rax") _, out("rcx") _, out("r11") _)
            }
            Trapped::PageFault => {
                asm!("pushfq", "or [rsp], {f}", "popfq", "mov byte ptr [{page}], 1",
                "nop", f = in(reg) TRAP, page = in(reg) page)
            }
            Trapped::LoadSs => {
                asm!("mov {s:e}, ss", "pushfq", "or [rsp], {f}", "mov eax, 39", "popfq",
                "mov ss, {s:e}", "syscall", "nop", "nop", s = out(reg) _, f = in(reg) TRAP,
                out("rax") _, out("rcx") _, out("r11") _)
            }
        }
    }
    true
}

/// Single-steps itself at a system call that was made often before.
fn trap_after_many_system_calls() -> bool {
    // SAFETY: the process ends.
    unsafe {
        asm!(
            "pushfq",
            "pop r9",
            "2: cmp r8d, 1",
            "jne 3f",
            "or r9, {flags}",
            "3: push r9",
            "popfq",
            "mov eax, 39",
            "syscall",
            "dec r8d",
            "jnz 2b",
            "nop",
            flags = in(reg) TRAP, inout("r8d") 100 => _, out("r9") _, out("rax") _, out("rcx") _,
            out("r11") _,
        );
    }
    true
}
