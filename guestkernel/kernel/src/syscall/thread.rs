//! System calls about threads: starting and ending them, and what libraries keep for each.

use super::Args;
use crate::error::{Errno, Result};
use crate::operation::{Clone, Execute};
use crate::process::{ExitStatus, Thread, thread_with};
use alloc::boxed::Box;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as raw;

/// Flags that `clone3(2)` knows.
const CLONE3_FLAGS: u64 = u32::MAX as u64 | raw::CLONE_CLEAR_SIGHAND | raw::CLONE_INTO_CGROUP;
/// Bytes of `struct clone_args` as it was first.
const CLONE_ARGS_MIN: usize = 64;
/// Bytes of it that hold `cgroup` as well.
const CLONE_ARGS_CGROUP: usize = 88;
/// Name spaces of process numbers that there can be inside each other.
const SET_TID_MAX: u64 = 32;

pub(super) async fn fork(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(Clone::fork().run(thread).await?.into())
}

pub(super) async fn vfork(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(Clone::vfork().run(thread).await?.into())
}

pub(super) async fn clone(thread: &mut Thread, args: Args) -> Result<u64> {
    let [flags, stack, parent_tid, child_tid, thread_pointer, _] = args.0;
    let clone = Clone {
        flags: u64::from(flags as u32 & !raw::CSIGNAL),
        exit_signal: flags as u8,
        stack,
        parent_tid,
        child_tid,
        thread_pointer,
        number: None,
        descriptor_at: parent_tid,
    };
    Ok(clone.run(thread).await?.into())
}

pub(super) async fn clone3(thread: &mut Thread, args: Args) -> Result<u64> {
    let asked = read_clone_args(thread, args.get(0), args.size(1))?;
    let number = match asked.set_tid_size {
        0 => None,
        _ => Some(thread.process.space.read_value(asked.set_tid)?),
    };
    let has = |flag: u32| asked.flags & u64::from(flag) != 0;
    let is_bad_flag = asked.flags & !CLONE3_FLAGS != 0
        || has(raw::CSIGNAL & !raw::CLONE_NEWTIME)
        || has(raw::CLONE_DETACHED)
        || has(raw::CLONE_SIGHAND) && asked.flags & raw::CLONE_CLEAR_SIGHAND != 0;
    let is_bad_signal =
        asked.exit_signal != 0 && (has(raw::CLONE_THREAD) || has(raw::CLONE_PARENT));
    let is_bad_stack = (asked.stack == 0) != (asked.stack_size == 0);
    if is_bad_flag || is_bad_signal || is_bad_stack {
        return Err(Errno::EINVAL);
    }
    let top = asked.stack.checked_add(asked.stack_size);
    let top = top
        .filter(|top| *top <= crate::mm::TASK_SIZE)
        .ok_or(Errno::EINVAL)?;
    // There is one name space of numbers.
    if asked.set_tid_size > 1 {
        return Err(Errno::EINVAL);
    }
    let clone = Clone {
        flags: asked.flags,
        exit_signal: asked.exit_signal as u8,
        stack: top,
        parent_tid: asked.parent_tid,
        child_tid: asked.child_tid,
        thread_pointer: asked.tls,
        number,
        descriptor_at: asked.pidfd,
    };
    Ok(clone.run(thread).await?.into())
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
        || asked.exit_signal > 64
        || is_into_cgroup && (asked.cgroup > i32::MAX as u64 || size < CLONE_ARGS_CGROUP);
    match is_bad {
        true => Err(Errno::EINVAL),
        false => Ok(asked),
    }
}

pub(super) async fn execve(thread: &mut Thread, args: Args) -> Result<u64> {
    let execute = Execute {
        directory: raw::AT_FDCWD,
        path: args.get(0),
        arguments: args.get(1),
        environment: args.get(2),
        flags: 0,
    };
    Box::pin(execute.run(thread)).await?;
    Ok(0)
}

pub(super) async fn execveat(thread: &mut Thread, args: Args) -> Result<u64> {
    let execute = Execute {
        directory: args.int(0),
        path: args.get(1),
        arguments: args.get(2),
        environment: args.get(3),
        flags: args.uint(4),
    };
    Box::pin(execute.run(thread)).await?;
    Ok(0)
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
    let target = match args.int(0) {
        0 => thread.state.clone(),
        tid => thread_with(tid)?.1,
    };
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
