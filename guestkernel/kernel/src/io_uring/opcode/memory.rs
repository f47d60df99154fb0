//! `IORING_OP_MADVISE`.

use super::{Completion, Issue, Prepared, Started};
use crate::error::Result;
use crate::io_uring::ring::State;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, AdviseMemory};

/// A prepared MADVISE.
pub(in crate::io_uring) struct Madvise(AdviseMemory);

impl Prepared for Madvise {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Ok(Self(AdviseMemory {
            address: sqe.address(),
            length: match sqe.offset() {
                0 => sqe.length().into(),
                length => length,
            },
            advice: sqe.op_flags(),
        }))
    }

    fn start(self, _: &mut State, issue: Issue<'_>) -> Started {
        // As on Linux, a failure breaks no chain.
        Completion::of_harmless(self.0.run(issue.actor).map(|()| 0)).into()
    }
}
