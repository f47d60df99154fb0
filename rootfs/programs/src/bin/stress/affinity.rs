//! Threads that must be on certain CPUs, or are moved there by others.

use crate::crew::{self, Worker};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::SysResult;
use guest_programs::{checks, expect, sys};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) const CHECKS: &[Check] = checks![
    threads_stay_where_they_must,
    threads_go_where_others_put_them,
    pinned_spinners_starve_nobody,
];

/// A set of CPUs, as `sched_setaffinity(2)` has it.
type Set = [u64; 16];

/// The numbers of the CPUs that this thread may use.
pub(crate) fn allowed() -> SysResult<Vec<usize>> {
    let mut set: Set = [0; 16];
    let size = size_of_val(&set);
    sys!(SYS_sched_getaffinity, 0, size, set.as_mut_ptr())?;
    let is_in = |cpu: &usize| set[cpu / 64] >> (cpu % 64) & 1 != 0;
    Ok((0..1024).filter(is_in).collect())
}

/// Has a thread, 0 for this one, use these CPUs only.
pub(crate) fn confine(tid: u32, cpus: &[usize]) -> SysResult {
    let mut set: Set = [0; 16];
    for cpu in cpus {
        set[cpu / 64] |= 1 << (cpu % 64);
    }
    let size = size_of_val(&set);
    sys!(SYS_sched_setaffinity, tid, size, set.as_ptr())
}

/// The CPU that this thread is on, by a system call or by what the C library knows.
fn current(by_call: bool) -> SysResult<usize> {
    if !by_call {
        // SAFETY: it touches nothing.
        return Ok(unsafe { libc::sched_getcpu() } as usize);
    }
    let mut cpu = 0_u32;
    sys!(SYS_getcpu, &raw mut cpu, 0, 0)?;
    Ok(cpu as usize)
}

fn threads_stay_where_they_must() -> Outcome {
    let all = allowed()?;
    crew::run(
        "threads_stay_where_they_must",
        &[("mover", 4, &|worker: &mut Worker<'_>| {
            while worker.goes_on() {
                let mut some = all.clone();
                some.retain(|_| worker.random.once_in(2));
                if some.is_empty() {
                    some.push(all[worker.random.below(all.len() as u64) as usize]);
                }
                confine(0, &some)?;
                for turn in 0..worker.random.below(20) {
                    let cpu = current(turn % 2 == 0)?;
                    if !some.contains(&cpu) {
                        return Err(Failure::new(format!("on {cpu}, not on {some:?}")));
                    }
                    match worker.random.below(10) {
                        0 => thread::sleep(Duration::from_micros(50)),
                        1 => thread::yield_now(),
                        _ => worker.random.pause(),
                    }
                }
            }
            Ok(())
        })],
    )
}

/// A thread that is moved: its number, where it must be, and where it has seen itself.
#[derive(Default)]
struct Moved {
    tid: AtomicU32,
    /// The CPU, plus how many moves there were before it, times 1024; odd during a move.
    wanted: AtomicU64,
    seen: AtomicU64,
}

fn threads_go_where_others_put_them() -> Outcome {
    const THREADS: usize = 3;
    const NOT_YET: u64 = u64::MAX;
    let all = allowed()?;
    let moved: [Moved; THREADS] = Default::default();
    for one in &moved {
        one.wanted.store(NOT_YET, Ordering::SeqCst);
    }
    let over = AtomicU32::new(0);
    crew::run(
        "threads_go_where_others_put_them",
        &[
            ("moved", THREADS, &|worker: &mut Worker<'_>| {
                let own = &moved[worker.number];
                own.tid.store(sys!(SYS_gettid)? as u32, Ordering::SeqCst);
                // The mover waits for them until it has ended.
                while over.load(Ordering::SeqCst) == 0 {
                    worker.step();
                    let before = own.wanted.load(Ordering::SeqCst);
                    let cpu = current(worker.random.once_in(4))? as u64;
                    let after = own.wanted.load(Ordering::SeqCst);
                    if before == after && before != NOT_YET {
                        expect!(before % 1024 == cpu);
                    }
                    own.seen.store(cpu + 1, Ordering::SeqCst);
                    match worker.random.below(200) {
                        0 => thread::sleep(Duration::from_micros(20)),
                        1 => thread::yield_now(),
                        _ => worker.random.pause(),
                    }
                }
                Ok(())
            }),
            ("mover", 1, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let one = &moved[worker.random.below(THREADS as u64) as usize];
                    let tid = one.tid.load(Ordering::SeqCst);
                    if tid == 0 {
                        thread::yield_now();
                        continue;
                    }
                    let cpu = all[worker.random.below(all.len() as u64) as usize] as u64;
                    one.wanted.store(NOT_YET, Ordering::SeqCst);
                    confine(tid, &[cpu as usize])?;
                    // It is there now, or will be before its program goes on.
                    one.seen.store(0, Ordering::SeqCst);
                    while one.seen.load(Ordering::SeqCst) != cpu + 1 {
                        thread::yield_now();
                    }
                    one.wanted
                        .store(worker.steps() << 10 | cpu, Ordering::SeqCst);
                }
                over.store(1, Ordering::SeqCst);
                Ok(())
            }),
        ],
    )
}

/// Spinning threads that have a CPU each, and others that have to get their turns on them.
fn pinned_spinners_starve_nobody() -> Outcome {
    let all = allowed()?;
    let turn = AtomicU32::new(0);
    let pinned = |worker: &mut Worker<'_>| confine(0, &[all[worker.number % all.len()]]);
    crew::run(
        "pinned_spinners_starve_nobody",
        &[
            ("spinner", all.len(), &|worker: &mut Worker<'_>| {
                pinned(worker)?;
                while worker.goes_on() {
                    for _ in 0..100_000 {
                        std::hint::spin_loop();
                    }
                }
                Ok(())
            }),
            ("sleeper", all.len(), &|worker: &mut Worker<'_>| {
                pinned(worker)?;
                while worker.goes_on() {
                    thread::sleep(Duration::from_micros(worker.random.below(2000)));
                }
                Ok(())
            }),
            ("free", 2, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    turn.fetch_add(1, Ordering::SeqCst);
                    match worker.random.once_in(2) {
                        true => thread::yield_now(),
                        false => worker.random.pause(),
                    }
                }
                Ok(())
            }),
            ("starter", 1, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let value = thread::spawn(|| 5)
                        .join()
                        .map_err(|_| Failure::new("lost"))?;
                    expect!(value == 5);
                }
                Ok(())
            }),
        ],
    )
}
