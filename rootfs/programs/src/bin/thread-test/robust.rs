//! Robust mutexes: one whose owner has ended can be had, and says so.

use guest_programs::check::{Check, Outcome};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

pub(crate) const CHECKS: &[Check] = checks![
    robust_mutex_of_a_thread_that_has_ended,
    robust_mutex_wakes_one_who_waits,
    robust_list_is_kept_per_thread,
];

/// A robust mutex of the C library.
struct Robust(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: what the C library does with a mutex may be done from any thread.
unsafe impl Send for Robust {}
// SAFETY: as above.
unsafe impl Sync for Robust {}

impl Robust {
    fn new() -> Arc<Self> {
        let mut attributes = MaybeUninit::uninit();
        let mutex = Arc::new(Self(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)));
        // SAFETY: the attributes are initialised first, and the mutex has its final address.
        unsafe {
            libc::pthread_mutexattr_init(attributes.as_mut_ptr());
            libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(mutex.0.get(), attributes.as_ptr());
        }
        mutex
    }

    fn lock(&self) -> i32 {
        // SAFETY: it is initialised.
        unsafe { libc::pthread_mutex_lock(self.0.get()) }
    }

    fn repair_and_unlock(&self) -> (i32, i32) {
        // SAFETY: it is initialised.
        unsafe {
            (
                libc::pthread_mutex_consistent(self.0.get()),
                libc::pthread_mutex_unlock(self.0.get()),
            )
        }
    }
}

fn robust_mutex_of_a_thread_that_has_ended() -> Outcome {
    let mutex = Robust::new();
    let other = mutex.clone();
    expect_eq!(thread::spawn(move || other.lock()).join().ok(), Some(0));
    expect_eq!(mutex.lock(), libc::EOWNERDEAD);
    expect_eq!(mutex.repair_and_unlock(), (0, 0));
    expect_eq!(mutex.lock(), 0);
    Ok(())
}

fn robust_mutex_wakes_one_who_waits() -> Outcome {
    let mutex = Robust::new();
    let other = mutex.clone();
    let (sender, receiver) = mpsc::channel();
    let owner = thread::spawn(move || {
        let _ = sender.send(other.lock());
        // Time for the others to wait; what they get is the same if they come later.
        thread::sleep(Duration::from_millis(30));
    });
    expect_eq!(receiver.recv()?, 0);
    let waiters = [(); 2].map(|()| {
        let mutex = mutex.clone();
        thread::spawn(move || {
            let result = mutex.lock();
            (result, mutex.repair_and_unlock().1)
        })
    });
    expect!(owner.join().is_ok());
    let mut results = Vec::new();
    for waiter in waiters {
        results.extend(waiter.join().ok());
    }
    results.sort_unstable();
    expect_eq!(results, [(0, 0), (libc::EOWNERDEAD, 0)]);
    Ok(())
}

fn robust_list_is_kept_per_thread() -> Outcome {
    let get = || {
        let (mut head, mut size) = (0_u64, 0_u64);
        sys!(SYS_get_robust_list, 0, &raw mut head, &raw mut size).map(|_| (head, size))
    };
    let (own, size) = get()?;
    expect_eq!(size, 24);
    let other = thread::spawn(get).join();
    expect!(other.is_ok_and(|other| other.is_ok_and(|(head, _)| head != 0 && head != own)));
    fails!(EINVAL, SYS_set_robust_list, own as i64, 23);
    let (mut head, mut length) = (0_u64, 0_u64);
    fails!(
        ESRCH,
        SYS_get_robust_list,
        4_000_000,
        &raw mut head,
        &raw mut length
    );
    Ok(())
}
