//! A stream from the guest to the host: writes straight from the driver's buffers.
//!
//! A chain is given back when all of it is written, so a slow reader holds up the program that
//! writes, and nothing piles up here. A driver that leaves room for it hears what became of the chain
//! ([`ringlet_abi::console::FEATURE_STATUS`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use ringlet_abi::console::STATUS_SIZE;
use vm_memory::Bytes;

use super::host;
use crate::chain::{to_iovecs, total};
use crate::poll::Spin;
use crate::{Buffers, QueueError, Statistics, Stop, Virtqueue, poll};

/// How long to look for more output before sleeping.
const SPIN: Duration = Duration::from_micros(20);

/// Copies `queue` to `fd`, which is called `name`, until told to stop, or told to drain and the queue is empty.
///
/// When the host's end is gone, or refuses something and the driver cannot be told, `at_end` is called;
/// what the guest writes after that is dropped.
pub(super) fn serve(
    mut queue: Virtqueue,
    (name, fd): (&str, &OwnedFd),
    stop: &Stop,
    statistics: &Statistics,
    at_end: impl FnOnce(io::Error),
) {
    if let Err(error) = copy(&mut queue, (name, fd), stop, statistics, at_end) {
        queue.interrupt().fail(&error);
    }
}

fn copy(
    queue: &mut Virtqueue,
    (name, fd): (&str, &OwnedFd),
    stop: &Stop,
    statistics: &Statistics,
    at_end: impl FnOnce(io::Error),
) -> Result<(), QueueError> {
    let mut at_end = Some(at_end);
    let mut buffers = Buffers::default();
    let mut iovecs = Vec::new();
    while wait_for_buffer(queue, &mut buffers, stop)? {
        iovecs.clear();
        to_iovecs(queue.memory(), &buffers.readable, &mut iovecs)
            .ok_or(QueueError::Request("a buffer left guest memory"))?;
        statistics.writes.add(1);
        statistics.written_bytes.add(total(&buffers.readable));
        let wants_status = !buffers.writable.is_empty();
        let mut errno = libc::EPIPE;
        if at_end.is_some() {
            // SAFETY: the vectors point into guest memory, which the queue keeps mapped.
            match unsafe { host::write_vectored(fd.as_fd(), &mut iovecs, stop) } {
                Ok(()) => errno = 0,
                Err(_) if stop.requested() => return Ok(()),
                Err(error) => {
                    errno = error.raw_os_error().unwrap_or(libc::EIO);
                    statistics.errors.add(1);
                    // The driver hears of it before it gets the buffer back.
                    if !wants_status || errno == libc::EPIPE {
                        host::report_loss(name, &error);
                        if let Some(at_end) = at_end.take() {
                            at_end(error);
                        }
                    }
                }
            }
        }
        let written = match wants_status {
            true => {
                let left: usize = iovecs.iter().map(|iovec| iovec.iov_len).sum();
                let done = total(&buffers.readable).saturating_sub(left as u64) as u32;
                give_status(queue, &buffers, errno as u32, done)?
            }
            false => 0,
        };
        queue.push_used(buffers.head, written)?;
        queue.announce()?;
    }
    Ok(())
}

/// Writes what became of a chain behind it; gives the bytes written.
fn give_status(
    queue: &Virtqueue,
    buffers: &Buffers,
    errno: u32,
    done: u32,
) -> Result<u32, QueueError> {
    const TOO_SMALL: QueueError = QueueError::Request("no room for an output's status");
    let mut status = [0; STATUS_SIZE];
    status[..4].copy_from_slice(&errno.to_le_bytes());
    status[4..].copy_from_slice(&done.to_le_bytes());
    let [place] = &buffers.writable[..] else {
        return Err(TOO_SMALL);
    };
    if (place.len as usize) < STATUS_SIZE {
        return Err(TOO_SMALL);
    }
    let written = queue.memory().write_slice(&status, place.addr);
    written.map_err(|_| QueueError::Request("a status left guest memory"))?;
    Ok(STATUS_SIZE as u32)
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
