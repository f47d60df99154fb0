//! Which handler is called when, in which thread, and with what blocked.

use crate::catch::{
    bit, block, blocked, catch, catch_masked, caught, caught_numbers, expect_caught, gettid,
    handle_raw, kill, tgkill,
};
use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    SA_NODEFER, SA_RESETHAND, SIG_DFL, SIG_IGN, SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGTERM,
    SIGUSR1, SIGUSR2, SIGWINCH,
};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

pub(crate) const CHECKS: &[Check] = checks![
    kill_calls_the_handler_before_it_returns,
    a_handler_blocks_its_signal_and_its_mask,
    nodefer_does_not_block_the_signal,
    resethand_calls_the_handler_once,
    a_blocked_signal_waits,
    an_ignored_signal_is_gone,
    ignoring_forgets_what_waits,
    what_is_blocked_is_not_ignored_yet,
    several_signals_nest,
    tgkill_reaches_the_thread,
    a_signal_goes_to_a_thread_that_does_not_block_it,
    unblocking_takes_what_waits_for_the_process,
    a_thread_takes_the_mask_of_its_parent,
    sigaction_keeps_what_it_knows,
    sigpending_shows_what_waits,
    signal_calls_have_errors,
    kill_and_stop_cannot_be_caught,
];

fn pid() -> i32 {
    std::process::id() as i32
}

fn kill_calls_the_handler_before_it_returns() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    kill(SIGUSR1)?;
    let all = caught();
    expect_eq!(all.len(), 1);
    let info = all[0];
    expect_eq!(
        (info.signal, info.code, info.pid),
        (SIGUSR1, libc::SI_USER, pid())
    );
    expect_eq!(info.user, sys!(SYS_getuid)? as u32);
    tgkill(gettid(), SIGUSR1)?;
    let info = caught()[0];
    expect_eq!(
        (info.code, info.pid, info.tid),
        (libc::SI_TKILL, pid(), gettid())
    );
    Ok(())
}

fn a_handler_blocks_its_signal_and_its_mask() -> Outcome {
    let before = blocked();
    let _handled = catch_masked(SIGUSR1, 0, bit(SIGHUP) | bit(SIGTERM));
    kill(SIGUSR1)?;
    let during = caught()[0].blocked;
    expect_eq!(during, before | bit(SIGUSR1) | bit(SIGHUP) | bit(SIGTERM));
    expect_eq!(blocked(), before);
    Ok(())
}

fn nodefer_does_not_block_the_signal() -> Outcome {
    let before = blocked();
    let _handled = catch_masked(SIGUSR1, SA_NODEFER, bit(SIGHUP));
    kill(SIGUSR1)?;
    expect_eq!(caught()[0].blocked, before | bit(SIGHUP));
    // Unless the mask does.
    let _handled = catch_masked(SIGUSR1, SA_NODEFER, bit(SIGUSR1));
    kill(SIGUSR1)?;
    expect_eq!(caught()[0].blocked, before | bit(SIGUSR1));
    Ok(())
}

fn resethand_calls_the_handler_once() -> Outcome {
    let _handled = catch(SIGWINCH, SA_RESETHAND);
    kill(SIGWINCH)?;
    // By default this one does nothing.
    kill(SIGWINCH)?;
    expect_caught(&[SIGWINCH])?;
    let mut action = [0_u64; 4];
    sys!(SYS_rt_sigaction, SIGWINCH, 0, action.as_mut_ptr(), 8)?;
    expect_eq!(action[0], SIG_DFL as u64);
    expect!(action[1] & SA_RESETHAND as u64 & 0xffff_ffff != 0);
    Ok(())
}

fn a_blocked_signal_waits() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let before = block(bit(SIGUSR1));
    kill(SIGUSR1)?;
    kill(SIGUSR1)?;
    expect_caught(&[])?;
    block(before);
    // One that is not a real-time signal stands for all.
    expect_caught(&[SIGUSR1])
}

fn an_ignored_signal_is_gone() -> Outcome {
    let _ignored = handle_raw(SIGUSR1, SIG_IGN, 0, 0);
    kill(SIGUSR1)?;
    let _handled = catch(SIGUSR1, 0);
    expect_caught(&[])?;
    for signal in [SIGCHLD, SIGCONT, SIGWINCH, libc::SIGURG] {
        let _default = handle_raw(signal, SIG_DFL, 0, 0);
        kill(signal)?;
    }
    Ok(())
}

