//! `IORING_OP_PIPE`: `pipe2(2)`, for descriptors or for places in the ring's file table.

use super::{Completion, Issue, Prepared, Started};
use crate::error::{Errno, Result};
use crate::io_uring::resources::ALLOCATE;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, MakePipe};
use linux_raw_sys::general as raw;

/// A prepared PIPE.
pub(in crate::io_uring) struct Pipe {
    operation: MakePipe,
    /// Where in the file table the first end goes, as the SQE says it.
    slot: u32,
}

impl Prepared for Pipe {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        if sqe.fd() != 0 {
            return Err(Errno::EINVAL);
        }
        let operation = MakePipe {
            address: sqe.address(),
            flags: sqe.op_flags(),
        };
        operation.check_flags()?;
        Ok(Self {
            operation,
            slot: sqe.file_index(),
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let result = match self.slot {
            0 => self.operation.run(issue.actor),
            slot => state.make_fixed_pipe(&self.operation, slot, issue.actor),
        };
        Completion::of(result.map(|()| 0)).into()
    }
}

impl RingState {
    /// Puts the ends of a new pipe into the file table: the second goes after the first, or both
    /// where there is room.
    fn make_fixed_pipe(&mut self, pipe: &MakePipe, slot: u32, actor: Actor<'_>) -> Result<()> {
        let (reader, writer) = pipe.make(actor)?;
        if pipe.flags & raw::O_CLOEXEC != 0 {
            return Err(Errno::EINVAL);
        }
        let next = match slot {
            ALLOCATE => ALLOCATE,
            slot => slot.wrapping_add(1),
        };
        let place = |result: u32, slot| match slot {
            ALLOCATE => result,
            slot => slot - 1,
        };
        let first = place(self.install_file(reader, slot)?, slot);
        let second = self.install_file(writer, next);
        let written = second.and_then(|second| {
            let second = place(second, next);
            // The program is told the places as an SQE names them.
            let pair = u64::from(first) | u64::from(second) << 32;
            let written = actor.space().write_value(pipe.address, &pair);
            written.inspect_err(|_| self.give_up_file(second))
        });
        written.inspect_err(|_| self.give_up_file(first))
    }
}
