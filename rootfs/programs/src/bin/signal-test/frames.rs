//! What handlers find on the stack, and how the program goes on after them: all of its registers are as
//! they were, or as the handler has changed them.

use crate::catch::{bit, block, blocked, handle, kill, registers};
use guest_programs::check::{Check, Outcome};
use guest_programs::{checks, expect, expect_eq};
use libc::{
    REG_CR2, REG_EFL, REG_R15, REG_RBX, REG_RIP, REG_RSP, SIGHUP, SIGTERM, SIGUSR1, c_int, c_void,
    siginfo_t, ucontext_t,
};
use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const CHECKS: &[Check] = checks![
    general_registers_survive_a_handler,
    vector_registers_survive_a_handler,
    a_handler_begins_with_a_clean_state,
    a_handler_can_change_registers,
    a_handler_can_change_vector_registers,
    a_handler_can_change_what_is_blocked,
    the_frame_says_what_it_holds,
    the_stack_is_aligned_as_for_a_call,
    flags_are_restored_and_some_cleared,
];

/// Slots for what a handler has seen.
static SEEN: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];

fn see(slot: usize, value: u64) {
    SEEN[slot].store(value, Ordering::SeqCst);
}

fn seen(slot: usize) -> u64 {
    SEEN[slot].load(Ordering::SeqCst)
}

