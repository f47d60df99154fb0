//! `IORING_OP_OPENAT` and `OPENAT2`: opening a file, for a descriptor or for a place in the ring's file
//! table.

use super::{Completion, Issue, Prepared, Started, Work, read_path};
use crate::error::{Errno, Result};
use crate::fs::OpenHow;
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{self, Actor, OpenRequest, PathAt};
use linux_raw_sys::general as raw;
use linux_raw_sys::io_uring::io_uring_op as op;

/// A prepared OPENAT or OPENAT2.
pub(in crate::io_uring) struct Open {
    at: PathAt,
    how: OpenRequest,
    /// Where in the file table it goes, as the SQE says it.
    slot: u32,
    charge: MemoryCharge,
}

impl Prepared for Open {
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        let how = match sqe.opcode() == op::IORING_OP_OPENAT2 as u8 {
            true => OpenRequest::read(actor, sqe.offset(), sqe.length() as usize)?,
            false => OpenRequest::Plain {
                flags: sqe.op_flags(),
                mode: sqe.length(),
            },
        };
        if sqe.buffer() != 0 {
            return Err(Errno::EINVAL);
        }
        if flags.contains(RequestFlags::FIXED_FILE) {
            return Err(Errno::EBADF);
        }
        let mut charge = MemoryCharge::NONE;
        let at = PathAt {
            fd: sqe.fd(),
            path: read_path(actor, sqe.address(), false, &mut charge)?,
        };
        let slot = sqe.file_index();
        if slot != 0 && how.flags() & u64::from(raw::O_CLOEXEC) != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            at,
            how,
            slot,
            charge,
        })
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        let how: OpenHow = match self.how.check() {
            Ok(how) => how.by_ring(),
            Err(error) => return error.into(),
        };
        let opening = operation::Open { at: self.at, how };
        match self.slot {
            0 => issue.spawn(None, self.charge, |owner| async move {
                Completion::of(opening.install(owner.actor()).await)
            }),
            slot => {
                let mut charge = self.charge;
                let (process, tid) = issue.owned();
                let opening = async move { opening.run(Actor::submitter(&process, tid)).await };
                match charge.add(size_of_val(&opening)) {
                    Ok(()) => Started::Pending(Work::opening(opening, slot, charge)),
                    Err(error) => error.into(),
                }
            }
        }
    }
}
