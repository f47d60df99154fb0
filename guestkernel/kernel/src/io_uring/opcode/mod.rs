//! What requests do: the table of opcodes, and the door from an SQE to an operation.
//!
//! 1. An opcode's `prepare` checks the SQE and reads what it points at (iovecs, a path, a timespec),
//!    so that the program may reuse both at once (`IORING_FEAT_SUBMIT_STABLE`). Its errors end the
//!    batch.
//! 2. `start`, when the request's turn has come, looks up files and buffers. It finishes the
//!    operation, or gives [`Work`].
//! 3. Work is polled, inline and then whenever it is woken.
//!
//! An opcode is a line in the table here, and a type that is [`Prepared`].

mod cancel;
mod close;
mod fsync;
mod nop;
mod read_write;
mod timeout;
mod work;

use work::{Cancelling, Progress};
pub(super) use work::{Completion, Started, Submitter, Work};

use super::ring::State;
use super::sqe::{Fields, RequestFlags, Sqe};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::operation::Actor;
use alloc::sync::Arc;
use linux_raw_sys::io_uring::io_uring_op as op;

/// An opcode: what its SQEs may say, and who understands them.
pub(super) struct Opcode {
    /// Its name, `IORING_OP_` left out.
    pub(super) name: &'static str,
    /// `ioprio` means something.
    pub(super) takes_priority: bool,
    /// The buffer may be picked from a group.
    pub(super) selects_buffer: bool,
    /// Fields that mean nothing: they must be 0.
    unused: Fields,
    prepare: fn(&Sqe, RequestFlags, Actor<'_>) -> Result<Operation>,
}

/// What an opcode makes of an SQE.
pub(super) trait Prepared: Sized {
    /// Checks the SQE and reads what it points at. Which fields must be 0 has been checked.
    ///
    /// # Errors
    ///
    /// Those that end the batch.
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self>;

    /// Does what can be done at once, now that the request has its turn.
    fn start(self, state: &mut State, issue: Issue<'_>) -> Started;
}

/// A request that has its turn.
#[derive(Clone, Copy)]
pub(super) struct Issue<'a> {
    /// Who has submitted it.
    pub(super) actor: Actor<'a>,
    pub(super) flags: RequestFlags,
}

macro_rules! opcodes {
    ($($number:ident => $variant:ident: $type:ty, [$($property:ident),*], unused [$($field:ident),*];)*) => {
        /// A request, prepared.
        pub(super) enum Operation {
            $($variant($type),)*
        }

        impl Operation {
            /// Starts it, when it has its turn.
            #[inline(never)]
            pub(super) fn start(self, state: &mut State, issue: Issue<'_>) -> Started {
                match self {
                    $(Self::$variant(prepared) => prepared.start(state, issue),)*
                }
            }
        }

        /// The number of the highest opcode, plus 1.
        pub(super) const OPCODES: usize = {
            let numbers = [$(op::$number as usize),*];
            let mut most = 0;
            let mut index = 0;
            while index < numbers.len() {
                if numbers[index] > most {
                    most = numbers[index];
                }
                index += 1;
            }
            most + 1
        };

        /// By `IORING_OP_*`.
        static TABLE: [Option<Opcode>; OPCODES] = {
            let mut table = [const { None }; OPCODES];
            $(table[op::$number as usize] = Some({
                #[allow(unused_mut, reason = "not every opcode has a property")]
                let mut opcode = Opcode {
                    name: name(stringify!($number)),
                    takes_priority: false,
                    selects_buffer: false,
                    unused: Fields::empty()$(.union(Fields::$field))*,
                    prepare: |sqe, flags, actor| {
                        <$type>::prepare(sqe, flags, actor).map(Operation::$variant)
                    },
                };
                $(opcode.$property = true;)*
                opcode
            });)*
            table
        };
    };
}

opcodes! {
    // number => variant: type, [what its SQEs may have], fields that must be 0
    IORING_OP_NOP => Nop: nop::Nop, [], unused [];
    IORING_OP_READV => Readv: read_write::ReadWrite, [takes_priority, selects_buffer], unused [ATTRIBUTES];
    IORING_OP_WRITEV => Writev: read_write::ReadWrite, [takes_priority], unused [ATTRIBUTES];
    IORING_OP_FSYNC => Fsync: fsync::Fsync, [], unused [ADDRESS, BUFFER, FILE_INDEX];
    IORING_OP_READ_FIXED => ReadFixed: read_write::ReadWrite, [takes_priority], unused [ATTRIBUTES];
    IORING_OP_WRITE_FIXED => WriteFixed: read_write::ReadWrite, [takes_priority], unused [ATTRIBUTES];
    IORING_OP_TIMEOUT => Timeout: timeout::Timespan, [], unused [ADDRESS3, ATTRIBUTES, BUFFER, FILE_INDEX];
    IORING_OP_ASYNC_CANCEL => Cancel: cancel::Cancel, [], unused [OFFSET, FILE_INDEX];
    IORING_OP_CLOSE => Close: close::Close, [], unused [OFFSET, ADDRESS, LENGTH, OP_FLAGS, BUFFER];
    IORING_OP_READ => Read: read_write::ReadWrite, [takes_priority, selects_buffer], unused [ATTRIBUTES];
    IORING_OP_WRITE => Write: read_write::ReadWrite, [takes_priority], unused [ATTRIBUTES];
}

/// What comes after `IORING_OP_` in the name of a constant.
const fn name(constant: &'static str) -> &'static str {
    constant.split_at("IORING_OP_".len()).1
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
    actor: Actor<'_>,
) -> Result<Operation> {
    if sqe.has_any(opcode.unused) {
        return Err(Errno::EINVAL);
    }
    (opcode.prepare)(sqe, flags, actor)
}

/// The same for a NOP, which has no unused fields.
#[inline(always)]
pub(super) fn prepare_nop(
    _: &Opcode,
    sqe: &Sqe,
    flags: RequestFlags,
    actor: Actor<'_>,
) -> Result<Operation> {
    nop::Nop::prepare(sqe, flags, actor).map(Operation::Nop)
}

impl State {
    /// Starts an operation whose turn has come.
    #[inline(always)]
    pub(super) fn start(&mut self, operation: Operation, issue: Issue<'_>) -> Started {
        match operation {
            // It takes less time than a call, so there is none on its way.
            Operation::Nop(nop) => nop.start(self, issue),
            operation => operation.start(self, issue),
        }
    }

    /// The file that a request names.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub(super) fn file(&self, fd: i32, issue: Issue<'_>) -> Result<Arc<OpenFile>> {
        match issue.flags.contains(RequestFlags::FIXED_FILE) {
            true => self.resources.file(fd),
            false => issue.actor.process.files.get(fd),
        }
    }
}
