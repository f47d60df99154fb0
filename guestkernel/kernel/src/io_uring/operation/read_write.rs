//! `IORING_OP_READ`, `READV`, `READ_FIXED` and their writing counterparts: one read or write, as
//! `preadv2(2)` and `pwritev2(2)` do it.

use super::{Completion, Operation, Progress, Started, Work};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::io::{Direction, InFlight, Io, IoFlags};
use crate::io_uring::budget::Charge;
use crate::io_uring::ring::State;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::mm::{IoBuffer, MAX_COUNT, UserRange, UserRanges, read_iovecs};
use crate::process::Process;
use alloc::sync::Arc;
use core::task::{Context, Poll};
use machine::{PAGE_SIZE, Segment};

/// The memory side, as the SQE names it.
enum Memory {
    Program(UserRanges, Charge),
    Registered {
        index: u16,
        address: u64,
        length: u32,
    },
    /// From a buffer group; there are none.
    Selected,
}

/// A prepared read or write.
pub(in crate::io_uring) struct ReadWrite {
    direction: Direction,
    memory: Memory,
    fd: i32,
    flags: u32,
    offset: u64,
}

#[inline]
pub(super) fn read(sqe: &Sqe, flags: RequestFlags, _: &Process) -> Result<Operation> {
    plain(sqe, flags, Direction::Read)
}

#[inline]
pub(super) fn write(sqe: &Sqe, flags: RequestFlags, _: &Process) -> Result<Operation> {
    plain(sqe, flags, Direction::Write)
}

pub(super) fn readv(sqe: &Sqe, flags: RequestFlags, process: &Process) -> Result<Operation> {
    vectored(sqe, flags, Direction::Read, process)
}

pub(super) fn writev(sqe: &Sqe, flags: RequestFlags, process: &Process) -> Result<Operation> {
    vectored(sqe, flags, Direction::Write, process)
}

#[inline]
pub(super) fn read_fixed(sqe: &Sqe, _: RequestFlags, _: &Process) -> Result<Operation> {
    prepare(sqe, Direction::Read, || Ok(registered(sqe)))
}

#[inline]
pub(super) fn write_fixed(sqe: &Sqe, _: RequestFlags, _: &Process) -> Result<Operation> {
    prepare(sqe, Direction::Write, || Ok(registered(sqe)))
}

fn registered(sqe: &Sqe) -> Memory {
    Memory::Registered {
        index: sqe.buffer(),
        address: sqe.address(),
        length: sqe.length(),
    }
}

#[inline]
fn plain(sqe: &Sqe, flags: RequestFlags, direction: Direction) -> Result<Operation> {
    prepare(sqe, direction, || {
        if flags.contains(RequestFlags::BUFFER_SELECT) {
            return Ok(Memory::Selected);
        }
        let range = UserRange::new(sqe.address(), sqe.length().into(), MAX_COUNT)?;
        let charge = charge(1, range.length)?;
        Ok(Memory::Program([range].into(), charge))
    })
}

fn vectored(
    sqe: &Sqe,
    flags: RequestFlags,
    direction: Direction,
    process: &Process,
) -> Result<Operation> {
    prepare(sqe, direction, || {
        if flags.contains(RequestFlags::BUFFER_SELECT) {
            return match sqe.length() {
                1 => Ok(Memory::Selected),
                _ => Err(Errno::EINVAL),
            };
        }
        let ranges = read_iovecs(&process.space, sqe.address(), sqe.length().into())?;
        let total = ranges.iter().map(|range| range.length).sum();
        let charge = charge(ranges.len(), total)?;
        Ok(Memory::Program(ranges, charge))
    })
}

#[inline]
fn prepare(
    sqe: &Sqe,
    direction: Direction,
    memory: impl FnOnce() -> Result<Memory>,
) -> Result<Operation> {
    check_priority(sqe.priority())?;
    // Attributes (protection information) are not supported (`IORING_FEAT_RW_ATTR`).
    if sqe.attributes() != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Operation::ReadWrite(ReadWrite {
        direction,
        memory: memory()?,
        fd: sqe.fd(),
        flags: sqe.op_flags(),
        offset: sqe.offset(),
    }))
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

