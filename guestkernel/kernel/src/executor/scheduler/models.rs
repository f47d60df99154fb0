//! Model checks: two or three CPUs, every order of their steps.

use super::*;
use alloc::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

type Cpus = Scheduler<u32, 3>;

const ANYWHERE: u64 = u64::MAX;

fn cpus(count: u32) -> Arc<Cpus> {
    let cpus = Cpus::new();
    cpus.set_count(count);
    Arc::new(cpus)
}

fn place(allowed: u64, last: u32) -> CpuChoice {
    CpuChoice {
        allowed,
        last,
        goes_on: false,
    }
}

/// What CPU `this` does when it has nothing to do, up to the halt: true if it found something.
fn idle(cpus: &Cpus, this: u32) -> bool {
    let finds = || cpus.work(this) > 0 || cpus.has_threads(this) || cpus.has_others(this);
    cpus.polls(this);
    let mut has_found = finds();
    if !has_found {
        cpus.halts(this);
        has_found = finds();
    }
    has_found
}

/// A thread comes to a CPU that is going to halt.
#[test]
fn a_cpu_that_halts_sees_a_thread_that_must_run_there_or_is_interrupted() {
    loom::model(|| {
        let cpus = cpus(2);
        let other = {
            let cpus = cpus.clone();
            thread::spawn(move || cpus.add_thread(0, 7, place(0b10, 1)))
        };
        let has_found = idle(&cpus, 1);
        if !has_found {
            assert_ne!(other.join().unwrap() & 0b10, 0);
        }
        cpus.note_busy(1);
        // When it was not interrupted it had polled and seen it, or sees it now.
        if has_found {
            assert_eq!(cpus.take_thread(1), Some(7));
        }
    });
}

/// As above, for a CPU that runs a program for as long as that likes.
#[test]
fn a_cpu_without_time_limit_sees_a_thread_that_must_run_there_or_is_interrupted() {
    loom::model(|| {
        let cpus = cpus(2);
        let other = {
            let cpus = cpus.clone();
            thread::spawn(move || cpus.add_thread(0, 7, place(0b10, 1)))
        };
        cpus.runs_unlimited(1);
        let has_found = cpus.has_threads(1);
        assert!(other.join().unwrap() & 0b10 != 0 || has_found);
    });
}

/// A busy CPU queues a thread behind the one that it runs while another CPU becomes idle.
#[test]
fn no_thread_waits_while_a_cpu_halts() {
    loom::model(|| {
        let cpus = cpus(2);
        let busy = {
            let cpus = cpus.clone();
            thread::spawn(move || cpus.add_thread(0, 7, place(ANYWHERE, 0)))
        };
        let has_found = idle(&cpus, 1);
        let interrupted = busy.join().unwrap() & 0b10 != 0;
        assert!(has_found || interrupted);
        cpus.note_busy(1);
        assert_eq!(cpus.take_thread(1), Some(7));
        assert!(!cpus.has_others(1), "nothing is left");
    });
}

/// A thread has used up its time, and goes behind another that waits on its CPU.
#[test]
fn an_idle_cpu_gets_one_of_two_that_take_turns() {
    loom::model(|| {
        let cpus = cpus(2);
        assert_eq!(cpus.add_thread(0, 1, place(0b01, 0)), 0);
        let busy = {
            let cpus = cpus.clone();
            thread::spawn(move || {
                let goes_on = CpuChoice {
                    goes_on: true,
                    ..place(ANYWHERE, 0)
                };
                let interrupted = cpus.add_thread(0, 2, goes_on);
                assert_eq!(cpus.take_thread(0), Some(1));
                interrupted
            })
        };
        let has_found = idle(&cpus, 1);
        let interrupted = busy.join().unwrap() & 0b10 != 0;
        assert!(has_found || interrupted);
        cpus.note_busy(1);
        assert_eq!(cpus.take_thread(1), Some(2));
    });
}

/// Two CPUs have a thread each for the only idle one.
#[test]
fn an_idle_cpu_takes_one_thread_and_others_see_the_second() {
    loom::model(|| {
        let cpus = cpus(3);
        cpus.polls(2);
        let others: [_; 2] = core::array::from_fn(|this| {
            let cpus = cpus.clone();
            thread::spawn(move || cpus.add_thread(this as u32, this as u32, place(ANYWHERE, 2)))
        });
        let interrupted = others.map(|other| other.join().unwrap());
        assert_eq!(interrupted, [0, 0], "it polls, the others are busy");
        let waiting = [0, 1, 2].map(|number| cpus.cpu(number).threads.0.len());
        assert_eq!(waiting.iter().sum::<usize>(), 2);
        assert!(waiting[2] > 0, "{waiting:?}");
        // Where it has come: behind the first one, or on a CPU that runs another.
        assert_ne!(cpus.overloaded.0.load(Ordering::Relaxed), 0);
    });
}

/// The owner of a queue and two thieves.
#[test]
fn each_thread_is_taken_once_and_the_marks_are_true() {
    loom::model(|| {
        let cpus = cpus(3);
        for thread in [1, 2] {
            assert_eq!(cpus.add_thread(0, thread, place(0b001, 0)) & !1, 0);
            assert_eq!(cpus.add_thread(0, thread * 10, place(ANYWHERE, 0)) & !1, 0);
        }
        let taken = Arc::new(AtomicU64::new(0));
        let take = |this: u32| {
            let (cpus, taken) = (cpus.clone(), taken.clone());
            move || {
                let thread = cpus.take_thread(this);
                taken.fetch_add(u64::from(thread.unwrap_or(0)), Ordering::Relaxed);
                thread
            }
        };
        let [first, second] = [1, 2].map(|this| thread::spawn(take(this)));
        let own = take(0)();
        assert_eq!(own, Some(1));
        let stolen = [first, second].map(|thief| thief.join().unwrap().unwrap());
        assert_eq!(stolen[0] + stolen[1], 30);
        assert_eq!(taken.load(Ordering::Relaxed), 31);
        assert!(!cpus.has_others(1), "only one that must not move is left");
        assert_eq!(cpus.take_thread(0), Some(2));
        assert_eq!(cpus.take_thread(0), None);
    });
}

/// Work is given to a CPU that polls for it and may be about to do something else.
#[test]
fn work_for_a_cpu_that_polls_is_seen_or_it_is_interrupted() {
    loom::model(|| {
        let cpus = cpus(2);
        cpus.polls(1);
        let other = {
            let cpus = cpus.clone();
            thread::spawn(move || (cpus.add_work(0, 1, 7), cpus.work(0) > 0))
        };
        // It stops polling, does its work, and enters a program.
        cpus.note_busy(1);
        let has_found = cpus.take_work(1) == Some(7);
        let (interrupted, is_there) = other.join().unwrap();
        assert!(has_found || is_there || interrupted & 0b10 != 0);
    });
}

/// A busy CPU has no time for its work.
#[test]
fn work_is_done_once() {
    loom::model(|| {
        let cpus = cpus(2);
        assert_eq!(cpus.add_work(0, 0, 7), 0);
        let thief = {
            let cpus = cpus.clone();
            thread::spawn(move || cpus.steal_work(1).is_some())
        };
        let own = cpus.take_work(0).is_some();
        assert_ne!(own, thief.join().unwrap());
    });
}
