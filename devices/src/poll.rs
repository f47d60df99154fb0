//! Waiting: poll(2) on a few descriptors, and a bounded spin before it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

/// Waits until one of `fds` can be read; gives for each whether it can, hung-up included.
///
/// A signal ends the wait with none ready.
///
/// # Errors
///
/// Those of poll(2) other than EINTR.
pub(crate) fn readable<const N: usize>(fds: [BorrowedFd<'_>; N]) -> io::Result<[bool; N]> {
    wait(fds.map(|fd| (fd, PollFlags::IN)), None)
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
    wait(fds.map(|fd| (fd, PollFlags::IN)), Some(timeout))
}

/// As [`readable`], with the events to wait for, and for how long at most.
///
/// # Errors
///
/// Those of poll(2) other than EINTR; EINVAL for a timeout that is no time.
pub(crate) fn wait<const N: usize>(
    fds: [(BorrowedFd<'_>, PollFlags); N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|(fd, events)| PollFd::from_borrowed_fd(fd, events));
    let timeout = timeout.map(Timespec::try_from).transpose();
    match poll(&mut polled, timeout.map_err(|_| Errno::INVAL)?.as_ref()) {
        Ok(_) => Ok(polled.map(|fd| !fd.revents().is_empty())),
        Err(Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
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
