//! A stream from the guest to the host: writes straight from the driver's buffers.
//!
//! A chain is given back when all of it is written, so a slow reader holds up the program that
//! writes, and nothing piles up here.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::host;
use crate::chain::to_iovecs;
use crate::poll::Spin;
use crate::{Buffers, QueueError, Stop, Virtqueue, poll};

/// How long to look for more output before sleeping.
const SPIN: Duration = Duration::from_micros(20);

/// Copies `queue` to `fd`, which is called `name`, until told to stop, or told to drain and the queue is empty.
///
/// When the host's end is gone `at_end` is called; what the guest writes after that is dropped.
pub(super) fn serve(
    mut queue: Virtqueue,
    (name, fd): (&str, &OwnedFd),
    stop: &Stop,
    at_end: impl FnOnce(),
) {
    if let Err(error) = copy(&mut queue, (name, fd), stop, at_end) {
        queue.interrupt().fail(&error);
    }
}

fn copy(
    queue: &mut Virtqueue,
    (name, fd): (&str, &OwnedFd),
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
            // SAFETY: the vectors point into guest memory, which the queue keeps mapped.
            match unsafe { host::write_vectored(fd.as_fd(), &mut iovecs, stop) } {
                Ok(()) => (),
                Err(_) if stop.requested() => return Ok(()),
                Err(error) => {
                    host::report_loss(name, &error);
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
