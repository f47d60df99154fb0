//! System calls about signals. What signals do is described in
//! [`process::Signals`](crate::process::Signals).

use super::Args;
use super::time::read_timespec;
use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::process::{Action, Signal, SignalSet, Thread};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use linux_raw_sys::general as raw;

/// Bytes of `struct sigaction` as the system call has it: handler, flags, restorer, mask.
const ACTION_WORDS: usize = 4;
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
/// Bytes of `siginfo_t`.
const INFO_SIZE: usize = 128;

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
    let old = {
        let mut signals = thread.process.signals.lock();
        let old = signals.action(signal);
        if let Some(new) = new {
            signals.set_action(signal, new);
        }
        old
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
    let old = process.signals.lock().thread(thread.tid).blocked;
    if args.get(1) != 0 {
        let set = read_set(thread, args.get(1))?;
        let new = match args.uint(0) {
            raw::SIG_BLOCK => SignalSet(old.0 | set.0),
            raw::SIG_UNBLOCK => old.without(set),
            raw::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        process.signals.lock().thread(thread.tid).blocked = new;
        process.deliver_signals();
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
    let pending = {
        let mut signals = thread.process.signals.lock();
        let shared = signals.pending;
        let own = signals.thread(thread.tid);
        (shared.0 | own.pending.0) & own.blocked.0
    };
    let bytes = &pending.to_le_bytes()[..args.size(1)];
    thread.process.space.write(args.get(0), bytes)?;
    Ok(0)
}

pub(super) fn sigaltstack(thread: &mut Thread, args: Args) -> Result<u64> {
    let space = &thread.process.space;
    let (old_address, old_flags, old_size) = thread.alternate_stack;
    let mut new = None;
    if args.get(0) != 0 {
        let address: u64 = space.read_value(args.get(0))?;
        let flags: u32 = space.read_value(args.get(0).wrapping_add(8))?;
        let size: u64 = space.read_value(args.get(0).wrapping_add(16))?;
        let auto_disarm = flags & raw::SS_AUTODISARM;
        new = Some(match flags & !raw::SS_AUTODISARM {
            raw::SS_DISABLE => (0, raw::SS_DISABLE | auto_disarm, 0),
            0 | raw::SS_ONSTACK if size < raw::MINSIGSTKSZ.into() => return Err(Errno::ENOMEM),
            0 | raw::SS_ONSTACK => (address, auto_disarm, size),
            _ => return Err(Errno::EINVAL),
        });
    }
    if args.get(1) != 0 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&old_address.to_le_bytes());
        bytes[8..12].copy_from_slice(&old_flags.to_le_bytes());
        bytes[16..].copy_from_slice(&old_size.to_le_bytes());
        space.write(args.get(1), &bytes)?;
    }
    if let Some(new) = new {
        thread.alternate_stack = new;
    }
    Ok(0)
}

/// The signal to send; 0 only asks whether one could be sent.
fn signal_to_send(number: i32) -> Result<Option<Signal>> {
    match number {
        0 => Ok(None),
        number => Signal::new(number).map(Some).ok_or(Errno::EINVAL),
    }
}

/// Sends a signal to a thread of the process.
fn send_to_thread(thread: &Thread, tid: i32, signal: i32) -> Result<u64> {
    let target = thread.process.thread(tid, &thread.state)?;
    if let Some(signal) = signal_to_send(signal)? {
        thread.process.signal_thread(target.tid, signal);
    }
    Ok(0)
}

pub(super) fn kill(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = &thread.process;
    let group = process.credentials.lock().process_group;
    let is_own = match args.int(0) {
        0 => true,
        // Everybody but the first process and oneself: nobody.
        -1 => false,
        pid if pid > 0 => pid.unsigned_abs() == process.pid,
        pid => pid.unsigned_abs() == group,
    };
    if !is_own {
        return Err(Errno::ESRCH);
    }
    if let Some(signal) = signal_to_send(args.int(1))? {
        process.signal(signal);
    }
    Ok(0)
}

pub(super) fn tkill(thread: &mut Thread, args: Args) -> Result<u64> {
    if args.int(0) <= 0 {
        return Err(Errno::EINVAL);
    }
    send_to_thread(thread, args.int(0), args.int(1))
}

pub(super) fn tgkill(thread: &mut Thread, args: Args) -> Result<u64> {
    if args.int(0) <= 0 || args.int(1) <= 0 {
        return Err(Errno::EINVAL);
    }
    if args.uint(0) != thread.process.pid {
        return Err(Errno::ESRCH);
    }
    send_to_thread(thread, args.int(1), args.int(2))
}

pub(super) async fn pause(thread: &mut Thread, _: Args) -> Result<u64> {
    thread.until_signal(core::future::pending::<()>()).await?;
    Ok(0)
}

pub(super) async fn rt_sigsuspend(thread: &mut Thread, args: Args) -> Result<u64> {
    check_set_size(args.size(1))?;
    let mask = read_set(thread, args.get(0))?;
    let (process, tid) = (&thread.process, thread.tid);
    let (old, before) = {
        let mut signals = process.signals.lock();
        let own = signals.thread(tid);
        (core::mem::replace(&mut own.blocked, mask), own.caught)
    };
    process.deliver_signals();
    process
        .on_signal(tid, |signals| {
            (signals.thread(tid).caught != before).then_some(())
        })
        .await;
    process.signals.lock().thread(tid).blocked = old;
    Err(Errno::EINTR)
}

pub(super) async fn rt_sigtimedwait(thread: &mut Thread, args: Args) -> Result<u64> {
    check_set_size(args.size(3))?;
    let wanted = read_set(thread, args.get(0))?;
    let (process, tid) = (&thread.process, thread.tid);
    let deadline = match args.get(2) {
        0 => None,
        address => Some(super::time::deadline_after(read_timespec(
            &process.space,
            address,
        )?)),
    };
    let mut arrival = pin!(process.on_signal(tid, |signals| signals.take(tid, wanted)));
    let mut timeout = deadline.map(sleep_until);
    let signal = poll_fn(|context| {
        if let Poll::Ready(signal) = arrival.as_mut().poll(context) {
            return Poll::Ready(Ok(signal));
        }
        match &mut timeout {
            Some(sleep) => core::pin::Pin::new(sleep)
                .poll(context)
                .map(|()| Err(Errno::EAGAIN)),
            None => Poll::Pending,
        }
    })
    .await?;
    if args.get(1) != 0 {
        let mut info = [0; INFO_SIZE];
        info[0] = signal.number();
        // si_code is SI_USER (0); si_pid follows the 16 bytes that all kinds have.
        info[16..20].copy_from_slice(&process.pid.to_le_bytes());
        process.space.write(args.get(1), &info)?;
    }
    Ok(signal.number().into())
}
