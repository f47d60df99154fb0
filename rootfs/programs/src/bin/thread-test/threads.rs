//! Threads as the standard library has them.

use guest_programs::check::{Check, Failure, Outcome, in_some_try};
use guest_programs::{checks, expect, expect_eq};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = checks![
    a_thread_returns_a_value,
    thread_locals_are_per_thread_and_dropped,
    thread_numbers_differ,
    names_are_per_thread,
    two_hundred_threads_at_once,
    many_threads_one_after_the_other,
    a_mutex_counts_right,
    a_condition_variable_passes_turns,
    waiting_for_a_condition_times_out,
    a_reader_writer_lock_excludes,
    channels_carry_everything,
    a_barrier_holds_all,
    parking_and_unparking,
    sleepers_wake_in_order,
    once_runs_once,
    memory_maps_and_unmaps_from_all_threads,
    vector_registers_are_per_thread,
    a_deep_stack_in_a_thread,
];

fn a_thread_returns_a_value() -> Outcome {
    let values: Vec<_> = (0..4).map(|n| thread::spawn(move || n * n)).collect();
    let values: Result<Vec<_>, _> = values.into_iter().map(thread::JoinHandle::join).collect();
    expect_eq!(values.ok(), Some(vec![0, 1, 4, 9]));
    Ok(())
}

fn thread_locals_are_per_thread_and_dropped() -> Outcome {
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    struct Counted(Cell<u32>);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(self.0.get(), Ordering::SeqCst);
        }
    }
    thread_local! {
        static LOCAL: Counted = const { Counted(Cell::new(0)) };
    }
    DROPPED.store(0, Ordering::SeqCst);
    let threads: Vec<_> = (1..=10)
        .map(|value| {
            thread::spawn(move || {
                let before = LOCAL.with(|local| local.0.replace(value));
                thread::yield_now();
                (before, LOCAL.with(|local| local.0.get()) == value)
            })
        })
        .collect();
    for thread in threads {
        expect_eq!(thread.join().ok(), Some((0, true)));
    }
    expect_eq!(DROPPED.load(Ordering::SeqCst), 55);
    Ok(())
}

fn gettid() -> usize {
    guest_programs::sys!(SYS_gettid).unwrap_or(0)
}

fn thread_numbers_differ() -> Outcome {
    let barrier = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let barrier = barrier.clone();
            thread::spawn(move || {
                barrier.wait();
                (gettid(), std::process::id())
            })
        })
        .collect();
    let mut numbers = HashSet::from([gettid()]);
    for thread in threads {
        let (tid, pid) = thread
            .join()
            .map_err(|_| Failure::new("a thread is lost"))?;
        expect_eq!(pid, std::process::id());
        expect!(numbers.insert(tid));
    }
    Ok(())
}

fn names_are_per_thread() -> Outcome {
    fn name() -> Vec<u8> {
        let mut name = [0_u8; 16];
        // SAFETY: PR_GET_NAME stores 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        name.split(|byte| *byte == 0).next().unwrap_or(&[]).to_vec()
    }
    let own = name();
    let builder = thread::Builder::new().name("with a long name".into());
    let other = builder.spawn(name)?.join();
    expect_eq!(other.ok(), Some(b"with a long nam".to_vec()));
    let inherited = thread::spawn(name).join();
    expect_eq!(inherited.ok(), Some(own.clone()));
    expect_eq!(name(), own);
    Ok(())
}

fn two_hundred_threads_at_once() -> Outcome {
    let barrier = Arc::new(Barrier::new(201));
    let sum = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for value in 0..200 {
        let (barrier, sum) = (barrier.clone(), sum.clone());
        let builder = thread::Builder::new().stack_size(64 << 10);
        threads.push(builder.spawn(move || {
            barrier.wait();
            sum.fetch_add(value, Ordering::Relaxed);
            barrier.wait();
        })?);
    }
    barrier.wait();
    barrier.wait();
    for thread in threads {
        expect!(thread.join().is_ok());
    }
    expect_eq!(sum.load(Ordering::Relaxed), 19900);
    Ok(())
}

