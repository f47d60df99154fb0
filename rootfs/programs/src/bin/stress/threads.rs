//! Starting threads and waiting for their end.

use crate::crew::{self, Worker};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::{checks, expect_eq};
use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(crate) const CHECKS: &[Check] = checks![threads_start_and_join, many_threads_at_once];

/// Threads that exist at once, of one worker.
const BATCH: u64 = 12;
const MANY: usize = 150;

thread_local! {
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// What a short-lived thread computes: with a stack, thread-local storage and chance.
fn compute(input: u64, depth: u32) -> u64 {
    let scratch = std::hint::black_box([input; 32]);
    let before = OWN.replace(input);
    let below = match depth {
        0 => 0,
        depth => compute(input + 1, depth - 1),
    };
    OWN.set(before);
    scratch.iter().sum::<u64>() / 32 + below
}

pub(crate) fn threads_start_and_join() -> Outcome {
    crew::run(
        "threads_start_and_join",
        &[("starter", 4, &|worker: &mut Worker<'_>| {
            while worker.goes_on() {
                let inputs: Vec<_> = (0..1 + worker.random.below(BATCH))
                    .map(|_| worker.random.below(1 << 40))
                    .collect();
                let threads = inputs.iter().map(|&input| {
                    let builder = thread::Builder::new().stack_size(64 << 10);
                    builder.spawn(move || (OWN.get(), compute(input, (input % 32) as u32)))
                });
                let threads = threads.collect::<Result<Vec<_>, _>>()?;
                if worker.random.once_in(2) {
                    worker.random.pause();
                }
                for (input, thread) in inputs.into_iter().zip(threads) {
                    let result = thread.join().map_err(|_| Failure::new("lost"))?;
                    expect_eq!(result, (0, compute(input, (input % 32) as u32)));
                }
            }
            Ok(())
        })],
    )
}

fn many_threads_at_once() -> Outcome {
    crew::run(
        "many_threads_at_once",
        &[("starter", 1, &|worker: &mut Worker<'_>| {
            while worker.goes_on() {
                let all = Barrier::new(MANY);
                let (present, seen) = (AtomicUsize::new(0), AtomicUsize::new(0));
                thread::scope(|scope| {
                    for _ in 0..MANY {
                        scope.spawn(|| {
                            present.fetch_add(1, Ordering::SeqCst);
                            all.wait();
                            let count = present.load(Ordering::SeqCst);
                            seen.fetch_add(usize::from(count == MANY), Ordering::SeqCst);
                        });
                    }
                });
                expect_eq!(seen.load(Ordering::SeqCst), MANY);
            }
            Ok(())
        })],
    )
}
