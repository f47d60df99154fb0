//! System calls about signals. What signals do is described in
//! [`process`](crate::process).

use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::operation::{Kill, Receiver, deadline_after, read_timespec};
use crate::process::{
    Action, AlternateStack, INFO_SIZE, SI_TKILL, Signal, SignalInfo, SignalSet, Thread,
};
use core::future::pending;
use linux_raw_sys::general as raw;

/// Bytes of `struct sigaction` as the system call has it: handler, flags, restorer, mask.
const ACTION_WORDS: usize = 4;
/// Bytes of `stack_t`.
const STACK_SIZE: usize = 24;
/// Flags of `rt_sigaction(2)` that are kept; others are dropped, so that a program can tell.
const ACTION_FLAGS: u64 = (raw::SA_NOCLDSTOP
    | raw::SA_NOCLDWAIT
    | raw::SA_SIGINFO
    | raw::SA_ONSTACK
    | raw::SA_RESTART
    | raw::SA_NODEFER
    | raw::SA_RESETHAND
    | raw::SA_EXPOSE_TAGBITS
    | raw::SA_RESTORER) as u64;

pub(super) fn check_set_size(size: usize) -> Result<()> {
    match size {
        8 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn read_set(thread: &Thread, address: u64) -> Result<SignalSet> {
    let bits = thread.process.space.read_value(address)?;
    Ok(SignalSet(bits).without(SignalSet::UNBLOCKABLE))
}

pub(super) fn rt_sigaction(thread: &mut Thread, args: Args) -> Result<u64> {
    check_set_size(args.size(3))?;
    let space = &thread.process.space;
    let mut new = None;
    if args.get(1) != 0 {
        let mut words = [0; ACTION_WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = space.read_value(args.get(1).wrapping_add(index as u64 * 8))?;
        }
        let [handler, flags, restorer, mask] = words;
        new = Some(Action {
            handler,
            flags: flags & ACTION_FLAGS,
            restorer,
            mask: SignalSet(mask).without(SignalSet::UNBLOCKABLE),
        });
    }
    let signal = Signal::new(args.int(0)).ok_or(Errno::EINVAL)?;
    if new.is_some() && SignalSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL);
    }
    if new.is_some() && args.get(2) != 0 {
        space.prepare_write(args.get(2), ACTION_WORDS * 8)?;
    }
    let old = match new {
        Some(new) => thread.process.set_action(signal, new),
        None => thread.process.action(signal),
    };
    if args.get(2) != 0 {
        let words = [old.handler, old.flags, old.restorer, old.mask.0];
        for (index, word) in words.iter().enumerate() {
            space.write_value(args.get(2).wrapping_add(index as u64 * 8), word)?;
        }
    }
    Ok(0)
}

