//! What requests do: the table of opcodes, and the three stages of an operation.
//!
//! 1. The opcode's `prepare` checks the SQE and reads what it points at (iovecs, a timespec), so
//!    that the program may reuse both at once (`IORING_FEAT_SUBMIT_STABLE`). Its errors end the
//!    batch.
//! 2. `start`, when the request's turn has come, looks up files and buffers. It finishes the
//!    operation, or gives something to poll.
//! 3. [`Work`] is polled, inline and then whenever it is woken.

mod cancel;
mod close;
mod fsync;
mod nop;
mod read_write;
mod timeout;

pub(super) use cancel::Cancel;
pub(super) use timeout::Timeout;

use super::ring::State;
use super::sqe::{RequestFlags, Sqe};
use crate::error::{Errno, Result};
use crate::fs::{BoxFuture, OpenFile};
use crate::process::Process;
use alloc::sync::Arc;
use core::task::{Context, Poll};
use linux_raw_sys::io_uring::io_uring_op as op;

/// An opcode: what its SQEs may say, and who understands them.
pub(super) struct Opcode {
    /// Its name, `IORING_OP_` left out.
    pub(super) name: &'static str,
    /// `ioprio` means something.
    pub(super) takes_priority: bool,
    /// The buffer may be picked from a group.
    pub(super) selects_buffer: bool,
    /// Checks an SQE and makes an operation of it.
    pub(super) prepare: Prepare,
}

type Prepare = fn(&Sqe, RequestFlags, &Process) -> Result<Operation>;

/// The opcodes are below this.
pub(super) const OPCODES: usize = op::IORING_OP_WRITE as usize + 1;

/// By `IORING_OP_*`.
static TABLE: [Option<Opcode>; OPCODES] = table();

const fn table() -> [Option<Opcode>; OPCODES] {
    const fn opcode(name: &'static str, prepare: Prepare) -> Opcode {
        Opcode {
            name,
            takes_priority: false,
            selects_buffer: false,
            prepare,
        }
    }
    const fn transfer(name: &'static str, selects_buffer: bool, prepare: Prepare) -> Opcode {
        Opcode {
            name,
            takes_priority: true,
            selects_buffer,
            prepare,
        }
    }
    let mut table = [const { None }; OPCODES];
    table[op::IORING_OP_NOP as usize] = Some(opcode("NOP", nop::prepare));
    table[op::IORING_OP_READV as usize] = Some(transfer("READV", true, read_write::readv));
    table[op::IORING_OP_WRITEV as usize] = Some(transfer("WRITEV", false, read_write::writev));
    table[op::IORING_OP_FSYNC as usize] = Some(opcode("FSYNC", fsync::prepare));
    table[op::IORING_OP_READ_FIXED as usize] =
        Some(transfer("READ_FIXED", false, read_write::read_fixed));
    table[op::IORING_OP_WRITE_FIXED as usize] =
        Some(transfer("WRITE_FIXED", false, read_write::write_fixed));
    table[op::IORING_OP_TIMEOUT as usize] = Some(opcode("TIMEOUT", timeout::prepare));
    table[op::IORING_OP_ASYNC_CANCEL as usize] = Some(opcode("ASYNC_CANCEL", cancel::prepare));
    table[op::IORING_OP_CLOSE as usize] = Some(opcode("CLOSE", close::prepare));
    table[op::IORING_OP_READ as usize] = Some(transfer("READ", true, read_write::read));
    table[op::IORING_OP_WRITE as usize] = Some(transfer("WRITE", false, read_write::write));
    table
}

/// The names of the opcodes that there are: the tests have cases for each.
pub fn implemented() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flatten().map(|opcode| opcode.name)
}

/// The opcode with that number, if it is implemented.
#[inline(always)]
pub(super) fn opcode(number: u8) -> Option<&'static Opcode> {
    TABLE.get(usize::from(number))?.as_ref()
}

/// Whether that is the number of the opcode that does nothing.
#[inline(always)]
pub(super) fn is_nop(number: u8) -> bool {
    u32::from(number) == op::IORING_OP_NOP as u32
}

/// Has the opcode check an SQE and make an operation of it.
#[inline(always)]
pub(super) fn prepare(
    opcode: &Opcode,
    sqe: &Sqe,
    flags: RequestFlags,
    process: &Process,
) -> Result<Operation> {
    (opcode.prepare)(sqe, flags, process)
}

/// The same for a NOP.
#[inline(always)]
pub(super) fn prepare_nop(
    _: &Opcode,
    sqe: &Sqe,
    flags: RequestFlags,
    process: &Process,
) -> Result<Operation> {
    nop::prepare(sqe, flags, process)
}

