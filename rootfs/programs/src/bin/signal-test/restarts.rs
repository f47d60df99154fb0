//! What a signal does to a system call that waits: it ends with EINTR, or is made again.

use crate::catch::{
    Handled, bit, block, blocked, catch, caught, expect_caught, gettid, handle, handle_raw, kill,
    registers, tgkill,
};
use guest_programs::check::{Check, Failure, Outcome, in_some_try};
use guest_programs::sys::{Errno, SysResult, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{SA_RESTART, SIG_IGN, SIGCHLD, SIGUSR1, SIGUSR2, c_int, c_void, siginfo_t};
use std::arch::naked_asm;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = checks![
    reading_a_pipe_ends_or_starts_again,
    writing_a_full_pipe_ends_or_starts_again,
    opening_a_fifo_ends_or_starts_again,
    a_signal_before_the_wait_counts,
    what_is_there_goes_before_a_signal,
    sleeping_tells_what_is_left,
    sleeping_goes_on_without_a_handler,
    sleeping_until_a_time_ends,
    poll_ends,
    poll_goes_on_without_a_handler,
    select_ends,
    ppoll_unblocks_meanwhile,
    pselect_unblocks_meanwhile,
    sigsuspend_unblocks_meanwhile,
    sigsuspend_takes_what_waits_at_once,
    pause_ends,
    a_futex_ends_or_starts_again,
    waiting_for_a_signal_ends,
    an_eventfd_ends_or_starts_again,
    a_lock_of_a_file_ends_or_starts_again,
    writing_to_nobody_sends_a_signal,
    there_is_nothing_to_restart,
];

const EINTR: Errno = Errno(libc::EINTR);
const SOON: Duration = Duration::from_millis(20);

fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    let mut ends = [0_i32; 2];
    sys!(SYS_pipe2, ends.as_mut_ptr(), 0)?;
    Ok((owned(ends[0] as usize), owned(ends[1] as usize)))
}

/// Does `call`, while another thread sends this one a signal soon, and calls `then` a while after that.
fn interrupted<R>(
    signal: i32,
    then: impl FnOnce() + Send,
    call: impl FnOnce() -> R,
) -> Result<R, Failure> {
    let tid = gettid();
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            thread::sleep(SOON);
            let sent = tgkill(tid, signal);
            thread::sleep(SOON);
            then();
            sent
        });
        let result = call();
        match other.join() {
            Ok(Ok(_)) => Ok(result),
            _ => Err(Failure::new("the signal was not sent")),
        }
    })
}

/// Fails unless `call`, which waits until `then`, gives EINTR when a handler without SA_RESTART is
/// called meanwhile, `restarted` with it, and that as well without a handler.
#[track_caller]
fn ends_or_starts_again<R: PartialEq + std::fmt::Debug>(
    call: impl Fn() -> Result<R, Errno>,
    then: impl Fn() + Sync,
    restarted: R,
) -> Outcome {
    let handled = catch(SIGUSR1, 0);
    let result = interrupted(SIGUSR1, || (), &call)?;
    drop(handled);
    expect_eq!(result, Err(EINTR));
    let handled = catch(SIGUSR1, SA_RESTART);
    let result = interrupted(SIGUSR1, &then, &call)?;
    drop(handled);
    expect_eq!(result.as_ref(), Ok(&restarted));
    expect_caught(&[SIGUSR1])?;
    // By default SIGCHLD does nothing.
    let result = interrupted(SIGCHLD, &then, &call)?;
    expect_eq!(result, Ok(restarted));
    Ok(())
}

fn reading_a_pipe_ends_or_starts_again() -> Outcome {
    let (reader, writer) = pipe()?;
    ends_or_starts_again(
        || {
            let mut byte = 0_u8;
            sys!(SYS_read, &reader, &raw mut byte, 1)
        },
        || {
            let _ = sys!(SYS_write, &writer, c"x", 1);
        },
        1,
    )
}

fn writing_a_full_pipe_ends_or_starts_again() -> Outcome {
    let (reader, writer) = pipe()?;
    let bytes = vec![0_u8; 65536];
    sys!(SYS_write, &writer, bytes.as_ptr(), bytes.len())?;
    let drain = || {
        let mut into = vec![0_u8; 4096];
        let _ = sys!(SYS_read, &reader, into.as_mut_ptr(), into.len());
    };
    ends_or_starts_again(
        || sys!(SYS_write, &writer, bytes.as_ptr(), 4096),
        drain,
        4096,
    )?;
    // What has been written before the signal counts.
    let handled = catch(SIGUSR1, 0);
    drain();
    let result = interrupted(
        SIGUSR1,
        || (),
        || sys!(SYS_write, &writer, bytes.as_ptr(), 8192),
    )?;
    drop(handled);
    expect_eq!(result, Ok(4096));
    Ok(())
}

