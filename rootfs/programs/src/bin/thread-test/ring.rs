//! io_uring with several threads.

use crate::schedule::{pin_to, spin_until};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::{checks, expect, expect_eq};
use io_uring::{IoUring, opcode, types};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = checks![
    one_ring_from_several_threads,
    a_ring_for_each_thread,
    a_single_issuer_is_one_thread,
    deferred_work_is_the_issuers,
    a_thread_waits_while_another_submits,
    a_ring_completes_beside_a_spinning_thread,
    a_timeout_comes_though_its_thread_has_moved,
];

const EEXIST: i32 = libc::EEXIST;

fn one_ring_from_several_threads() -> Outcome {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let ring = IoUring::new(32)?;
    // The queues are shared under locks, as programs with one ring do; entering is not locked.
    let submission = Mutex::new(());
    let completion = Mutex::new(());
    let (sum, reaped) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for own in 0..THREADS {
            let (ring, submission, completion) = (&ring, &submission, &completion);
            let (sum, reaped, failed) = (&sum, &reaped, &failed);
            scope.spawn(move || {
                let mut pushed = 0;
                while reaped.load(Ordering::SeqCst) < THREADS * EACH
                    && !failed.load(Ordering::Relaxed)
                {
                    if pushed < EACH
                        && let Ok(_guard) = submission.lock()
                    {
                        let entry = opcode::Nop::new().build().user_data(own * EACH + pushed);
                        // SAFETY: the lock makes this the only user of the queue, and a NOP needs
                        // no memory.
                        pushed +=
                            u64::from(unsafe { ring.submission_shared().push(&entry) }.is_ok());
                    }
                    if ring.submit().is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    if let Ok(_guard) = completion.lock() {
                        // SAFETY: the lock makes this the only user of the queue.
                        for entry in unsafe { ring.completion_shared() } {
                            sum.fetch_add(entry.user_data(), Ordering::SeqCst);
                            reaped.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    if pushed == EACH {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    expect!(!failed.load(Ordering::Relaxed));
    let all = THREADS * EACH;
    expect_eq!(reaped.load(Ordering::SeqCst), all);
    expect_eq!(sum.load(Ordering::SeqCst), all * (all - 1) / 2);
    Ok(())
}

fn a_ring_for_each_thread() -> Outcome {
    fn work(own: u8) -> std::io::Result<u64> {
        let mut ring = IoUring::new(8)?;
        let (reader, mut writer) = std::io::pipe()?;
        let mut sum = 0;
        for round in 0..200_u8 {
            let mut byte = [0_u8];
            let fd = types::Fd(reader.as_raw_fd());
            let entry = opcode::Read::new(fd, byte.as_mut_ptr(), 1).build();
            // SAFETY: the byte outlives the read, which is waited for.
            unsafe { ring.submission().push(&entry) }.map_err(std::io::Error::other)?;
            ring.submit()?;
            thread::yield_now();
            writer.write_all(&[round ^ own])?;
            ring.submit_and_wait(1)?;
            let result = ring.completion().next().map(|entry| entry.result());
            sum += u64::from(result == Some(1) && byte == [round ^ own]);
        }
        Ok(sum)
    }
    let threads: Vec<_> = (0..4).map(|own| thread::spawn(move || work(own))).collect();
    for thread in threads {
        let sum = thread.join().map_err(|_| Failure::new("lost"))??;
        expect_eq!(sum, 200);
    }
    Ok(())
}

/// What another thread gets for a submission to `ring`, and for asking it for events.
fn from_another(ring: &mut IoUring) -> Result<[Option<i32>; 2], Failure> {
    let entry = opcode::Nop::new().build();
    // SAFETY: a NOP needs no memory.
    unsafe { ring.submission().push(&entry) }?;
    let ring = &*ring;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let error =
                |result: std::io::Result<usize>| result.err().and_then(|e| e.raw_os_error());
            // SAFETY: flags and no argument.
            let enter = |submit, flags| unsafe {
                error(
                    ring.submitter()
                        .enter::<libc::sigset_t>(submit, 0, flags, None),
                )
            };
            [enter(1, 0), enter(0, 1)]
        });
        thread.join().map_err(|_| Failure::new("lost"))
    })
}

fn a_single_issuer_is_one_thread() -> Outcome {
    let mut ring = IoUring::builder().setup_single_issuer().build(4)?;
    expect_eq!(from_another(&mut ring)?, [Some(EEXIST), None]);
    expect_eq!(ring.submit_and_wait(1)?, 1);
    // A ring that was disabled belongs to the thread that enables it.
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_r_disabled()
        .build(4)?;
    let enabled = thread::scope(|scope| {
        let thread = scope.spawn(|| ring.submitter().register_enable_rings().is_ok());
        thread.join().ok()
    });
    expect_eq!(enabled, Some(true));
    // SAFETY: a NOP needs no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }?;
    let refused = ring.submit().err().and_then(|error| error.raw_os_error());
    expect_eq!(refused, Some(EEXIST));
    Ok(())
}

fn deferred_work_is_the_issuers() -> Outcome {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(4)?;
    expect_eq!(from_another(&mut ring)?, [Some(EEXIST), Some(EEXIST)]);
    expect_eq!(ring.submit_and_wait(1)?, 1);
    Ok(())
}

fn a_thread_waits_while_another_submits() -> Outcome {
    let mut ring = IoUring::new(4)?;
    let mut entries = ring.submission();
    // SAFETY: a NOP needs no memory.
    unsafe { entries.push(&opcode::Nop::new().build().user_data(9)) }?;
    drop(entries);
    let ring = &mut ring;
    let shared = &*ring;
    let result = thread::scope(|scope| {
        // SAFETY: flags and no argument.
        let wait = || unsafe { shared.submitter().enter::<libc::sigset_t>(0, 1, 1, None) };
        let waiter = scope.spawn(wait);
        thread::sleep(Duration::from_millis(10));
        let is_waiting = !waiter.is_finished();
        // SAFETY: as above.
        let submitted = unsafe { shared.submitter().enter::<libc::sigset_t>(1, 0, 0, None) };
        let waited = waiter.join().map_err(|_| ErrorKind::Other.into());
        (is_waiting, submitted, waited.flatten())
    });
    expect!(result.0);
    expect_eq!(result.1?, 1);
    expect_eq!(result.2?, 0);
    expect_eq!(
        ring.completion().next().map(|entry| entry.user_data()),
        Some(9)
    );
    Ok(())
}

fn a_ring_completes_beside_a_spinning_thread() -> Outcome {
    let stop = AtomicBool::new(false);
    let mut ring = IoUring::new(4)?;
    thread::scope(|scope| {
        scope.spawn(|| spin_until(&stop));
        let time = types::Timespec::new().nsec(2_000_000);
        let mut wait = || -> Result<(), Failure> {
            for _ in 0..20 {
                let entry = opcode::Timeout::new(&raw const time).build();
                // SAFETY: the time outlives the ring's use of it.
                unsafe { ring.submission().push(&entry) }?;
                ring.submit_and_wait(1)?;
                let result = ring.completion().next().map(|entry| entry.result());
                expect_eq!(result, Some(-libc::ETIME));
            }
            Ok(())
        };
        let outcome = wait();
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

/// A thread starts a timeout on one CPU, goes to another and waits there, while the first computes
/// for somebody else.
fn a_timeout_comes_though_its_thread_has_moved() -> Outcome {
    let most = TIMEOUT + Duration::from_millis(100);
    let outcome = (0..8)
        .map(|_| timeout_after_move())
        .find(|time| time.as_ref().map_or(true, |time| *time < most));
    match outcome {
        Some(time) => time.map(|_| ()),
        None => Err(Failure::new("it came late each time")),
    }
}

const TIMEOUT: Duration = Duration::from_millis(50);

/// How long such a timeout takes.
fn timeout_after_move() -> Result<Duration, Failure> {
    let last = thread::available_parallelism()?.get() - 1;
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(4)?;
    let (is_spinning, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let time = types::Timespec::from(TIMEOUT);
    let entry = opcode::Timeout::new(&raw const time).build();
    thread::scope(|scope| {
        scope.spawn(|| {
            pin_to(0, || {
                is_spinning.store(true, Ordering::SeqCst);
                spin_until(&stop);
            })
        });
        while !is_spinning.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let mut start = Instant::now();
        pin_to(0, || {
            start = Instant::now();
            // SAFETY: the time outlives the ring's use of it.
            unsafe { ring.submission().push(&entry) }?;
            Ok::<_, Failure>(ring.submit()?)
        })??;
        let waited = pin_to(last, || {
            // Until the other has been found to be alone on its CPU.
            while start.elapsed() < TIMEOUT / 2 {}
            ring.submit_and_wait(1)
        });
        let taken = start.elapsed();
        stop.store(true, Ordering::SeqCst);
        waited??;
        let result = ring.completion().next().map(|entry| entry.result());
        expect_eq!(result, Some(-libc::ETIME));
        Ok(taken)
    })
}