/// A request, prepared.
pub(super) enum Operation {
    Nop(nop::Nop),
    ReadWrite(read_write::ReadWrite),
    Fsync(fsync::Fsync),
    Close(close::Close),
    Timeout(timeout::Timespan),
    Cancel(Cancel),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// `res` of the CQE.
    pub(super) result: i32,
    /// `flags` of the CQE.
    pub(super) flags: u32,
    /// It breaks its chain, and its CQE is not skipped.
    pub(super) is_failure: bool,
}

impl Completion {
    /// It went well, with that `res`.
    #[inline]
    pub(super) fn success(result: i32) -> Self {
        Self {
            result,
            flags: 0,
            is_failure: false,
        }
    }

    /// It failed.
    #[inline]
    pub(super) fn failure(error: Errno) -> Self {
        Self {
            result: error.as_result(),
            flags: 0,
            is_failure: true,
        }
    }

    /// As success if `result` is not an error.
    #[inline]
    pub(super) fn of(result: Result<i32>) -> Self {
        result.map_or_else(Self::failure, Self::success)
    }
}

/// What starting an operation gave.
pub(super) enum Started {
    Done(Completion),
    Pending(Work),
}

impl From<Completion> for Started {
    fn from(completion: Completion) -> Self {
        Self::Done(completion)
    }
}

impl From<Errno> for Started {
    fn from(error: Errno) -> Self {
        Self::Done(Completion::failure(error))
    }
}

/// An operation under way.
pub(super) enum Work {
    Transfer(read_write::Transfer),
    Timeout(Timeout),
    /// A rare operation, as a future.
    Other(BoxFuture<'static, Result<i32>>),
}

/// What polling gave.
pub(super) enum Progress {
    Pending,
    Done(Completion),
    /// A CQE that is not the last one: post it, and poll again.
    More(Completion),
}

impl Work {
    #[inline]
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Progress {
        match self {
            Self::Transfer(transfer) => transfer.poll(context),
            Self::Timeout(timeout) => timeout.poll(context),
            Self::Other(future) => match future.as_mut().poll(context) {
                Poll::Ready(result) => Progress::Done(Completion::of(result)),
                Poll::Pending => Progress::Pending,
            },
        }
    }

    /// What `ASYNC_CANCEL` can do about it: `ENOENT` for what it cannot see, `EALREADY` for what it
    /// cannot stop.
    pub(super) fn can_cancel(&self) -> Result<()> {
        match self {
            Self::Transfer(transfer) => transfer.can_cancel(),
            Self::Timeout(_) => Ok(()),
            Self::Other(_) => Err(Errno::EALREADY),
        }
    }

    /// Whether the submitter gets SIGPIPE as well, since it ended like this.
    #[inline]
    pub(super) fn breaks_pipe(&self, completion: &Completion) -> bool {
        const BROKEN: i32 = -(linux_raw_sys::errno::EPIPE as i32);
        match self {
            Self::Transfer(transfer) => {
                completion.result == BROKEN && transfer.signals_broken_pipe()
            }
            Self::Timeout(_) | Self::Other(_) => false,
        }
    }

    /// The file that it works on.
    pub(super) fn file(&self) -> Option<&Arc<OpenFile>> {
        match self {
            Self::Transfer(transfer) => Some(transfer.file()),
            Self::Timeout(_) | Self::Other(_) => None,
        }
    }
}

impl State {
    /// Starts an operation whose turn has come.
    #[inline(always)]
    pub(super) fn start(
        &mut self,
        operation: Operation,
        flags: RequestFlags,
        process: &Arc<Process>,
    ) -> Started {
        match operation {
            Operation::Nop(nop) => self.start_nop(nop, process),
            operation => self.start_other(operation, flags, process),
        }
    }

    #[inline(never)]
    fn start_other(
        &mut self,
        operation: Operation,
        flags: RequestFlags,
        process: &Arc<Process>,
    ) -> Started {
        match operation {
            Operation::Nop(nop) => self.start_nop(nop, process),
            Operation::ReadWrite(operation) => self.start_read_write(operation, flags, process),
            Operation::Fsync(fsync) => self.start_fsync(fsync, flags, process),
            Operation::Close(close) => self.start_close(close, process),
            Operation::Timeout(timespan) => self.start_timeout(timespan),
            Operation::Cancel(cancel) => self.start_cancel(cancel, flags, process),
        }
    }

    /// The file that a request names.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub(super) fn file(&self, fd: i32, is_fixed: bool, process: &Process) -> Result<Arc<OpenFile>> {
        match is_fixed {
            true => self.resources.file(fd),
            false => process.files.get(fd),
        }
    }
}
