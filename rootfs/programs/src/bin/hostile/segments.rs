//! Code segments: the kernel's, none, and the one for 32-bit code that a program may enter.

use crate::Case;
use crate::code;
use std::arch::asm;

const KERNEL_CODE: u64 = 0x10;
const CODE_32: u16 = 0x23;
const TASK: u64 = 0x40;

pub(crate) const CASES: &[Case] = &[
    ("iret-to-kernel", || iret(KERNEL_CODE, 0)),
    ("iret-to-task", || iret(TASK, 0)),
    ("iret-not-canonical", || iret(0x33, 1 << 63)),
    ("far-return-to-kernel", || far_return(KERNEL_CODE)),
    ("far-return-to-nowhere", || far_return(0xfff8)),
    ("far-jump-to-kernel", || far_jump(KERNEL_CODE)),
    ("far-jump-to-task", || far_jump(TASK)),
    ("code-32", code_32),
    ("code-32-breakpoint", || ends_in_code_32(&[0xcc])),
    ("code-32-halt", || ends_in_code_32(&[0xf4])),
    ("code-32-fault", || ends_in_code_32(&[0xa1, 0, 0, 0, 0])),
    ("code-32-system-call", system_call_32),
];

fn iret(segment: u64, address: u64) -> bool {
    // SAFETY: the process ends.
    unsafe {
        asm!("push 0x2b", "push rsp", "push 0x202", "push {}", "push {}", "iretq",
             in(reg) segment, in(reg) address);
    }
    true
}

fn far_return(segment: u64) -> bool {
    // SAFETY: the process ends.
    unsafe {
        asm!("push {}", "lea rax, [rip]", "push rax", ".byte 0x48, 0xcb", in(reg) segment, out("rax") _)
    };
    true
}

fn far_jump(segment: u64) -> bool {
    let target = [0, segment];
    // SAFETY: the process ends. The target is a 32-bit offset, then the selector.
    unsafe { asm!("jmp fword ptr [{}]", in(reg) (&raw const target).cast::<u8>().wrapping_add(4)) };
    true
}

/// Runs `code`, below 4 GiB, as 32-bit code that starts with these values in EAX and ECX and ends with
/// a far jump to the address that is put behind it; gives EAX.
fn run_32(code: &[u8], eax: u32, ecx: u32) -> u32 {
    let page = code::map_low(1);
    // In 32-bit code: a far jump to the 64-bit code that is behind it, which returns to where the
    // stack and the address are kept, in memory since 32-bit code has no such registers.
    let back = code.len() + 7;
    let mut bytes = code.to_vec();
    bytes.push(0xea);
    bytes.extend(((page as usize + back) as u32).to_le_bytes());
    bytes.extend(0x33_u16.to_le_bytes());
    // mov rsp, [rip + ...]; ret
    let kept = 2048;
    bytes.extend([0x48, 0x8b, 0x25]);
    bytes.extend(((kept - (back + 7)) as u32).to_le_bytes());
    bytes.push(0xc3);
    // SAFETY: a page that nobody else uses.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), page, bytes.len()) };
    let mut target = [0_u8; 6];
    target[..4].copy_from_slice(&(page as usize as u32).to_le_bytes());
    target[4..].copy_from_slice(&CODE_32.to_le_bytes());
    let after: u32;
    // SAFETY: the 32-bit code changes EAX and ECX, what it is given to change, and flags.
    unsafe {
        asm!(
            "lea {temporary}, [rip + 2f]",
            "push {temporary}",
            "mov [{kept}], rsp",
            "mov edx, 0x2b",                            // 64-bit code does without
            "mov ds, edx",
            "jmp fword ptr [{target}]",
            "2:",
            temporary = out(reg) _, kept = in(reg) page.wrapping_add(kept),
            target = in(reg) target.as_ptr(), inout("eax") eax => after, inout("ecx") ecx => _,
            out("rdx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
            out("r13") _, out("r14") _, out("r15") _,
        );
    }
    after
}

/// Counts, interrupted by other threads, and takes a page fault: what is interrupted goes on as
/// 32-bit code.
fn code_32() -> bool {
    const TURNS: u32 = 30_000_000;
    let page = code::map_low(1) as usize as u32;
    // As 32-bit code: dec eax; dec ecx; jnz. As 64-bit code: dec rcx; jnz.
    let mut code = vec![0x48, 0xff, 0xc9, 0x75, 0xfb];
    // mov dword ptr [page], 7: relative to the next instruction in 64-bit code.
    code.extend([0xc7, 0x05]);
    code.extend(page.to_le_bytes());
    code.extend(7_u32.to_le_bytes());
    let left = run_32(&code, TURNS, TURNS);
    // SAFETY: the page is there.
    let written =
        unsafe { std::ptr::with_exposed_provenance::<u32>(page as usize).read_volatile() };
    left == 0 && written == 7
}

fn ends_in_code_32(code: &[u8]) -> bool {
    run_32(code, 0, 0);
    true
}

/// SYSCALL as 32-bit code: an invalid instruction with processors of Intel, else one that there is
/// not, or that ends the process.
fn system_call_32() -> bool {
    const GETPID: u32 = 20;
    run_32(&[0x0f, 0x05], GETPID, 0);
    true
}
