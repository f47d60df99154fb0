//! Waiting: poll(2) on a few descriptors, and a bounded spin before it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

/// Waits until one of `fds` can be read; gives for each whether it can, hung-up included.
///
/// A signal ends the wait with none ready.
///
/// # Errors
///
/// Those of poll(2) other than EINTR.
pub(crate) fn readable<const N: usize>(fds: [BorrowedFd<'_>; N]) -> io::Result<[bool; N]> {
    wait(fds.map(|fd| (fd.as_raw_fd(), libc::POLLIN)), -1)
}

/// As [`readable`], for so long at most.
///
/// # Errors
///
/// Those of poll(2) other than EINTR.
pub(crate) fn readable_within<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    timeout: Duration,
) -> io::Result<[bool; N]> {
    let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    wait(fds.map(|fd| (fd.as_raw_fd(), libc::POLLIN)), milliseconds)
}

/// As [`readable`], with the events to wait for and milliseconds at most, or -1.
///
/// # Errors
///
/// Those of poll(2) other than EINTR.
pub(crate) fn wait<const N: usize>(fds: [(RawFd, i16); N], timeout: i32) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|(fd, events)| libc::pollfd {
        fd,
        events,
        revents: 0,
    });
    // SAFETY: the array has N entries and lives over the call.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout) };
    if count >= 0 {
        return Ok(polled.map(|fd| fd.revents != 0));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::Interrupted => Ok([false; N]),
        _ => Err(error),
    }
}

/// Waits until one of `events` can be read, or for `timeout` if there is one. A signal ends the wait, too.
///
/// # Errors
///
/// Those of poll(2) other than EINTR.
pub(crate) fn any_readable<'a>(
    events: impl Iterator<Item = &'a EventFd>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let milliseconds = |timeout: Duration| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let timeout = timeout.map_or(-1, milliseconds);
    let mut polled: Vec<_> = events
        .map(|event| libc::pollfd {
            fd: event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the vector has as many entries as it says and lives over the call.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
    if count >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// Borrows an event's descriptor.
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open while `event` lives, and so does the borrow.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// A spin that lasts a bounded time after the last activity.
pub(crate) struct Spin {
    budget: Duration,
    since: Instant,
}

impl Spin {
    /// A spin of `budget` from now.
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            since: Instant::now(),
        }
    }

    /// There was activity: the budget is whole again.
    pub(crate) fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// Pauses for a moment; `false` when the budget is spent and it is time to sleep.
    pub(crate) fn turn(&self) -> bool {
        std::hint::spin_loop();
        self.since.elapsed() < self.budget
    }
}
