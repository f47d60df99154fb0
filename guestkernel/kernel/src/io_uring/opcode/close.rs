//! `IORING_OP_CLOSE`: `close(2)`, or emptying a place in the file table.

use super::{Completion, Issue, Prepared, Started, Work};
use crate::error::{Errno, Result};
use crate::io_uring::file::is_ring;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{self, Actor};

/// A prepared CLOSE.
pub(in crate::io_uring) enum Close {
    Descriptor(i32),
    Fixed(u32),
}

impl Prepared for Close {
    fn prepare(sqe: &Sqe, flags: RequestFlags, _: Actor<'_>) -> Result<Self> {
        if flags.contains(RequestFlags::FIXED_FILE) {
            return Err(Errno::EBADF);
        }
        match (sqe.file_index().checked_sub(1), sqe.fd()) {
            (None, fd) => Ok(Self::Descriptor(fd)),
            (Some(index), 0) => Ok(Self::Fixed(index)),
            (Some(_), _) => Err(Errno::EINVAL),
        }
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        match self {
            Self::Fixed(index) => {
                let result = state.take_file(index);
                Completion::of(result.map(|()| 0)).into()
            }
            Self::Descriptor(fd) => close_descriptor(fd, issue.actor),
        }
    }
}

fn close_descriptor(fd: i32, actor: Actor<'_>) -> Started {
    let close = operation::Close { fd };
    // A ring cannot be closed by a request: it would have to wait for itself.
    let closed = match actor.process.files.get_any(fd) {
        Ok(file) if is_ring(&file) => Err(Errno::EBADF),
        Ok(_) => close.run_now(actor),
        Err(error) => Err(error),
    };
    match closed.transpose() {
        Some(result) => Completion::of(result.map(|()| 0)).into(),
        None => {
            let (process, tid) = (actor.process.clone(), actor.tid);
            Started::Pending(Work::future(None, async move {
                let result = close.run(Actor::submitter(&process, tid)).await;
                Completion::of(result.map(|()| 0))
            }))
        }
    }
}
