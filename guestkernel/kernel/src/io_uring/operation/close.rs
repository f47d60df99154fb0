//! `IORING_OP_CLOSE`: `close(2)`, or emptying a place in the file table.

use super::{Completion, Operation, Started, Work};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring::file::is_ring;
use crate::io_uring::ring::State;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::process::Process;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// A prepared CLOSE.
pub(in crate::io_uring) enum Close {
    Descriptor(i32),
    Fixed(u32),
}

pub(super) fn prepare(sqe: &Sqe, flags: RequestFlags, _: &Process) -> Result<Operation> {
    let has_more = sqe.offset() != 0
        || sqe.address() != 0
        || sqe.length() != 0
        || sqe.op_flags() != 0
        || sqe.buffer() != 0;
    if has_more {
        return Err(Errno::EINVAL);
    }
    if flags.contains(RequestFlags::FIXED_FILE) {
        return Err(Errno::EBADF);
    }
    Ok(Operation::Close(
        match (sqe.file_index().checked_sub(1), sqe.fd()) {
            (None, fd) => Close::Descriptor(fd),
            (Some(index), 0) => Close::Fixed(index),
            (Some(_), _) => return Err(Errno::EINVAL),
        },
    ))
}

impl State {
    pub(super) fn start_close(&mut self, close: Close, process: &Process) -> Started {
        match close {
            Close::Fixed(index) => {
                Completion::of(self.resources.take_file(index).map(|_| 0)).into()
            }
            Close::Descriptor(fd) => match close_descriptor(fd, process) {
                Ok(file) if file.ops.flushes() => {
                    Started::Pending(Work::Other(Box::pin(async move {
                        file.ops.flush().await.map(|()| 0)
                    })))
                }
                result => Completion::of(result.map(|_| 0)).into(),
            },
        }
    }
}

/// A ring cannot be closed by a request: it would have to wait for itself.
fn close_descriptor(fd: i32, process: &Process) -> Result<Arc<OpenFile>> {
    if is_ring(&*process.files.get_any(fd)?) {
        return Err(Errno::EBADF);
    }
    process.files.close(fd)
}
