//! Futexes that are locks with an owner (`FUTEX_LOCK_PI` and its relatives).

use guest_programs::check::{Check, Failure, Outcome, comes_true};
use guest_programs::sys::{Errno, SysResult};
use guest_programs::{checks, expect, expect_eq, sys};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) const CHECKS: &[Check] = checks![
    a_lock_is_taken_and_given_up,
    a_lock_goes_to_who_waits,
    waiting_for_a_lock_ends_with_its_time,
    who_waits_for_each_other_is_told,
    the_lock_of_one_who_ends_goes_on,
    waiters_are_moved_to_a_lock,
    a_wake_up_is_not_for_locks,
];

const LOCK: i32 = libc::FUTEX_LOCK_PI | libc::FUTEX_PRIVATE_FLAG;
const UNLOCK: i32 = libc::FUTEX_UNLOCK_PI | libc::FUTEX_PRIVATE_FLAG;
const TRY: i32 = libc::FUTEX_TRYLOCK_PI | libc::FUTEX_PRIVATE_FLAG;
const MOVE: i32 = libc::FUTEX_CMP_REQUEUE_PI | libc::FUTEX_PRIVATE_FLAG;
const WAIT_TO_MOVE: i32 = libc::FUTEX_WAIT_REQUEUE_PI | libc::FUTEX_PRIVATE_FLAG;
const WAKE: i32 = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
const TID: u32 = 0x3fff_ffff;

fn futex(word: &AtomicU32, operation: i32, time: *const libc::timespec) -> SysResult {
    sys!(SYS_futex, word.as_ptr(), operation, 0, time, 0, 0)
}

fn own_tid() -> Result<u32, Errno> {
    Ok(sys!(SYS_gettid)? as u32)
}

fn lock(word: &AtomicU32) -> SysResult {
    futex(word, LOCK, std::ptr::null())
}

fn unlock(word: &AtomicU32) -> SysResult {
    futex(word, UNLOCK, std::ptr::null())
}

fn is_waited_for(word: &AtomicU32) -> bool {
    comes_true(|| word.load(Ordering::SeqCst) & WAITERS != 0)
}

/// So many milliseconds from now, on the clock of the day.
fn soon(milliseconds: u64) -> Result<libc::timespec, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| Failure::new("it is before 1970"))?;
    let end = now + Duration::from_millis(milliseconds);
    Ok(libc::timespec {
        tv_sec: end.as_secs() as i64,
        tv_nsec: i64::from(end.subsec_nanos()),
    })
}

fn a_lock_is_taken_and_given_up() -> Outcome {
    let word = AtomicU32::new(0);
    lock(&word)?;
    expect_eq!(word.load(Ordering::SeqCst), own_tid()?);
    expect_eq!(lock(&word), Err(Errno(libc::EDEADLK)));
    unlock(&word)?;
    expect_eq!(word.load(Ordering::SeqCst), 0);
    expect_eq!(unlock(&word), Err(Errno(libc::EPERM)));
    futex(&word, TRY, std::ptr::null())?;
    let other = thread::scope(|scope| {
        let other = scope.spawn(|| futex(&word, TRY, std::ptr::null()));
        other.join()
    });
    expect_eq!(other.ok(), Some(Err(Errno(libc::EAGAIN))));
    unlock(&word)?;
    // Nobody has that number.
    word.store(TID - 1, Ordering::SeqCst);
    expect_eq!(lock(&word), Err(Errno(libc::ESRCH)));
    Ok(())
}

fn a_lock_goes_to_who_waits() -> Outcome {
    let word = AtomicU32::new(0);
    let tid = own_tid()?;
    lock(&word)?;
    let held = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            lock(&word)?;
            let held = word.load(Ordering::SeqCst);
            unlock(&word)?;
            Ok::<_, Errno>((held, sys!(SYS_gettid)? as u32))
        });
        let outcome = is_waited_for(&word);
        let held = word.load(Ordering::SeqCst);
        let unlocked = unlock(&word);
        (waiter.join(), outcome, held, unlocked)
    });
    let (waiter, is_waited_for, before, unlocked) = held;
    expect!(is_waited_for);
    unlocked?;
    expect_eq!(before, tid | WAITERS);
    let (held, waiter) = waiter.map_err(|_| Failure::new("it panicked"))??;
    expect_eq!(held & TID, waiter);
    expect_eq!(word.load(Ordering::SeqCst), 0);
    Ok(())
}

