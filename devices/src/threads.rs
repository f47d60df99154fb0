//! The kinds of threads that a VMM has, and how each gives up what it does not need.
//!
//! The devices know when a thread has all it needs to serve a guest; the VMM knows what its kind may
//! do from then on. So a device starts its threads with [`Threads`], when it is made and not when the
//! driver activates it: a thread that is started later would have to be started by one that is
//! confined already.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What a thread does, which decides what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ThreadKind {
    /// The event loop: signals, the console's control queues, entropy.
    Main,
    /// Writes Ringlet's own messages, and finds out what the vCPUs are doing.
    Messages,
    /// Answers those who ask for metrics.
    Metrics,
    /// A virtual CPU with the registers of the devices.
    Vcpu,
    /// The GDB stub.
    Debugger,
    /// Serves a disk with an io_uring of its own.
    Disk,
    /// Serves a disk where there is no io_uring, with threads that it starts itself.
    DiskPool,
    /// Takes requests off the queues of a share, and moves data between files and guest memory with an
    /// io_uring of its own.
    Share,
    /// The same where there is no io_uring, with threads that it starts itself.
    ShareThreads,
    /// Does all else to the files of a share.
    SharePool,
    /// Reads standard input.
    Input,
    /// Writes standard output or standard error.
    Output,
    /// Passes a device on to QEMU.
    VhostUser,
    /// Reads what QEMU says: the guest's serial port, and the monitor.
    Qemu,
}

impl ThreadKind {
    /// All there are.
    pub const ALL: [Self; 14] = [
        Self::Main,
        Self::Messages,
        Self::Metrics,
        Self::Vcpu,
        Self::Debugger,
        Self::Disk,
        Self::DiskPool,
        Self::Share,
        Self::ShareThreads,
        Self::SharePool,
        Self::Input,
        Self::Output,
        Self::VhostUser,
        Self::Qemu,
    ];

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Messages => "messages",
            Self::Metrics => "metrics",
            Self::Vcpu => "vcpu",
            Self::Debugger => "debugger",
            Self::Disk => "disk",
            Self::DiskPool => "disk-pool",
            Self::Share => "share",
            Self::ShareThreads => "share-threads",
            Self::SharePool => "share-pool",
            Self::Input => "input",
            Self::Output => "output",
            Self::VhostUser => "vhost-user",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for ThreadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type Confine = dyn Fn(ThreadKind) -> io::Result<()> + Send + Sync;

/// How threads are confined, and which of them are not yet.
#[derive(Clone)]
pub struct Threads {
    confine: Arc<Confine>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads that are not confined yet.
    starting: usize,
    /// The first error.
    error: Option<io::Error>,
}

impl Threads {
    /// Every thread calls `confine` with its kind when it has what it needs.
    pub fn new(confine: impl Fn(ThreadKind) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self {
            confine: Arc::new(confine),
            progress: Arc::default(),
        }
    }

    /// Nothing is given up.
    pub fn unconfined() -> Self {
        Self::new(|_| Ok(()))
    }

    /// Waits until all threads that were started are confined.
    ///
    /// # Errors
    ///
    /// The first of theirs: from what they prepare, or from confining them.
    pub fn await_confined(&self) -> io::Result<()> {
        let mut state = self.progress.lock();
        while state.starting > 0 {
            let changed = self.progress.changed.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
        state.error.take().map_or(Ok(()), Err)
    }

    /// Confines the calling thread, which is none of those that are started here.
    ///
    /// # Errors
    ///
    /// The host's.
    pub fn confine(&self, kind: ThreadKind) -> io::Result<()> {
        (self.confine)(kind)
    }

    /// Starts `work` on a thread called `name` (15 bytes at most are shown). Nothing can end it from
    /// outside, unlike a [`Worker`](crate::Worker).
    ///
    /// # Errors
    ///
    /// The host denies the thread.
    pub fn spawn(
        &self,
        kind: ThreadKind,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let start = self.announce();
        let body = move || {
            if start.confine(|| Ok((kind, ()))).is_some() {
                work();
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(body)
    }

    /// A thread is about to be started.
    pub(crate) fn announce(&self) -> Start {
        self.progress.lock().starting += 1;
        Start {
            threads: self.clone(),
            result: Ok(()),
        }
    }
}

/// A thread that is not confined yet. Dropping it says that it is, or that it will not be started.
pub(crate) struct Start {
    threads: Threads,
    result: io::Result<()>,
}

impl Start {
    /// Runs `prepare` on the calling thread, which is the new one, and confines it as one of the kind
    /// that `prepare` says; `None` where one of these fails, which the thread that started this one
    /// hears.
    pub(crate) fn confine<T>(
        mut self,
        prepare: impl FnOnce() -> io::Result<(ThreadKind, T)>,
    ) -> Option<T> {
        let threads = &self.threads;
        match prepare().and_then(|(kind, value)| threads.confine(kind).map(|()| value)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.result = Err(error);
                None
            }
        }
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        let mut state = self.threads.progress.lock();
        state.starting -= 1;
        if let Err(error) = std::mem::replace(&mut self.result, Ok(())) {
            state.error.get_or_insert(error);
        }
        self.threads.progress.changed.notify_all();
    }
}

impl Progress {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_starter_waits_for_all_and_hears_of_errors() {
        let confined = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&confined);
        let threads = Threads::new(move |kind| {
            thread::sleep(std::time::Duration::from_millis(5));
            seen.fetch_add(1, Ordering::Relaxed);
            match kind {
                ThreadKind::Vcpu => Err(io::ErrorKind::PermissionDenied.into()),
                _ => Ok(()),
            }
        });
        for kind in [ThreadKind::Disk, ThreadKind::Input, ThreadKind::Output] {
            let start = threads.announce();
            thread::spawn(move || start.confine(|| Ok((kind, ()))));
        }
        threads.await_confined().unwrap();
        assert_eq!(confined.load(Ordering::Relaxed), 3);
        let start = threads.announce();
        thread::spawn(move || start.confine(|| Ok((ThreadKind::Vcpu, ()))));
        let error = threads.await_confined().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        // One that is not started at all does not count.
        drop(threads.announce());
        threads.await_confined().unwrap();
    }

    #[test]
    fn what_a_thread_cannot_prepare_is_an_error() {
        let threads = Threads::unconfined();
        let start = threads.announce();
        let prepared = start.confine(|| Err::<(_, ()), _>(io::ErrorKind::OutOfMemory.into()));
        assert!(prepared.is_none());
        assert!(threads.await_confined().is_err());
    }
}
