//! `IORING_OP_STATX`.

use super::{Completion, Issue, Prepared, Started, read_path};
use crate::error::{Errno, Result};
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, GetExtendedAttributes, PathAt, Target};
use linux_raw_sys::general as raw;

/// A prepared STATX.
pub(in crate::io_uring) struct Statx {
    operation: GetExtendedAttributes,
    /// Where the result goes.
    address: u64,
    charge: MemoryCharge,
}

impl Prepared for Statx {
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        if flags.contains(RequestFlags::FIXED_FILE) {
            return Err(Errno::EBADF);
        }
        let flags = sqe.op_flags();
        let mut charge = MemoryCharge::NONE;
        let may_be_empty = flags & raw::AT_EMPTY_PATH != 0;
        let at = PathAt {
            fd: sqe.fd(),
            path: read_path(actor, sqe.address(), may_be_empty, &mut charge)?,
        };
        Ok(Self {
            operation: GetExtendedAttributes {
                target: Target { at, flags },
                mask: sqe.length(),
            },
            address: sqe.offset(),
            charge,
        })
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        let Self {
            operation,
            address,
            charge,
        } = self;
        issue.spawn(None, charge, |owner| async move {
            let actor = owner.actor();
            let result = match operation.run(actor).await {
                Ok(attributes) => {
                    let space = actor.space();
                    space
                        .retry(|| space.write_value(address, &attributes))
                        .await
                }
                Err(error) => Err(error),
            };
            // As on Linux, a failure breaks no chain.
            Completion::of_harmless(result.map(|()| 0))
        })
    }
}
