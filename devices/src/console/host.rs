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

/// Reads what there is, waiting for something: how many bytes, 0 at the end of the input; `None` when
/// told to stop.
///
/// # Errors
///
/// Those of readv(2): it cannot be read.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8], stop: &Stop) -> io::Result<Option<usize>> {
    let iovec = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the vector is the buffer, which is borrowed for the call.
    let count = unsafe { read_vectored(fd, &[iovec], stop) }?;
    Ok(count.map(|count| count as usize))
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

/// Bytes read, 0 at the end of the input; `None` when told to stop.
///
/// # Errors
///
/// Those of readv(2).
///
/// # Safety
///
/// The vectors must point at memory that may be written.
pub(super) unsafe fn read_vectored(
    fd: BorrowedFd<'_>,
    iovecs: &[libc::iovec],
    stop: &Stop,
) -> io::Result<Option<u32>> {
    loop {
        if is_background(fd) {
            poll::readable_within([poll::borrow(stop.event())], FOREGROUND_INTERVAL)?;
            if stop.requested() {
                return Ok(None);
            }
            continue;
        }
        // Not to sit in readv when the device is reset: it may take what comes later.
        let ready = poll::readable([fd, poll::borrow(stop.event())]);
        if stop.requested() {
            return Ok(None);
        }
        let [true, _] = ready? else {
            continue;
        };
        // SAFETY: the caller's promise.
        let count =
            unsafe { libc::readv(fd.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as libc::c_int) };
        if let Ok(count) = u32::try_from(count) {
            return Ok(Some(count));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => (),
            _ => return Err(error),
        }
    }
}

/// Whether `fd` is a file that may refuse what is written to it for want of space or by a limit: not a
/// pipe, socket or terminal.
pub(super) fn may_refuse(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: all-zero bytes are a valid stat: it is integers only.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: fstat writes a stat; isatty has no memory arguments.
    unsafe {
        libc::fstat(fd.as_raw_fd(), &raw mut status) == 0
            && match status.st_mode & libc::S_IFMT {
                libc::S_IFREG | libc::S_IFBLK => true,
                libc::S_IFCHR => libc::isatty(fd.as_raw_fd()) == 0,
                _ => false,
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
