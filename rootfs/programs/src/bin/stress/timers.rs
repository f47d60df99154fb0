//! Waiting for a time in every way there is, while all CPUs are busy: never too short, never far
//! too long.

use crate::crew::{self, Worker};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Errno, SysResult};
use guest_programs::{checks, expect_eq, sys};
use io_uring::{IoUring, opcode, types};
use libc::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, ETIME, ETIMEDOUT, FUTEX_CLOCK_REALTIME, FUTEX_PRIVATE_FLAG,
    FUTEX_WAIT, FUTEX_WAIT_BITSET, TIMER_ABSTIME, timespec,
};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = checks![
    times_come_on_idle_cpus,
    times_come_beside_spinning_threads,
    a_timeout_moves_with_the_ring,
];

const SLEEPERS: usize = 8;
/// How long a thread computes at most without a system call.
const SPIN: Duration = Duration::from_millis(300);
/// What a busy host may keep a virtual CPU from.
const LATEST: Duration = Duration::from_secs(5);

fn span(time: Duration) -> timespec {
    timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// The time `later` than now on `clock`.
fn at(clock: i32, later: Duration) -> SysResult<timespec> {
    let mut now = span(Duration::ZERO);
    sys!(SYS_clock_gettime, clock, &raw mut now)?;
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    Ok(span(now + later))
}

/// Waits in the `way`-th way, out of 8.
fn wait(way: u64, time: Duration, ring: &mut IoUring) -> Outcome {
    let word = AtomicU32::new(0);
    let futex = |operation: i32, time: &timespec| {
        let operation = operation | FUTEX_PRIVATE_FLAG;
        let time = std::ptr::from_ref(time);
        sys!(SYS_futex, word.as_ptr(), operation, 0, time, 0, u32::MAX)
    };
    let sleep = |clock: i32, flags: i32, time: &timespec| {
        let time = std::ptr::from_ref(time);
        sys!(SYS_clock_nanosleep, clock, flags, time, 0)
    };
    let relative = span(time);
    let relative = &relative;
    let timed_out = Err(Errno(ETIMEDOUT));
    match way {
        0 => expect_eq!(sys!(SYS_nanosleep, std::ptr::from_ref(relative), 0), Ok(0)),
        1 => expect_eq!(sleep(CLOCK_MONOTONIC, 0, relative), Ok(0)),
        2 | 3 => {
            let clock = [CLOCK_MONOTONIC, CLOCK_REALTIME][way as usize - 2];
            expect_eq!(sleep(clock, TIMER_ABSTIME, &at(clock, time)?), Ok(0));
        }
        4 => expect_eq!(futex(FUTEX_WAIT, relative), timed_out),
        5 => {
            let operation = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME;
            expect_eq!(futex(operation, &at(CLOCK_REALTIME, time)?), timed_out);
        }
        6 => expect_eq!(
            sys!(SYS_ppoll, 0, 0, std::ptr::from_ref(relative), 0, 8),
            Ok(0)
        ),
        _ => {
            let time = types::Timespec::from(time);
            let entry = opcode::Timeout::new(&raw const time).build();
            // SAFETY: the time outlives the request, which is waited for.
            unsafe { ring.submission().push(&entry) }?;
            expect_eq!(ring.submit_and_wait(1)?, 1);
            let result = ring.completion().next().map(|entry| entry.result());
            expect_eq!(result, Some(-ETIME));
        }
    }
    Ok(())
}

fn sleeper(worker: &mut Worker<'_>) -> Outcome {
    let mut ring = IoUring::new(4)?;
    while worker.goes_on() {
        let way = worker.random.below(8);
        let most = [100, 1000, 5000, 20_000][worker.random.below(4) as usize];
        let time = Duration::from_micros(worker.random.below(most));
        let start = Instant::now();
        wait(way, time, &mut ring)?;
        let taken = start.elapsed();
        // Clocks may differ in how they round.
        if taken + Duration::from_micros(1) < time || taken > time + LATEST {
            let why = format!("{taken:?} in place of {time:?}, in way {way}");
            return Err(Failure::new(why));
        }
    }
    Ok(())
}

pub(crate) fn times_come_on_idle_cpus() -> Outcome {
    let role = ("sleeper", SLEEPERS, &sleeper as _);
    crew::run("times_come_on_idle_cpus", &[role])
}

fn times_come_beside_spinning_threads() -> Outcome {
    crew::run(
        "times_come_beside_spinning_threads",
        &[
            ("sleeper", SLEEPERS, &sleeper),
            ("spinner", crew::cpus(), &|worker: &mut Worker<'_>| {
                let mut spins = 1000;
                while worker.goes_on() {
                    // No system call for a while, at times for longer than a time slice.
                    let spun = 1 + worker.random.below(spins);
                    let start = Instant::now();
                    (0..spun).for_each(|_| std::hint::spin_loop());
                    let each = start.elapsed() / spun as u32;
                    spins = (SPIN.as_nanos() / each.as_nanos().max(1)) as u64;
                }
                Ok(())
            }),
        ],
    )
}

/// Who waits for a ring's completion is woken by its time, though another has asked for that and
/// computes.
fn a_timeout_moves_with_the_ring() -> Outcome {
    crew::run(
        "a_timeout_moves_with_the_ring",
        &[("pair", 2, &|worker: &mut Worker<'_>| {
            let mut ring = IoUring::new(4)?;
            while worker.goes_on() {
                let micros = worker.random.below(3000) as u32;
                let time = types::Timespec::new().nsec(1000 * micros);
                let entry = opcode::Timeout::new(&raw const time).build();
                // SAFETY: the time outlives the request, which is waited for.
                unsafe { ring.submission().push(&entry) }?;
                expect_eq!(ring.submit()?, 1);
                let shared = &ring;
                let spins = worker.random.below(20_000);
                let waited = std::thread::scope(|scope| {
                    // SAFETY: flags and no argument.
                    let wait =
                        || unsafe { shared.submitter().enter::<libc::sigset_t>(0, 1, 1, None) };
                    let waiter = scope.spawn(wait);
                    for _ in 0..spins {
                        std::hint::spin_loop();
                    }
                    waiter.join()
                });
                expect_eq!(waited.map_err(|_| Failure::new("lost"))??, 0);
                let result = ring.completion().next().map(|entry| entry.result());
                expect_eq!(result, Some(-ETIME));
            }
            Ok(())
        })],
    )
}