fn ignoring_forgets_what_waits() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let before = block(bit(SIGUSR1));
    kill(SIGUSR1)?;
    tgkill(gettid(), SIGUSR1)?;
    drop(handle_raw(SIGUSR1, SIG_IGN, 0, 0));
    block(before);
    expect_caught(&[])
}

fn what_is_blocked_is_not_ignored_yet() -> Outcome {
    let before = block(bit(SIGUSR1) | bit(SIGCHLD));
    let _ignored = handle_raw(SIGUSR1, SIG_IGN, 0, 0);
    let _default = handle_raw(SIGCHLD, SIG_DFL, 0, 0);
    kill(SIGUSR1)?;
    kill(SIGCHLD)?;
    let handled = [catch(SIGUSR1, 0), catch(SIGCHLD, 0)];
    block(before);
    expect_caught(&[SIGCHLD, SIGUSR1])?;
    drop(handled);
    Ok(())
}

fn several_signals_nest() -> Outcome {
    let _handled = [SIGHUP, SIGINT, SIGTERM].map(|signal| catch(signal, 0));
    let all = bit(SIGHUP) | bit(SIGINT) | bit(SIGTERM);
    let before = block(all);
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        kill(signal)?;
    }
    block(before);
    // The lowest is taken first, so its handler is interrupted by the others before it begins.
    let caught = caught();
    let numbers: Vec<_> = caught.iter().map(|caught| caught.signal).collect();
    expect_eq!(numbers, [SIGTERM, SIGINT, SIGHUP]);
    expect_eq!(caught[0].blocked, before | all);
    expect_eq!(caught[2].blocked, before | bit(SIGHUP));
    Ok(())
}

/// A thread that runs until it is told to stop.
struct Spinner {
    stop: AtomicBool,
    tid: AtomicI32,
}

fn with_spinner(block_first: u64, with: impl FnOnce(i32) -> Outcome) -> Outcome {
    let spinner = Spinner {
        stop: AtomicBool::new(false),
        tid: AtomicI32::new(0),
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            block(block_first);
            spinner.tid.store(gettid(), Ordering::SeqCst);
            while !spinner.stop.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        });
        let started = comes_true(|| spinner.tid.load(Ordering::SeqCst) != 0);
        let outcome = with(spinner.tid.load(Ordering::SeqCst));
        spinner.stop.store(true, Ordering::SeqCst);
        // So that it takes no signal of the next check.
        expect!(thread.join().is_ok());
        expect!(started);
        outcome
    })
}

fn tgkill_reaches_the_thread() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    with_spinner(0, |tid| {
        tgkill(tid, SIGUSR1)?;
        let mut by = Vec::new();
        expect!(comes_true(|| {
            by.extend(caught().iter().map(|caught| caught.tid));
            !by.is_empty()
        }));
        expect_eq!(by, [tid]);
        fails!(ESRCH, SYS_tgkill, pid() + 1_000_000, tid, SIGUSR1);
        fails!(ESRCH, SYS_tkill, 4_000_000, 0);
        Ok(())
    })
}

fn a_signal_goes_to_a_thread_that_does_not_block_it() -> Outcome {
    let _handled = catch(SIGUSR2, 0);
    let before = block(bit(SIGUSR2));
    let outcome = with_spinner(0, |tid| {
        kill(SIGUSR2)?;
        let mut by = Vec::new();
        expect!(comes_true(|| {
            by.extend(caught().iter().map(|caught| caught.tid));
            !by.is_empty()
        }));
        expect_eq!(by, [tid]);
        Ok(())
    });
    block(before);
    outcome
}

fn unblocking_takes_what_waits_for_the_process() -> Outcome {
    let _handled = catch(SIGUSR2, 0);
    let before = block(bit(SIGUSR2));
    let outcome = with_spinner(bit(SIGUSR2), |_| {
        kill(SIGUSR2)?;
        expect_caught(&[])?;
        block(before);
        let by: Vec<_> = caught().iter().map(|caught| caught.tid).collect();
        expect_eq!(by, [gettid()]);
        Ok(())
    });
    block(before);
    outcome
}

fn a_thread_takes_the_mask_of_its_parent() -> Outcome {
    let before = block(bit(SIGHUP) | bit(SIGALRM));
    let seen = thread::spawn(blocked).join();
    block(before);
    expect_eq!(seen.ok(), Some(bit(SIGHUP) | bit(SIGALRM)));
    Ok(())
}

