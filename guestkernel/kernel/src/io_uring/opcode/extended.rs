//! `IORING_OP_SETXATTR`, `FSETXATTR`, `GETXATTR` and `FGETXATTR`.

use super::{Completion, Issue, Prepared, Started, read_path};
use crate::error::{Errno, Result};
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, ExtendedName, ExtendedTarget, FileRef, GetExtended, SetExtended};
use linux_raw_sys::io_uring::io_uring_op as op;

/// The file, as the SQE names it: by a path, or by its descriptor when it has its turn.
fn target(
    sqe: &Sqe,
    by_path: op,
    actor: Actor<'_>,
    charge: &mut MemoryCharge,
) -> Result<ExtendedTarget> {
    match sqe.opcode() == by_path as u8 {
        true => Ok(ExtendedTarget::Path {
            path: read_path(actor, sqe.address3(), false, charge)?,
            follows: true,
        }),
        false => Ok(ExtendedTarget::Open(FileRef::Descriptor(sqe.fd()))),
    }
}

/// A prepared SETXATTR or FSETXATTR.
pub(in crate::io_uring) struct Setxattr {
    operation: SetExtended,
    charge: MemoryCharge,
}

impl Prepared for Setxattr {
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        if flags.contains(RequestFlags::FIXED_FILE) {
            return Err(Errno::EBADF);
        }
        let unknown = ExtendedTarget::Open(FileRef::Descriptor(-1));
        let value = (sqe.offset(), sqe.length().into());
        let mut operation =
            SetExtended::read(actor, unknown, sqe.address(), value, sqe.op_flags())?;
        let mut charge = MemoryCharge::new(operation.size())?;
        operation.target = target(sqe, op::IORING_OP_SETXATTR, actor, &mut charge)?;
        Ok(Self { operation, charge })
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        let operation = self.operation;
        issue.spawn(None, self.charge, |owner| async move {
            // As on Linux, a failure breaks no chain.
            Completion::of_harmless(operation.run(owner.actor()).await.map(|()| 0))
        })
    }
}

/// A prepared GETXATTR or FGETXATTR.
pub(in crate::io_uring) struct Getxattr {
    operation: GetExtended,
    charge: MemoryCharge,
}

impl Prepared for Getxattr {
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        if flags.contains(RequestFlags::FIXED_FILE) {
            return Err(Errno::EBADF);
        }
        if sqe.op_flags() != 0 {
            return Err(Errno::EINVAL);
        }
        let name = ExtendedName::read(actor, sqe.address())?;
        let mut charge = MemoryCharge::NONE;
        Ok(Self {
            operation: GetExtended {
                target: target(sqe, op::IORING_OP_GETXATTR, actor, &mut charge)?,
                name,
                address: sqe.offset(),
                size: sqe.length().into(),
            },
            charge,
        })
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        let operation = self.operation;
        issue.spawn(None, self.charge, |owner| async move {
            let result = operation.run(owner.actor()).await;
            Completion::of_harmless(result.map(|size| size as i32))
        })
    }
}
