//! `futex(2)`, command by command.

use guest_programs::check::{Check, Failure, Outcome, comes_true};
use guest_programs::sys::{Errno, Mapping, SysResult};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG,
    FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
    timespec,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = checks![
    futex_wait_compares_and_checks,
    futex_wakes_as_many_as_asked,
    futex_private_and_shared_do_not_meet,
    futex_shared_memory_is_one_word,
    futex_timeouts,
    futex_deadlines_on_both_clocks,
    futex_bits_select,
    futex_requeue_moves,
    futex_wake_op_does_both,
    futex_errors,
    futex_ping_pong,
];

const PRIVATE: i32 = FUTEX_PRIVATE_FLAG;
const MS: i64 = 1_000_000;

fn futex(word: &AtomicU32, operation: i32, value: u32) -> SysResult {
    sys!(SYS_futex, word.as_ptr(), operation, value, 0, 0, 0)
}

/// How many wait for the word: as many as a requeue from it to itself touches.
fn waiting(word: *const u32, flag: i32) -> SysResult {
    sys!(SYS_futex, word, FUTEX_REQUEUE | flag, 0, i32::MAX, word)
}

/// A thread that waits for `words[index]`, which holds 0.
fn waiter(
    words: &Arc<[AtomicU32; 4]>,
    index: usize,
    operation: i32,
    bits: u32,
) -> Result<Waiter, Failure> {
    let (word, flag) = (words[index].as_ptr(), operation & PRIVATE);
    let before = waiting(word, flag)?;
    let words = words.clone();
    let thread = thread::spawn(move || {
        let word = words[index].as_ptr();
        sys!(SYS_futex, word, operation, 0, 0, 0, bits)
    });
    expect!(comes_true(|| waiting(word, flag) == Ok(before + 1)));
    Ok(Waiter(thread))
}

struct Waiter(JoinHandle<SysResult>);

impl Waiter {
    /// Joins one that has been woken.
    fn join(self) -> Outcome {
        match self.0.join() {
            Ok(Ok(0)) => Ok(()),
            other => Err(Failure::new(format!("a waiter got {other:?}"))),
        }
    }
}

fn words() -> Arc<[AtomicU32; 4]> {
    Arc::default()
}

fn futex_wait_compares_and_checks() -> Outcome {
    let words = words();
    for flag in [0, PRIVATE] {
        words[0].store(1, Ordering::SeqCst);
        expect_eq!(
            futex(&words[0], FUTEX_WAIT | flag, 0),
            Err(Errno(libc::EAGAIN))
        );
        expect_eq!(futex(&words[0], FUTEX_WAKE | flag, 1), Ok(0));
    }
    Ok(())
}

fn futex_wakes_as_many_as_asked() -> Outcome {
    for flag in [0, PRIVATE] {
        let words = words();
        let mut waiters = Vec::new();
        for _ in 0..3 {
            waiters.push(waiter(&words, 1, FUTEX_WAIT | flag, 0)?);
        }
        expect_eq!(futex(&words[0], FUTEX_WAKE | flag, 9), Ok(0));
        expect_eq!(futex(&words[1], FUTEX_WAKE | flag, 2), Ok(2));
        let finished = || waiters.iter().filter(|waiter| waiter.0.is_finished());
        expect!(comes_true(|| finished().count() == 2));
        expect_eq!(waiting(words[1].as_ptr(), flag), Ok(1));
        // One is woken even if none is asked for.
        expect_eq!(futex(&words[1], FUTEX_WAKE | flag, 0), Ok(1));
        for waiter in waiters {
            waiter.join()?;
        }
    }
    Ok(())
}

fn futex_private_and_shared_do_not_meet() -> Outcome {
    let words = words();
    let waiter = waiter(&words, 0, FUTEX_WAIT | PRIVATE, 0)?;
    expect_eq!(futex(&words[0], FUTEX_WAKE, 1), Ok(0));
    expect_eq!(waiting(words[0].as_ptr(), 0), Ok(0));
    expect_eq!(futex(&words[0], FUTEX_WAKE | PRIVATE, 1), Ok(1));
    waiter.join()
}

fn futex_shared_memory_is_one_word() -> Outcome {
    let fd = sys!(SYS_memfd_create, c"futex".as_ptr(), 0).map(guest_programs::sys::owned)?;
    sys!(SYS_ftruncate, &fd, 4096)?;
    let (first, second) = (
        Mapping::shared(&fd, 4096, 0)?,
        Mapping::shared(&fd, 4096, 0)?,
    );
    let (here, there) = (first.at(64) as usize, second.at(64) as usize);
    let thread = thread::spawn(move || sys!(SYS_futex, here, FUTEX_WAIT, 0, 0));
    expect!(comes_true(|| waiting(second.at(64).cast(), 0) == Ok(1)));
    expect_eq!(sys!(SYS_futex, there, FUTEX_WAKE | PRIVATE, 1), Ok(0));
    expect_eq!(sys!(SYS_futex, there + 4, FUTEX_WAKE, 1), Ok(0));
    expect_eq!(sys!(SYS_futex, there, FUTEX_WAKE, 1), Ok(1));
    expect_eq!(thread.join().ok(), Some(Ok(0)));
    Ok(())
}