fn opening_a_fifo_ends_or_starts_again() -> Outcome {
    sys!(SYS_mknod, c"fifo", libc::S_IFIFO | 0o600, 0)?;
    let open = |flags| guest_programs::sys::open(c"fifo", flags);
    ends_or_starts_again(
        || open(libc::O_RDONLY).map(|_| ()),
        || {
            let _ = open(libc::O_WRONLY);
        },
        (),
    )
}

/// Reads a byte, unless the word is not 0 when it is about to make the system call: a handler that is
/// called before that has it go to the end.
#[unsafe(naked)]
unsafe extern "C" fn read_unless(_: i32, _: *mut u8, _: usize, _: *const u32) -> isize {
    naked_asm!(
        "mov r8, rcx",
        "xor eax, eax",
        ".globl read_unless_start",
        "read_unless_start:",
        "cmp dword ptr [r8], 0",
        "jne 2f",
        ".globl read_unless_call",
        "read_unless_call:",
        "syscall",
        ".globl read_unless_end",
        "read_unless_end:",
        "2: ret",
    )
}

unsafe extern "C" {
    static read_unless_start: u8;
    static read_unless_call: u8;
    static read_unless_end: u8;
}

/// What [`read_unless`] looks at, and how often its handler was called.
static CAME: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);

extern "C" fn end_read(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    CAME.store(1, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
    let rip = &mut registers(context)[libc::REG_RIP as usize];
    let [start, call, end] = [
        (&raw const read_unless_start).addr(),
        (&raw const read_unless_call).addr(),
        (&raw const read_unless_end).addr(),
    ];
    if (start..=call).contains(&(*rip as usize)) {
        *rip = end as i64;
    }
}

fn a_signal_before_the_wait_counts() -> Outcome {
    let _handled = handle(SIGUSR1, end_read, 0, 0);
    let (reader, _writer) = pipe()?;
    let tid = gettid();
    let rounds = 300;
    let done = AtomicU32::new(0);
    COUNT.store(0, Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                let start = Instant::now();
                let spin = Duration::from_nanos(u64::from(round % 50) * 100);
                while start.elapsed() < spin {}
                let _ = tgkill(tid, SIGUSR1);
                while done.load(Ordering::SeqCst) <= round {
                    thread::yield_now();
                }
            }
        });
        for _ in 0..rounds {
            let mut byte = 0_u8;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
            // SAFETY: there is room for the byte.
            unsafe { read_unless(fd, &raw mut byte, 1, CAME.as_ptr()) };
            CAME.store(0, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
        }
    });
    expect_eq!(COUNT.load(Ordering::SeqCst), rounds);
    Ok(())
}

fn what_is_there_goes_before_a_signal() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let (reader, writer) = pipe()?;
    sys!(SYS_write, &writer, c"x", 1)?;
    let before = block(bit(SIGUSR1));
    kill(SIGUSR1)?;
    let none = 0_u64;
    let mut entry = libc::pollfd {
        fd: 0,
        events: libc::POLLIN,
        revents: 0,
    };
    entry.fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
    let ready = sys!(SYS_ppoll, &raw mut entry, 1, 0, &raw const none, 8);
    block(before);
    expect_eq!(ready, Ok(1));
    // The handler was called when the call was over.
    expect_caught(&[SIGUSR1])
}

fn sleeping_tells_what_is_left() -> Outcome {
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let time = [5_u64, 0];
        let mut left = [0_u64; 2];
        let result = interrupted(
            SIGUSR1,
            || (),
            || sys!(SYS_nanosleep, time.as_ptr(), left.as_mut_ptr()),
        )?;
        expect_eq!(result, Err(EINTR));
        expect!(left[0] == 4 && left[1] < 1_000_000_000);
    }
    Ok(())
}

fn sleeping_goes_on_without_a_handler() -> Outcome {
    let _ignored = handle_raw(SIGUSR2, SIG_IGN, 0, 0);
    for signal in [SIGCHLD, SIGUSR2] {
        let time = [0_u64, 60_000_000];
        let mut left = [77_u64; 2];
        let start = Instant::now();
        let result = interrupted(
            signal,
            || (),
            || sys!(SYS_nanosleep, time.as_ptr(), left.as_mut_ptr()),
        )?;
        expect_eq!(result, Ok(0));
        let slept = start.elapsed();
        expect!(slept >= Duration::from_millis(60));
    }
    Ok(())
}