fn many_threads_one_after_the_other() -> Outcome {
    let mut sum = 0_u64;
    for value in 0..1000 {
        sum += thread::spawn(move || value)
            .join()
            .map_err(|_| Failure::new("a thread is lost"))?;
    }
    expect_eq!(sum, 499_500);
    Ok(())
}

fn a_mutex_counts_right() -> Outcome {
    let counter = Mutex::new(0_u64);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..5000 {
                    if let Ok(mut counter) = counter.lock() {
                        *counter += 1;
                        if round % 64 == 0 {
                            thread::yield_now();
                        }
                    }
                }
            });
        }
    });
    expect_eq!(counter.into_inner().ok(), Some(40_000));
    Ok(())
}

fn a_condition_variable_passes_turns() -> Outcome {
    const THREADS: usize = 4;
    const ROUNDS: usize = 500;
    let (turn, changed) = (Mutex::new(0_usize), Condvar::new());
    thread::scope(|scope| {
        for own in 0..THREADS {
            let (turn, changed) = (&turn, &changed);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let Ok(guard) = turn.lock() else { return };
                    let waited = changed.wait_while(guard, |turn| *turn % THREADS != own);
                    let Ok(mut guard) = waited else { return };
                    *guard += 1;
                    changed.notify_all();
                }
            });
        }
    });
    expect_eq!(turn.into_inner().ok(), Some(THREADS * ROUNDS));
    Ok(())
}

fn waiting_for_a_condition_times_out() -> Outcome {
    let (lock, condition) = (Mutex::new(()), Condvar::new());
    let start = Instant::now();
    let guard = lock.lock().map_err(|_| Failure::new("poisoned"))?;
    let result = condition.wait_timeout_while(guard, Duration::from_millis(20), |()| true);
    let timed_out = result.is_ok_and(|(_, result)| result.timed_out());
    expect!(timed_out);
    expect!(start.elapsed() >= Duration::from_millis(20));
    Ok(())
}

fn a_reader_writer_lock_excludes() -> Outcome {
    let pair = RwLock::new((0_u64, 0_u64));
    let torn = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    if let Ok(mut pair) = pair.write() {
                        pair.0 += 1;
                        thread::yield_now();
                        pair.1 += 1;
                    }
                }
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    if let Ok(pair) = pair.read()
                        && pair.0 != pair.1
                    {
                        torn.store(true, Ordering::Relaxed);
                    }
                    thread::yield_now();
                }
            });
        }
    });
    expect!(!torn.load(Ordering::Relaxed));
    expect_eq!(pair.into_inner().ok(), Some((2000, 2000)));
    Ok(())
}

fn channels_carry_everything() -> Outcome {
    let (sender, receiver) = mpsc::sync_channel(4);
    let producers: Vec<_> = (0..4_u64)
        .map(|producer| {
            let sender = sender.clone();
            thread::spawn(move || {
                (0..2000).all(|value| sender.send(producer * 2000 + value).is_ok())
            })
        })
        .collect();
    drop(sender);
    let sum: u64 = receiver.iter().sum();
    expect_eq!(sum, (0..8000).sum::<u64>());
    for producer in producers {
        expect_eq!(producer.join().ok(), Some(true));
    }
    Ok(())
}

fn a_barrier_holds_all() -> Outcome {
    let barrier = Barrier::new(5);
    let arrived = AtomicU32::new(0);
    let early = AtomicBool::new(false);
    let leaders = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                for round in 1..=20 {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    if barrier.wait().is_leader() {
                        leaders.fetch_add(1, Ordering::SeqCst);
                    }
                    if arrived.load(Ordering::SeqCst) < 5 * round {
                        early.store(true, Ordering::SeqCst);
                    }
                    barrier.wait();
                }
            });
        }
    });
    expect!(!early.load(Ordering::SeqCst));
    expect_eq!(leaders.load(Ordering::SeqCst), 20);
    Ok(())
}

