//! `IORING_OP_FSYNC`.

use super::{Completion, Issue, Prepared, Started, Work};
use crate::error::{Errno, Result};
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, FileRef, Sync};
use linux_raw_sys::io_uring::IORING_FSYNC_DATASYNC;

/// A prepared FSYNC.
pub(in crate::io_uring) struct Fsync {
    fd: i32,
    data_only: bool,
}

impl Prepared for Fsync {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let flags = sqe.op_flags();
        if flags & !IORING_FSYNC_DATASYNC != 0 || (sqe.offset() as i64) < 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            fd: sqe.fd(),
            data_only: flags & IORING_FSYNC_DATASYNC != 0,
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let work = state.file(self.fd, issue).map(|file| {
            let operation = Sync {
                file: FileRef::File(file.clone()),
                data_only: self.data_only,
            };
            let (process, tid) = issue.owned();
            Work::future(Some(file), async move {
                let result = operation.run(Actor::submitter(&process, tid)).await;
                // As on Linux, its failure breaks no chain.
                Completion::of_harmless(result.map(|()| 0))
            })
        });
        work.into()
    }
}
