//! Addresses that are not a program's.

use crate::Case;
use crate::code::{self, PAGE};
use std::arch::asm;

const IMAGE: u64 = 0xffff_ffff_8020_0000;
const PHYSICAL_MAP: u64 = 0xffff_8880_0020_0000;
const NOT_CANONICAL: u64 = 1 << 63;
/// The last page that a program can have.
const LAST_PAGE: usize = 0x7fff_ffff_e000;

/// Those that name the kernel are about its memory.
pub(crate) const CASES: &[Case] = &[
    ("kernel-read-image", || read(IMAGE)),
    ("kernel-write-image", || write(IMAGE)),
    ("kernel-jump-image", || jump(IMAGE)),
    ("kernel-read-memory", || read(PHYSICAL_MAP)),
    ("kernel-write-memory", || write(PHYSICAL_MAP)),
    ("read-not-canonical", || read(NOT_CANONICAL)),
    ("write-not-canonical", || write(NOT_CANONICAL)),
    ("jump-not-canonical", || jump(NOT_CANONICAL)),
    ("jump-null", || jump(0)),
    ("write-code", || {
        write(read as fn(u64) -> bool as usize as u64)
    }),
    ("execute-data", execute_data),
    ("top-page", top_page_cannot_be_mapped),
    ("system-call-at-the-top", system_call_at_the_top),
];

fn read(address: u64) -> bool {
    // SAFETY: the process ends.
    unsafe { asm!("mov al, [{}]", in(reg) address, out("al") _) };
    true
}

fn write(address: u64) -> bool {
    // SAFETY: the process ends.
    unsafe { asm!("mov byte ptr [{}], 0", in(reg) address) };
    true
}

fn jump(address: u64) -> bool {
    // SAFETY: the process ends.
    unsafe { asm!("jmp {}", in(reg) address) };
    true
}

fn execute_data() -> bool {
    let data = [0xc3_u8];
    jump(data.as_ptr() as u64)
}

/// The last page of the lower half belongs to nobody: what follows a SYSCALL at its end is no
/// address.
fn top_page_cannot_be_mapped() -> bool {
    code::map(LAST_PAGE + PAGE, 1, libc::MAP_FIXED) == Err(libc::ENOMEM)
}

/// Returns from a system call to where nothing can be mapped.
fn system_call_at_the_top() -> bool {
    let code = [0xb8, 39, 0, 0, 0, 0x0f, 0x05];
    let page = code::map(LAST_PAGE, 1, libc::MAP_FIXED_NOREPLACE).expect("the last page");
    let start = page.wrapping_add(PAGE - code.len());
    // SAFETY: the end of a page that is this function's.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), start, code.len()) };
    jump(start as u64)
}
