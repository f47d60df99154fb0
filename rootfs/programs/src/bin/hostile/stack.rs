//! Stack pointers that point nowhere: the kernel must not use the program's stack.

use crate::Case;
use std::arch::asm;

/// Those that name the kernel are about its memory.
pub(crate) const CASES: &[Case] = &[
    ("stack-null", || enters_with(0)),
    ("stack-odd", || enters_with(0x7fff_ffff_f001)),
    ("stack-not-canonical", || enters_with(1 << 63)),
    ("stack-of-the-kernel", || enters_with(0xffff_ffff_8030_0000)),
    ("push-null", || push(0)),
    ("push-not-canonical", || push(1 << 63)),
    ("kernel-push", || push(0xffff_ffff_8030_0000)),
];

/// Makes system calls and is interrupted with that stack pointer.
fn enters_with(stack: u64) -> bool {
    // SAFETY: the stack pointer is as before when compiled code goes on.
    unsafe {
        asm!(
            "mov r9, rsp",
            "mov rsp, {stack}",
            "2: mov eax, 39",                           // getpid
            "syscall",
            "dec r8d",
            "jnz 2b",
            "mov ecx, 20000000",
            "3: dec ecx",
            "jnz 3b",
            "mov rsp, r9",
            stack = in(reg) stack, inout("r8d") 100 => _, out("r9") _, out("rax") _, out("rcx") _,
            out("r11") _,
        );
    }
    true
}

fn push(stack: u64) -> bool {
    // SAFETY: the process ends.
    unsafe { asm!("mov rsp, {}", "push rax", in(reg) stack) };
    true
}
