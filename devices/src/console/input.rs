//! A stream from the host to the guest: reads straight into the buffers the driver offers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::host;
use crate::chain::to_iovecs;
use crate::{Buffers, QueueError, Statistics, Stop, Virtqueue, poll};

/// Why no more input comes.
pub(super) enum End {
    /// It has ended.
    OfInput,
    /// It cannot be read any further.
    Failed(io::Error),
}

/// Copies `fd` into `queue` until the end of the input, which `at_end` is called for, or until told
/// to stop. The host is read only while the driver has buffers for it.
pub(super) fn serve(
    mut queue: Virtqueue,
    fd: &OwnedFd,
    stop: &Stop,
    statistics: &Statistics,
    at_end: impl FnOnce(End),
) {
    match copy(&mut queue, fd, stop, statistics) {
        Ok(Some(end)) => at_end(end),
        Ok(None) => (),
        Err(error) => queue.interrupt().fail(&error),
    }
}

/// `None` when told to stop.
fn copy(
    queue: &mut Virtqueue,
    fd: &OwnedFd,
    stop: &Stop,
    statistics: &Statistics,
) -> Result<Option<End>, QueueError> {
    let mut buffers = Buffers::default();
    let mut iovecs = Vec::new();
    while wait_for_buffer(queue, &mut buffers, stop)? {
        iovecs.clear();
        to_iovecs(queue.memory(), &buffers.writable, &mut iovecs)
            .filter(|()| !iovecs.is_empty())
            .ok_or(QueueError::Request("an input buffer is not writable"))?;
        // SAFETY: the vectors point into guest memory, which the queue keeps mapped.
        let count = match unsafe { host::read_vectored(fd.as_fd(), &iovecs, stop) } {
            Ok(None) => return Ok(None),
            Ok(Some(0)) => return Ok(Some(End::OfInput)),
            Ok(Some(count)) => count,
            Err(error) => {
                statistics.errors.add(1);
                return Ok(Some(End::Failed(error)));
            }
        };
        statistics.reads.add(1);
        statistics.read_bytes.add(count.into());
        queue.push_used(buffers.head, count)?;
        queue.announce()?;
    }
    Ok(None)
}

/// Takes the next chain, waiting for one; `false` when told to stop.
fn wait_for_buffer(
    queue: &mut Virtqueue,
    buffers: &mut Buffers,
    stop: &Stop,
) -> Result<bool, QueueError> {
    while !stop.requested() {
        if queue.pop(buffers)? {
            return Ok(true);
        }
        if queue.enable_notification()? {
            continue;
        }
        poll::readable([poll::borrow(queue.doorbell()), poll::borrow(stop.event())])?;
        // EAGAIN says that the stop event woke us.
        let _ = queue.doorbell().read();
        queue.disable_notification()?;
    }
    Ok(false)
}
