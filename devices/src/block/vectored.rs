//! The fallback engine: preadv(2), pwritev(2), fdatasync(2) and fallocate(2), one after another.

use std::collections::VecDeque;
use std::io;

use vmm_sys_util::eventfd::EventFd;

use super::engine::{Completion, Engine, Operation};
use crate::poll;

/// Runs each operation when it is started.
pub(crate) struct Vectored {
    doorbell: Option<EventFd>,
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
            doorbell: None,
            stop: stop.try_clone()?,
            finished: VecDeque::new(),
        })
    }
}

impl Engine for Vectored {
    fn attach(&mut self, doorbell: EventFd) {
        self.doorbell = Some(doorbell);
    }

    fn detach(&mut self) -> io::Result<()> {
        self.doorbell = None;
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
                Operation::Sync { fd } => libc::fdatasync(fd) as isize,
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
        if let Some(doorbell) = &self.doorbell
            && self.finished.is_empty()
        {
            poll::readable([poll::borrow(doorbell), poll::borrow(&self.stop)])?;
            // EAGAIN says that the other one woke us.
            let _ = doorbell.read();
        }
        Ok(())
    }
}
