//! What a handler finds on its stack, and how the program gets back from there: `struct rt_sigframe`
//! of Linux on x86-64 (`arch/x86/include/asm/sigframe.h`, `uapi/asm/sigcontext.h`).

use super::alternate_stack::AlternateStack;
use super::handlers::Action;
use super::info::{INFO_SIZE, SignalInfo};
use super::set::SignalSet;
use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use crate::process::exceptions::LastException;
use crate::process::thread::Thread;
use linux_raw_sys::general as raw;
use machine::{Registers, UserContext};
use smallvec::SmallVec;

/// Bytes of the frame, and where things are in it.
const SIZE: usize = 440;
const RETURN_ADDRESS: usize = 0;
const FLAGS: usize = 8;
const STACK: usize = 24;
const REGISTERS: usize = 48;
const SEGMENTS: usize = 192;
const EXCEPTION: usize = 200;
const EXTENDED: usize = 232;
const MASK: usize = 304;
const INFO: usize = 312;
const _: () = assert!(INFO + INFO_SIZE == SIZE);
/// From the frame to the `ucontext` in it.
const CONTEXT: u64 = 8;

/// Bytes below the stack pointer that belong to the program.
const RED_ZONE: u64 = 128;
/// Alignment of the stack where functions begin, before the return address, and of XSAVE's area.
const ALIGNMENT: u64 = 16;
const EXTENDED_ALIGNMENT: u64 = 64;

/// `uc_flags`: the extended state has more than FXSAVE's, SS is in the frame and is given back.
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

/// Where FXSAVE leaves room for programs, in which the kernel says how much more there is
/// (`struct _fpx_sw_bytes`), and the words before and after it.
const SOFTWARE: usize = 464;
const SOFTWARE_SIZE: usize = 48;
const MAGIC_BEFORE: u32 = 0x4650_5853;
const MAGIC_AFTER: u32 = 0x4650_5845;
/// Bytes of FXSAVE's area, the header of XSAVE behind it, and its components x87 and SSE.
const LEGACY_SIZE: usize = 512;
const LEGACY: u64 = 3;

/// What the program may set in its flags by returning from a handler: RF and those of
/// `FIX_EFLAGS`.
const FLAGS_RESTORED: u64 = 0x0005_0dd5;
/// Flags that a handler does not begin with: DF, RF, TF.
const FLAGS_CLEARED: u64 = 0x0001_0500;

/// The most bytes of a stack that a frame takes (`AT_MINSIGSTKSZ`).
pub(in crate::process) fn minimum_stack() -> u64 {
    let size = SIZE as u64 + ALIGNMENT - 1 + extended_size() + EXTENDED_ALIGNMENT - 1;
    size.next_multiple_of(ALIGNMENT)
}

fn has_xsave() -> bool {
    UserContext::extended_features() != 0
}

/// Bytes of the extended state in a frame.
fn extended_size() -> u64 {
    let after = if has_xsave() { 4 } else { 0 };
    UserContext::extended_size() as u64 + after
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    word(bytes, at) as u32
}

/// The registers in the order of `struct sigcontext`.
fn in_order(r: &mut Registers) -> [&mut u64; 18] {
    [
        &mut r.r8,
        &mut r.r9,
        &mut r.r10,
        &mut r.r11,
        &mut r.r12,
        &mut r.r13,
        &mut r.r14,
        &mut r.r15,
        &mut r.rdi,
        &mut r.rsi,
        &mut r.rbp,
        &mut r.rbx,
        &mut r.rdx,
        &mut r.rax,
        &mut r.rcx,
        &mut r.rsp,
        &mut r.rip,
        &mut r.rflags,
    ]
}

/// Where a frame goes: itself, and the extended state.
fn place(action: &Action, stack: &AlternateStack, pointer: u64) -> Result<(u64, u64)> {
    let is_nested = stack.is_nested(pointer);
    let mut at = pointer.wrapping_sub(RED_ZONE);
    let top = stack.top(at).filter(|_| action.has(raw::SA_ONSTACK));
    if let Some(top) = top {
        at = top;
    }
    let extended = at.wrapping_sub(extended_size()) & !(EXTENDED_ALIGNMENT - 1);
    let frame = extended.wrapping_sub(SIZE as u64) & !(ALIGNMENT - 1);
    // As if it had been called.
    let frame = frame.wrapping_sub(8);
    if (is_nested || top.is_some()) && !stack.contains(frame) {
        return Err(Errno::EFAULT);
    }
    Ok((frame, extended))
}

