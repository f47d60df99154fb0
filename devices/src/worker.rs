//! Threads that can be told to stop, also while a system call blocks them.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

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

    fn raise(&self, state: u8) {
        self.state.fetch_max(state, Ordering::AcqRel);
        // It fails only when the counter is full, and then it is readable.
        let _ = self.event.write(1);
    }
}

/// A thread. Dropping it stops it and waits for its end.
pub struct Worker {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `work` on a thread called `name` (15 bytes at most are shown).
    ///
    /// `work` must end soon after [`Stop::requested`] turns true. A system call that blocks it then
    /// is interrupted with EINTR, again and again until the thread has ended.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor, the signal handler or the thread.
    pub fn spawn(name: &str, work: impl FnOnce(Arc<Stop>) + Send + 'static) -> io::Result<Self> {
        install_kick_handler()?;
        let stop = Arc::new(Stop {
            state: AtomicU8::new(RUN),
            event: EventFd::new(EFD_NONBLOCK)?,
        });
        let seen = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(seen))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Asks the thread to end when the work at hand is done; does not wait.
    pub(crate) fn drain(&self) {
        self.stop.raise(DRAIN);
    }

    /// Asks the thread to end at once and interrupts the system call it is in; does not wait.
    ///
    /// An interruption that comes just before the system call is lost: ask again until
    /// [`has_ended`](Self::has_ended).
    pub fn request_stop(&self) {
        self.stop.raise(STOP);
        if let Some(thread) = self.thread.as_ref().filter(|thread| !thread.is_finished()) {
            // SAFETY: the thread is not joined yet, so its handle is valid; the signal has a handler.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
        }
    }

    /// Whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let [mut interval, longest] = KICK_INTERVALS;
        self.request_stop();
        while !self.has_ended() {
            thread::sleep(interval);
            interval = longest.min(2 * interval);
            self.request_stop();
        }
        // A bug in the worker is one of its owner's too.
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
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
        let worker = Worker::spawn("blocked", move |stop| {
            started.send(()).unwrap();
            let mut byte = [0];
            while !stop.requested() {
                let _ = io::Read::read(&mut &reader, &mut byte);
            }
        })
        .unwrap();
        wait.recv().unwrap();
        drop(worker);
    }
}