fn time(nanoseconds: i64) -> timespec {
    timespec {
        tv_sec: nanoseconds / (1000 * MS),
        tv_nsec: nanoseconds % (1000 * MS),
    }
}

fn now(clock: i32) -> i64 {
    let mut now = time(0);
    // SAFETY: the call stores the time.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec * 1000 * MS + now.tv_nsec
}

fn futex_timeouts() -> Outcome {
    let words = words();
    let word = words[0].as_ptr();
    let start = Instant::now();
    let timeout = time(20 * MS);
    fails!(
        ETIMEDOUT,
        SYS_futex,
        word,
        FUTEX_WAIT | PRIVATE,
        0,
        &raw const timeout
    );
    expect!(start.elapsed() >= Duration::from_millis(20));
    let none = time(0);
    fails!(ETIMEDOUT, SYS_futex, word, FUTEX_WAIT, 0, &raw const none);
    // One whose time is over is not counted any more.
    expect_eq!(futex(&words[0], FUTEX_WAKE, 1), Ok(0));
    // One that is woken before has no timeout.
    let shared = words.clone();
    let thread = thread::spawn(move || {
        let timeout = time(10_000 * MS);
        sys!(
            SYS_futex,
            shared[1].as_ptr(),
            FUTEX_WAIT,
            0,
            &raw const timeout
        )
    });
    expect!(comes_true(|| waiting(words[1].as_ptr(), 0) == Ok(1)));
    expect_eq!(futex(&words[1], FUTEX_WAKE, 1), Ok(1));
    expect_eq!(thread.join().ok(), Some(Ok(0)));
    Ok(())
}

fn futex_deadlines_on_both_clocks() -> Outcome {
    let words = words();
    let word = words[0].as_ptr();
    let operation = FUTEX_WAIT_BITSET | PRIVATE;
    for (clock, flag) in [(CLOCK_MONOTONIC, 0), (CLOCK_REALTIME, FUTEX_CLOCK_REALTIME)] {
        let start = Instant::now();
        let deadline = time(now(clock) + 20 * MS);
        fails!(
            ETIMEDOUT,
            SYS_futex,
            word,
            operation | flag,
            0,
            &raw const deadline,
            0,
            -1
        );
        expect!(start.elapsed() >= Duration::from_millis(19));
        let past = time(now(clock) - MS);
        fails!(
            ETIMEDOUT,
            SYS_futex,
            word,
            operation | flag,
            0,
            &raw const past,
            0,
            -1
        );
    }
    Ok(())
}

fn futex_bits_select() -> Outcome {
    let words = words();
    let low = waiter(&words, 0, FUTEX_WAIT_BITSET | PRIVATE, 1)?;
    let high = waiter(&words, 0, FUTEX_WAIT_BITSET | PRIVATE, 6)?;
    let wake = |bits: u32| {
        let word = words[0].as_ptr();
        sys!(SYS_futex, word, FUTEX_WAKE_BITSET | PRIVATE, 9, 0, 0, bits)
    };
    expect_eq!(wake(8), Ok(0));
    expect_eq!(wake(4), Ok(1));
    high.join()?;
    expect_eq!(waiting(words[0].as_ptr(), PRIVATE), Ok(1));
    expect_eq!(wake(u32::MAX), Ok(1));
    low.join()
}

fn futex_requeue_moves() -> Outcome {
    for flag in [0, PRIVATE] {
        let words = words();
        let mut waiters = Vec::new();
        for _ in 0..4 {
            waiters.push(waiter(&words, 0, FUTEX_WAIT | flag, 0)?);
        }
        let (from, to) = (words[0].as_ptr(), words[1].as_ptr());
        let compare = FUTEX_CMP_REQUEUE | flag;
        fails!(EAGAIN, SYS_futex, from, compare, 1, 1, to, 5);
        expect_eq!(sys!(SYS_futex, from, compare, 1, 2, to, 0), Ok(3));
        expect_eq!(futex(&words[0], FUTEX_WAKE | flag, 9), Ok(1));
        expect_eq!(futex(&words[1], FUTEX_WAKE | flag, 1), Ok(1));
        expect_eq!(sys!(SYS_futex, to, FUTEX_REQUEUE | flag, 0, 9, from), Ok(1));
        expect_eq!(futex(&words[1], FUTEX_WAKE | flag, 9), Ok(0));
        expect_eq!(futex(&words[0], FUTEX_WAKE | flag, 9), Ok(1));
        for waiter in waiters {
            waiter.join()?;
        }
    }
    Ok(())
}

