//! `IORING_OP_NOP`: nothing, or what a test wants (`IORING_NOP_*`).

use super::{Completion, Issue, Prepared, Started};
use crate::error::{Errno, Result};
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::Actor;
use linux_raw_sys::io_uring as raw;

const KNOWN: u32 = raw::IORING_NOP_INJECT_RESULT
    | raw::IORING_NOP_FILE
    | raw::IORING_NOP_FIXED_FILE
    | raw::IORING_NOP_FIXED_BUFFER
    | raw::IORING_NOP_TW;

/// A prepared NOP.
pub(in crate::io_uring) struct Nop {
    flags: u32,
    result: i32,
    fd: i32,
    buffer: u16,
}

impl Prepared for Nop {
    #[inline(always)]
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let flags = sqe.op_flags();
        if flags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let injects = flags & raw::IORING_NOP_INJECT_RESULT != 0;
        Ok(Self {
            flags,
            result: if injects { sqe.length() as i32 } else { 0 },
            fd: sqe.fd(),
            buffer: sqe.buffer(),
        })
    }

    #[inline(always)]
    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let checked = match self.flags {
            0 => Ok(()),
            _ => self.check(state, issue),
        };
        let result = checked.map_or_else(Errno::as_result, |()| self.result);
        Started::Done(Completion {
            result,
            flags: 0,
            is_failure: result < 0,
        })
    }
}

impl Nop {
    #[cold]
    fn check(&self, state: &RingState, mut issue: Issue<'_>) -> Result<()> {
        if self.flags & raw::IORING_NOP_FILE != 0 {
            let is_fixed = self.flags & raw::IORING_NOP_FIXED_FILE != 0;
            issue.flags.set(RequestFlags::FIXED_FILE, is_fixed);
            state.file(self.fd, issue)?;
        }
        if self.flags & raw::IORING_NOP_FIXED_BUFFER != 0 {
            state.resources.buffer(self.buffer)?;
        }
        Ok(())
    }
}