/// Clobbers what a function may, and more.
extern "C" fn clobber(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: what is not declared as changed, is what the compiler does not know of here.
    unsafe {
        asm!(
            "mov rax, -1", "mov rcx, -1", "mov rdx, -1", "mov rsi, -1", "mov rdi, -1",
            "mov r8, -1", "mov r9, -1", "mov r10, -1", "mov r11, -1",
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15",
            "fninit", "fld1", "fstp st(0)",
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _,
            out("r9") _, out("r10") _, out("r11") _, out("xmm0") _, out("xmm7") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _,
            out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
}

fn general_registers_survive_a_handler() -> Outcome {
    let _handled = handle(SIGUSR1, clobber, 0, 0);
    let mut state = [0_u64; 12];
    let pid = u64::from(std::process::id());
    // SAFETY: kill(2) changes RAX, RCX and R11; the handler nothing.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "mov rbp, {state}",
            "mov rdx, 11", "mov r8, 12", "mov r9, 13", "mov r10, 14", "mov r12, 15",
            "mov r13, 16", "mov r14, 17", "mov r15, 18", "mov rbx, 19",
            "syscall",
            "mov [rbp], rax", "mov [rbp + 8], rdx", "mov [rbp + 16], r8", "mov [rbp + 24], r9",
            "mov [rbp + 32], r10", "mov [rbp + 40], r12", "mov [rbp + 48], r13",
            "mov [rbp + 56], r14", "mov [rbp + 64], r15", "mov [rbp + 72], rbx",
            "mov [rbp + 80], rdi", "mov [rbp + 88], rsi",
            "pop rbx",
            "pop rbp",
            state = in(reg) state.as_mut_ptr(),
            inlateout("rax") libc::SYS_kill as u64 => _,
            inlateout("rdi") pid => _,
            inlateout("rsi") SIGUSR1 as u64 => _,
            out("rdx") _, out("rcx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    let expected = [0, 11, 12, 13, 14, 15, 16, 17, 18, 19, pid, SIGUSR1 as u64];
    expect_eq!(state, expected);
    Ok(())
}

/// Sends the process SIGUSR1 with these numbers in vector registers, the upper halves of YMM and ZMM
/// registers and mask registers where there are such, and gives what they hold afterwards.
fn through_a_handler(values: &[u64; 8]) -> [u64; 8] {
    let pid = u64::from(std::process::id());
    let mut after = *values;
    let place = after.as_mut_ptr();
    // SAFETY: the registers are declared; those of which there may be none are used if there are.
    unsafe {
        if is_x86_feature_detected!("avx512f") {
            asm!(
                "vmovdqu64 zmm0, [{place}]", "vmovdqu64 zmm15, [{place}]",
                "vmovdqu64 zmm31, [{place}]", "kmovw k1, {mask:e}",
                "syscall",
                "vpandq zmm0, zmm0, zmm15", "vpandq zmm0, zmm0, zmm31",
                "vpxord zmm1, zmm1, zmm1", "vmovdqu32 zmm1{{k1}}, zmm0",
                "vmovdqu64 [{place}], zmm1",
                place = in(reg) place, mask = in(reg) 0xffff,
                inlateout("rax") libc::SYS_kill as u64 => _,
                inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
                out("rcx") _, out("r11") _, out("xmm0") _, out("xmm1") _, out("xmm15") _,
                out("xmm31") _, out("k1") _,
            );
        } else if is_x86_feature_detected!("avx") {
            asm!(
                "vmovups ymm0, [{place}]", "vmovups ymm15, [{place} + 32]",
                "syscall",
                "vmovups [{place}], ymm0", "vmovups [{place} + 32], ymm15",
                place = in(reg) place,
                inlateout("rax") libc::SYS_kill as u64 => _,
                inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
                out("rcx") _, out("r11") _, out("xmm0") _, out("xmm15") _,
            );
        } else {
            asm!(
                "movups xmm0, [{place}]", "movups xmm7, [{place} + 16]",
                "movups xmm8, [{place} + 32]", "movups xmm15, [{place} + 48]",
                "syscall",
                "movups [{place}], xmm0", "movups [{place} + 16], xmm7",
                "movups [{place} + 32], xmm8", "movups [{place} + 48], xmm15",
                place = in(reg) place,
                inlateout("rax") libc::SYS_kill as u64 => _,
                inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
                out("rcx") _, out("r11") _, out("xmm0") _, out("xmm7") _, out("xmm8") _,
                out("xmm15") _,
            );
        }
    }
    after
}

const VALUES: [u64; 8] = [
    0x0123_4567_89ab_cdef,
    2,
    3,
    4,
    0xfedc_ba98_7654_3210,
    6,
    7,
    u64::MAX,
];

fn vector_registers_survive_a_handler() -> Outcome {
    let _handled = handle(SIGUSR1, clobber, 0, 0);
    for _ in 0..100 {
        expect_eq!(through_a_handler(&VALUES), VALUES);
    }
    // So do the x87 registers.
    let mut result = 0_f64;
    let pid = u64::from(std::process::id());
    // SAFETY: the x87 stack is empty before and after.
    unsafe {
        asm!(
            "fldpi",
            "syscall",
            "fstp qword ptr [{result}]",
            result = in(reg) &raw mut result,
            inlateout("rax") libc::SYS_kill as u64 => _,
            inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
            out("rcx") _, out("r11") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _,
            out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    expect_eq!(result, std::f64::consts::PI);
    Ok(())
}

extern "C" fn look_at_state(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let mut mxcsr = 0_u32;
    let mut control = 0_u16;
    let mut vector = [0_u64; 2];
    // SAFETY: they are stored where there is room for them.
    unsafe {
        asm!(
            "movups [{vector}], xmm9",
            "stmxcsr [{mxcsr}]",
            "fnstcw [{control}]",
            vector = in(reg) vector.as_mut_ptr(),
            mxcsr = in(reg) &raw mut mxcsr,
            control = in(reg) &raw mut control,
        );
    }
    see(0, mxcsr.into());
    see(1, control.into());
    see(2, vector[0] | vector[1]);
}

fn a_handler_begins_with_a_clean_state() -> Outcome {
    let _handled = handle(SIGUSR1, look_at_state, 0, 0);
    let pid = u64::from(std::process::id());
    let (rounded_up, normal) = (0x5f80_u32, 0x1f80_u32);
    let mut after = 0_u32;
    // SAFETY: MXCSR is as it was afterwards.
    unsafe {
        asm!(
            "ldmxcsr [{up}]",
            "pcmpeqd xmm9, xmm9",
            "syscall",
            "stmxcsr [{after}]",
            "ldmxcsr [{normal}]",
            up = in(reg) &raw const rounded_up,
            normal = in(reg) &raw const normal,
            after = in(reg) &raw mut after,
            inlateout("rax") libc::SYS_kill as u64 => _,
            inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
            out("rcx") _, out("r11") _, out("xmm9") _,
        );
    }
    expect_eq!((seen(0), seen(1), seen(2)), (0x1f80, 0x37f, 0));
    expect_eq!(after, rounded_up);
    Ok(())
}

extern "C" fn change_registers(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let registers = registers(context);
    registers[REG_RBX as usize] = 77;
    registers[REG_R15 as usize] = 78;
    // Over the two bytes behind the system call.
    registers[REG_RIP as usize] += 2;
}

fn a_handler_can_change_registers() -> Outcome {
    let _handled = handle(SIGUSR1, change_registers, 0, 0);
    let pid = u64::from(std::process::id());
    let (first, second): (u64, u64);
    // SAFETY: `ud2` is not reached; RBX is as it was afterwards.
    unsafe {
        asm!(
            "push rbx",
            "syscall",
            "ud2",
            "mov {first}, rbx",
            "pop rbx",
            first = lateout(reg) first,
            lateout("r15") second,
            inlateout("rax") libc::SYS_kill as u64 => _,
            inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
            out("rcx") _, out("r11") _,
        );
    }
    expect_eq!((first, second), (77, 78));
    Ok(())
}

extern "C" fn change_vector(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a `ucontext_t` with the floating-point state.
    let state = unsafe { &mut *(*context.cast::<ucontext_t>()).uc_mcontext.fpregs };
    state._xmm[0].element = [5, 6, 7, 8];
}

fn a_handler_can_change_vector_registers() -> Outcome {
    let _handled = handle(SIGUSR1, change_vector, 0, 0);
    let pid = u64::from(std::process::id());
    let mut after = [0_u32; 4];
    // SAFETY: the registers are declared.
    unsafe {
        asm!(
            "pxor xmm0, xmm0",
            "syscall",
            "movups [{after}], xmm0",
            after = in(reg) after.as_mut_ptr(),
            inlateout("rax") libc::SYS_kill as u64 => _,
            inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
            out("rcx") _, out("r11") _, out("xmm0") _,
        );
    }
    expect_eq!(after, [5, 6, 7, 8]);
    Ok(())
}

extern "C" fn change_mask(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a `ucontext_t` with its set of 64 signals.
    unsafe {
        let set = (&raw mut (*context.cast::<ucontext_t>()).uc_sigmask).cast::<u64>();
        see(0, set.read());
        set.write(u64::MAX);
    }
}

fn a_handler_can_change_what_is_blocked() -> Outcome {
    let _handled = handle(SIGUSR1, change_mask, 0, bit(SIGTERM));
    let before = block(bit(SIGHUP));
    kill(SIGUSR1)?;
    let after = block(before);
    expect_eq!(seen(0), bit(SIGHUP));
    expect_eq!(after, !(bit(libc::SIGKILL) | bit(libc::SIGSTOP)));
    expect_eq!(blocked(), before);
    Ok(())
}

extern "C" fn look_at_frame(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a `ucontext_t` and behind FXSAVE's state, in room for programs, the
    // size of it all, at the end of which stands a number.
    unsafe {
        let context = context.cast::<ucontext_t>();
        see(0, (*context).uc_flags);
        see(1, info.addr() as u64 - context.addr() as u64);
        let state = (*context).uc_mcontext.fpregs.cast::<u8>();
        see(2, state.addr() as u64 % 64);
        let software = state.add(464).cast::<u32>();
        let (magic, whole, features, size) = (
            software.read(),
            software.add(1).read(),
            software.add(2).cast::<u64>().read(),
            software.add(4).read(),
        );
        see(3, magic.into());
        see(4, (whole - size).into());
        see(
            5,
            state
                .add(size as usize)
                .cast::<u32>()
                .read_unaligned()
                .into(),
        );
        // What is stored of x87 and SSE counts.
        let stored = state.add(512).cast::<u64>().read();
        see(6, (stored & 3) | (stored & !features) << 8);
        see(7, (*context).uc_mcontext.gregs[REG_CR2 as usize] as u64);
    }
}

fn the_frame_says_what_it_holds() -> Outcome {
    if !is_x86_feature_detected!("xsave") {
        return Ok(());
    }
    let _handled = handle(SIGUSR1, look_at_frame, 0, 0);
    kill(SIGUSR1)?;
    // UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS; `siginfo_t` behind the context.
    expect_eq!(seen(0), 7);
    expect_eq!(seen(1), 304);
    expect_eq!(
        (seen(2), seen(3), seen(4), seen(5)),
        (0, 0x4650_5853, 4, 0x4650_5845)
    );
    expect_eq!(seen(6), 3);
    Ok(())
}

extern "C" fn look_at_stack(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let mut here = 0_u64;
    // SAFETY: only reads RBP and RSP.
    unsafe { asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    let before = registers(context)[REG_RSP as usize] as u64;
    see(0, before - here);
    see(1, before - context.addr() as u64);
    // The context stands 8 bytes behind the return address.
    see(2, context.addr() as u64 % 16);
}

fn the_stack_is_aligned_as_for_a_call() -> Outcome {
    let _handled = handle(SIGUSR1, look_at_stack, 0, 0);
    kill(SIGUSR1)?;
    // The red zone is left alone.
    expect!(seen(0) > seen(1) && seen(1) >= 128 + 512 + 432);
    expect_eq!(seen(2), 0);
    Ok(())
}

extern "C" fn look_at_flags(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    let flags: u64;
    // SAFETY: only reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    see(0, flags);
    let registers = registers(context);
    see(1, registers[REG_EFL as usize] as u64);
    // Carry, and some that are not the program's to set: I/O privilege, virtual interrupts.
    registers[REG_EFL as usize] |= 1 | 3 << 12 | 1 << 19;
}

fn flags_are_restored_and_some_cleared() -> Outcome {
    let _handled = handle(SIGUSR1, look_at_flags, 0, 0);
    let pid = u64::from(std::process::id());
    let flags: u64;
    // SAFETY: the direction flag is cleared again.
    unsafe {
        asm!(
            "clc",
            "std",
            "syscall",
            "pushfq",
            "pop {flags}",
            "cld",
            flags = lateout(reg) flags,
            inlateout("rax") libc::SYS_kill as u64 => _,
            inlateout("rdi") pid => _, inlateout("rsi") SIGUSR1 as u64 => _,
            out("rcx") _, out("r11") _,
        );
    }
    const DIRECTION: u64 = 1 << 10;
    expect_eq!(seen(0) & DIRECTION, 0);
    expect_eq!(seen(1) & (DIRECTION | 1), DIRECTION);
    expect_eq!(flags & (DIRECTION | 1 | 3 << 12 | 1 << 19), DIRECTION | 1);
    Ok(())
}
