//! System calls about threads: starting and ending them, and what libraries keep for each.

use super::Args;
use crate::error::{Errno, Result};
use crate::process::{ExitStatus, NewThread, Thread};
use core::sync::atomic::{AtomicBool, Ordering};
use linux_raw_sys::general as raw;

/// Flags that a thread must be made with: it shares all that there is to share.
const SHARED: u64 =
    (raw::CLONE_VM | raw::CLONE_FS | raw::CLONE_FILES | raw::CLONE_SIGHAND | raw::CLONE_THREAD)
        as u64;
/// Flags that change how a thread begins, or nothing: there are no semaphores of System V and no
/// I/O priorities to share, and nobody who traces.
const OPTIONAL: u64 = (raw::CLONE_SYSVSEM
    | raw::CLONE_IO
    | raw::CLONE_UNTRACED
    | raw::CLONE_DETACHED
    | raw::CLONE_SETTLS
    | raw::CLONE_PARENT_SETTID
    | raw::CLONE_CHILD_SETTID
    | raw::CLONE_CHILD_CLEARTID) as u64;
/// Flags that `clone3(2)` knows.
const CLONE3_FLAGS: u64 = u32::MAX as u64 | raw::CLONE_CLEAR_SIGHAND | raw::CLONE_INTO_CGROUP;
/// Bytes of `struct clone_args` as it was first.
const CLONE_ARGS_MIN: usize = 64;
/// Bytes of it that hold `cgroup` as well.
const CLONE_ARGS_CGROUP: usize = 88;
/// Name spaces of process numbers that there can be inside each other.
const SET_TID_MAX: u64 = 32;

/// What `clone(2)` and `clone3(2)` are asked for.
#[derive(Clone, Copy)]
struct Clone {
    flags: u64,
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    thread_pointer: u64,
}

pub(super) fn clone(thread: &mut Thread, args: Args) -> Result<u64> {
    let [flags, stack, parent_tid, child_tid, thread_pointer, _] = args.0;
    // The lowest byte is a signal, which a thread does not send when it ends.
    let flags = u64::from(flags as u32 & !raw::CSIGNAL);
    start(
        thread,
        Clone {
            flags,
            stack,
            parent_tid,
            child_tid,
            thread_pointer,
        },
    )
}

pub(super) fn clone3(thread: &mut Thread, args: Args) -> Result<u64> {
    let asked = read_clone_args(thread, args.get(0), args.size(1))?;
    let has = |flag: u32| asked.flags & u64::from(flag) != 0;
    let is_bad_flag =
        asked.flags & !CLONE3_FLAGS != 0 || has(raw::CSIGNAL) || has(raw::CLONE_DETACHED);
    let is_bad_signal = asked.exit_signal > 64 || asked.exit_signal != 0 && has(raw::CLONE_THREAD);
    let is_bad_stack = (asked.stack == 0) != (asked.stack_size == 0);
    if is_bad_flag || is_bad_signal || is_bad_stack {
        return Err(Errno::EINVAL);
    }
    let top = asked.stack.checked_add(asked.stack_size);
    let top = top
        .filter(|top| *top <= crate::mm::TASK_SIZE)
        .ok_or(Errno::EINVAL)?;
    if asked.set_tid != 0 {
        return not_offered("clone3 with set_tid");
    }
    start(
        thread,
        Clone {
            flags: asked.flags,
            stack: top,
            parent_tid: asked.parent_tid,
            child_tid: asked.child_tid,
            thread_pointer: asked.tls,
        },
    )
}

