//! Signals for what the program does itself: their codes and addresses, and what frames say of the
//! exception.

use crate::catch::{Handled, handle, registers};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Mapping, create};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{
    REG_CR2, REG_ERR, REG_RIP, REG_TRAPNO, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP, c_int, c_void,
    siginfo_t,
};
use std::arch::{asm, naked_asm};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const CHECKS: &[Check] = checks![
    access_to_nothing,
    access_that_is_not_allowed,
    execution_that_is_not_allowed,
    access_behind_the_end_of_a_file,
    division_by_zero,
    floating_point_exceptions,
    x87_exceptions,
    an_invalid_instruction,
    a_breakpoint,
    a_single_step,
    a_privileged_instruction,
    an_address_that_is_none,
    alignment_is_checked_if_asked_for,
    a_page_can_be_mapped_by_the_handler,
];

/// What the handler was told: signal, code, address, and of the frame the vector, the error code and
/// the address.
static SEEN: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// Notes all of it, and has the program return from the function that it is in, which is one that has
/// changed no stack.
extern "C" fn note_and_leave(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let registers = registers(context);
    // SAFETY: the kernel passes a `siginfo_t`, and the stack holds the address to return to.
    let (code, address, back) = unsafe {
        let stack = registers[libc::REG_RSP as usize] as *const i64;
        ((*info).si_code, (*info).si_addr().addr(), stack.read())
    };
    let values = [
        signal as u64,
        code as u64,
        address as u64,
        registers[REG_TRAPNO as usize] as u64,
        registers[REG_ERR as usize] as u64,
        registers[REG_CR2 as usize] as u64,
    ];
    for (slot, value) in SEEN.iter().zip(values) {
        slot.store(value, Ordering::SeqCst);
    }
    registers[REG_RIP as usize] = back;
    registers[libc::REG_RSP as usize] += 8;
    registers[libc::REG_EFL as usize] &= !(1 << 18 | 1 << 8);
}

fn seen() -> [u64; 6] {
    [0, 1, 2, 3, 4, 5].map(|slot: usize| SEEN[slot].swap(0, Ordering::SeqCst))
}

fn catching(signal: i32) -> Handled {
    seen();
    handle(signal, note_and_leave, 0, 0)
}

/// A function that does something wrong in its first instruction, given an address.
type Wrong = unsafe extern "C" fn(usize);

macro_rules! wrong {
    ($($name:ident: $($line:literal),+;)*) => {
        $(
            #[unsafe(naked)]
            unsafe extern "C" fn $name(_: usize) {
                naked_asm!($($line),+, "ret")
            }
        )*
    };
}

wrong! {
    load: "mov al, [rdi]";
    store: "mov byte ptr [rdi], 1";
    divide: "div dil";
    invalid: "ud2";
    breakpoint: "int3";
    icebp: ".byte 0xf1";
    halt: "hlt";
    port: "in al, 0x80";
    interrupt: "int 0x42";
    bound_stack: "mov rax, [rbp]";
}

#[unsafe(naked)]
unsafe extern "C" fn jump(_: usize) {
    naked_asm!("jmp rdi")
}

fn address_of(function: Wrong) -> u64 {
    function as *const () as u64
}

/// Does something wrong, and gives what the handler was told.
fn provoke(function: Wrong, address: usize) -> [u64; 6] {
    // SAFETY: the handler returns from the function at once; it has changed nothing.
    unsafe { function(address) };
    seen()
}

const PAGE_FAULT: u64 = 14;
const SI_KERNEL: u64 = 0x80;

fn access_to_nothing() -> Outcome {
    let _handled = catching(SIGSEGV);
    let nowhere = Mapping::new(4096, libc::PROT_NONE)?;
    let address = nowhere.start.addr() + 123;
    drop(nowhere);
    const MAPERR: u64 = 1;
    let at = address as u64;
    expect_eq!(provoke(load, address), [11, MAPERR, at, PAGE_FAULT, 4, at]);
    expect_eq!(provoke(store, address), [11, MAPERR, at, PAGE_FAULT, 6, at]);
    expect_eq!(provoke(load, 0), [11, MAPERR, 0, PAGE_FAULT, 4, 0]);
    let [signal, code, told, vector, error, _] = provoke(jump, address);
    expect_eq!(
        [signal, code, told, vector, error],
        [11, MAPERR, at, PAGE_FAULT, 0x14]
    );
    Ok(())
}

