//! `IORING_OP_READ`, `READV`, `READ_FIXED` and their writing counterparts: one read or write, as
//! `preadv2(2)` and `pwritev2(2)` do it.

use super::{Completion, Issue, Prepared, Started, Submitter, Work};
use crate::error::{Errno, Result};
use crate::io::Direction;
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::mm::{IoBuffer, UserRange, UserRanges};
use crate::operation::{Actor, LimitedWrite, Memory, Position, Transfer};
use linux_raw_sys::io_uring::io_uring_op as op;
use machine::{PAGE_SIZE, Segment};

/// The memory side, as the SQE names it.
enum Source {
    Program(UserRanges, MemoryCharge),
    Registered {
        index: u16,
        address: u64,
        length: u32,
    },
    /// From a buffer group; there are none.
    Selected,
}

impl Source {
    #[inline]
    fn new(memory: &Memory, actor: Actor<'_>) -> Result<Self> {
        let ranges = memory.ranges(actor.space())?;
        let charge = charge(&ranges)?;
        Ok(Self::Program(ranges, charge))
    }
}

/// A prepared read or write.
pub(in crate::io_uring) struct ReadWrite {
    direction: Direction,
    source: Source,
    fd: i32,
    flags: u32,
    position: Position,
}

/// Which way the bytes go, and how the SQE names their memory.
enum Form {
    Range,
    Vector,
    Registered,
}

fn form(opcode: u8) -> Option<(Direction, Form)> {
    const READ: u8 = op::IORING_OP_READ as u8;
    const WRITE: u8 = op::IORING_OP_WRITE as u8;
    const READV: u8 = op::IORING_OP_READV as u8;
    const WRITEV: u8 = op::IORING_OP_WRITEV as u8;
    const READ_FIXED: u8 = op::IORING_OP_READ_FIXED as u8;
    const WRITE_FIXED: u8 = op::IORING_OP_WRITE_FIXED as u8;
    Some(match opcode {
        READ => (Direction::Read, Form::Range),
        WRITE => (Direction::Write, Form::Range),
        READV => (Direction::Read, Form::Vector),
        WRITEV => (Direction::Write, Form::Vector),
        READ_FIXED => (Direction::Read, Form::Registered),
        WRITE_FIXED => (Direction::Write, Form::Registered),
        _ => return None,
    })
}

impl Prepared for ReadWrite {
    #[inline]
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        let (direction, form) = form(sqe.opcode()).ok_or(Errno::EINVAL)?;
        check_priority(sqe.priority())?;
        let is_selected = flags.contains(RequestFlags::BUFFER_SELECT);
        let (address, length) = (sqe.address(), sqe.length());
        let source = match form {
            Form::Registered => Source::Registered {
                index: sqe.buffer(),
                address,
                length,
            },
            Form::Vector if is_selected && length != 1 => return Err(Errno::EINVAL),
            _ if is_selected => Source::Selected,
            Form::Range => {
                let length = length.into();
                Source::new(&Memory::Range { address, length }, actor)?
            }
            Form::Vector => {
                let count = length.into();
                Source::new(&Memory::Vector { address, count }, actor)?
            }
        };
        Ok(Self {
            direction,
            source,
            fd: sqe.fd(),
            flags: sqe.op_flags(),
            position: match sqe.offset() as i64 {
                -1 => Position::Own,
                at => Position::Hint(at),
            },
        })
    }

    #[inline]
    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        match self.work(state, issue) {
            Ok(work) if work.is_nothing() => Completion::success(0).into(),
            work => work.into(),
        }
    }
}

impl ReadWrite {
    #[inline]
    fn work(self, state: &RingState, issue: Issue<'_>) -> Result<Work> {
        let file = state.file(self.fd, issue)?;
        let (buffer, charge) = match self.source {
            Source::Program(ranges, charge) => {
                let space = issue.actor.space().clone();
                (IoBuffer::vectored(space, ranges), charge)
            }
            Source::Registered {
                index,
                address,
                length,
            } => {
                let buffer = state.resources.buffer(index)?;
                (buffer.part(address, length.into())?, MemoryCharge::NONE)
            }
            Source::Selected => return Err(Errno::ENOBUFS),
        };
        if self.direction == Direction::Write && LimitedWrite::is_needed(&file, issue.actor) {
            let write = LimitedWrite {
                file: file.clone(),
                buffer,
                position: self.position,
                flags: self.flags,
            };
            let (process, tid) = issue.owned();
            return Ok(Work::future(Some(file), async move {
                let expected = write.buffer.len() as u64;
                match write.run(Actor::submitter(&process, tid)).await {
                    Ok(count) => Completion {
                        is_failure: count != expected,
                        ..Completion::success(count as i32)
                    },
                    Err(error) => Completion::failure(error),
                }
            }));
        }
        let mut transfer = Transfer::new(&file, self.direction, buffer, self.position, self.flags)?;
        // Polling for completion needs a ring set up for it (IOPOLL).
        if transfer.is_polled() {
            return Err(Errno::EINVAL);
        }
        transfer.be_patient();
        let is_stream = self.direction == Direction::Write && !file.ops.is_seekable();
        let writer = is_stream.then(|| Submitter::new(issue.actor));
        Ok(Work::transfer(file, transfer, writer, charge))
    }
}

/// I/O priorities are checked, as `ioprio_set(2)` does, and have no effect.
#[inline]
fn check_priority(priority: u16) -> Result<()> {
    const CLASS_SHIFT: u16 = 13;
    const LEVEL: u16 = 7;
    match priority >> CLASS_SHIFT {
        0 if priority & LEVEL == 0 => Ok(()),
        1..=3 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// What a transfer of these pieces of program memory is charged beyond an ordinary request: its
/// pieces, and its pages, which a device needs to know.
#[inline]
fn charge(ranges: &UserRanges) -> Result<MemoryCharge> {
    const ORDINARY: usize = 64 << 10;
    let length: usize = ranges.iter().map(|range| range.length).sum();
    if ranges.len() <= 1 && length <= ORDINARY {
        return Ok(MemoryCharge::NONE);
    }
    MemoryCharge::new(
        ranges.len() * size_of::<UserRange>() + length / PAGE_SIZE * size_of::<Segment>(),
    )
}
