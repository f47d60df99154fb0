//! Mutexes, condition variables, barriers and reader-writer locks, as programs use futexes.

use crate::crew::{self, Worker};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::{checks, expect_eq};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, LockResult, Mutex, RwLock};
use std::thread;
use std::time::Duration;

pub(crate) const CHECKS: &[Check] = checks![
    a_mutex_excludes,
    conditions_pass_everything_on,
    barriers_separate_rounds,
    readers_and_writers_exclude,
];

const ROOM: usize = 4;
const PRODUCERS: usize = 3;
const CONSUMERS: usize = 3;
const PLAYERS: usize = 5;

/// The guard, if no worker has panicked with the lock.
fn taken<G>(result: LockResult<G>) -> Result<G, Failure> {
    result.map_err(|_| Failure::new("poisoned"))
}

pub(crate) fn a_mutex_excludes() -> Outcome {
    let pair = Mutex::new([0_u64; 2]);
    let total = AtomicU64::new(0);
    crew::run(
        "a_mutex_excludes",
        &[("worker", 6, &|worker: &mut Worker<'_>| {
            let mut own = 0;
            while worker.goes_on() {
                let mut pair = taken(pair.lock())?;
                let before = pair[0];
                pair[0] += 1;
                match worker.random.below(16) {
                    0 => thread::yield_now(),
                    1..4 => worker.random.pause(),
                    _ => {}
                }
                pair[1] += 1;
                expect_eq!(*pair, [before + 1; 2]);
                own += 1;
            }
            total.fetch_add(own, Ordering::SeqCst);
            Ok(())
        })],
    )?;
    expect_eq!(*taken(pair.lock())?, [total.into_inner(); 2]);
    Ok(())
}

/// A queue with little room, between producers and consumers.
#[derive(Default)]
struct Queue {
    items: VecDeque<u64>,
    producers_gone: usize,
}

fn conditions_pass_everything_on() -> Outcome {
    let queue = Mutex::new(Queue::default());
    let (has_items, has_room) = (Condvar::new(), Condvar::new());
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    crew::run(
        "conditions_pass_everything_on",
        &[
            ("producer", PRODUCERS, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let item = worker.random.below(1 << 30);
                    let queue = taken(queue.lock())?;
                    let is_full = |queue: &mut Queue| queue.items.len() == ROOM;
                    let mut queue = taken(has_room.wait_while(queue, is_full))?;
                    queue.items.push_back(item);
                    drop(queue);
                    has_items.notify_one();
                    sent.fetch_add(item, Ordering::SeqCst);
                }
                taken(queue.lock())?.producers_gone += 1;
                has_items.notify_all();
                Ok(())
            }),
            ("consumer", CONSUMERS, &|worker: &mut Worker<'_>| {
                loop {
                    worker.step();
                    let guard = taken(queue.lock())?;
                    let has_none = |queue: &mut Queue| {
                        queue.items.is_empty() && queue.producers_gone < PRODUCERS
                    };
                    let mut guard = if worker.random.once_in(2) {
                        let time = Duration::from_micros(worker.random.below(500));
                        match has_items.wait_timeout_while(guard, time, has_none) {
                            Ok((guard, _)) => guard,
                            Err(_) => return Err(Failure::new("poisoned")),
                        }
                    } else {
                        taken(has_items.wait_while(guard, has_none))?
                    };
                    let is_over = guard.producers_gone == PRODUCERS;
                    let item = guard.items.pop_front();
                    drop(guard);
                    match item {
                        Some(item) => {
                            has_room.notify_one();
                            received.fetch_add(item, Ordering::SeqCst);
                        }
                        // One who gives up may have been the one that was told.
                        None if !is_over => has_items.notify_one(),
                        None => return Ok(()),
                    }
                }
            }),
        ],
    )?;
    expect_eq!(sent.into_inner(), received.into_inner());
    Ok(())
}

fn barriers_separate_rounds() -> Outcome {
    let barrier = Barrier::new(PLAYERS);
    let arrived = AtomicUsize::new(0);
    let (leaders, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    crew::run(
        "barriers_separate_rounds",
        &[("player", PLAYERS, &|worker: &mut Worker<'_>| {
            for round in 1.. {
                let goes_on = worker.goes_on();
                if worker.random.once_in(8) {
                    worker.random.pause();
                }
                arrived.fetch_add(1, Ordering::SeqCst);
                if barrier.wait().is_leader() {
                    leaders.fetch_add(1, Ordering::SeqCst);
                    // Nobody looks before the next barrier.
                    is_over.fetch_or(!goes_on, Ordering::SeqCst);
                }
                let arrived = arrived.load(Ordering::SeqCst);
                expect_eq!(arrived, PLAYERS * round);
                barrier.wait();
                expect_eq!(leaders.load(Ordering::SeqCst), round);
                let is_over = is_over.load(Ordering::SeqCst);
                barrier.wait();
                if is_over {
                    break;
                }
            }
            Ok(())
        })],
    )
}

fn readers_and_writers_exclude() -> Outcome {
    let triple = RwLock::new([0_u64; 3]);
    let writes = AtomicU64::new(0);
    crew::run(
        "readers_and_writers_exclude",
        &[
            ("writer", 2, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let mut triple = taken(triple.write())?;
                    triple[0] += 1;
                    worker.random.pause();
                    triple[1] += 1;
                    if worker.random.once_in(8) {
                        thread::yield_now();
                    }
                    triple[2] += 1;
                    drop(triple);
                    writes.fetch_add(1, Ordering::SeqCst);
                    worker.random.pause();
                }
                Ok(())
            }),
            ("reader", 4, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let triple = taken(triple.read())?;
                    expect_eq!(*triple, [triple[0]; 3]);
                    drop(triple);
                    // Readers must leave writers a chance, which the lock does not promise.
                    worker.random.pause();
                }
                Ok(())
            }),
        ],
    )?;
    expect_eq!(*taken(triple.read())?, [writes.into_inner(); 3]);
    Ok(())
}
