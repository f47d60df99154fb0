//! `IORING_OP_NOP`: nothing, or what a test wants (`IORING_NOP_*`).

use super::{Completion, Operation, Started};
use crate::error::{Errno, Result};
use crate::io_uring::ring::State;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::process::Process;
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

#[inline(always)]
pub(super) fn prepare(sqe: &Sqe, _: RequestFlags, _: &Process) -> Result<Operation> {
    let flags = sqe.op_flags();
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let injects = flags & raw::IORING_NOP_INJECT_RESULT != 0;
    Ok(Operation::Nop(Nop {
        flags,
        result: if injects { sqe.length() as i32 } else { 0 },
        fd: sqe.fd(),
        buffer: sqe.buffer(),
    }))
}

impl State {
    #[inline(always)]
    pub(super) fn start_nop(&self, nop: Nop, process: &Process) -> Started {
        let checked = match nop.flags {
            0 => Ok(()),
            _ => self.check_nop(&nop, process),
        };
        let result = checked.map_or_else(Errno::as_result, |()| nop.result);
        Started::Done(Completion {
            result,
            flags: 0,
            is_failure: result < 0,
        })
    }

    #[cold]
    fn check_nop(&self, nop: &Nop, process: &Process) -> Result<()> {
        if nop.flags & raw::IORING_NOP_FILE != 0 {
            let is_fixed = nop.flags & raw::IORING_NOP_FIXED_FILE != 0;
            self.file(nop.fd, is_fixed, process)?;
        }
        if nop.flags & raw::IORING_NOP_FIXED_BUFFER != 0 {
            self.resources.buffer(nop.buffer)?;
        }
        Ok(())
    }
}