/// Reads a structure that may be longer or shorter than the one known, and checks it by itself.
fn read_clone_args(thread: &Thread, address: u64, size: usize) -> Result<raw::clone_args> {
    use machine::Plain;
    if size > crate::mm::PAGE as usize {
        return Err(Errno::E2BIG);
    }
    if size < CLONE_ARGS_MIN {
        return Err(Errno::EINVAL);
    }
    let space = &thread.process.space;
    let mut asked = raw::clone_args::zeroed();
    let known = size.min(size_of::<raw::clone_args>());
    let mut rest = alloc::vec![0; size - known];
    space.read(address.wrapping_add(known as u64), &mut rest)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    space.read(address, &mut asked.as_bytes_mut()[..known])?;
    let is_into_cgroup = asked.flags & raw::CLONE_INTO_CGROUP != 0;
    let is_bad = asked.set_tid_size > SET_TID_MAX
        || (asked.set_tid == 0) != (asked.set_tid_size == 0)
        || is_into_cgroup && (asked.cgroup > i32::MAX as u64 || size < CLONE_ARGS_CGROUP);
    match is_bad {
        true => Err(Errno::EINVAL),
        false => Ok(asked),
    }
}

fn start(thread: &Thread, asked: Clone) -> Result<u64> {
    let has = |flag: u32| asked.flags & u64::from(flag) != 0;
    let needs = |flag, other| !has(flag) || has(other);
    if !needs(raw::CLONE_THREAD, raw::CLONE_SIGHAND) || !needs(raw::CLONE_SIGHAND, raw::CLONE_VM) {
        return Err(Errno::EINVAL);
    }
    if asked.flags & SHARED != SHARED || asked.flags & !(SHARED | OPTIONAL) != 0 {
        return not_offered("clone of more or less than a thread");
    }
    let given = |flag, value| if has(flag) { value } else { 0 };
    let thread_pointer = has(raw::CLONE_SETTLS).then_some(asked.thread_pointer);
    if thread_pointer.is_some_and(|base| base >= crate::mm::TASK_SIZE) {
        return Err(Errno::EPERM);
    }
    let tid = thread.start_another(NewThread {
        stack: (asked.stack != 0).then_some(asked.stack),
        thread_pointer,
        number_at: [
            given(raw::CLONE_PARENT_SETTID, asked.parent_tid),
            given(raw::CLONE_CHILD_SETTID, asked.child_tid),
        ],
        clear_at_end: given(raw::CLONE_CHILD_CLEARTID, asked.child_tid),
    })?;
    Ok(tid.into())
}

/// There is one process.
#[cold]
fn not_offered(what: &str) -> Result<u64> {
    static IS_LOGGED: AtomicBool = AtomicBool::new(false);
    if !IS_LOGGED.swap(true, Ordering::Relaxed) {
        log::warn!("{what} is not implemented");
    }
    Err(Errno::ENOSYS)
}

pub(super) fn exit(thread: &mut Thread, args: Args) -> Result<u64> {
    thread.end(args.get(0) as u8);
    Ok(0)
}

pub(super) fn exit_group(thread: &mut Thread, args: Args) -> Result<u64> {
    thread.process.exit(ExitStatus::Exited(args.get(0) as u8));
    Ok(0)
}

pub(super) fn gettid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(thread.tid.into())
}

pub(super) fn set_tid_address(thread: &mut Thread, args: Args) -> Result<u64> {
    thread.clear_at_end = args.get(0);
    Ok(thread.tid.into())
}

pub(super) fn set_robust_list(thread: &mut Thread, args: Args) -> Result<u64> {
    if args.size(1) != size_of::<raw::robust_list_head>() {
        return Err(Errno::EINVAL);
    }
    thread
        .state
        .robust_list
        .store(args.get(0), Ordering::Relaxed);
    Ok(0)
}

pub(super) fn get_robust_list(thread: &mut Thread, args: Args) -> Result<u64> {
    let target = thread.process.thread(args.int(0), &thread.state)?;
    let space = &thread.process.space;
    let size = size_of::<raw::robust_list_head>() as u64;
    space.write_value(args.get(2), &size)?;
    let head = target.robust_list.load(Ordering::Relaxed);
    space.write_value(args.get(1), &head)?;
    Ok(0)
}

pub(super) fn rseq(thread: &mut Thread, args: Args) -> Result<u64> {
    let how = (args.uint(2), args.uint(3));
    let space = &thread.process.space;
    thread
        .sequences
        .register(space, args.get(0), args.uint(1), how)?;
    Ok(0)
}
