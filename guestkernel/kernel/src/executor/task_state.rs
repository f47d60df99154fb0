//! Whether a task is queued, runs, or waits: so that it is queued once, runs on one CPU at a time,
//! and misses no wake-up.

use crate::sync::{AtomicU8, Ordering};

/// It waits to be woken.
const IDLE: u8 = 0;
/// It is in a queue.
const QUEUED: u8 = 1;
/// A CPU runs it.
const RUNNING: u8 = 2;
/// A CPU runs it, and it was woken meanwhile.
const WOKEN: u8 = 3;
/// It has ended.
const DONE: u8 = 4;

/// The state of a task.
#[derive(Debug)]
pub(super) struct TaskState(AtomicU8);

impl TaskState {
    /// That of a task that is about to be queued.
    pub(super) fn queued() -> Self {
        Self(AtomicU8::new(QUEUED))
    }

    /// Notes a wake-up; true if the caller must queue the task.
    pub(super) fn wake(&self) -> bool {
        let woken = |state| match state {
            IDLE => Some(QUEUED),
            RUNNING => Some(WOKEN),
            // Whoever runs it next sees what the waker did before: the exchange, though it changes
            // nothing, orders the two.
            state => Some(state),
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, woken);
        before == Ok(IDLE)
    }

    /// A CPU has taken the task from its queue and runs it.
    pub(super) fn start(&self) {
        self.0.swap(RUNNING, Ordering::AcqRel);
    }

    /// The task waits; true if the caller must queue it again, since it was woken meanwhile.
    pub(super) fn suspend(&self) -> bool {
        let exchange = self
            .0
            .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if exchange.is_ok() {
            return false;
        }
        self.0.store(QUEUED, Ordering::Release);
        true
    }

    /// In a word.
    pub(super) fn name(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            IDLE => "waiting",
            QUEUED => "ready",
            RUNNING => "running",
            WOKEN => "running, woken",
            _ => "done",
        }
    }

    /// The task has ended: wake-ups have no effect any more.
    pub(super) fn end(&self) {
        self.0.store(DONE, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use alloc::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize};
    use loom::thread;

    /// A task that looks at a flag, and what wakes and runs it.
    struct Task {
        state: TaskState,
        is_set: AtomicBool,
        has_seen: AtomicBool,
        is_polled: AtomicBool,
        queued: AtomicUsize,
    }

    impl Task {
        fn wake(&self) {
            if self.state.wake() {
                assert_eq!(
                    self.queued.fetch_add(1, Ordering::AcqRel),
                    0,
                    "queued twice"
                );
            }
        }

        fn run(&self) {
            if self.queued.swap(0, Ordering::AcqRel) == 0 {
                return;
            }
            self.state.start();
            assert!(!self.is_polled.swap(true, Ordering::Relaxed), "runs twice");
            if self.is_set.load(Ordering::Relaxed) {
                self.has_seen.store(true, Ordering::Relaxed);
            }
            self.is_polled.store(false, Ordering::Relaxed);
            if self.state.suspend() {
                assert_eq!(
                    self.queued.fetch_add(1, Ordering::AcqRel),
                    0,
                    "queued twice"
                );
            }
        }
    }

    #[test]
    fn no_wake_up_is_missed_and_none_runs_it_twice() {
        loom::model(|| {
            let task = Arc::new(Task {
                state: TaskState::queued(),
                is_set: AtomicBool::new(false),
                has_seen: AtomicBool::new(false),
                is_polled: AtomicBool::new(false),
                queued: AtomicUsize::new(1),
            });
            let of = |act: fn(&Task)| {
                let task = task.clone();
                thread::spawn(move || act(&task))
            };
            let waker = of(|task| {
                task.is_set.store(true, Ordering::Relaxed);
                task.wake();
            });
            let other_cpu = of(Task::run);
            task.run();
            waker.join().unwrap();
            other_cpu.join().unwrap();
            task.run();
            assert!(task.has_seen.load(Ordering::Relaxed));
            assert_eq!(task.queued.load(Ordering::Relaxed), 0);
        });
    }
}
