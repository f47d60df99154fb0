//! Wake-ups of futexes: none is lost, none comes twice, and none goes to the wrong one.

use crate::crew::{self, Worker};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Errno, SysResult};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{
    EAGAIN, ETIMEDOUT, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAIT_BITSET,
    FUTEX_WAKE, FUTEX_WAKE_BITSET, timespec,
};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;

pub(crate) const CHECKS: &[Check] = checks![
    pairs_take_turns,
    wakes_and_waits_are_as_many,
    bits_choose_who_wakes,
    requeued_waiters_wake,
];

const PAIRS: usize = 3;
const WAITERS: usize = 5;

/// Waits while `word` holds `value`, for `time` at most.
fn wait(word: &AtomicU32, value: u32, time: Option<u64>, flags: i32) -> SysResult {
    let time = time.map(|nanoseconds| timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT | flags, value, time)
}

fn wake(word: &AtomicU32, count: u32, flags: i32) -> SysResult {
    sys!(SYS_futex, word.as_ptr(), FUTEX_WAKE | flags, count)
}

/// Two threads and a word each: who finds an even or an odd number there, by its own parity, adds
/// one and wakes the other.
pub(crate) fn pairs_take_turns() -> Outcome {
    let words = [const { AtomicU32::new(0) }; PAIRS];
    let over = [const { AtomicBool::new(false) }; PAIRS];
    crew::run(
        "pairs_take_turns",
        &[("player", 2 * PAIRS, &|worker: &mut Worker<'_>| {
            let (pair, parity) = (worker.number / 2, worker.number as u32 % 2);
            let (word, over) = (&words[pair], &over[pair]);
            // Pairs differ in what they say about their words, and in whether they have patience.
            let flags = [FUTEX_PRIVATE_FLAG, 0, FUTEX_PRIVATE_FLAG][pair];
            while !over.load(Ordering::SeqCst) {
                let value = word.load(Ordering::SeqCst);
                if value % 2 != parity {
                    let time = (pair == 2).then(|| 1000 * worker.random.below(300));
                    match wait(word, value, time, flags) {
                        Ok(_) | Err(Errno(EAGAIN)) => {}
                        Err(Errno(ETIMEDOUT)) if pair == 2 => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    worker.step();
                    continue;
                }
                if !worker.goes_on() {
                    over.store(true, Ordering::SeqCst);
                }
                if worker.random.once_in(4) {
                    worker.random.pause();
                }
                word.fetch_add(1, Ordering::SeqCst);
                expect!(wake(word, 1, flags)? <= 1);
            }
            Ok(())
        })],
    )
}

/// A wake-up that says that it has woken one has ended one wait, though that was about to time out.
fn wakes_and_waits_are_as_many() -> Outcome {
    let word = AtomicU32::new(0);
    let (woken, ended) = (AtomicU64::new(0), AtomicU64::new(0));
    crew::run(
        "wakes_and_waits_are_as_many",
        &[
            ("waiter", WAITERS, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let time = 1000 * worker.random.below(200);
                    match wait(&word, 0, Some(time), FUTEX_PRIVATE_FLAG) {
                        Ok(_) => ended.fetch_add(1, Ordering::SeqCst),
                        Err(Errno(ETIMEDOUT)) => 0,
                        Err(errno) => return Err(errno.into()),
                    };
                }
                Ok(())
            }),
            ("waker", 2, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let count = 1 + worker.random.below(3);
                    let got = wake(&word, count as u32, FUTEX_PRIVATE_FLAG)?;
                    expect!(got as u64 <= count);
                    woken.fetch_add(got as u64, Ordering::SeqCst);
                    worker.random.pause();
                    if got == 0 {
                        thread::yield_now();
                    }
                }
                Ok(())
            }),
        ],
    )?;
    expect_eq!(woken.into_inner(), ended.into_inner());
    Ok(())
}

