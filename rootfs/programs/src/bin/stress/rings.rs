//! A ring for each CPU, and threads that may use that CPU only, each with its own ring.

use crate::affinity::{allowed, confine};
use crate::crew::{self, Worker};
use crate::jobs::{BLOCK, Place};
use guest_programs::check::{Check, Context, Failure, Outcome};
use guest_programs::sys::{create, open};
use guest_programs::{checks, expect_eq, sys};
use io_uring::{IoUring, types};
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(crate) const CHECKS: &[Check] =
    checks![a_ring_on_every_cpu; disk: a_ring_on_every_cpu_for_a_disk];

/// Jobs under way at once, in one ring.
const DEPTH: usize = 16;

/// How a worker gets at its completions.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// It looks at the queue without entering the kernel, at times.
    Looking,
    /// The ring does nothing but when it is entered (`IORING_SETUP_DEFER_TASKRUN`).
    Deferred,
}

/// Jobs of all kinds in a ring of the worker's own; the blocks of `file` from `first` on are its.
fn play(worker: &mut Worker<'_>, manner: Manner, file: &OwnedFd, first: u64) -> Outcome {
    let mut builder = IoUring::builder();
    if manner == Manner::Deferred {
        builder.setup_single_issuer().setup_defer_taskrun();
    }
    let mut ring = builder.build(2 * DEPTH as u32)?;
    let mut places = (first..)
        .take(DEPTH)
        .map(|number| Place::new(number, file))
        .collect::<Result<Vec<_>, _>>()?;
    // Requests use the places' memory: they are leaked rather than dropped when a check has failed.
    let outcome = play_in(worker, manner, &mut ring, &mut places, first);
    if outcome.is_err() {
        std::mem::forget((ring, places));
    }
    outcome
}

fn play_in(
    worker: &mut Worker<'_>,
    manner: Manner,
    ring: &mut IoUring,
    places: &mut [Place],
    first: u64,
) -> Outcome {
    loop {
        let goes_on = worker.goes_on();
        for place in places.iter_mut() {
            if goes_on && !place.is_busy() && worker.random.once_in(2) {
                let entries = place.start(&mut worker.random);
                // SAFETY: the place lives until its requests have completed.
                unsafe { ring.submission().push_multiple(&entries) }?;
            }
        }
        let is_any_busy = places.iter().any(Place::is_busy);
        if !goes_on && !is_any_busy {
            expect_eq!(ring.completion().len(), 0);
            return Ok(());
        }
        match worker.random.below(4) {
            0 if manner == Manner::Looking => {
                ring.submit()?;
                // What completes is there without a system call.
                while is_any_busy && ring.completion().is_empty() {
                    worker.step();
                    std::hint::spin_loop();
                }
            }
            1 if is_any_busy => {
                let time = Duration::from_micros(worker.random.below(500)).into();
                let arguments = types::SubmitArgs::new().timespec(&time);
                match ring.submitter().submit_with_args(1, &arguments) {
                    Err(error) if error.raw_os_error() != Some(libc::ETIME) => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
            _ => {
                ring.submit_and_wait(usize::from(is_any_busy))?;
            }
        }
        for entry in ring.completion() {
            let place = Place::of(entry.user_data()).wrapping_sub(first as usize);
            match places.get_mut(place) {
                Some(place) => place.complete(entry.user_data(), entry.result())?,
                None => return Err(Failure::new(format!("unexpected {entry:?}"))),
            }
        }
    }
}

/// On each CPU two threads, with a ring and a part of the file each.
fn on_every_cpu(check: &'static str, file: &OwnedFd) -> Outcome {
    let cpus = allowed()?;
    let work = |worker: &mut Worker<'_>, manner: Manner, turn: usize| {
        confine(0, &[cpus[worker.number]])?;
        let first = (2 * worker.number + turn) * DEPTH;
        play(worker, manner, file, first as u64)
    };
    crew::run(
        check,
        &[
            ("looking", cpus.len(), &|worker: &mut Worker<'_>| {
                work(worker, Manner::Looking, 0)
            }),
            ("deferred", cpus.len(), &|worker: &mut Worker<'_>| {
                work(worker, Manner::Deferred, 1)
            }),
        ],
    )
}

pub(crate) fn a_ring_on_every_cpu() -> Outcome {
    let bytes = 2 * crew::cpus() * DEPTH * BLOCK;
    on_every_cpu("a_ring_on_every_cpu", &create(c"blocks", &vec![0; bytes])?)
}

fn a_ring_on_every_cpu_for_a_disk(context: &Context) -> Outcome {
    let disk = open(&context.disk, libc::O_RDWR | libc::O_DIRECT)?;
    let zeros = guest_programs::aligned::AlignedBuffer::new(2 * crew::cpus() * DEPTH * BLOCK)?;
    let written = sys!(SYS_pwrite64, &disk, zeros.as_ptr(), zeros.len(), 0);
    expect_eq!(written, Ok(zeros.len()));
    on_every_cpu("a_ring_on_every_cpu_for_a_disk", &disk)
}
