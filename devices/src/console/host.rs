//! The host's ends of the streams: read and written with care for others who share them, and so
//! that a thread that does it can be stopped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::chain::advance;
use crate::{Stop, poll};

/// How often a background job looks whether it came to the foreground.
const FOREGROUND_INTERVAL: Duration = Duration::from_millis(100);

/// Reads what there is, waiting for something: how many bytes, 0 at the end of the input or where
/// it cannot be read; `None` when told to stop.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8], stop: &Stop) -> Option<usize> {
    let iovec = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the vector is the buffer, which is borrowed for the call.
    let count = unsafe { read_vectored(fd, &[iovec], stop) };
    count.map(|count| count as usize)
}

/// Writes all of `bytes`, waiting for room.
///
/// # Errors
///
/// Those of writev(2); EINTR or EAGAIN when told to stop.
pub fn write_all(fd: BorrowedFd<'_>, bytes: &[u8], stop: &Stop) -> io::Result<()> {
    let mut iovecs = vec![libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }];
    // SAFETY: the vector is the bytes, which are borrowed for the call, and only read.
    unsafe { write_vectored(fd, &mut iovecs, stop) }
}

/// Says that what is written to the stream `name` is lost. A reader that has left needs no words.
pub fn report_loss(name: &str, error: &io::Error) {
    match error.kind() {
        io::ErrorKind::BrokenPipe => log::debug!("{name}: {error}"),
        _ => log::error!("{name}: {error}; what the program writes there is lost"),
    }
}

/// Bytes read, 0 at the end of the input or where it cannot be read; `None` when told to stop.
///
/// # Safety
///
/// The vectors must point at memory that may be written.
pub(super) unsafe fn read_vectored(
    fd: BorrowedFd<'_>,
    iovecs: &[libc::iovec],
    stop: &Stop,
) -> Option<u32> {
    loop {
        if is_background(fd) {
            poll::readable_within([poll::borrow(stop.event())], FOREGROUND_INTERVAL).ok()?;
            if stop.requested() {
                return None;
            }
            continue;
        }
        // Not to sit in readv when the device is reset: it may take what comes later.
        let ready = poll::readable([fd, poll::borrow(stop.event())]);
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
        // SAFETY: the caller's promise.
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
pub fn is_background(fd: BorrowedFd<'_>) -> bool {
    // Either may be 0, for a group of another PID namespace.
    // SAFETY: neither has memory arguments.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(fd.as_raw_fd()), libc::getpgrp()) };
    foreground != -1 && foreground != own
}

/// Writes all that `iovecs` point at.
///
/// # Errors
///
/// The host's; EINTR when told to stop.
///
/// # Safety
///
/// The vectors must point at memory that may be read.
pub(super) unsafe fn write_vectored(
    fd: BorrowedFd<'_>,
    iovecs: &mut Vec<libc::iovec>,
    stop: &Stop,
) -> io::Result<()> {
    while !iovecs.is_empty() {
        // SAFETY: the caller's promise.
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
                    (fd, PollFlags::OUT),
                    (poll::borrow(stop.event()), PollFlags::empty()),
                ];
                poll::wait(events, None)?;
                if stop.requested() {
                    return Err(error);
                }
            }
            _ => return Err(error),
        }
    }
    Ok(())
}
