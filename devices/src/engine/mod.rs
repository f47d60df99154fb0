//! How devices reach the host's files: the interface that both engines have.

mod pool;
mod uring;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

pub(crate) use pool::Pool;
pub(crate) use uring::Uring;
pub use uring::{has_io_uring, has_restrictions};

/// Which engine to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// io_uring, or threads where the host denies it.
    #[default]
    Auto,
    /// Threads with preadv(2) and pwritev(2).
    Threads,
}

/// One operation on the host's file. The I/O vectors are those of the slot it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// preadv(2)
    Read { fd: RawFd, offset: u64 },
    /// pwritev(2)
    Write { fd: RawFd, offset: u64 },
    /// pwritev2(2) with RWF_APPEND
    Append { fd: RawFd },
    /// fdatasync(2), or fsync(2) with `metadata`
    Sync { fd: RawFd, metadata: bool },
    /// fallocate(2)
    Allocate {
        fd: RawFd,
        mode: i32,
        offset: u64,
        len: u64,
    },
}

/// A finished operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// The slot it was started for.
    pub(crate) slot: u16,
    /// What the system call gives: a count, or a negative errno.
    pub(crate) result: i32,
}

/// Starts operations and reports their ends, for one activation of the device after the other.
pub(crate) trait Engine {
    /// Has `doorbells` wake the worker from now on.
    fn attach(&mut self, doorbells: Vec<EventFd>);

    /// The doorbells wake nobody any more. No operation may be in flight.
    ///
    /// # Errors
    ///
    /// The host's.
    fn detach(&mut self) -> io::Result<()>;

    /// Starts an operation for `slot`; the host may see it only after [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// The host takes no more operations.
    ///
    /// # Safety
    ///
    /// The memory that `iovecs` points at, and the array itself, must stay valid until the
    /// completion of `slot` is reported.
    unsafe fn start(
        &mut self,
        slot: u16,
        operation: Operation,
        iovecs: &[libc::iovec],
    ) -> io::Result<()>;

    /// Hands started operations to the host and lets finished ones be seen.
    ///
    /// # Errors
    ///
    /// The host's, other than EINTR.
    fn flush(&mut self) -> io::Result<()>;

    /// The next finished operation, in any order.
    fn next_completion(&mut self) -> Option<Completion>;

    /// Sleeps until an operation is finished, a doorbell rings, the worker is told to stop, or
    /// `timeout` is over if there is one; may return early.
    ///
    /// # Errors
    ///
    /// The host's, other than EINTR.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;
}