/// Has the program of `thread` call the handler of `action`, after which it blocks `blocked`.
///
/// # Errors
///
/// `EFAULT` if there is no room on its stack, or there is nothing to return to.
pub(super) fn push(
    thread: &mut Thread,
    info: &SignalInfo,
    action: &Action,
    blocked: SignalSet,
) -> Result<()> {
    if !action.has(raw::SA_RESTORER) {
        return Err(Errno::EFAULT);
    }
    let pointer = thread.context.registers.rsp;
    let (at, extended) = place(action, &thread.alternate_stack, pointer)?;
    push_extended(thread, extended)?;

    let mut frame = [0; SIZE];
    let extended_flag = if has_xsave() { UC_FP_XSTATE } else { 0 };
    let flags = extended_flag | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    put(&mut frame, RETURN_ADDRESS, action.restorer.to_le_bytes());
    put(&mut frame, FLAGS, flags.to_le_bytes());
    let stack = thread.alternate_stack;
    put(&mut frame, STACK, stack.base.to_le_bytes());
    put(&mut frame, STACK + 8, stack.flags.to_le_bytes());
    put(&mut frame, STACK + 16, stack.size.to_le_bytes());
    let registers = in_order(&mut thread.context.registers);
    for (index, register) in registers.into_iter().enumerate() {
        put(&mut frame, REGISTERS + index * 8, register.to_le_bytes());
    }
    let [code_segment, stack_segment] = thread.context.segments();
    put(&mut frame, SEGMENTS, code_segment.to_le_bytes());
    put(&mut frame, SEGMENTS + 6, stack_segment.to_le_bytes());
    let LastException {
        vector,
        code,
        address,
    } = thread.last_exception;
    let words = [code, vector, blocked.0, address];
    for (index, value) in words.into_iter().enumerate() {
        put(&mut frame, EXCEPTION + index * 8, value.to_le_bytes());
    }
    put(&mut frame, EXTENDED, extended.to_le_bytes());
    put(&mut frame, MASK, blocked.0.to_le_bytes());
    put(&mut frame, INFO, info.bytes());
    thread.process.space.write(at, &frame)?;

    if stack.flags & raw::SS_AUTODISARM != 0 {
        thread.alternate_stack = AlternateStack::NONE;
    }
    thread.context.reset_extended();
    let registers = &mut thread.context.registers;
    registers.rdi = info.signal.number().into();
    registers.rsi = at + INFO as u64;
    registers.rdx = at + CONTEXT;
    registers.rax = 0;
    registers.rsp = at;
    registers.rip = action.handler;
    registers.rflags &= !FLAGS_CLEARED;
    thread.context.set_program_segments();
    Ok(())
}

/// Stores the extended state of the program at `at`.
fn push_extended(thread: &mut Thread, at: u64) -> Result<()> {
    let space = &thread.process.space;
    space.write(at, thread.context.extended())?;
    if !has_xsave() {
        return Ok(());
    }
    let size = UserContext::extended_size() as u32;
    let features = UserContext::extended_features();
    let mut software = [0; SOFTWARE_SIZE];
    put(&mut software, 0, MAGIC_BEFORE.to_le_bytes());
    put(&mut software, 4, (size + 4).to_le_bytes());
    put(&mut software, 8, features.to_le_bytes());
    put(&mut software, 16, size.to_le_bytes());
    space.write(at + SOFTWARE as u64, &software)?;
    // A program that changes x87 or SSE registers there means it, though they were as after reset.
    let header = at + LEGACY_SIZE as u64;
    let components: u64 = space.read_value(header)?;
    space.write_value(header, &(components | LEGACY))?;
    space.write_value(at + u64::from(size), &MAGIC_AFTER)
}

/// Has the program of `thread` go on where it was when the handler was called that now returns; gives
/// what it blocks then.
///
/// # Errors
///
/// `EFAULT` if there is no frame, or one that no program can go on from; [`Errno::ABSENT`], and nothing
/// has been done.
pub(super) fn pop(thread: &mut Thread) -> Result<SignalSet> {
    let handlers = thread.context.registers.rsp;
    let at = handlers.wrapping_sub(8);
    let mut frame = [0; SIZE];
    // The rest is not looked at.
    thread.process.space.read(at, &mut frame[..INFO])?;
    let image = read_extended(&thread.process.space, word(&frame, EXTENDED))?;
    let registers = &mut thread.context.registers;
    let flags = registers.rflags;
    for (index, register) in in_order(registers).into_iter().enumerate() {
        *register = word(&frame, REGISTERS + index * 8);
    }
    registers.rflags = flags & !FLAGS_RESTORED | registers.rflags & FLAGS_RESTORED;
    let segments = [0, 6].map(|offset| {
        let selector = word(&frame, SEGMENTS) >> (offset * 8);
        // As Linux has it: whatever it is, it is a program's.
        selector as u16 | 3
    });
    let is_taken = match image {
        Some(image) => thread.context.set_extended(|state| {
            state.copy_from_slice(&image);
            true
        }),
        None => {
            thread.context.reset_extended();
            true
        }
    };
    let stack = AlternateStack {
        base: word(&frame, STACK),
        flags: half(&frame, STACK + 8),
        size: word(&frame, STACK + 16),
    };
    // One that cannot be is told to nobody, nor that the handler used the one that there is.
    let _ = thread.alternate_stack.replace(stack, handlers);
    if !is_taken || !thread.context.set_segments(segments) {
        return Err(Errno::EFAULT);
    }
    Ok(SignalSet(word(&frame, MASK)))
}

/// A state that is read from a frame, on the stack if it is of the size that most processors have.
type Image = SmallVec<[u8; 2816]>;

/// Reads the extended state at `at`; there is none at 0.
fn read_extended(space: &AddressSpace, at: u64) -> Result<Option<Image>> {
    if at == 0 {
        return Ok(None);
    }
    let size = UserContext::extended_size();
    let mut image = Image::from_elem(0, size);
    if !has_xsave() {
        space.read(at, &mut image)?;
        return Ok(Some(image));
    }
    if !at.is_multiple_of(EXTENDED_ALIGNMENT) {
        return Err(Errno::EFAULT);
    }
    space.read(at, &mut image[..LEGACY_SIZE])?;
    let is_whole = half(&image, SOFTWARE) == MAGIC_BEFORE
        && space.read_value::<u32>(at.wrapping_add(size as u64))? == MAGIC_AFTER;
    let mut components = LEGACY;
    if is_whole {
        let rest = at.wrapping_add(LEGACY_SIZE as u64);
        space.read(rest, &mut image[LEGACY_SIZE..])?;
        // Those that the program says are there.
        components = word(&image, LEGACY_SIZE) & word(&image, SOFTWARE + 8);
    }
    put(&mut image, LEGACY_SIZE, components.to_le_bytes());
    Ok(Some(image))
}
