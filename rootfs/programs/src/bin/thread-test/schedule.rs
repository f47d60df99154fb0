//! Sharing CPUs: affinity, time slices, and the time that is used.

use guest_programs::check::{Check, Failure, Outcome, comes_true, in_some_try};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, timespec};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = checks![
    a_spinning_thread_starves_nobody,
    a_spinning_thread_lets_sleepers_wake,
    a_spinning_thread_lets_a_pipe_be_read,
    spinning_threads_share_a_cpu,
    yielding_lets_others_run,
    affinity_is_per_thread,
    a_running_thread_moves_where_it_must,
    a_pinned_thread_gets_its_cpu,
    affinity_errors,
    cpu_time_is_counted_per_thread,
    rusage_of_a_thread,
    proc_lists_the_threads,
];

/// Spins without any system call.
pub(crate) fn spin_until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Calls `with` while this thread, and those it starts, use only that CPU of those they may use.
pub(crate) fn pin_to<R>(index: usize, with: impl FnOnce() -> R) -> Result<R, Failure> {
    let mut before = [0_u64; 16];
    sys!(
        SYS_sched_getaffinity,
        0,
        size_of_val(&before),
        before.as_mut_ptr()
    )?;
    let is_in = |cpu: &usize| before[cpu / 64] & 1 << (cpu % 64) != 0;
    let cpu = (0..1024).filter(is_in).nth(index);
    let cpu = cpu.ok_or_else(|| Failure::new("no CPU"))?;
    let mut one = [0_u64; 16];
    one[cpu / 64] = 1 << (cpu % 64);
    sys!(SYS_sched_setaffinity, 0, size_of_val(&one), one.as_ptr())?;
    let result = with();
    sys!(
        SYS_sched_setaffinity,
        0,
        size_of_val(&before),
        before.as_ptr()
    )?;
    Ok(result)
}

/// Calls `with` beside a thread that spins on the same CPU.
fn beside_spinner<R>(with: impl FnOnce() -> R) -> Result<R, Failure> {
    let stop = AtomicBool::new(false);
    pin_to(0, || {
        thread::scope(|scope| {
            scope.spawn(|| spin_until(&stop));
            thread::yield_now();
            let result = with();
            stop.store(true, Ordering::Relaxed);
            result
        })
    })
}

fn a_spinning_thread_starves_nobody() -> Outcome {
    beside_spinner(|| {
        for _ in 0..50 {
            let value = thread::spawn(|| 5).join();
            expect_eq!(value.ok(), Some(5));
        }
        Ok(())
    })?
}

fn a_spinning_thread_lets_sleepers_wake() -> Outcome {
    beside_spinner(|| {
        for _ in 0..20 {
            let start = Instant::now();
            thread::sleep(Duration::from_millis(2));
            expect!(start.elapsed() >= Duration::from_millis(2));
            expect!(start.elapsed() < Duration::from_secs(5));
        }
        Ok(())
    })?
}

