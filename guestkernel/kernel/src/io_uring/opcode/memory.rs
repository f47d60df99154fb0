//! `IORING_OP_MADVISE`.

use super::{Completion, Issue, Prepared, Started, Work};
use crate::error::Result;
use crate::io_uring::ring::RingState;
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

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        // As on Linux, a failure breaks no chain.
        let completion = |result: Result<()>| Completion::of_harmless(result.map(|()| 0));
        if let Some(result) = self.0.run_now(issue.actor) {
            return completion(result).into();
        }
        let (process, tid) = issue.owned();
        Started::Pending(Work::future(None, async move {
            completion(self.0.run(Actor::submitter(&process, tid)).await)
        }))
    }
}
