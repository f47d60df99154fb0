//! Who asks for an operation: whose credentials, directories, descriptors, limits and signals count.

use crate::error::{Errno, Result};
use crate::fs::{OpenFile, PATH_MAX, View};
use crate::mm::AddressSpace;
use crate::process::{Process, Restart, Signal, ThreadState};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;

/// Who asks for an operation.
#[derive(Clone, Copy)]
pub struct Actor<'a> {
    /// The process.
    pub process: &'a Arc<Process>,
    /// The number of its thread that asks. Signals that the operation causes go there.
    pub tid: u32,
    /// That thread, if it is in a system call, which a signal interrupts.
    thread: Option<&'a Arc<ThreadState>>,
}

/// The file that an operation is about.
#[derive(Clone)]
pub enum FileRef {
    /// A descriptor of the actor's, still to be looked up.
    Descriptor(i32),
    /// It was looked up.
    File(Arc<OpenFile>),
}

impl<'a> Actor<'a> {
    /// The thread `thread` of `process`, in a system call.
    #[inline]
    pub fn caller(process: &'a Arc<Process>, thread: &'a Arc<ThreadState>) -> Self {
        Self {
            process,
            tid: thread.tid,
            thread: Some(thread),
        }
    }

    /// A request of a ring, which the thread `tid` of `process` has submitted.
    #[inline]
    pub fn submitter(process: &'a Arc<Process>, tid: u32) -> Self {
        Self {
            process,
            tid,
            thread: None,
        }
    }

    /// Whether it is a thread in a system call, not a request of a ring.
    pub fn is_caller(&self) -> bool {
        self.thread.is_some()
    }

    /// The thread that asks; `None` for a request of a ring.
    pub fn thread(&self) -> Option<&'a Arc<ThreadState>> {
        self.thread
    }

    /// The thread of the process with the number `tid`, or, for 0, the one that asks.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is none.
    pub fn thread_numbered(&self, tid: i32) -> Result<Arc<ThreadState>> {
        match (self.thread, tid) {
            (Some(own), tid) => self.process.thread(tid, own),
            (None, 0) => self.process.member(self.tid),
            (None, tid) => self.process.member(tid as u32),
        }
    }

    /// Whether its thread has something to see to, such as a signal.
    pub fn has_to_attend(&self) -> bool {
        self.thread
            .is_some_and(|thread| !thread.attention().is_empty())
    }

    /// Keeps what is left of a call that a signal has interrupted, for `restart_syscall(2)`, and gives
    /// the error that says so.
    pub fn interrupted(&self, left: Restart) -> Errno {
        match self.thread {
            Some(thread) => {
                *thread.restart.lock() = Some(left);
                Errno::ERESTART_RESTARTBLOCK
            }
            None => Errno::EINTR,
        }
    }

    /// The memory that addresses are about.
    #[inline]
    pub fn space(&self) -> &'a Arc<AddressSpace> {
        &self.process.space
    }

    /// What it can name.
    pub fn view(&self) -> View<'a> {
        View {
            files: &self.process.files,
            context: &self.process.fs,
        }
    }

    /// The open file that `file` means.
    ///
    /// # Errors
    ///
    /// `EBADF`, also for one that is only named (`O_PATH`).
    #[inline]
    pub fn file(&self, file: FileRef) -> Result<Arc<OpenFile>> {
        match file {
            FileRef::Descriptor(fd) => self.process.files.get(fd),
            FileRef::File(file) => Ok(file),
        }
    }

    /// The path at `address`, up to its NUL (`getname` of Linux).
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENAMETOOLONG`.
    pub fn read_path(&self, address: u64) -> Result<Vec<u8>> {
        self.process.space.read_string(address, PATH_MAX)
    }

    /// Waits for `future`; in a system call, not longer than until a signal comes that the thread has
    /// to see to.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`: how the call goes on after the signal depends on its handler. What behaves
    /// otherwise on Linux makes another error of it.
    pub async fn until_signal<F: Future>(&self, future: F) -> Result<F::Output> {
        match self.thread {
            Some(thread) => thread.until_signal(future).await,
            None => Ok(future.await),
        }
    }

    /// Sends `signal` to the thread that asks, for what it has asked for.
    #[cold]
    pub fn signal(&self, signal: Signal) {
        self.process.signal_by_itself(self.tid, signal);
    }
}