fn a_spinning_thread_lets_a_pipe_be_read() -> Outcome {
    use std::io::{Read, Write};
    beside_spinner(|| {
        let (mut reader, mut writer) = std::io::pipe()?;
        let thread = thread::spawn(move || {
            let mut sum = 0_u32;
            let mut byte = [0];
            while reader.read(&mut byte).is_ok_and(|count| count == 1) {
                sum += u32::from(byte[0]);
            }
            sum
        });
        for value in 0..100 {
            writer.write_all(&[value])?;
            if value % 10 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop(writer);
        expect_eq!(thread.join().ok(), Some(4950));
        Ok(())
    })?
}

fn spinning_threads_share_a_cpu() -> Outcome {
    let counts = [const { AtomicU64::new(0) }; 3];
    let stop = AtomicBool::new(false);
    // They are alike, if not by much: the machine may be busy otherwise.
    let are_alike = || {
        let counts = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let (least, most) = (counts.iter().min(), counts.iter().max());
        least > Some(&0) && least >= most.map(|most| most / 8).as_ref()
    };
    let came_true = pin_to(0, || {
        thread::scope(|scope| {
            for count in &counts {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            thread::sleep(Duration::from_millis(100));
            let came_true = comes_true(are_alike);
            stop.store(true, Ordering::Relaxed);
            came_true
        })
    })?;
    match came_true {
        true => Ok(()),
        false => Err(Failure::new(format!("turns are {counts:?}"))),
    }
}

fn yielding_lets_others_run() -> Outcome {
    let turn = AtomicU64::new(0);
    pin_to(0, || {
        thread::scope(|scope| {
            let start = Instant::now();
            for own in 0..2 {
                let turn = &turn;
                scope.spawn(move || {
                    for round in 0..500 {
                        while turn.load(Ordering::SeqCst) != 2 * round + own {
                            thread::yield_now();
                        }
                        turn.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            start
        });
    })?;
    expect_eq!(turn.load(Ordering::SeqCst), 1000);
    Ok(())
}

fn affinity_is_per_thread() -> Outcome {
    fn affinity() -> Result<[u64; 16], guest_programs::sys::Errno> {
        let mut set = [0; 16];
        sys!(
            SYS_sched_getaffinity,
            0,
            size_of_val(&set),
            set.as_mut_ptr()
        )?;
        Ok(set)
    }
    let own = affinity()?;
    let cpus: u32 = own.iter().map(|word| word.count_ones()).sum();
    expect!(cpus >= 1);
    expect_eq!(thread::available_parallelism()?.get(), cpus as usize);
    let pinned = thread::spawn(|| {
        pin_to(0, || {
            let inherited = thread::spawn(affinity).join().ok()?.ok()?;
            Some((affinity().ok()?, inherited))
        })
    });
    let (pinned, inherited) = pinned
        .join()
        .ok()
        .and_then(Result::ok)
        .flatten()
        .ok_or_else(|| Failure::new("no affinity"))?;
    expect_eq!(pinned.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
    expect_eq!(inherited, pinned);
    expect_eq!(affinity()?, own);
    let (mut cpu, mut node) = (9999_u32, 9999_u32);
    expect_eq!(sys!(SYS_getcpu, &raw mut cpu, &raw mut node, 0), Ok(0));
    expect!(own[cpu as usize / 64] & 1 << (cpu % 64) != 0);
    Ok(())
}

fn a_running_thread_moves_where_it_must() -> Outcome {
    let mut all = [0_u64; 16];
    sys!(
        SYS_sched_getaffinity,
        0,
        size_of_val(&all),
        all.as_mut_ptr()
    )?;
    let cpus = (0..1024).filter(|cpu| all[cpu / 64] & 1 << (cpu % 64) != 0);
    let stop = AtomicBool::new(false);
    let (tid, seen) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    thread::scope(|scope| {
        scope.spawn(|| {
            tid.store(sys!(SYS_gettid).unwrap_or(0) as u64, Ordering::SeqCst);
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: it touches nothing; the C library knows the CPU without a system call.
                seen.store(unsafe { libc::sched_getcpu() } as u64, Ordering::SeqCst);
            }
        });
        let check = || {
            while tid.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            for _ in 0..5 {
                for cpu in cpus.clone().take(4) {
                    let mut one = [0_u64; 16];
                    one[cpu / 64] = 1 << (cpu % 64);
                    let target = tid.load(Ordering::SeqCst) as i64;
                    sys!(
                        SYS_sched_setaffinity,
                        target,
                        size_of_val(&one),
                        one.as_ptr()
                    )?;
                    expect!(comes_true(|| seen.load(Ordering::SeqCst) == cpu as u64));
                }
            }
            Ok(())
        };
        let outcome = check();
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// A thread is woken whose only CPU computes for another, which nothing interrupts meanwhile, while
/// somebody waits for input.
fn a_pinned_thread_gets_its_cpu() -> Outcome {
    use std::io::Read;
    let (mut reader, writer) = std::io::pipe()?;
    let (is_reading, outcome) = thread::scope(|scope| {
        let reading = scope.spawn(move || reader.read(&mut [0]));
        let most = Duration::from_millis(100);
        let outcome = (0..8)
            .map(|_| wake_beside_spinner())
            .find(|time| time.as_ref().map_or(true, |time| *time < most));
        let is_reading = !reading.is_finished();
        drop(writer);
        (is_reading, outcome)
    });
    expect!(is_reading);
    match outcome {
        Some(time) => time.map(|_| ()),
        None => Err(Failure::new("it had to wait each time")),
    }
}

/// How long it takes until a thread runs that is woken, and that has to share its CPU with one
/// that spins.
fn wake_beside_spinner() -> Result<Duration, Failure> {
    let (stop, is_spinning) = (AtomicBool::new(false), AtomicBool::new(false));
    let word = AtomicU32::new(0);
    let last = thread::available_parallelism()?.get() - 1;
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            pin_to(last, || {
                let woken = sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, 0, 0);
                stop.store(true, Ordering::SeqCst);
                woken
            })
        });
        thread::sleep(Duration::from_millis(10));
        scope.spawn(|| {
            pin_to(last, || {
                is_spinning.store(true, Ordering::SeqCst);
                spin_until(&stop);
            })
        });
        while !is_spinning.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        // Until it has found that nobody waits for its CPU.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {}
        let start = Instant::now();
        word.store(1, Ordering::SeqCst);
        sys!(SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1)?;
        // It has been woken, or comes too late to wait.
        let _ = waiter.join().map_err(|_| Failure::new("lost"))??;
        Ok(start.elapsed())
    })
}

fn affinity_errors() -> Outcome {
    let mut set = [0_u64; 16];
    let pointer = set.as_mut_ptr();
    fails!(EINVAL, SYS_sched_getaffinity, 0, 7, pointer);
    fails!(EINVAL, SYS_sched_getaffinity, 0, 0, pointer);
    fails!(ESRCH, SYS_sched_getaffinity, 4_000_000, 128, pointer);
    fails!(EINVAL, SYS_sched_setaffinity, 0, 128, pointer);
    fails!(EINVAL, SYS_sched_setaffinity, 0, 0, pointer);
    fails!(ESRCH, SYS_sched_setaffinity, 4_000_000, 128, pointer);
    fails!(EFAULT, SYS_sched_setaffinity, 0, 128, 8);
    Ok(())
}

fn used(clock: i32) -> Duration {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call stores the time.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn burn(time: Duration) {
    let start = used(CLOCK_THREAD_CPUTIME_ID);
    while used(CLOCK_THREAD_CPUTIME_ID) < start + time {}
}

fn cpu_time_is_counted_per_thread() -> Outcome {
    in_some_try(cpu_time_is_the_threads)
}

fn cpu_time_is_the_threads() -> Outcome {
    const TIME: Duration = Duration::from_millis(30);
    let (own, all) = (
        used(CLOCK_THREAD_CPUTIME_ID),
        used(CLOCK_PROCESS_CPUTIME_ID),
    );
    let thread = thread::spawn(|| {
        let start = used(CLOCK_THREAD_CPUTIME_ID);
        burn(TIME);
        (start, used(CLOCK_THREAD_CPUTIME_ID))
    });
    let (start, end) = thread.join().map_err(|_| Failure::new("lost"))?;
    expect!(start < Duration::from_millis(20));
    expect!(end >= TIME);
    expect!(used(CLOCK_THREAD_CPUTIME_ID) - own < Duration::from_millis(20));
    expect!(used(CLOCK_PROCESS_CPUTIME_ID) - all >= TIME);
    Ok(())
}

fn rusage_of_a_thread() -> Outcome {
    fn used(who: i32) -> Duration {
        // SAFETY: the call fills the structure, for which zeros are valid.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &raw mut usage);
            usage
        };
        let of =
            |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        of(usage.ru_utime) + of(usage.ru_stime)
    }
    let thread = thread::spawn(|| {
        burn(Duration::from_millis(30));
        (used(libc::RUSAGE_THREAD), used(libc::RUSAGE_SELF))
    });
    let (own, all) = thread.join().map_err(|_| Failure::new("lost"))?;
    expect!(own >= Duration::from_millis(20));
    expect!(all >= own);
    Ok(())
}

fn proc_lists_the_threads() -> Outcome {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        for index in 0..2 {
            let (sender, stop) = (sender.clone(), &stop);
            let builder = thread::Builder::new().name(format!("listed{index}"));
            builder.spawn_scoped(scope, move || {
                let _ = sender.send(sys!(SYS_gettid));
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
            })?;
        }
        let outcome = (|| {
            let mut names = Vec::new();
            for _ in 0..2 {
                let tid = receiver.recv()??;
                let comm = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"))?;
                names.push(comm);
            }
            names.sort();
            expect_eq!(names, ["listed0\n", "listed1\n"]);
            // A thread that was joined is listed until it has quite ended.
            let listed = || std::fs::read_dir("/proc/self/task").map(Iterator::count);
            expect!(comes_true(|| listed().is_ok_and(|count| count == 3)));
            let status = std::fs::read_to_string("/proc/self/status")?;
            expect!(status.contains("Threads:\t3\n"));
            expect!(std::fs::read_dir("/proc/self/task/4000000").is_err());
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}
