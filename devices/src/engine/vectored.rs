//! The fallback engine: preadv(2), pwritev(2), fdatasync(2) and fallocate(2), one after another.

use std::collections::VecDeque;
use std::io;

use vmm_sys_util::eventfd::EventFd;

use super::{Completion, Engine, Operation};
use crate::poll;

/// Runs each operation when it is started.
pub(crate) struct Vectored {
    doorbells: Vec<EventFd>,
    stop: EventFd,
    finished: VecDeque<Completion>,
}

impl Vectored {
    /// An engine that `stop` wakes.
    ///
    /// # Errors
    ///
    /// Those of dup(2).
    pub(crate) fn new(stop: &EventFd) -> io::Result<Self> {
        Ok(Self {
            doorbells: Vec::new(),
            stop: stop.try_clone()?,
            finished: VecDeque::new(),
        })
    }
}

impl Engine for Vectored {
    fn attach(&mut self, doorbells: Vec<EventFd>) {
        self.doorbells = doorbells;
    }

    fn detach(&mut self) -> io::Result<()> {
        self.doorbells.clear();
        Ok(())
    }

    unsafe fn start(
        &mut self,
        slot: u16,
        operation: Operation,
        iovecs: &[libc::iovec],
    ) -> io::Result<()> {
        let (base, count) = (iovecs.as_ptr(), iovecs.len() as libc::c_int);
        // SAFETY: the caller keeps the vectors and what they point at valid; the numbers are
        // plain values that the kernel checks.
        let result = unsafe {
            match operation {
                Operation::Read { fd, offset } => libc::preadv(fd, base, count, offset as i64),
                Operation::Write { fd, offset } => libc::pwritev(fd, base, count, offset as i64),
                Operation::Append { fd } => libc::pwritev2(fd, base, count, 0, libc::RWF_APPEND),
                Operation::Sync { fd, metadata } => match metadata {
                    true => libc::fsync(fd) as isize,
                    false => libc::fdatasync(fd) as isize,
                },
                Operation::Allocate {
                    fd,
                    mode,
                    offset,
                    len,
                } => libc::fallocate(fd, mode, offset as i64, len as i64) as isize,
            }
        };
        let result = match result {
            -1 => -io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
            // No call moves more than 0x7ffff000 bytes.
            count => count as i32,
        };
        self.finished.push_back(Completion { slot, result });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.finished.pop_front()
    }

    fn wait(&mut self) -> io::Result<()> {
        if !self.doorbells.is_empty() && self.finished.is_empty() {
            poll::any_readable(self.doorbells.iter().chain([&self.stop]))?;
            for doorbell in &self.doorbells {
                // EAGAIN says that another one woke us.
                let _ = doorbell.read();
            }
        }
        Ok(())
    }
}