fn parking_and_unparking() -> Outcome {
    let main = thread::current();
    let turns = Arc::new(AtomicU32::new(0));
    let seen = turns.clone();
    let other = thread::spawn(move || {
        for turn in 0..1000 {
            while seen.load(Ordering::Acquire) != 2 * turn + 1 {
                thread::park();
            }
            seen.fetch_add(1, Ordering::AcqRel);
            main.unpark();
        }
    });
    for turn in 0..1000 {
        turns.fetch_add(1, Ordering::AcqRel);
        other.thread().unpark();
        while turns.load(Ordering::Acquire) != 2 * turn + 2 {
            thread::park();
        }
    }
    expect!(other.join().is_ok());
    let start = Instant::now();
    thread::park_timeout(Duration::from_millis(5));
    // A token may be left from before.
    thread::park_timeout(Duration::from_millis(5));
    expect!(start.elapsed() >= Duration::from_millis(5));
    Ok(())
}

fn sleepers_wake_in_order() -> Outcome {
    in_some_try(sleepers_wake_in_this_order)
}

fn sleepers_wake_in_this_order() -> Outcome {
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for turn in [3, 1, 2] {
            let order = &order;
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(turn * 30));
                if let Ok(mut order) = order.lock() {
                    order.push(turn);
                }
            });
        }
    });
    expect_eq!(order.into_inner().ok(), Some(vec![1, 2, 3]));
    Ok(())
}

fn once_runs_once() -> Outcome {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    RUNS.store(0, Ordering::SeqCst);
    let once = OnceLock::new();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                once.get_or_init(|| {
                    thread::sleep(Duration::from_millis(5));
                    RUNS.fetch_add(1, Ordering::SeqCst)
                });
            });
        }
    });
    expect_eq!(once.get(), Some(&0));
    expect_eq!(RUNS.load(Ordering::SeqCst), 1);
    Ok(())
}

fn memory_maps_and_unmaps_from_all_threads() -> Outcome {
    use guest_programs::sys::Mapping;
    const SIZE: usize = 256 << 10;
    let failed = AtomicU32::new(0);
    thread::scope(|scope| {
        for own in 1..=4_u8 {
            let failed = &failed;
            scope.spawn(move || {
                for _ in 0..100 {
                    let protection = libc::PROT_READ | libc::PROT_WRITE;
                    let Ok(mapping) = Mapping::new(SIZE, protection) else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    for offset in (0..SIZE).step_by(4096) {
                        // SAFETY: the mapping is this thread's own.
                        let is_fresh = unsafe {
                            let before = mapping.at(offset).read_volatile();
                            mapping.at(offset).write_volatile(own);
                            before == 0 && mapping.at(offset).read_volatile() == own
                        };
                        failed.fetch_add(u32::from(!is_fresh), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    expect_eq!(failed.load(Ordering::Relaxed), 0);
    Ok(())
}

fn vector_registers_are_per_thread() -> Outcome {
    let wrong = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for own in 1..=4_u64 {
            let (wrong, stop) = (&wrong, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let found: u64;
                    // SAFETY: a loop that touches nothing but the registers named; long enough to be
                    // interrupted.
                    unsafe {
                        std::arch::asm!(
                            "movq xmm15, {own}",
                            "mov {count:e}, 2000000",
                            "2: dec {count:e}",
                            "jnz 2b",
                            "movq {found}, xmm15",
                            own = in(reg) own,
                            count = out(reg) _,
                            found = lateout(reg) found,
                            out("xmm15") _,
                        );
                    }
                    wrong.fetch_add(u32::from(found != own), Ordering::Relaxed);
                }
            });
        }
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
    });
    expect_eq!(wrong.load(Ordering::Relaxed), 0);
    Ok(())
}

fn a_deep_stack_in_a_thread() -> Outcome {
    fn depth(left: u32) -> u64 {
        let frame = [u64::from(left); 64];
        match left {
            0 => 0,
            left => std::hint::black_box(&frame)[63] + depth(left - 1),
        }
    }
    let builder = thread::Builder::new().stack_size(8 << 20);
    let result = builder.spawn(|| depth(5000))?.join();
    expect_eq!(result.ok(), Some(5000 * 5001 / 2));
    Ok(())
}