fn sleeping_until_a_time_ends() -> Outcome {
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let mut now = [0_u64; 2];
        sys!(SYS_clock_gettime, libc::CLOCK_MONOTONIC, now.as_mut_ptr())?;
        now[0] += 5;
        let mut left = [77_u64; 2];
        let result = interrupted(
            SIGUSR1,
            || (),
            || {
                let (clock, flags) = (libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
                sys!(
                    SYS_clock_nanosleep,
                    clock,
                    flags,
                    now.as_ptr(),
                    left.as_mut_ptr()
                )
            },
        )?;
        expect_eq!(result, Err(EINTR));
        expect_eq!(left, [77; 2]);
    }
    Ok(())
}

fn poll_ends() -> Outcome {
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let result = interrupted(SIGUSR1, || (), || sys!(SYS_poll, 0, 0, 5000))?;
        expect_eq!(result, Err(EINTR));
    }
    Ok(())
}

fn poll_goes_on_without_a_handler() -> Outcome {
    in_some_try(|| {
        let start = Instant::now();
        let result = interrupted(SIGCHLD, || (), || sys!(SYS_poll, 0, 0, 60))?;
        expect_eq!(result, Ok(0));
        let took = start.elapsed();
        expect!(took >= Duration::from_millis(60) && took < Duration::from_millis(75));
        Ok(())
    })
}

fn select_ends() -> Outcome {
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let mut time = [5_u64, 0];
        let result = interrupted(
            SIGUSR1,
            || (),
            || sys!(SYS_select, 0, 0, 0, 0, time.as_mut_ptr()),
        )?;
        expect_eq!(result, Err(EINTR));
        expect_eq!(time[0], 4);
    }
    // Made again, it waits for what is left.
    let mut time = [0_u64, 60_000];
    let start = Instant::now();
    let result = interrupted(
        SIGCHLD,
        || (),
        || sys!(SYS_select, 0, 0, 0, 0, time.as_mut_ptr()),
    )?;
    expect_eq!((result, time), (Ok(0), [0, 0]));
    expect!(start.elapsed() >= Duration::from_millis(60));
    Ok(())
}

/// Fails unless `wait`, which is given a set of signals to block, ends with EINTR by a signal that came
/// before it and is blocked otherwise, and the handler ran with that set.
#[track_caller]
fn unblocks_meanwhile(wait: impl Fn(*const u64) -> SysResult) -> Outcome {
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let before = block(bit(SIGUSR1));
        kill(SIGUSR1)?;
        let during = bit(SIGUSR2);
        let result = wait(&during);
        let after = blocked();
        block(before);
        expect_eq!(result, Err(EINTR));
        let all = caught();
        expect_eq!(all.len(), 1);
        expect_eq!(all[0].blocked, bit(SIGUSR1) | bit(SIGUSR2));
        expect_eq!(after, bit(SIGUSR1));
    }
    Ok(())
}

fn ppoll_unblocks_meanwhile() -> Outcome {
    let time = [5_u64, 0];
    unblocks_meanwhile(|set| {
        let mut time = time;
        sys!(SYS_ppoll, 0, 0, time.as_mut_ptr(), set, 8)
    })?;
    // Without a signal the set is what it was.
    let before = blocked();
    let (none, time) = (u64::MAX, [0_u64; 2]);
    expect_eq!(
        sys!(SYS_ppoll, 0, 0, time.as_ptr(), &raw const none, 8),
        Ok(0)
    );
    expect_eq!(blocked(), before);
    fails!(EINVAL, SYS_ppoll, 0, 0, time.as_ptr(), &raw const none, 4);
    fails!(EFAULT, SYS_ppoll, 0, 0, time.as_ptr(), 8, 8);
    Ok(())
}

fn pselect_unblocks_meanwhile() -> Outcome {
    unblocks_meanwhile(|set| {
        let mut time = [5_u64, 0];
        let argument = [set.addr() as u64, 8];
        sys!(
            SYS_pselect6,
            0,
            0,
            0,
            0,
            time.as_mut_ptr(),
            argument.as_ptr()
        )
    })
}

fn sigsuspend_unblocks_meanwhile() -> Outcome {
    unblocks_meanwhile(|set| sys!(SYS_rt_sigsuspend, set, 8))?;
    // One without a handler does not end it.
    let handled = catch(SIGUSR1, 0);
    let before = block(bit(SIGUSR1));
    let tid = gettid();
    let none = 0_u64;
    let result = interrupted(
        SIGCHLD,
        || {
            let _ = tgkill(tid, SIGUSR1);
        },
        || sys!(SYS_rt_sigsuspend, &raw const none, 8),
    )?;
    block(before);
    drop(handled);
    expect_eq!(result, Err(EINTR));
    expect_caught(&[SIGUSR1])
}

