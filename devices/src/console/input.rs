//! A stream from the host to the guest: reads straight into the buffers the driver offers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use std::time::Duration;

use crate::chain::to_iovecs;
use crate::{Buffers, QueueError, Stop, Virtqueue, poll};

/// How often a background job looks whether it came to the foreground.
const FOREGROUND_INTERVAL: Duration = Duration::from_millis(100);

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
        let Some(count) = read(fd, &iovecs, stop) else {
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

/// Bytes read, 0 at the end of the input or where it cannot be read; `None` when told to stop.
fn read(fd: &OwnedFd, iovecs: &[libc::iovec], stop: &Stop) -> Option<u32> {
    loop {
        if is_background(fd) {
            poll::readable_within([poll::borrow(stop.event())], FOREGROUND_INTERVAL).ok()?;
            if stop.requested() {
                return None;
            }
            continue;
        }
        // Not to sit in readv when the device is reset: it may take what comes later.
        let ready = poll::readable([fd.as_fd(), poll::borrow(stop.event())]);
        if stop.requested() {
            return None;
        }
        match ready {
            Ok([true, _]) => (),
            Ok([false, _]) => continue,
            Err(error) => {
                log::warn!("standard input: {error}");
                return Some(0);
            }
        }
        // SAFETY: the vectors point into guest memory, which the queue keeps mapped.
        let count =
            unsafe { libc::readv(fd.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as libc::c_int) };
        if let Ok(count) = u32::try_from(count) {
            return Some(count);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => (),
            _ => {
                log::debug!("standard input: {error}");
                return Some(0);
            }
        }
    }
}

/// Whether `fd` is the controlling terminal of a background job: a read would stop the job, also
/// when its program wants no input.
fn is_background(fd: &OwnedFd) -> bool {
    // SAFETY: neither has memory arguments.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(fd.as_raw_fd()), libc::getpgrp()) };
    foreground != -1 && foreground != own
}
