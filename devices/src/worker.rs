//! Threads that can be told to stop, also while a system call blocks them.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::{ThreadKind, Threads};

/// Between two signals to a thread that is to stop: at first, and at most.
const KICK_INTERVALS: [Duration; 2] = [Duration::from_micros(20), Duration::from_millis(1)];

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const STOP: u8 = 2;

/// What a worker looks at to know whether to go on.
pub struct Stop {
    state: AtomicU8,
    event: EventFd,
}

impl Stop {
    /// One that asks for nothing.
    ///
    /// # Errors
    ///
    /// Those of eventfd(2).
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            state: AtomicU8::new(RUN),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Whether to end at once.
    pub fn requested(&self) -> bool {
        self.state.load(Ordering::Acquire) == STOP
    }

    /// Whether to end when the work at hand is done.
    pub(crate) fn drain_requested(&self) -> bool {
        self.state.load(Ordering::Acquire) >= DRAIN
    }

    /// Readable from the first request on.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Asks to end when the work at hand is done.
    pub(crate) fn request_drain(&self) {
        self.raise(DRAIN);
    }

    /// Asks to end at once.
    pub(crate) fn request(&self) {
        self.raise(STOP);
    }

    /// Nothing is asked for any more: others work from now on.
    pub(crate) fn clear(&self) {
        self.state.store(RUN, Ordering::Release);
        // EAGAIN says that nothing was asked for.
        let _ = self.event.read();
    }

    fn raise(&self, state: u8) {
        self.state.fetch_max(state, Ordering::AcqRel);
        // It fails only when the counter is full, and then it is readable.
        let _ = self.event.write(1);
    }
}

/// A thread whose system calls can be interrupted.
pub(crate) struct Kickable(Option<JoinHandle<()>>);

impl Kickable {
    /// Starts `work` on a thread called `name` (15 bytes at most are shown). What needs more than a
    /// thread of its kind may do is in `prepare`, which runs on the thread first and says the kind.
    ///
    /// # Errors
    ///
    /// The host denies the signal handler or the thread. Errors of the thread itself are told by
    /// [`Threads::await_confined`].
    pub(crate) fn spawn<T>(
        threads: &Threads,
        name: &str,
        prepare: impl FnOnce() -> io::Result<(ThreadKind, T)> + Send + 'static,
        work: impl FnOnce(T) + Send + 'static,
    ) -> io::Result<Self> {
        install_kick_handler()?;
        let start = threads.announce();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if let Some(prepared) = start.confine(prepare) {
                    work(prepared);
                }
            })?;
        Ok(Self(Some(thread)))
    }

    /// Interrupts the system call that the thread is in, if it is in one: it fails with EINTR. An
    /// interruption that comes just before the system call is lost.
    pub(crate) fn kick(&self) {
        if let Some(thread) = self.0.as_ref().filter(|thread| !thread.is_finished()) {
            // SAFETY: the thread is not joined yet, so its handle is valid; the signal has a handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
        }
    }

    /// Kicks the thread until `done`, or until it has ended.
    pub(crate) fn kick_until(&self, done: impl Fn() -> bool) {
        let [mut interval, longest] = KICK_INTERVALS;
        self.kick();
        while !done() && !self.has_ended() {
            thread::sleep(interval);
            interval = longest.min(2 * interval);
            self.kick();
        }
    }

    /// Whether the thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the thread.
    pub(crate) fn join(&mut self) {
        // A bug in the worker is one of its owner's too.
        if let Some(Err(panic)) = self.0.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A thread with one work to do. Dropping it stops it and waits for its end.
pub struct Worker {
    stop: Arc<Stop>,
    thread: Kickable,
}

impl Worker {
    /// Starts `work` on a thread called `name` (15 bytes at most are shown), of a kind that says what
    /// it may do.
    ///
    /// `work` must end soon after [`Stop::requested`] turns true. A system call that blocks it then
    /// is interrupted with EINTR, again and again until the thread has ended.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor, the signal handler or the thread.
    pub fn spawn(
        threads: &Threads,
        kind: ThreadKind,
        name: &str,
        work: impl FnOnce(Arc<Stop>) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(Stop::new()?);
        let seen = Arc::clone(&stop);
        let thread = Kickable::spawn(threads, name, move || Ok((kind, ())), |()| work(seen))?;
        Ok(Self { stop, thread })
    }

    /// Asks the thread to end at once and interrupts the system call it is in; does not wait.
    ///
    /// An interruption that comes just before the system call is lost: ask again until
    /// [`has_ended`](Self::has_ended).
    pub fn request_stop(&self) {
        self.stop.request();
        self.thread.kick();
    }

    /// Whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.has_ended()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.request();
        self.thread.kick_until(|| false);
        self.thread.join();
    }
}

/// Makes the kick signal interrupt system calls and do nothing else.
fn install_kick_handler() -> io::Result<()> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| register_signal_handler(SIGRTMIN(), ignore).map_err(|error| error.errno()))
        .map_err(io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_blocked_read_does_not_keep_a_worker() {
        let (reader, _writer) = io::pipe().unwrap();
        let (started, wait) = mpsc::channel();
        let work = move |stop: Arc<Stop>| {
            started.send(()).unwrap();
            let mut byte = [0];
            while !stop.requested() {
                let _ = io::Read::read(&mut &reader, &mut byte);
            }
        };
        let threads = Threads::unconfined();
        let worker = Worker::spawn(&threads, ThreadKind::Input, "blocked", work).unwrap();
        wait.recv().unwrap();
        drop(worker);
    }
}
