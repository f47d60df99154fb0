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

mod attributes;
mod cancel;
mod close;
mod extended;
mod fixed_file;
mod fsync;
mod futex;
mod memory;
mod message;
mod names;
mod nop;
mod open;
mod pipe;
mod poll;
mod provide;
mod range;
mod read_write;
mod selected;
mod splice;
mod timeout;
mod work;

pub(super) use cancel::Cancel;
pub(super) use message::Message;
pub(super) use timeout::TimeLimit;
pub(super) use work::{Cancelling, Completion, Started, Submitter, Work};
use work::{Progress, Step};

use super::budget::MemoryCharge;
use super::ring::RingState;
use super::sqe::{Fields, RequestFlags, Sqe};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::operation::Actor;
use crate::process::Process;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use linux_raw_sys::io_uring::io_uring_op as op;

/// An opcode: what its SQEs may say, and who understands them.
pub(super) struct Opcode {
    /// Its name, `IORING_OP_` left out.
    pub(super) name: &'static str,
    /// `ioprio` means something.
    pub(super) takes_priority: bool,
    /// The buffer may be picked from a group.
    pub(super) selects_buffer: bool,
    /// Rings whose devices are polled accept it.
    pub(super) is_polled: bool,
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
    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started;
}

/// A request that has its turn.
#[derive(Clone, Copy)]
pub(super) struct Issue<'a> {
    /// Who has submitted it.
    pub(super) actor: Actor<'a>,
    pub(super) flags: RequestFlags,
}

/// Who has submitted a request whose future outlives the batch. The process has the ring among its
/// files; they let go of each other when it ends and closes them.
struct Owner {
    process: Arc<Process>,
    tid: u32,
    #[expect(dead_code, reason = "it is given back with the future")]
    charge: MemoryCharge,
}

impl Owner {
    fn actor(&self) -> Actor<'_> {
        Actor::submitter(&self.process, self.tid)
    }
}

