//! A stream from the guest to the host: writes straight from the driver's buffers.
//!
//! A chain is given back when all of it is written, so a slow reader holds up the program that
//! writes, and nothing piles up here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use crate::chain::{advance, to_iovecs};
use crate::poll::Spin;
use crate::{Buffers, QueueError, Stop, Virtqueue, poll};

/// How long to look for more output before sleeping.
const SPIN: Duration = Duration::from_micros(20);

/// Copies `queue` to `fd` until told to stop, or told to drain and the queue is empty.
///
/// When the host's end is gone `at_end` is called; what the guest writes after that is dropped.
pub(super) fn serve(mut queue: Virtqueue, fd: &OwnedFd, stop: &Stop, at_end: impl FnOnce()) {
    if let Err(error) = copy(&mut queue, fd, stop, at_end) {
        queue.interrupt().fail(&error);
    }
}

fn copy(
    queue: &mut Virtqueue,
    fd: &OwnedFd,
    stop: &Stop,
    at_end: impl FnOnce(),
) -> Result<(), QueueError> {
    let mut at_end = Some(at_end);
    let mut buffers = Buffers::default();
    let mut iovecs = Vec::new();
    while wait_for_buffer(queue, &mut buffers, stop)? {
        iovecs.clear();
        to_iovecs(queue.memory(), &buffers.readable, &mut iovecs)
            .ok_or(QueueError::Request("a buffer left guest memory"))?;
        if at_end.is_some() {
            match write_all(fd, &mut iovecs, stop) {
                Ok(()) => (),
                Err(_) if stop.requested() => return Ok(()),
                Err(error) => {
                    log::debug!("output: {error}");
                    // The driver hears of it before it gets the buffer back.
                    at_end.take().into_iter().for_each(|at_end| at_end());
                }
            }
        }
        queue.push_used(buffers.head, 0)?;
        queue.announce()?;
    }
    Ok(())
}

/// Takes the next chain, waiting for one; `false` when it is time to end.
fn wait_for_buffer(
    queue: &mut Virtqueue,
    buffers: &mut Buffers,
    stop: &Stop,
) -> Result<bool, QueueError> {
    let spin = Spin::new(SPIN);
    while !stop.requested() {
        // Looked at before the queue: what was queued before the order to drain is then found.
        let drain = stop.drain_requested();
        if queue.pop(buffers)? {
            return Ok(true);
        }
        if drain {
            return Ok(false);
        }
        if spin.turn() || queue.enable_notification()? {
            continue;
        }
        poll::readable([poll::borrow(queue.doorbell()), poll::borrow(stop.event())])?;
        // EAGAIN says that the stop event woke us.
        let _ = queue.doorbell().read();
        queue.disable_notification()?;
    }
    Ok(false)
}

/// Writes all that `iovecs` point at.
///
/// # Errors
///
/// The host's; EINTR when told to stop.
fn write_all(fd: &OwnedFd, iovecs: &mut Vec<libc::iovec>, stop: &Stop) -> io::Result<()> {
    while !iovecs.is_empty() {
        // SAFETY: the vectors point into guest memory, which the queue keeps mapped.
        let count =
            unsafe { libc::writev(fd.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as libc::c_int) };
        if let Ok(count) = usize::try_from(count) {
            advance(iovecs, count);
            continue;
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted if !stop.requested() => (),
            // Somebody who shares the descriptor made it non-blocking.
            io::ErrorKind::WouldBlock => {
                let events = [
                    (fd.as_raw_fd(), libc::POLLOUT),
                    (stop.event().as_raw_fd(), 0),
                ];
                poll::wait(events, -1)?;
                if stop.requested() {
                    return Err(error);
                }
            }
            _ => return Err(error),
        }
    }
    Ok(())
}
