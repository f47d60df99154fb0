//! `IORING_OP_SPLICE` and `TEE`: bytes from file to file through a pipe.

use super::{Completion, Issue, Prepared, Started};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{self, Actor, End, EndPosition, FileRef};
use alloc::sync::Arc;

/// The other descriptor is an index into the file table.
const FD_IN_FIXED: u32 = 1 << 31;

/// What both have in common.
struct Ends {
    from: i32,
    to: i32,
    count: u32,
    flags: u32,
}

impl Ends {
    fn new(sqe: &Sqe) -> Result<Self> {
        let flags = sqe.op_flags();
        if flags & !(operation::Splice::KNOWN | FD_IN_FIXED) != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            from: sqe.file_index() as i32,
            to: sqe.fd(),
            count: sqe.length(),
            flags,
        })
    }

    /// The files: that of the SQE's own descriptor is looked up first.
    fn files(
        &self,
        state: &RingState,
        mut issue: Issue<'_>,
    ) -> Result<(Arc<OpenFile>, Arc<OpenFile>)> {
        let to = state.file(self.to, issue)?;
        let is_fixed = self.flags & FD_IN_FIXED != 0;
        issue.flags.set(RequestFlags::FIXED_FILE, is_fixed);
        Ok((state.file(self.from, issue)?, to))
    }

    /// How a request for so many bytes ends.
    fn end(&self) -> impl FnOnce(Result<u64>) -> Completion + Send + 'static {
        let wanted = u64::from(self.count);
        move |result| match result {
            Ok(count) => Completion {
                result: count as i32,
                flags: 0,
                is_failure: count != wanted,
            },
            Err(error) => Completion::failure(error),
        }
    }
}

/// A prepared SPLICE.
pub(in crate::io_uring) struct Splice {
    ends: Ends,
    from_start: i64,
    to_start: i64,
}

impl Prepared for Splice {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Ok(Self {
            ends: Ends::new(sqe)?,
            from_start: sqe.address() as i64,
            to_start: sqe.offset() as i64,
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let (from, to) = match self.ends.files(state, issue) {
            Ok(files) => files,
            Err(error) => return error.into(),
        };
        let end = |file: &Arc<OpenFile>, start| End {
            file: FileRef::File(file.clone()),
            position: match start {
                -1 => EndPosition::Own,
                at => EndPosition::At(at as u64),
            },
        };
        let splice = operation::Splice {
            from: end(&from, self.from_start),
            to: end(&to, self.to_start),
            count: self.ends.count as usize,
            flags: self.ends.flags & !FD_IN_FIXED,
        };
        let finish = self.ends.end();
        issue.spawn(Some(to), MemoryCharge::NONE, |owner| async move {
            finish(splice.run(owner.actor()).await)
        })
    }
}

/// A prepared TEE.
pub(in crate::io_uring) struct Tee(Ends);

impl Prepared for Tee {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Ends::new(sqe).map(Self)
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let (from, to) = match self.0.files(state, issue) {
            Ok(files) => files,
            Err(error) => return error.into(),
        };
        let tee = operation::Tee {
            from: FileRef::File(from),
            to: FileRef::File(to.clone()),
            count: self.0.count as usize,
            flags: self.0.flags & !FD_IN_FIXED,
        };
        let finish = self.0.end();
        issue.spawn(Some(to), MemoryCharge::NONE, |owner| async move {
            finish(tee.run(owner.actor()).await)
        })
    }
}
