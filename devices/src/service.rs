//! Threads that serve one activation of a device after the other.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::worker::Kickable;
use crate::{Stop, ThreadKind, Threads};

/// A thread that is there for the life of a device, and sleeps while that is not active: what the
/// driver activates is a job `J`. Dropping it ends the job and the thread.
pub struct Service<J> {
    shared: Arc<Shared<J>>,
    thread: Kickable,
}

struct Shared<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    stop: Stop,
}

enum State<J> {
    /// The thread sleeps.
    Idle,
    /// There is a job, which the thread has not seen yet.
    Assigned(J),
    /// The thread works.
    Busy,
    /// The thread is to end.
    Closed,
}

impl<J: Send + 'static> Service<J> {
    /// Starts a thread called `name` (15 bytes at most are shown). `prepare` runs on it while it may do
    /// all that the process may, and gives the thread's kind and what serves a job.
    ///
    /// A job must end soon after [`Stop::requested`] turns true. A system call that blocks it then
    /// is interrupted with EINTR, again and again until the job has ended. What is asked for by `Stop`
    /// is about the job at hand.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor, the signal handler or the thread. Those of `prepare` are told by
    /// [`Threads::await_confined`].
    pub fn spawn<S: FnMut(J, &Stop)>(
        threads: &Threads,
        name: &str,
        prepare: impl FnOnce(&Stop) -> io::Result<(ThreadKind, S)> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Idle),
            changed: Condvar::new(),
            stop: Stop::new()?,
        });
        let (before, seen) = (Arc::clone(&shared), Arc::clone(&shared));
        // What is prepared stays on the thread: it need not be fit to be sent to another.
        let prepare = move || prepare(&before.stop);
        let thread = Kickable::spawn(threads, name, prepare, move |mut serve| {
            while let Some(job) = seen.next_job() {
                serve(job, &seen.stop);
                seen.become_idle();
            }
        })?;
        Ok(Self { shared, thread })
    }

    /// Gives the thread a job. The one before must have been recalled, if there was one.
    pub fn assign(&self, job: J) {
        *self.shared.lock() = State::Assigned(job);
        self.shared.changed.notify_one();
    }

    /// Asks the thread to end its job when the work at hand is done; does not wait.
    pub(crate) fn drain(&self) {
        self.shared.stop.request_drain();
    }

    /// Ends the job, if there is one, and waits until it has ended.
    pub fn recall(&self) {
        self.shared.stop.request();
        if let state @ State::Assigned(_) = &mut *self.shared.lock() {
            *state = State::Idle;
        }
        self.thread
            .kick_until(|| !matches!(*self.shared.lock(), State::Busy));
        self.shared.stop.clear();
    }
}

impl<J> Shared<J> {
    /// Waits for a job; `None` at the end.
    fn next_job(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut *state, State::Idle) {
                State::Assigned(job) => {
                    *state = State::Busy;
                    return Some(job);
                }
                State::Closed => return None,
                State::Idle | State::Busy => (),
            }
            let changed = self.changed.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn become_idle(&self) {
        let mut state = self.lock();
        if let State::Busy = *state {
            *state = State::Idle;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Drop for Service<J> {
    fn drop(&mut self) {
        self.shared.stop.request();
        *self.shared.lock() = State::Closed;
        self.shared.changed.notify_one();
        self.thread.kick_until(|| false);
        self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_are_served_one_after_the_other_on_one_thread() {
        let (told, heard) = mpsc::channel();
        let threads = Threads::unconfined();
        let service = Service::spawn(&threads, "service", move |_| {
            let mut served = 0;
            let (reader, writer) = io::pipe()?;
            let serve = move |name: &'static str, stop: &Stop| {
                served += 1;
                let thread = std::thread::current().id();
                told.send((name, served, thread)).unwrap();
                let mut byte = [0];
                while !stop.requested() {
                    let _ = io::Read::read(&mut &reader, &mut byte);
                }
                let _ = &writer;
            };
            Ok((ThreadKind::Input, serve))
        })
        .unwrap();
        threads.await_confined().unwrap();
        // Without a job there is nothing to recall.
        service.recall();
        service.assign("first");
        let (name, served, thread) = heard.recv().unwrap();
        assert_eq!((name, served), ("first", 1));
        service.recall();
        service.assign("second");
        assert_eq!(heard.recv().unwrap(), ("second", 2, thread));
        // The end does not wait for the job's.
        drop(service);
        assert!(heard.recv().is_err());
    }

    #[test]
    fn a_job_that_is_recalled_at_once_is_ended_or_never_begun() {
        let threads = Threads::unconfined();
        let service = Service::spawn(&threads, "service", |_| {
            let serve = |(): (), stop: &Stop| {
                while !stop.requested() {
                    std::thread::yield_now();
                }
            };
            Ok((ThreadKind::Input, serve))
        })
        .unwrap();
        for _ in 0..1000 {
            service.assign(());
            service.recall();
            assert!(!service.shared.stop.requested());
        }
    }

    #[test]
    fn what_cannot_be_prepared_is_told() {
        let threads = Threads::unconfined();
        let service = Service::spawn(&threads, "service", |_| {
            Err::<(_, fn((), &Stop)), _>(io::ErrorKind::OutOfMemory.into())
        })
        .unwrap();
        assert!(threads.await_confined().is_err());
        // Nobody serves it, and nobody waits for that.
        service.assign(());
        service.recall();
    }
}