fn sigaction_keeps_what_it_knows() -> Outcome {
    let _default = handle_raw(SIGHUP, SIG_DFL, 0, 0);
    let set = [1_u64, u64::MAX, 0x1234, u64::MAX];
    sys!(SYS_rt_sigaction, SIGHUP, set.as_ptr(), 0, 8)?;
    let mut action = [0_u64; 4];
    sys!(SYS_rt_sigaction, SIGHUP, 0, action.as_mut_ptr(), 8)?;
    let unblockable = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
    expect_eq!((action[0], action[2], action[3]), (1, 0x1234, !unblockable));
    // Flags that the kernel does not know are dropped: SA_UNSUPPORTED asks for that.
    expect_eq!(action[1] & 0x400, 0);
    expect_eq!(action[1] & 0xd800_0007, 0xd800_0007);
    expect_eq!(action[1] >> 32, 0);
    Ok(())
}

fn sigpending_shows_what_waits() -> Outcome {
    let _handled = [SIGUSR1, SIGUSR2].map(|signal| catch(signal, 0));
    let before = block(bit(SIGUSR1) | bit(SIGUSR2));
    kill(SIGUSR1)?;
    tgkill(gettid(), SIGUSR2)?;
    let mut pending = [0_u64; 2];
    sys!(SYS_rt_sigpending, pending.as_mut_ptr(), 8)?;
    expect_eq!(pending[0], bit(SIGUSR1) | bit(SIGUSR2));
    block(before);
    let mut numbers = caught_numbers();
    numbers.sort_unstable();
    expect_eq!(numbers, [SIGUSR1, SIGUSR2]);
    sys!(SYS_rt_sigpending, pending.as_mut_ptr(), 4)?;
    expect_eq!(pending[0] & 0xffff_ffff, 0);
    fails!(EINVAL, SYS_rt_sigpending, pending.as_mut_ptr(), 16);
    Ok(())
}

fn signal_calls_have_errors() -> Outcome {
    let action = [0_u64; 4];
    fails!(EINVAL, SYS_rt_sigaction, 0, 0, 0, 8);
    fails!(EINVAL, SYS_rt_sigaction, 65, 0, 0, 8);
    fails!(EINVAL, SYS_rt_sigaction, SIGHUP, 0, 0, 4);
    fails!(EFAULT, SYS_rt_sigaction, SIGHUP, 8, 0, 8);
    fails!(EFAULT, SYS_rt_sigaction, SIGHUP, 0, 8, 8);
    fails!(EFAULT, SYS_rt_sigaction, 65, 8, 0, 8);
    fails!(
        EINVAL,
        SYS_rt_sigaction,
        libc::SIGKILL,
        action.as_ptr(),
        0,
        8
    );
    fails!(EINVAL, SYS_rt_sigprocmask, 7, action.as_ptr(), 0, 8);
    fails!(EINVAL, SYS_rt_sigprocmask, 0, 0, 0, 4);
    fails!(EFAULT, SYS_rt_sigprocmask, 7, 8, 0, 8);
    fails!(EFAULT, SYS_rt_sigprocmask, 0, 0, 8, 8);
    expect_eq!(sys!(SYS_rt_sigprocmask, 7, 0, 0, 8), Ok(0));
    fails!(EINVAL, SYS_kill, pid(), 65);
    fails!(EINVAL, SYS_kill, pid(), -1);
    fails!(EINVAL, SYS_tkill, 0, 0);
    fails!(EINVAL, SYS_tgkill, pid(), -1, 0);
    fails!(EINVAL, SYS_tgkill, 0, gettid(), 0);
    fails!(EINVAL, SYS_tkill, gettid(), 65);
    expect_eq!(kill(0), Ok(0));
    expect_eq!(tgkill(gettid(), 0), Ok(0));
    Ok(())
}

fn kill_and_stop_cannot_be_caught() -> Outcome {
    let before = block(u64::MAX);
    let all = blocked();
    block(before);
    expect_eq!(all, !(bit(libc::SIGKILL) | bit(libc::SIGSTOP)));
    let action = [1_u64, 0, 0, 0];
    for signal in [libc::SIGKILL, libc::SIGSTOP] {
        fails!(EINVAL, SYS_rt_sigaction, signal, action.as_ptr(), 0, 8);
        expect_eq!(sys!(SYS_rt_sigaction, signal, 0, 0, 8), Ok(0));
    }
    Ok(())
}