fn access_that_is_not_allowed() -> Outcome {
    let _handled = catching(SIGSEGV);
    const ACCERR: u64 = 2;
    let page = Mapping::new(4096, libc::PROT_READ)?;
    let at = page.start.addr() + 5;
    // SAFETY: the page can be read.
    let zero = unsafe { page.start.read_volatile() };
    expect_eq!(zero, 0);
    let expected = [11, ACCERR, at as u64, PAGE_FAULT];
    expect_eq!(provoke(store, at)[..4].to_vec(), expected);
    sys!(SYS_mprotect, page.start, 4096, libc::PROT_NONE)?;
    expect_eq!(provoke(load, at)[..4].to_vec(), expected);
    let code = address_of(load) as usize;
    let told = provoke(store, code);
    expect_eq!(told[..5].to_vec(), [11, ACCERR, code as u64, PAGE_FAULT, 7]);
    Ok(())
}

fn execution_that_is_not_allowed() -> Outcome {
    let _handled = catching(SIGSEGV);
    let page = Mapping::new(4096, libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: the page can be written.
    unsafe { page.start.write_volatile(0xc3) };
    let at = page.start.addr() as u64;
    let told = provoke(jump, page.start.addr());
    expect_eq!(told[..5].to_vec(), [11, 2, at, PAGE_FAULT, 0x15]);
    Ok(())
}

fn access_behind_the_end_of_a_file() -> Outcome {
    let _handled = catching(SIGBUS);
    let file = create(c"short", &[1; 100])?;
    let mapping = Mapping::shared(&file, 8192, 0)?;
    // SAFETY: the first page is the file's.
    let first = unsafe { mapping.start.read_volatile() };
    expect_eq!(first, 1);
    let at = mapping.start.addr() + 4096 + 7;
    const ADRERR: u64 = 2;
    let told = provoke(load, at);
    expect_eq!(told[..4].to_vec(), [7, ADRERR, at as u64, PAGE_FAULT]);
    Ok(())
}

fn division_by_zero() -> Outcome {
    let _handled = catching(SIGFPE);
    const INTDIV: u64 = 1;
    let at = address_of(divide);
    let told = provoke(divide, 0);
    expect_eq!(told[..5].to_vec(), [8, INTDIV, at, 0, 0]);
    Ok(())
}

#[unsafe(naked)]
unsafe extern "C" fn vector_divide(_: f32, _: f32) -> f32 {
    naked_asm!("divss xmm0, xmm1", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn vector_multiply(_: f32, _: f32) -> f32 {
    naked_asm!("mulss xmm0, xmm1", "ret")
}

/// Does `with` with all exceptions of vector instructions enabled.
fn with_exceptions<R>(with: impl FnOnce() -> R) -> R {
    let enabled = 0_u32;
    let normal = 0x1f80_u32;
    // SAFETY: MXCSR is as it was afterwards; the handler's caller gets it back from the frame, with
    // flags set, and it is set anew for each check.
    unsafe {
        asm!("ldmxcsr [{}]", in(reg) &raw const enabled);
        let result = with();
        asm!("ldmxcsr [{}]", in(reg) &raw const normal);
        result
    }
}

fn floating_point_exceptions() -> Outcome {
    let _handled = catching(SIGFPE);
    let (divide, multiply) = (vector_divide, vector_multiply);
    type Operation = unsafe extern "C" fn(f32, f32) -> f32;
    let table: [(Operation, f32, f32, u64); 5] = [
        (divide, 1.0, 0.0, 3),
        (divide, 0.0, 0.0, 7),
        (multiply, 1e38, 1e38, 4),
        (multiply, 1e-38, 1e-3, 5),
        (divide, 1.0, 3.0, 6),
    ];
    for (operation, first, second, code) in table {
        // SAFETY: as in `provoke`.
        with_exceptions(|| unsafe { operation(first, second) });
        let told = seen();
        let at = operation as *const () as u64;
        expect_eq!(told[..4].to_vec(), [8, code, at, 19]);
    }
    Ok(())
}

/// Divides by zero on the x87 stack, with that exception enabled, and waits for it.
#[unsafe(naked)]
unsafe extern "C" fn x87_divide(_: *const u16) {
    naked_asm!(
        "fldcw [rdi]",
        "fld1",
        "fldz",
        "fdivp st(1), st",
        "fwait",
        "ret"
    )
}

extern "C" fn note_x87(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    note_and_leave(signal, info, context);
    // SAFETY: the kernel passes the state, which is made one without exceptions.
    unsafe {
        let state = &mut *(*context.cast::<libc::ucontext_t>()).uc_mcontext.fpregs;
        state.cwd = 0x37f;
        state.swd = 0;
        state.ftw = 0;
    }
}

fn x87_exceptions() -> Outcome {
    seen();
    let _handled = handle(SIGFPE, note_x87, 0, 0);
    let enabled = 0x37b_u16;
    // SAFETY: the handler leaves an empty x87 stack.
    unsafe { x87_divide(&enabled) };
    let told = seen();
    expect_eq!((told[0], told[1], told[3]), (8, 3, 16));
    Ok(())
}

fn an_invalid_instruction() -> Outcome {
    let _handled = catching(SIGILL);
    const ILLOPN: u64 = 2;
    let at = address_of(invalid);
    expect_eq!(provoke(invalid, 0)[..5].to_vec(), [4, ILLOPN, at, 6, 0]);
    Ok(())
}

fn a_breakpoint() -> Outcome {
    let _handled = catching(SIGTRAP);
    expect_eq!(
        provoke(breakpoint, 0)[..5].to_vec(),
        [5, SI_KERNEL, 0, 3, 0]
    );
    // Where it is said to be depends on the machine.
    const BRKPT: u64 = 1;
    let told = provoke(icebp, 0);
    expect_eq!((told[0], told[1], told[3]), (5, BRKPT, 1));
    Ok(())
}

/// Sets the trap flag: the instruction after the next one is not reached.
#[unsafe(naked)]
unsafe extern "C" fn step(_: usize) {
    naked_asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "ret")
}

fn a_single_step() -> Outcome {
    let _handled = catching(SIGTRAP);
    const TRACE: u64 = 2;
    let told = provoke(step, 0);
    expect_eq!((told[0], told[1], told[3]), (5, TRACE, 1));
    expect!(told[2] > address_of(step) && told[2] < address_of(step) + 20);
    Ok(())
}

fn a_privileged_instruction() -> Outcome {
    let _handled = catching(SIGSEGV);
    const PROTECTION: u64 = 13;
    for (function, error) in [(halt as Wrong, 0), (port, 0), (interrupt, 0x42 * 8 + 2)] {
        expect_eq!(
            provoke(function, 0)[..5].to_vec(),
            [11, SI_KERNEL, 0, PROTECTION, error]
        );
    }
    Ok(())
}

fn an_address_that_is_none() -> Outcome {
    let _handled = catching(SIGSEGV);
    let told = provoke(load, 1 << 60);
    expect_eq!(told[..5].to_vec(), [11, SI_KERNEL, 0, 13, 0]);
    // By the stack's registers it is a fault of the stack segment.
    let bus = handle(SIGBUS, note_and_leave, 0, 0);
    let result: u64;
    // SAFETY: as in `provoke`; RBP is as it was afterwards.
    unsafe {
        asm!("push rbp", "mov rbp, {bad}", "call {function}", "pop rbp",
             bad = in(reg) 1_u64 << 60, function = in(reg) address_of(bound_stack),
             lateout("rax") result, clobber_abi("C"));
    }
    let _ = result;
    let told = seen();
    expect_eq!(told[..4].to_vec(), [7, SI_KERNEL, 0, 12]);
    drop(bus);
    Ok(())
}

/// Loads a word from the address with the alignment check on.
#[unsafe(naked)]
unsafe extern "C" fn load_checked(_: usize) {
    naked_asm!(
        "pushfq",
        "or qword ptr [rsp], 0x40000",
        "popfq",
        "mov eax, [rdi]",
        "pushfq",
        "and qword ptr [rsp], ~0x40000",
        "popfq",
        "ret"
    )
}

/// A handler begins with that check on: this one ends it before it does anything else.
#[unsafe(naked)]
extern "C" fn without_check(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    naked_asm!(
        "pushfq",
        "and qword ptr [rsp], ~0x40000",
        "popfq",
        "jmp {note}",
        note = sym note_and_leave,
    )
}

fn alignment_is_checked_if_asked_for() -> Outcome {
    seen();
    let _handled = handle(SIGBUS, without_check, 0, 0);
    let words = [0_u64; 2];
    const ADRALN: u64 = 1;
    let told = provoke(load_checked, words.as_ptr().addr() + 1);
    expect_eq!(told[..5].to_vec(), [7, ADRALN, 0, 17, 0]);
    expect_eq!(provoke(load_checked, words.as_ptr().addr()), [0; 6]);
    Ok(())
}

extern "C" fn map_page(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a `siginfo_t` with an address.
    let page = unsafe { (*info).si_addr() }.addr() & !4095;
    let _ = sys!(SYS_mprotect, page, 4096, libc::PROT_READ | libc::PROT_WRITE);
    SEEN[0].fetch_add(1, Ordering::SeqCst);
}

fn a_page_can_be_mapped_by_the_handler() -> Outcome {
    seen();
    let _handled = handle(SIGSEGV, map_page, 0, 0);
    let memory = Mapping::new(16 * 4096, libc::PROT_NONE)?;
    for page in 0..16 {
        let place = memory.at(page * 4096 + 8);
        // SAFETY: the handler makes the page one that can be written.
        let value = unsafe {
            place.write_volatile(page as u8);
            place.read_volatile()
        };
        if value != page as u8 {
            return Err(Failure::new(format!("page {page} holds {value}")));
        }
    }
    expect_eq!(seen()[0], 16);
    Ok(())
}