fn waiting_for_a_lock_ends_with_its_time() -> Outcome {
    let word = AtomicU32::new(0);
    lock(&word)?;
    let time = soon(5)?;
    let other = thread::scope(|scope| {
        let other = scope.spawn(|| futex(&word, LOCK, &raw const time));
        other.join()
    });
    expect_eq!(other.ok(), Some(Err(Errno(libc::ETIMEDOUT))));
    expect_eq!(word.load(Ordering::SeqCst), own_tid()? | WAITERS);
    unlock(&word)?;
    expect_eq!(word.load(Ordering::SeqCst), 0);
    Ok(())
}

fn who_waits_for_each_other_is_told() -> Outcome {
    let words = [AtomicU32::new(0), AtomicU32::new(0)];
    lock(&words[0])?;
    let (told, other) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            lock(&words[1])?;
            lock(&words[0])?;
            unlock(&words[0])?;
            unlock(&words[1])
        });
        let told = match is_waited_for(&words[0]) {
            true => lock(&words[1]),
            false => Ok(0),
        };
        let unlocked = unlock(&words[0]);
        (told, other.join().ok().zip(Some(unlocked)))
    });
    expect_eq!(told, Err(Errno(libc::EDEADLK)));
    expect_eq!(other, Some((Ok(0), Ok(0))));
    Ok(())
}

fn the_lock_of_one_who_ends_goes_on() -> Outcome {
    let word = AtomicU32::new(0);
    let is_waiting = AtomicU32::new(0);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            let _ = lock(&word);
            // It ends with its lock, when the other waits.
            comes_true(|| is_waiting.load(Ordering::SeqCst) != 0) && is_waited_for(&word)
        });
        if !comes_true(|| word.load(Ordering::SeqCst) != 0) {
            return Err(Errno(libc::ETIME));
        }
        is_waiting.store(1, Ordering::SeqCst);
        lock(&word)
    });
    outcome?;
    let held = word.load(Ordering::SeqCst);
    expect_eq!(held, own_tid()? | WAITERS | OWNER_DIED);
    Ok(())
}

fn waiters_are_moved_to_a_lock() -> Outcome {
    const THREADS: usize = 3;
    let (condition, word) = (AtomicU32::new(7), AtomicU32::new(0));
    let woken = AtomicU32::new(0);
    lock(&word)?;
    let wait = || -> SysResult {
        let waited = sys!(
            SYS_futex,
            condition.as_ptr(),
            WAIT_TO_MOVE,
            7,
            0,
            word.as_ptr(),
            0
        )?;
        woken.fetch_add(1, Ordering::SeqCst);
        unlock(&word)?;
        Ok(waited)
    };
    let moved = thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| scope.spawn(wait));
        let mut moved = 0;
        let mut result = Ok(0);
        // One call moves all that wait by then.
        comes_true(|| {
            result = sys!(
                SYS_futex,
                condition.as_ptr(),
                MOVE,
                1,
                THREADS,
                word.as_ptr(),
                7
            );
            moved += result.unwrap_or(THREADS);
            moved >= THREADS
        });
        let before = woken.load(Ordering::SeqCst);
        let unlocked = unlock(&word);
        let results = threads.map(|thread| thread.join().ok());
        (moved, result, before, unlocked, results)
    });
    let (moved, result, before, unlocked, results) = moved;
    result?;
    unlocked?;
    expect_eq!((moved, before), (THREADS, 0));
    expect_eq!(results, [Some(Ok(0)); THREADS]);
    expect_eq!(woken.load(Ordering::SeqCst), THREADS as u32);
    expect_eq!(word.load(Ordering::SeqCst), 0);
    let wrong = sys!(SYS_futex, condition.as_ptr(), MOVE, 1, 1, word.as_ptr(), 8);
    expect_eq!(wrong, Err(Errno(libc::EAGAIN)));
    Ok(())
}

fn a_wake_up_is_not_for_locks() -> Outcome {
    let word = AtomicU32::new(0);
    lock(&word)?;
    let (woken, waiter) = thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            lock(&word)?;
            unlock(&word)
        });
        let is_waiting = is_waited_for(&word);
        // It may be about to wait still.
        let mut woken = Ok(0);
        comes_true(|| {
            woken = sys!(SYS_futex, word.as_ptr(), WAKE, 1, 0, 0, 0);
            woken != Ok(0)
        });
        let unlocked = unlock(&word);
        (woken, waiter.join().ok().zip(Some((is_waiting, unlocked))))
    });
    expect_eq!(woken, Err(Errno(libc::EINVAL)));
    expect_eq!(waiter, Some((Ok(0), (true, Ok(0)))));
    Ok(())
}