fn sigsuspend_takes_what_waits_at_once() -> Outcome {
    let _handled: [Handled; 2] = [catch(SIGUSR1, 0), catch(SIGUSR2, 0)];
    let before = block(bit(SIGUSR1) | bit(SIGUSR2));
    kill(SIGUSR2)?;
    kill(SIGUSR1)?;
    let during = bit(SIGUSR2);
    let result = sys!(SYS_rt_sigsuspend, &raw const during, 8);
    let first: Vec<_> = caught().iter().map(|caught| caught.signal).collect();
    block(before);
    expect_eq!((result, first), (Err(EINTR), vec![SIGUSR1]));
    expect_caught(&[SIGUSR2])
}

fn pause_ends() -> Outcome {
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let result = interrupted(SIGUSR1, || (), || sys!(SYS_pause))?;
        expect_eq!(result, Err(EINTR));
    }
    let handled = catch(SIGUSR1, 0);
    let tid = gettid();
    let result = interrupted(
        SIGCHLD,
        || {
            let _ = tgkill(tid, SIGUSR1);
        },
        || sys!(SYS_pause),
    )?;
    drop(handled);
    expect_eq!(result, Err(EINTR));
    Ok(())
}

fn a_futex_ends_or_starts_again() -> Outcome {
    let word = AtomicU32::new(0);
    let wake = || {
        let _ = sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1);
    };
    ends_or_starts_again(
        || sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 0, 0),
        wake,
        0,
    )?;
    // With a timeout it ends by any handler.
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let time = [5_u64, 0];
        let result = interrupted(
            SIGUSR1,
            || (),
            || sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 0, time.as_ptr()),
        )?;
        expect_eq!(result, Err(EINTR));
    }
    // And goes on with the same end without one.
    let time = [0_u64, 60_000_000];
    let start = Instant::now();
    let result = interrupted(
        SIGCHLD,
        || (),
        || sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 0, time.as_ptr()),
    )?;
    expect_eq!(result, Err(Errno(libc::ETIMEDOUT)));
    expect!(start.elapsed() >= Duration::from_millis(60));
    Ok(())
}

fn waiting_for_a_signal_ends() -> Outcome {
    let wanted = bit(SIGUSR2);
    for flags in [0, SA_RESTART] {
        let _handled = catch(SIGUSR1, flags);
        let result = interrupted(
            SIGUSR1,
            || (),
            || sys!(SYS_rt_sigtimedwait, &raw const wanted, 0, 0, 8),
        )?;
        expect_eq!(result, Err(EINTR));
    }
    Ok(())
}

fn an_eventfd_ends_or_starts_again() -> Outcome {
    let event = owned(sys!(SYS_eventfd2, 0, 0)?);
    ends_or_starts_again(
        || {
            let mut value = 0_u64;
            sys!(SYS_read, &event, &raw mut value, 8)
        },
        || {
            let one = 1_u64;
            let _ = sys!(SYS_write, &event, &raw const one, 8);
        },
        8,
    )
}

fn a_lock_of_a_file_ends_or_starts_again() -> Outcome {
    let one = guest_programs::sys::create(c"locked", b"")?;
    let other = guest_programs::sys::open(c"locked", libc::O_RDWR)?;
    sys!(SYS_flock, &one, libc::LOCK_EX)?;
    let handled = catch(SIGUSR1, 0);
    let result = interrupted(SIGUSR1, || (), || sys!(SYS_flock, &other, libc::LOCK_EX))?;
    drop(handled);
    expect_eq!(result, Err(EINTR));
    let handled = catch(SIGUSR1, SA_RESTART);
    let unlock = || {
        let _ = sys!(SYS_flock, &one, libc::LOCK_UN);
    };
    let result = interrupted(SIGUSR1, unlock, || sys!(SYS_flock, &other, libc::LOCK_EX))?;
    drop(handled);
    expect_eq!(result, Ok(0));
    Ok(())
}

fn writing_to_nobody_sends_a_signal() -> Outcome {
    let _handled = catch(libc::SIGPIPE, 0);
    let (reader, writer) = pipe()?;
    drop(reader);
    fails!(EPIPE, SYS_write, &writer, c"x", 1);
    let told = caught();
    expect_eq!(told.len(), 1);
    expect_eq!((told[0].code, told[0].tid), (libc::SI_USER, gettid()));
    expect_eq!(told[0].pid, std::process::id() as i32);
    // The thread that did it gets it.
    let tid = thread::spawn(move || {
        let _ = sys!(SYS_write, &writer, c"x", 1);
        gettid()
    });
    let tid = tid.join().unwrap_or(0);
    expect_eq!(caught()[0].tid, tid);
    Ok(())
}

fn there_is_nothing_to_restart() -> Outcome {
    fails!(EINTR, SYS_restart_syscall);
    Ok(())
}
