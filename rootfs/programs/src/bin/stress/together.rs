//! Checks of several kinds at the same time: what they have in common is the kernel.

use crate::{files, futexes, locks, one_ring, remapping, rings, slots, threads, timers};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::checks;
use std::thread;

pub(crate) const CHECKS: &[Check] = checks![everything_at_once];

macro_rules! parts {
    ($($part:path),* $(,)?) => { [$((stringify!($part), $part)),*] };
}

/// A check with its name.
type Part = (&'static str, fn() -> Outcome);

/// What is checked together.
const PARTS: [Part; 9] = parts![
    threads::threads_start_and_join,
    futexes::pairs_take_turns,
    locks::a_mutex_excludes,
    remapping::replaced_pages_are_seen_by_all,
    slots::pages_are_as_they_were_left,
    files::private_copies_are_seen_by_all,
    rings::a_ring_on_every_cpu,
    one_ring::several_threads_submit_and_one_waits,
    timers::times_come_on_idle_cpus,
];

fn everything_at_once() -> Outcome {
    thread::scope(|scope| {
        let threads = PARTS.map(|(name, part)| (name, scope.spawn(part)));
        let outcomes = threads.map(|(name, thread)| {
            let outcome = thread.join().map_err(|_| Failure::new("lost")).flatten();
            outcome.map_err(|why| Failure::new(format!("{name}: {why}")))
        });
        outcomes.into_iter().collect()
    })
}
