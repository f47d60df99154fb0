//! The threads that carry out what may wait for the host, and what waits for a lock without one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fuse_abi::linux::fuse_in_header;
use rustix::io::Errno;

use super::host;
use super::protocol::{Reply, Request};
use super::ring::{self, SharedQueue};
use super::server::{Outcome, Server};
use super::share::Share;
use crate::{Buffers, Interrupt, QueueError, Service, Stop, ThreadKind, Threads};

/// Threads of a device.
const THREADS: usize = 4;

/// Between two tries to get a lock: at first, and at most with few who wait.
const LOCK_INTERVALS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(25)];
/// So many who wait for locks make the longest interval as much longer.
const LOCK_CROWD: u32 = 64;

/// Interruptions that came before what they interrupt began to wait.
const MAX_INTERRUPTED: usize = 128;

/// A request that was taken off its queue.
pub(super) struct Job {
    pub(super) queue: SharedQueue,
    pub(super) buffers: Buffers,
    pub(super) header: fuse_in_header,
    pub(super) arguments: Vec<u8>,
}

/// A job that waits for a lock.
struct Waiting {
    job: Job,
    due: Instant,
    interval: Duration,
}

#[derive(Default)]
struct State {
    /// What is to be done, with the interval after which it is tried again.
    jobs: VecDeque<(Job, Duration)>,
    waiting: Vec<Waiting>,
    interrupted: VecDeque<u64>,
    is_stopping: bool,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
    server: Arc<Server>,
    interrupt: Arc<Interrupt>,
}

/// The threads. They sleep while the device is not active.
pub(super) struct Pool {
    threads: Vec<Service<Arc<Shared>>>,
}

/// A way to give the pool work, for one activation of the device.
#[derive(Clone)]
pub(super) struct PoolHandle(Arc<Shared>);

impl Pool {
    /// Starts the threads of the device `name`.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor or thread.
    pub(super) fn new(name: &str, share: &Arc<Share>, threads: &Threads) -> io::Result<Self> {
        let start = |index| {
            let share = Arc::clone(share);
            Service::spawn(threads, &format!("{name}-pool{index}"), move |_| {
                host::enter(&share.descriptors)?;
                let serve = |shared: Arc<Shared>, _: &Stop| shared.work();
                Ok((ThreadKind::SharePool, serve))
            })
        };
        Ok(Self {
            threads: (0..THREADS).map(start).collect::<io::Result<_>>()?,
        })
    }

    /// Has the threads serve `server` from now on.
    pub(super) fn start(&self, server: &Arc<Server>, interrupt: &Arc<Interrupt>) -> PoolHandle {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            ready: Condvar::new(),
            server: Arc::clone(server),
            interrupt: Arc::clone(interrupt),
        });
        for thread in &self.threads {
            thread.assign(Arc::clone(&shared));
        }
        PoolHandle(shared)
    }

    /// Answers all jobs that `handle` was given, by EINTR if they wait for a lock or nobody has begun to
    /// work, and lets the threads sleep. Nobody may give it more.
    pub(super) fn stop(&self, handle: &PoolHandle) {
        handle.0.lock().is_stopping = true;
        handle.0.ready.notify_all();
        for thread in &self.threads {
            thread.recall();
        }
        // Nobody may have begun to work yet, and this thread cannot in their place.
        handle.0.give_up();
    }
}

impl PoolHandle {
    /// Has a job done.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.0.lock();
        state.jobs.push_back((job, LOCK_INTERVALS[0]));
        drop(state);
        self.0.ready.notify_one();
    }

    /// Ends the request with number `unique` by EINTR, if it waits for a lock or is about to.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut state = self.0.lock();
        let place = state
            .waiting
            .iter()
            .position(|waiting| waiting.job.header.unique == unique);
        match place {
            Some(place) => {
                let waiting = state.waiting.swap_remove(place);
                drop(state);
                self.0.answer(
                    &waiting.job,
                    Outcome::Failed(Errno::INTR),
                    &mut Reply::new(),
                );
            }
            None => {
                if state.interrupted.len() == MAX_INTERRUPTED {
                    state.interrupted.pop_front();
                }
                state.interrupted.push_back(unique);
            }
        }
    }

    /// Has those who wait for a lock try again, if one was given up.
    pub(super) fn retry_locks(&self) {
        self.0.retry_locks();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut reply = Reply::new();
        while let Some((job, interval)) = self.next() {
            let outcome = {
                let request = Request {
                    header: job.header,
                    arguments: &job.arguments,
                    // It was looked at when the job was taken.
                    room: ring::room(&job.buffers).unwrap_or(0),
                };
                reply.clear();
                self.server.handle(&request, &mut reply)
            };
            self.retry_locks();
            if outcome == Outcome::Later {
                self.wait_for_lock(job, interval);
            } else {
                self.answer(&job, outcome, &mut reply);
            }
        }
    }

    /// Ends all jobs by EINTR.
    fn give_up(&self) {
        let mut state = self.lock();
        let jobs = std::mem::take(&mut state.jobs);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        let jobs = jobs.into_iter().map(|(job, _)| job);
        for job in jobs.chain(waiting.into_iter().map(|waiting| waiting.job)) {
            self.answer(&job, Outcome::Failed(Errno::INTR), &mut Reply::new());
        }
    }

    /// The next job; waits for one. `None` when the pool stops and nothing is left to do.
    fn next(&self) -> Option<(Job, Duration)> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_stopping {
                drop(state);
                self.give_up();
                return None;
            }
            let now = Instant::now();
            let next = (0..state.waiting.len()).min_by_key(|place| state.waiting[*place].due);
            let due = next.map(|place| (place, state.waiting[place].due));
            state = match due {
                Some((place, due)) if due <= now => {
                    let waiting = state.waiting.swap_remove(place);
                    return Some((waiting.job, waiting.interval));
                }
                Some((_, due)) => {
                    let wait = self.ready.wait_timeout(state, due - now);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let wait = self.ready.wait(state);
                    wait.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Has `job` tried again after `interval`, unless it was interrupted.
    fn wait_for_lock(&self, job: Job, interval: Duration) {
        let mut state = self.lock();
        let unique = job.header.unique;
        let place = state.interrupted.iter().position(|other| *other == unique);
        if place.is_some() || state.is_stopping {
            if let Some(place) = place {
                state.interrupted.remove(place);
            }
            drop(state);
            return self.answer(&job, Outcome::Failed(Errno::INTR), &mut Reply::new());
        }
        let crowd = 1 + state.waiting.len() as u32 / LOCK_CROWD;
        let longest = LOCK_INTERVALS[1] * crowd;
        state.waiting.push(Waiting {
            job,
            due: Instant::now() + interval,
            interval: (2 * interval).min(longest),
        });
        drop(state);
        // Somebody must look at the clock.
        self.ready.notify_one();
    }

    fn retry_locks(&self) {
        if !self.server.has_released_lock() {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        for waiting in &mut state.waiting {
            waiting.due = now;
        }
        let is_some = !state.waiting.is_empty();
        drop(state);
        if is_some {
            self.ready.notify_one();
        }
    }

    fn answer(&self, job: &Job, outcome: Outcome, reply: &mut Reply) {
        let result = match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed(errno) => Err(errno),
            Outcome::Later => Err(Errno::AGAIN),
        };
        let bytes = reply.finish(job.header.unique, result);
        let answered = job
            .queue
            .reply(&job.buffers, bytes)
            .and_then(|()| job.queue.lock().announce());
        if let Err(error) = answered {
            let error: QueueError = error;
            self.interrupt.fail(&error);
        }
    }
}