fn futex_wake_op_does_both() -> Outcome {
    let words = words();
    let first = waiter(&words, 0, FUTEX_WAIT | PRIVATE, 0)?;
    let second = waiter(&words, 1, FUTEX_WAIT | PRIVATE, 0)?;
    let (here, there) = (words[0].as_ptr(), words[1].as_ptr());
    let operation = FUTEX_WAKE_OP | PRIVATE;
    // Add 5; wake there if it held 7, which it did not.
    let add = 1 << 28 | 5 << 12 | 7;
    expect_eq!(sys!(SYS_futex, here, operation, 1, 1, there, add), Ok(1));
    expect_eq!(words[1].load(Ordering::SeqCst), 5);
    first.join()?;
    expect_eq!(waiting(there, PRIVATE), Ok(1));
    // Set to 1 << 4; wake there if it held more than 4.
    let set = 8_u32 << 28 | 4 << 24 | 4 << 12 | 4;
    expect_eq!(sys!(SYS_futex, here, operation, 1, 1, there, set), Ok(1));
    expect_eq!(words[1].load(Ordering::SeqCst), 16);
    second.join()?;
    fails!(ENOSYS, SYS_futex, here, operation, 1, 1, there, 5_u32 << 28);
    fails!(ENOSYS, SYS_futex, here, operation, 1, 1, there, 6 << 24);
    Ok(())
}

fn futex_errors() -> Outcome {
    let words = words();
    let word = words[0].as_ptr();
    let nowhere = Mapping::nowhere()?;
    fails!(
        EINVAL,
        SYS_futex,
        word.wrapping_byte_add(2),
        FUTEX_WAIT,
        0,
        0
    );
    fails!(EINVAL, SYS_futex, word.wrapping_byte_add(2), FUTEX_WAKE, 1);
    fails!(EFAULT, SYS_futex, nowhere, FUTEX_WAIT, 0, 0);
    fails!(EFAULT, SYS_futex, nowhere, FUTEX_WAIT | PRIVATE, 0, 0);
    fails!(EFAULT, SYS_futex, nowhere, FUTEX_WAKE, 1);
    expect_eq!(sys!(SYS_futex, nowhere, FUTEX_WAKE | PRIVATE, 1), Ok(0));
    fails!(EFAULT, SYS_futex, word, FUTEX_WAIT, 0, nowhere);
    for bad in [-1, 1000 * MS] {
        let bad = timespec {
            tv_sec: 0,
            tv_nsec: bad,
        };
        fails!(EINVAL, SYS_futex, word, FUTEX_WAIT, 0, &raw const bad);
    }
    fails!(EINVAL, SYS_futex, word, FUTEX_WAIT_BITSET, 0, 0, 0, 0);
    fails!(EINVAL, SYS_futex, word, FUTEX_WAKE_BITSET, 1, 0, 0, 0);
    fails!(
        ENOSYS,
        SYS_futex,
        word,
        FUTEX_WAIT | FUTEX_CLOCK_REALTIME,
        0,
        0
    );
    fails!(
        ENOSYS,
        SYS_futex,
        word,
        FUTEX_WAKE | FUTEX_CLOCK_REALTIME,
        0,
        0
    );
    fails!(EINVAL, SYS_futex, word, FUTEX_REQUEUE, -1, 1, word);
    fails!(EINVAL, SYS_futex, word, FUTEX_REQUEUE, 1, -1, word);
    fails!(ENOSYS, SYS_futex, word, 99, 0, 0);
    Ok(())
}

fn futex_ping_pong() -> Outcome {
    const TURNS: u32 = 2000;
    let words = words();
    let play = |words: Arc<[AtomicU32; 4]>, own: u32| {
        while words[0].load(Ordering::SeqCst) < TURNS {
            let turn = words[0].load(Ordering::SeqCst);
            if turn % 2 == own {
                words[0].store(turn + 1, Ordering::SeqCst);
                let _ = futex(&words[0], FUTEX_WAKE | PRIVATE, 1);
            } else {
                let _ = futex(&words[0], FUTEX_WAIT | PRIVATE, turn);
            }
        }
    };
    let other = words.clone();
    let thread = thread::spawn(move || play(other, 1));
    play(words.clone(), 0);
    expect!(thread.join().is_ok());
    expect_eq!(words[0].load(Ordering::SeqCst), TURNS);
    Ok(())
}
