//! `IORING_OP_FSYNC`: `fsync(2)` and `fdatasync(2)`.

use super::{Operation, Started, Work};
use crate::error::{Errno, Result};
use crate::io_uring::ring::State;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::process::Process;
use alloc::boxed::Box;
use linux_raw_sys::io_uring::IORING_FSYNC_DATASYNC;

/// A prepared FSYNC. A range is taken as the whole file, which satisfies it.
pub(in crate::io_uring) struct Fsync {
    fd: i32,
    data_only: bool,
    /// A range that no file can have.
    is_negative: bool,
}

pub(super) fn prepare(sqe: &Sqe, _: RequestFlags, _: &Process) -> Result<Operation> {
    let flags = sqe.op_flags();
    if sqe.address() != 0 || sqe.buffer() != 0 || sqe.file_index() != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & !IORING_FSYNC_DATASYNC != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Operation::Fsync(Fsync {
        fd: sqe.fd(),
        data_only: flags & IORING_FSYNC_DATASYNC != 0,
        is_negative: (sqe.offset() as i64) < 0,
    }))
}

impl State {
    pub(super) fn start_fsync(
        &self,
        fsync: Fsync,
        flags: RequestFlags,
        process: &Process,
    ) -> Started {
        let is_fixed = flags.contains(RequestFlags::FIXED_FILE);
        let file = match self.file(fsync.fd, is_fixed, process) {
            Ok(file) => file,
            Err(error) => return error.into(),
        };
        if fsync.is_negative {
            return Errno::EINVAL.into();
        }
        Started::Pending(Work::Other(Box::pin(async move {
            file.ops.sync(fsync.data_only).await.map(|()| 0)
        })))
    }
}