impl Issue<'_> {
    /// The process and the thread that have submitted it, for a future.
    fn owned(&self) -> (Arc<Process>, u32) {
        (self.actor.process.clone(), self.actor.tid)
    }

    /// Goes on with what is rare as a future of its own, on `file` if on any. `charge` is what it
    /// keeps in memory beyond that.
    fn spawn<F>(
        &self,
        file: Option<Arc<OpenFile>>,
        mut charge: MemoryCharge,
        operation: impl FnOnce(Owner) -> F,
    ) -> Started
    where
        F: Future<Output = Completion> + Send + 'static,
    {
        if let Err(error) = charge.add(size_of::<F>()) {
            return error.into();
        }
        let (process, tid) = self.owned();
        let owner = Owner {
            process,
            tid,
            charge,
        };
        Started::Pending(Work::future(file, operation(owner)))
    }
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
            pub(super) fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
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
                    is_polled: false,
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
    IORING_OP_NOP => Nop: nop::Nop, [is_polled], unused [];
    IORING_OP_READV => Readv: read_write::ReadWrite, [takes_priority, is_polled, selects_buffer], unused [ATTRIBUTES];
    IORING_OP_WRITEV => Writev: read_write::ReadWrite, [takes_priority, is_polled], unused [ATTRIBUTES];
    IORING_OP_FSYNC => Fsync: fsync::Fsync, [], unused [ADDRESS, BUFFER, FILE_INDEX];
    IORING_OP_READ_FIXED => ReadFixed: read_write::ReadWrite, [takes_priority, is_polled], unused [ATTRIBUTES];
    IORING_OP_WRITE_FIXED => WriteFixed: read_write::ReadWrite, [takes_priority, is_polled], unused [ATTRIBUTES];
    IORING_OP_POLL_ADD => PollAdd: poll::PollAdd, [], unused [BUFFER, OFFSET, ADDRESS];
    IORING_OP_POLL_REMOVE => PollRemove: poll::PollRemove, [], unused [BUFFER, FILE_INDEX];
    IORING_OP_SYNC_FILE_RANGE => SyncFileRange: range::SyncFileRange, [], unused [ADDRESS, BUFFER, FILE_INDEX];
    IORING_OP_TIMEOUT => Timeout: timeout::Timespan, [], unused [ADDRESS3, ATTRIBUTES, BUFFER, FILE_INDEX];
    IORING_OP_TIMEOUT_REMOVE => TimeoutRemove: timeout::TimeoutRemove, [], unused [BUFFER, LENGTH, FILE_INDEX];
    IORING_OP_ASYNC_CANCEL => Cancel: cancel::Cancel, [], unused [OFFSET, FILE_INDEX];
    IORING_OP_LINK_TIMEOUT => LinkTimeout: timeout::LinkTimeout, [], unused [ADDRESS3, ATTRIBUTES, BUFFER, FILE_INDEX, OFFSET];
    IORING_OP_FALLOCATE => Fallocate: range::Fallocate, [], unused [BUFFER, OP_FLAGS, FILE_INDEX];
    IORING_OP_OPENAT => OpenAt: open::Open, [], unused [BUFFER];
    IORING_OP_CLOSE => Close: close::Close, [], unused [OFFSET, ADDRESS, LENGTH, OP_FLAGS, BUFFER];
    IORING_OP_FILES_UPDATE => FilesUpdate: fixed_file::FilesUpdate, [is_polled], unused [OP_FLAGS, FILE_INDEX];
    IORING_OP_STATX => Statx: attributes::Statx, [], unused [BUFFER, FILE_INDEX];
    IORING_OP_READ => Read: read_write::ReadWrite, [takes_priority, is_polled, selects_buffer], unused [ATTRIBUTES];
    IORING_OP_WRITE => Write: read_write::ReadWrite, [takes_priority, is_polled], unused [ATTRIBUTES];
    IORING_OP_FADVISE => Fadvise: range::Fadvise, [], unused [BUFFER, FILE_INDEX];
    IORING_OP_MADVISE => Madvise: memory::Madvise, [], unused [BUFFER, FILE_INDEX];
    IORING_OP_OPENAT2 => OpenAt2: open::Open, [], unused [];
    IORING_OP_SPLICE => Splice: splice::Splice, [], unused [];
    IORING_OP_PROVIDE_BUFFERS => ProvideBuffers: provide::ProvideBuffers, [is_polled], unused [OP_FLAGS, FILE_INDEX];
    IORING_OP_REMOVE_BUFFERS => RemoveBuffers: provide::RemoveBuffers, [is_polled], unused [OP_FLAGS, ADDRESS, LENGTH, OFFSET, FILE_INDEX];
    IORING_OP_TEE => Tee: splice::Tee, [], unused [OFFSET, ADDRESS];
    IORING_OP_RENAMEAT => RenameAt: names::Names, [], unused [BUFFER, FILE_INDEX];
    IORING_OP_UNLINKAT => UnlinkAt: names::Names, [], unused [OFFSET, LENGTH, BUFFER, FILE_INDEX];
    IORING_OP_MKDIRAT => MkdirAt: names::Names, [], unused [OFFSET, OP_FLAGS, BUFFER, FILE_INDEX];
    IORING_OP_SYMLINKAT => SymlinkAt: names::Names, [], unused [LENGTH, OP_FLAGS, BUFFER, FILE_INDEX];
    IORING_OP_LINKAT => LinkAt: names::Names, [], unused [BUFFER, FILE_INDEX];
    IORING_OP_MSG_RING => MsgRing: message::Message, [is_polled], unused [];
    IORING_OP_FSETXATTR => Fsetxattr: extended::Setxattr, [], unused [];
    IORING_OP_SETXATTR => Setxattr: extended::Setxattr, [], unused [];
    IORING_OP_FGETXATTR => Fgetxattr: extended::Getxattr, [], unused [];
    IORING_OP_GETXATTR => Getxattr: extended::Getxattr, [], unused [];
    IORING_OP_READ_MULTISHOT => ReadMultishot: selected::ReadMultishot, [selects_buffer], unused [ADDRESS, LENGTH, ATTRIBUTES];
    IORING_OP_FUTEX_WAIT => FutexWait: futex::FutexWait, [], unused [LENGTH, OP_FLAGS, BUFFER, FILE_INDEX];
    IORING_OP_FUTEX_WAKE => FutexWake: futex::FutexWake, [], unused [LENGTH, OP_FLAGS, BUFFER, FILE_INDEX];
    IORING_OP_FUTEX_WAITV => FutexWaitV: futex::FutexWaitV, [], unused [BUFFER, FILE_INDEX, OFFSET, OP_FLAGS, ADDRESS3];
    IORING_OP_FIXED_FD_INSTALL => FixedFdInstall: fixed_file::FixedFdInstall, [], unused [OFFSET, ADDRESS, LENGTH, BUFFER, FILE_INDEX, ADDRESS3];
    IORING_OP_FTRUNCATE => Ftruncate: range::Ftruncate, [], unused [OP_FLAGS, ADDRESS, LENGTH, BUFFER, FILE_INDEX, ADDRESS3];
    IORING_OP_READV_FIXED => ReadvFixed: read_write::ReadWrite, [takes_priority, is_polled], unused [ATTRIBUTES];
    IORING_OP_WRITEV_FIXED => WritevFixed: read_write::ReadWrite, [takes_priority, is_polled], unused [ATTRIBUTES];
    IORING_OP_PIPE => Pipe: pipe::Pipe, [], unused [OFFSET, ADDRESS3];
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

/// The path at `address`, which a request keeps until it has its turn: `charge` grows by that.
///
/// # Errors
///
/// `EFAULT`, `ENAMETOOLONG`, `ENOMEM`; `ENOENT` for an empty one, unless `may_be_empty`.
fn read_path(
    actor: Actor<'_>,
    address: u64,
    may_be_empty: bool,
    charge: &mut MemoryCharge,
) -> Result<Vec<u8>> {
    let path = actor.read_path(address)?;
    if path.is_empty() && !may_be_empty {
        return Err(Errno::ENOENT);
    }
    charge.add(path.capacity())?;
    Ok(path)
}

impl RingState {
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