/// Each waiter has a bit; the waker counts up each one's turns and wakes by its bit.
fn bits_choose_who_wakes() -> Outcome {
    let word = AtomicU32::new(0);
    let turns = [const { AtomicU32::new(0) }; WAITERS];
    let done = [const { AtomicU32::new(0) }; WAITERS];
    let is_over = AtomicBool::new(false);
    let of = |operation: i32, count: u32, bits: u32| {
        let operation = operation | FUTEX_PRIVATE_FLAG;
        sys!(SYS_futex, word.as_ptr(), operation, count, 0, 0, bits)
    };
    crew::run(
        "bits_choose_who_wakes",
        &[
            ("waiter", WAITERS, &|worker: &mut Worker<'_>| {
                let bit = 1 << worker.number;
                while !is_over.load(Ordering::SeqCst) {
                    worker.step();
                    // Nobody changes the word: only a wake-up ends this, and that is this one's.
                    of(FUTEX_WAIT_BITSET, 0, bit)?;
                    let wanted = turns[worker.number].load(Ordering::SeqCst);
                    let before = done[worker.number].swap(wanted, Ordering::SeqCst);
                    expect!(before != wanted || is_over.load(Ordering::SeqCst));
                }
                done[worker.number].store(u32::MAX, Ordering::SeqCst);
                Ok(())
            }),
            ("waker", 1, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let number = worker.random.below(WAITERS as u64) as usize;
                    let wanted = turns[number].fetch_add(1, Ordering::SeqCst) + 1;
                    // It may not wait yet.
                    while of(FUTEX_WAKE_BITSET, u32::MAX >> 1, 1 << number)? == 0 {
                        thread::yield_now();
                    }
                    while done[number].load(Ordering::SeqCst) != wanted {
                        thread::yield_now();
                    }
                }
                is_over.store(true, Ordering::SeqCst);
                for (number, done) in done.iter().enumerate() {
                    while done.load(Ordering::SeqCst) != u32::MAX {
                        of(FUTEX_WAKE_BITSET, 1, 1 << number)?;
                        thread::yield_now();
                    }
                }
                Ok(())
            }),
        ],
    )
}

/// Waiters gather at one word, are moved to another, and are woken there one after the other.
fn requeued_waiters_wake() -> Outcome {
    let (first, second) = (AtomicU32::new(0), AtomicU32::new(0));
    let arrived = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let requeue = |round: u32, wake: u32| {
        sys!(
            SYS_futex,
            first.as_ptr(),
            FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG,
            wake,
            u32::MAX >> 1,
            second.as_ptr(),
            round
        )
    };
    crew::run(
        "requeued_waiters_wake",
        &[
            ("waiter", WAITERS, &|worker: &mut Worker<'_>| {
                let mut round = 0;
                loop {
                    worker.step();
                    arrived.fetch_add(1, Ordering::SeqCst);
                    match wait(&first, round, None, FUTEX_PRIVATE_FLAG) {
                        Ok(_) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    round = round.wrapping_add(1);
                    while first.load(Ordering::SeqCst) != round {
                        thread::yield_now();
                    }
                    if is_over.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                }
            }),
            ("mover", 1, &|worker: &mut Worker<'_>| {
                let mut round = 0_u32;
                loop {
                    let goes_on = worker.goes_on();
                    let wrong = requeue(round.wrapping_add(1), 1);
                    expect_eq!(wrong, Err(Errno(EAGAIN)));
                    while arrived.load(Ordering::SeqCst) < WAITERS {
                        thread::yield_now();
                    }
                    arrived.store(0, Ordering::SeqCst);
                    let (mut woken, mut moved) = (0, 0);
                    // Some may have arrived and not wait yet.
                    while woken + moved < WAITERS {
                        let at_once = worker.random.below(2) as u32;
                        let touched = requeue(round, at_once)?;
                        woken += touched.min(at_once as usize);
                        moved += touched - touched.min(at_once as usize);
                        if worker.random.once_in(2) && moved > 0 {
                            let one = wake(&second, 1, FUTEX_PRIVATE_FLAG)?;
                            expect_eq!(one, 1);
                            (woken, moved) = (woken + 1, moved - 1);
                        }
                    }
                    expect_eq!(wake(&first, 9, FUTEX_PRIVATE_FLAG)?, 0);
                    while moved > 0 {
                        let count = 1 + worker.random.below(moved as u64) as usize;
                        let got = wake(&second, count as u32, FUTEX_PRIVATE_FLAG)?;
                        if got != count {
                            return Err(Failure::new(format!("woke {got} of {count}")));
                        }
                        moved -= count;
                    }
                    expect_eq!(wake(&second, 9, FUTEX_PRIVATE_FLAG)?, 0);
                    is_over.store(!goes_on, Ordering::SeqCst);
                    round = round.wrapping_add(1);
                    first.store(round, Ordering::SeqCst);
                    if !goes_on {
                        return Ok(());
                    }
                }
            }),
        ],
    )
}
