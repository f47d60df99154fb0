//! A stream from the host to the guest: reads straight into the buffers the driver offers.

use std::os::fd::{AsFd, OwnedFd};

use super::host;
use crate::chain::to_iovecs;
use crate::{Buffers, QueueError, Stop, Virtqueue, poll};

/// Copies `fd` into `queue` until the end of the input, which `at_end` is called for, or until told
/// to stop. The host is read only while the driver has buffers for it.
pub(super) fn serve(mut queue: Virtqueue, fd: &OwnedFd, stop: &Stop, at_end: impl FnOnce()) {
    match copy(&mut queue, fd, stop) {
        Ok(true) => at_end(),
        Ok(false) => (),
        Err(error) => queue.interrupt().fail(&error),
    }
}

/// `Ok(true)` at the end of the input, `Ok(false)` when told to stop.
fn copy(queue: &mut Virtqueue, fd: &OwnedFd, stop: &Stop) -> Result<bool, QueueError> {
    let mut buffers = Buffers::default();
    let mut iovecs = Vec::new();
    while wait_for_buffer(queue, &mut buffers, stop)? {
        iovecs.clear();
        to_iovecs(queue.memory(), &buffers.writable, &mut iovecs)
            .filter(|()| !iovecs.is_empty())
            .ok_or(QueueError::Request("an input buffer is not writable"))?;
        // SAFETY: the vectors point into guest memory, which the queue keeps mapped.
        let Some(count) = (unsafe { host::read_vectored(fd.as_fd(), &iovecs, stop) }) else {
            return Ok(false);
        };
        if count == 0 {
            return Ok(true);
        }
        queue.push_used(buffers.head, count)?;
        queue.announce()?;
    }
    Ok(false)
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
