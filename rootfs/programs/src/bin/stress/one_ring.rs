//! One ring that several threads use: some submit, some wait, some do both.

use crate::crew::{self, Worker};
use crate::jobs::{BLOCK, Place};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::create;
use guest_programs::{checks, expect_eq};
use io_uring::{IoUring, opcode, types};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, TryLockError};
use std::thread;
use std::time::Duration;

pub(crate) const CHECKS: &[Check] = checks![
    several_threads_submit_and_one_waits,
    several_threads_submit_and_wait
];

const SUBMITTERS: usize = 3;
/// Jobs that each submitter has under way at most.
const DEPTH: usize = 6;
/// The number of the request by which the last submitter ends the waiting.
const END: u64 = u64::MAX;

/// A ring, locks for its two queues, and the jobs that are under way.
struct Shared {
    ring: IoUring,
    submission: Mutex<()>,
    completion: Mutex<()>,
    places: Vec<Mutex<Place>>,
    submitters: AtomicUsize,
    /// What the places name by its number.
    _file: OwnedFd,
}

impl Shared {
    fn new() -> Result<Self, Failure> {
        let count = SUBMITTERS * DEPTH;
        let file = create(c"places", &vec![0; count * BLOCK])?;
        let place = |number| Place::new(number as u64, &file).map(Mutex::new);
        let places = (0..count).map(place).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            ring: IoUring::new(2 * count as u32)?,
            submission: Mutex::new(()),
            completion: Mutex::new(()),
            places,
            submitters: AtomicUsize::new(SUBMITTERS),
            _file: file,
        })
    }

    /// Starts jobs in the places that are a submitter's own, as chance will have it, and submits them.
    fn submit(&self, worker: &mut Worker<'_>) -> Outcome {
        let own = worker.number * DEPTH;
        for place in &self.places[own..own + DEPTH] {
            let mut place = place.lock().map_err(|_| Failure::new("poisoned"))?;
            if place.is_busy() || worker.random.once_in(3) {
                continue;
            }
            let entries = place.start(&mut worker.random);
            drop(place);
            let _guard = self.submission.lock();
            // SAFETY: the lock makes this the only user of the queue; places live longer than
            // their requests.
            unsafe { self.ring.submission_shared().push_multiple(&entries) }?;
        }
        // What it submits may be what others have queued. Under the lock: a submission that counts
        // what is queued while others add to it may end in the middle of a chain, which it cuts.
        let _guard = self.submission.lock();
        self.ring.submit()?;
        Ok(())
    }

    /// Waits for a completion for a while.
    fn wait(&self, time: Duration) -> Outcome {
        /// `struct io_uring_getevents_arg`.
        #[repr(C)]
        struct Arguments {
            signals: u64,
            size: u32,
            patience: u32,
            time: u64,
        }
        const GETEVENTS: u32 = 1 << 0;
        const EXT_ARG: u32 = 1 << 3;
        let time = types::Timespec::from(time);
        let arguments = Arguments {
            signals: 0,
            size: 0,
            patience: 0,
            time: &raw const time as u64,
        };
        // Submits nothing, unlike `submit_with_args`.
        // SAFETY: the arguments are what the flags say, and outlive the call.
        let waited = unsafe {
            let submitter = self.ring.submitter();
            submitter.enter(0, 1, GETEVENTS | EXT_ARG, Some(&arguments))
        };
        match waited {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes what has completed, if nobody else does; true if that was the end.
    fn reap(&self) -> Result<bool, Failure> {
        let _guard = match self.completion.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Poisoned(_)) => return Err(Failure::new("poisoned")),
        };
        let mut is_end = false;
        // SAFETY: the lock makes this the only user of the queue.
        for entry in unsafe { self.ring.completion_shared() } {
            if entry.user_data() == END {
                is_end = true;
                continue;
            }
            let place = self.places.get(Place::of(entry.user_data()));
            let place = place.ok_or_else(|| Failure::new(format!("unexpected {entry:?}")))?;
            let mut place = place.lock().map_err(|_| Failure::new("poisoned"))?;
            place.complete(entry.user_data(), entry.result())?;
        }
        Ok(is_end)
    }

    fn is_idle(&self, places: std::ops::Range<usize>) -> Result<bool, Failure> {
        for place in &self.places[places] {
            let place = place.lock().map_err(|_| Failure::new("poisoned"))?;
            if place.is_busy() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Leaks what requests may still use when a check has failed.
fn finish(shared: Shared, outcome: Outcome) -> Outcome {
    if outcome.is_err() {
        std::mem::forget(shared);
    }
    outcome
}

/// The one who waits has no patience to lose: a completion that does not wake it stalls all.
pub(crate) fn several_threads_submit_and_one_waits() -> Outcome {
    let shared = Shared::new()?;
    let outcome = crew::run(
        "several_threads_submit_and_one_waits",
        &[
            ("submitter", SUBMITTERS, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    shared.submit(worker)?;
                    match worker.random.below(3) {
                        0 => thread::yield_now(),
                        1 => worker.random.pause(),
                        _ => thread::sleep(Duration::from_micros(worker.random.below(300))),
                    }
                }
                let own = worker.number * DEPTH..(worker.number + 1) * DEPTH;
                while !shared.is_idle(own.clone())? {
                    thread::sleep(Duration::from_micros(100));
                }
                if shared.submitters.fetch_sub(1, Ordering::SeqCst) == 1 {
                    let entry = opcode::Nop::new().build().user_data(END);
                    let _guard = shared.submission.lock();
                    // SAFETY: the lock makes this the only user of the queue.
                    unsafe { shared.ring.submission_shared().push(&entry) }?;
                    shared.ring.submit()?;
                }
                Ok(())
            }),
            ("waiter", 1, &|worker: &mut Worker<'_>| {
                let count = |worker: &mut Worker<'_>| worker.random.below(2) as u32;
                loop {
                    worker.step();
                    // SAFETY: flags and no argument.
                    unsafe {
                        let submitter = shared.ring.submitter();
                        submitter.enter::<libc::sigset_t>(0, count(worker), 1, None)?;
                    }
                    if shared.reap()? {
                        return Ok(());
                    }
                }
            }),
        ],
    );
    if outcome.is_ok() {
        expect_eq!(shared.is_idle(0..SUBMITTERS * DEPTH)?, true);
    }
    finish(shared, outcome)
}

/// All submit, and all wait, for what one of the others may then take.
fn several_threads_submit_and_wait() -> Outcome {
    let shared = Shared::new()?;
    let outcome = crew::run(
        "several_threads_submit_and_wait",
        &[("user", SUBMITTERS, &|worker: &mut Worker<'_>| {
            let own = worker.number * DEPTH..(worker.number + 1) * DEPTH;
            loop {
                if worker.goes_on() {
                    shared.submit(worker)?;
                } else if shared.is_idle(own.clone())? {
                    return Ok(());
                }
                shared.wait(Duration::from_micros(worker.random.below(2000)))?;
                shared.reap()?;
            }
        })],
    );
    finish(shared, outcome)
}