/// What a transfer of `length` bytes in so many pieces of program memory is charged beyond an
/// ordinary request: its pieces, and its pages, which a device needs to know.
#[inline]
fn charge(pieces: usize, length: usize) -> Result<Charge> {
    const ORDINARY: usize = 64 << 10;
    if pieces <= 1 && length <= ORDINARY {
        return Ok(Charge::NONE);
    }
    Charge::new(pieces * size_of::<UserRange>() + length / PAGE_SIZE * size_of::<Segment>())
}

impl State {
    #[inline]
    pub(super) fn start_read_write(
        &mut self,
        operation: ReadWrite,
        flags: RequestFlags,
        process: &Arc<Process>,
    ) -> Started {
        match self.transfer(operation, flags, process) {
            Ok(transfer) => Started::Pending(Work::Transfer(transfer)),
            Err(error) => error.into(),
        }
    }

    fn transfer(
        &self,
        operation: ReadWrite,
        flags: RequestFlags,
        process: &Arc<Process>,
    ) -> Result<Transfer> {
        let is_fixed = flags.contains(RequestFlags::FIXED_FILE);
        let file = self.file(operation.fd, is_fixed, process)?;
        let mut charge = Charge::NONE;
        let buffer = match operation.memory {
            Memory::Program(ranges, its_charge) => {
                charge = its_charge;
                IoBuffer::vectored(process.space.clone(), ranges)
            }
            Memory::Registered {
                index,
                address,
                length,
            } => self.resources.buffer(index)?.part(address, length.into())?,
            Memory::Selected => return Err(Errno::ENOBUFS),
        };
        file.check_direction(operation.direction)?;
        let io_flags = io_flags(operation.flags, &file)?;
        let position = match operation.offset {
            u64::MAX => None,
            offset if offset > i64::MAX as u64 => return Err(Errno::EINVAL),
            offset => Some(offset),
        };
        Ok(Transfer {
            expected: buffer.len(),
            charge,
            file,
            io: Io::new(operation.direction, position, buffer, io_flags),
        })
    }
}

/// What `RWF_*` of an SQE mean for the file.
#[inline]
fn io_flags(flags: u32, file: &OpenFile) -> Result<IoFlags> {
    let decoded = IoFlags::from_rwf(flags, file)?;
    // Polling for completion needs a ring set up for it (IOPOLL).
    match decoded.contains(IoFlags::HIGH_PRIORITY) {
        true => Err(Errno::EINVAL),
        false => Ok(decoded),
    }
}

/// A read or write under way.
pub(in crate::io_uring) struct Transfer {
    io: Io,
    file: Arc<OpenFile>,
    /// Bytes; fewer break a chain.
    expected: usize,
    #[expect(dead_code, reason = "it is given back when the transfer is over")]
    charge: Charge,
}

impl Transfer {
    #[inline]
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Progress {
        match self.file.poll_io(&mut self.io, context) {
            Poll::Pending => Progress::Pending,
            Poll::Ready(Ok(count)) => Progress::Done(Completion {
                result: count as i32,
                flags: 0,
                is_failure: count != self.expected,
            }),
            Poll::Ready(Err(error)) => Progress::Done(Completion::failure(error)),
        }
    }

    /// What waits for somebody else's bytes is cancelled, what a device works on is not seen.
    pub(super) fn can_cancel(&self) -> Result<()> {
        match self.io.in_flight {
            InFlight::Nothing => Ok(()),
            _ => Err(Errno::ENOENT),
        }
    }

    /// Whether ending with `EPIPE` sends SIGPIPE.
    pub(super) fn signals_broken_pipe(&self) -> bool {
        self.io.direction == Direction::Write && !self.io.flags.contains(IoFlags::NO_SIGNAL)
    }

    pub(super) fn file(&self) -> &Arc<OpenFile> {
        &self.file
    }
}
