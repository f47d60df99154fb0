//! The GS base, which belongs to the program where the kernel is protected from it. There it may hold
//! anything, the kernel's own value too.

use crate::Case;
use std::arch::asm;
use std::thread;

/// Bit of `AT_HWCAP2`: FSGSBASE may be used.
const HWCAP2_FSGSBASE: u64 = 1 << 1;
const ARCH_SET_GS: i32 = 0x1001;
const ARCH_GET_GS: i32 = 0x1004;

pub(crate) const CASES: &[Case] = &[
    ("gs-of-the-kernel", || keeps(0xffff_ffff_8030_8000)),
    ("gs-null", || keeps(0)),
    ("gs-of-each-thread", differs_by_thread),
    ("gs-selector", selector),
];

/// Makes system calls and is interrupted with that GS base; it is the same afterwards.
fn keeps(base: u64) -> bool {
    // SAFETY: reads the auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
        // The processor cannot.
        return true;
    }
    let after: u64;
    // SAFETY: nothing in this program uses GS.
    unsafe {
        asm!(
            "wrgsbase {base}",
            "2: mov eax, 39",                           // getpid
            "syscall",
            "dec r8d",
            "jnz 2b",
            "mov ecx, 20000000",
            "3: dec ecx",
            "jnz 3b",
            "rdgsbase {after}",
            base = in(reg) base, after = lateout(reg) after, inout("r8d") 100 => _, out("rax") _,
            out("rcx") _, out("r11") _,
        );
    }
    after == base
}

/// Threads that take turns have each their own.
fn differs_by_thread() -> bool {
    let threads: Vec<_> = (1..4_u64)
        .map(|value| thread::spawn(move || keeps_own(value)))
        .collect();
    threads
        .into_iter()
        .all(|thread| thread.join().unwrap_or(false))
}

fn keeps_own(value: u64) -> bool {
    let place = [value; 2];
    let base = place.as_ptr() as u64;
    // SAFETY: nothing in this program uses GS.
    if unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) } != 0 {
        return false;
    }
    (0..20).all(|_| {
        thread::yield_now();
        let (seen, mut told): (u64, u64);
        told = 0;
        // SAFETY: GS points to the array; the result is stored in a variable.
        unsafe {
            asm!("mov {}, gs:[8]", out(reg) seen);
            libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut told);
        }
        seen == value && told == base
    })
}

/// Loads the segment register, which changes the base behind the kernel's back.
fn selector() -> bool {
    // SAFETY: nothing in this program uses GS.
    unsafe {
        asm!("mov gs, {0:e}", "2: mov eax, 39", "syscall", "dec r8d", "jnz 2b", in(reg) 0x2b,
             inout("r8d") 100 => _, out("rax") _, out("rcx") _, out("r11") _);
    }
    true
}
