//! Threads that nobody waits for: their stacks are unmapped while others run.

use crate::crew::{self, Worker};
use guest_programs::check::{Check, Outcome};
use guest_programs::{checks, expect};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) const CHECKS: &[Check] = checks![detached_threads_end];

/// Detached threads that may exist at once, of one worker.
const MOST: u64 = 20;
/// The C library keeps 40 MiB of stacks for new threads: with these it has to unmap some.
const STACK: usize = 8 << 20;

/// Threads that the process has.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count())
}

fn detached_threads_end() -> Outcome {
    let before = threads();
    crew::run(
        "detached_threads_end",
        &[("starter", 3, &|worker: &mut Worker<'_>| {
            let running = Arc::new(AtomicU64::new(0));
            let (mut started, ended) = (0, Arc::new(AtomicU64::new(0)));
            while worker.goes_on() {
                if running.load(Ordering::SeqCst) >= MOST {
                    thread::yield_now();
                    continue;
                }
                running.fetch_add(1, Ordering::SeqCst);
                started += 1;
                let (running, ended) = (running.clone(), ended.clone());
                let turns = worker.random.below(2000);
                thread::Builder::new().stack_size(STACK).spawn(move || {
                    for _ in 0..turns {
                        std::hint::spin_loop();
                    }
                    if turns.is_multiple_of(8) {
                        thread::sleep(Duration::from_micros(turns));
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                    running.fetch_sub(1, Ordering::SeqCst);
                })?;
            }
            // The watchdog sees to it that this ends.
            while ended.load(Ordering::SeqCst) < started {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })],
    )?;
    // They have said so before they were gone. Only other checks may have started some.
    let mut left = threads();
    for _ in 0..1000 {
        if left <= before {
            break;
        }
        thread::sleep(Duration::from_millis(10));
        left = threads();
    }
    expect!(left <= before);
    Ok(())
}