pub(super) fn rt_sigprocmask(thread: &mut Thread, args: Args) -> Result<u64> {
    check_set_size(args.size(3))?;
    let process = &thread.process;
    let old = process.blocked(thread.tid);
    if args.get(1) != 0 {
        let set = read_set(thread, args.get(1))?;
        let new = match args.uint(0) {
            raw::SIG_BLOCK => old.union(set),
            raw::SIG_UNBLOCK => old.without(set),
            raw::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        if args.get(2) != 0 {
            process.space.prepare_write(args.get(2), size_of::<u64>())?;
        }
        process.set_blocked(thread.tid, new);
    }
    if args.get(2) != 0 {
        process.space.write_value(args.get(2), &old.0)?;
    }
    Ok(0)
}

pub(super) fn rt_sigpending(thread: &mut Thread, args: Args) -> Result<u64> {
    if args.size(1) > 8 {
        return Err(Errno::EINVAL);
    }
    let process = &thread.process;
    let [own, shared] = process.pending(thread.tid);
    let pending = own.union(shared).intersection(process.blocked(thread.tid));
    let bytes = &pending.0.to_le_bytes()[..args.size(1)];
    process.space.write(args.get(0), bytes)?;
    Ok(0)
}

pub(super) fn sigaltstack(thread: &mut Thread, args: Args) -> Result<u64> {
    let space = &thread.process.space;
    let pointer = thread.context.registers.rsp;
    let old = thread.alternate_stack;
    if args.get(0) != 0 {
        if args.get(1) != 0 {
            space.prepare_write(args.get(1), STACK_SIZE)?;
        }
        let new = AlternateStack {
            base: space.read_value(args.get(0))?,
            flags: space.read_value(args.get(0).wrapping_add(8))?,
            size: space.read_value(args.get(0).wrapping_add(16))?,
        };
        thread.alternate_stack.replace(new, pointer)?;
    }
    if args.get(1) != 0 {
        let mut bytes = [0; STACK_SIZE];
        bytes[..8].copy_from_slice(&old.base.to_le_bytes());
        bytes[8..12].copy_from_slice(&old.status(pointer).to_le_bytes());
        bytes[16..].copy_from_slice(&old.size.to_le_bytes());
        space.write(args.get(1), &bytes)?;
    }
    Ok(0)
}

pub(super) fn rt_sigreturn(thread: &mut Thread, _: Args) -> Result<u64> {
    thread.return_from_handler()
}

fn send(thread: &Thread, to: Receiver, signal: i32) -> Result<u64> {
    let kill = Kill {
        to,
        signal,
        info: None,
    };
    kill.run(actor(thread))?;
    Ok(0)
}

pub(super) fn kill(thread: &mut Thread, args: Args) -> Result<u64> {
    send(thread, Receiver::Processes(args.int(0)), args.int(1))
}

pub(super) fn tkill(thread: &mut Thread, args: Args) -> Result<u64> {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    send(thread, Receiver::Thread(args.int(0)), args.int(1))
}

pub(super) fn tgkill(thread: &mut Thread, args: Args) -> Result<u64> {
    let (pid, tid) = (args.int(0), args.int(1));
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    send(thread, Receiver::ThreadOf(pid, tid), args.int(2))
}

/// What a program tells of a signal that it sends to `to`: not that the kernel or `kill(2)` has sent
/// it, unless it sends it to itself.
fn read_info(thread: &Thread, signal: i32, address: u64, to: i32) -> Result<SignalInfo> {
    let mut bytes = [0; INFO_SIZE];
    thread.process.space.read(address, &mut bytes)?;
    // The number that counts is the call's, which is looked at only when it is sent.
    let stand_in = Signal::new(signal).unwrap_or(Signal::SIGKILL);
    let info = SignalInfo::from_bytes(stand_in, &bytes)?;
    let is_forged = info.code >= 0 || info.code == SI_TKILL;
    match is_forged && to as u32 != thread.tid {
        true => Err(Errno::EPERM),
        false => Ok(info),
    }
}

pub(super) fn rt_sigqueueinfo(thread: &mut Thread, args: Args) -> Result<u64> {
    let info = read_info(thread, args.int(1), args.get(2), args.int(0))?;
    let kill = Kill {
        to: Receiver::Process(args.int(0)),
        signal: args.int(1),
        info: Some(info),
    };
    kill.run(actor(thread))?;
    Ok(0)
}

pub(super) fn rt_tgsigqueueinfo(thread: &mut Thread, args: Args) -> Result<u64> {
    let (pid, tid) = (args.int(0), args.int(1));
    if pid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = read_info(thread, args.int(2), args.get(3), tid)?;
    let kill = Kill {
        to: Receiver::ThreadOf(pid, tid),
        signal: args.int(2),
        info: Some(info),
    };
    kill.run(actor(thread))?;
    Ok(0)
}

pub(super) async fn pause(thread: &mut Thread, _: Args) -> Result<u64> {
    let waiting = thread.until_signal(pending::<u64>()).await;
    waiting.map_err(|_| Errno::ERESTARTNOHAND)
}

pub(super) async fn rt_sigsuspend(thread: &mut Thread, args: Args) -> Result<u64> {
    check_set_size(args.size(1))?;
    let blocked = read_set(thread, args.get(0))?;
    thread.process.set_blocked_temporarily(thread.tid, blocked);
    let waiting = thread.until_signal(pending::<u64>()).await;
    waiting.map_err(|_| Errno::ERESTARTNOHAND)
}

pub(super) async fn rt_sigtimedwait(thread: &mut Thread, args: Args) -> Result<u64> {
    check_set_size(args.size(3))?;
    let wanted = read_set(thread, args.get(0))?;
    let process = &thread.process;
    let deadline = match args.get(2) {
        0 => None,
        address => Some(deadline_after(read_timespec(&process.space, address)?)),
    };
    let timeout = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => pending().await,
        }
        Errno::EAGAIN
    };
    let info = process
        .wait_for_signal(&thread.state, wanted, timeout)
        .await?;
    if args.get(1) != 0 {
        let bytes = info.bytes();
        let write = || process.space.write(args.get(1), &bytes);
        process.space.retry(write).await?;
    }
    Ok(info.signal.number().into())
}
