//! Threads that work on one check until its time is over or one of them has failed.
//!
//! Each counts its steps, by which the [watchdog](crate::watchdog) sees that it goes on.

use crate::plan::{self, Random};
use crate::watchdog;
use guest_programs::check::{Failure, Outcome};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// What some of the threads do: a name, how many there are, and what each runs.
pub(crate) type Role<'a> = (
    &'static str,
    usize,
    &'a (dyn Fn(&mut Worker<'_>) -> Outcome + Sync),
);

/// What is known of one thread.
pub(crate) struct Post {
    /// The name of its role, and its number among those who have it.
    pub(crate) role: (&'static str, usize),
    /// How often it has gone on.
    pub(crate) steps: AtomicU64,
    /// Whether it has returned.
    pub(crate) is_done: AtomicBool,
}

/// The threads of one check.
pub(crate) struct Crew {
    /// The check's name.
    pub(crate) check: &'static str,
    pub(crate) posts: Vec<Post>,
    end: Instant,
    is_over: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Crew {
    /// Why one of them has failed, if one has.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, post: &Post, why: &Failure) {
        let (role, number) = post.role;
        let failure = self.failure.lock();
        failure
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| Failure::new(format!("{role} {number}: {why}")));
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// One of the threads, as it sees itself.
pub(crate) struct Worker<'a> {
    crew: &'a Crew,
    post: &'a Post,
    /// Its number among those who do the same, from 0.
    pub(crate) number: usize,
    /// Its own chance.
    pub(crate) random: Random,
}

impl Worker<'_> {
    /// Notes a step; false when the worker should end: time is over, or another has failed.
    pub(crate) fn goes_on(&self) -> bool {
        self.step();
        let is_over = self.crew.is_over.load(Ordering::Relaxed);
        if !is_over && Instant::now() >= self.crew.end {
            self.crew.is_over.store(true, Ordering::Relaxed);
        }
        !is_over
    }

    /// Notes that the worker has not come to a stand.
    pub(crate) fn step(&self) {
        self.post.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// How many steps it has noted.
    pub(crate) fn steps(&self) -> u64 {
        self.post.steps.load(Ordering::Relaxed)
    }
}

/// Has all roles played at the same time, and waits for them.
///
/// # Errors
///
/// What the first one says that fails.
pub(crate) fn run(check: &'static str, roles: &[Role<'_>]) -> Outcome {
    let jobs = || {
        roles
            .iter()
            .flat_map(|role| (0..role.1).map(move |number| (role, number)))
    };
    let post = |(role, number): (&Role<'_>, usize)| Post {
        role: (role.0, number),
        steps: AtomicU64::new(0),
        is_done: AtomicBool::new(false),
    };
    let crew = Arc::new(Crew {
        check,
        posts: jobs().map(post).collect(),
        end: Instant::now() + plan::duration(),
        is_over: AtomicBool::new(false),
        failure: Mutex::new(None),
    });
    watchdog::watch(&crew);
    thread::scope(|scope| {
        for ((role, number), post) in jobs().zip(&crew.posts) {
            let crew = &crew;
            scope.spawn(move || {
                let mut worker = Worker {
                    crew,
                    post,
                    number,
                    random: Random::of((check, post.role)),
                };
                if let Err(why) = role.2(&mut worker) {
                    crew.fail(post, &why);
                }
                post.is_done.store(true, Ordering::Relaxed);
            });
        }
    });
    crew.failure().map_or(Ok(()), Err)
}

/// How many CPUs there are, by what this thread may use.
pub(crate) fn cpus() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get())
}
