//! What is asked of a kernel, for both doors.

use super::argument::{Arg, Memory};
use crate::ring::Sqe;

/// What an argument can be, for whoever makes up arguments.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A descriptor.
    Fd,
    /// A descriptor of a directory, which a path is relative to.
    DirFd,
    /// A path.
    Path,
    /// Memory that is written to.
    Out,
    /// Memory that is read.
    In,
    /// How many bytes of memory.
    Size,
    /// A position in a file, or a distance.
    Offset,
    /// Iovecs for reading into.
    VectorOut,
    /// Iovecs for writing from.
    VectorIn,
    /// How many iovecs or other things.
    Count,
    /// A `timespec`, of a short time.
    Time,
    /// An address that is mapped or not.
    Address,
    /// Permissions.
    Mode,
    /// Any of these together.
    Flags(&'static [i64]),
    /// One of these.
    One(&'static [i64]),
    /// One of these, with which nothing can go wrong.
    Only(&'static [i64]),
}

/// What a success gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// A number that is the same everywhere.
    Number,
    /// A new descriptor.
    Fd,
    /// An address.
    Address,
    /// A number that is not the same everywhere.
    Opaque,
}

/// How an SQE is made of a call's arguments.
pub type ToEntry = fn(&[Arg]) -> Entry;

/// A system call.
#[derive(Debug)]
pub struct Signature {
    /// Its name.
    pub name: &'static str,
    /// Its number.
    pub number: i64,
    /// What it takes.
    pub kinds: &'static [Kind],
    /// What it gives.
    pub gives: Gives,
    /// The opcode that does the same, if one does.
    pub entry: Option<ToEntry>,
}

/// A system call with arguments.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which.
    pub signature: &'static Signature,
    /// What it is given.
    pub args: Vec<Arg>,
}

/// An SQE with arguments; [`Sqe`] has the fields without places in memory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name, `IORING_OP_` left out.
    pub name: &'static str,
    /// What a success gives.
    pub gives: Gives,
    /// The fields that are plain numbers.
    pub sqe: Sqe,
    /// `fd`.
    pub fd: Arg,
    /// `addr`.
    pub addr: Arg,
    /// `off`, or `addr2`.
    pub off: Arg,
    /// `len`.
    pub len: Arg,
    /// `file_index`, or `splice_fd_in`.
    pub file: Arg,
    /// `addr3`.
    pub addr3: Arg,
}

impl Entry {
    /// An SQE of nothing but its opcode.
    pub fn new(name: &'static str, opcode: u8) -> Self {
        Self {
            name,
            gives: Gives::Number,
            sqe: Sqe {
                opcode,
                ..Sqe::default()
            },
            fd: Arg::Word(0),
            addr: Arg::Word(0),
            off: Arg::Word(0),
            len: Arg::Word(0),
            file: Arg::Word(0),
            addr3: Arg::Word(0),
        }
    }
}

/// Defines methods that set a field of the one entry of an operation.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($type:ty): $($field:ident).+;)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, value: impl Into<$type>) -> Self {
            if let Some(last) = self.batch.as_mut().and_then(|batch| batch.last_mut()) {
                last.$($field).+ = value.into();
            }
            self
        })*
    };
}

/// What is asked, of one door or of either.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// By a system call.
    pub call: Option<Call>,
    /// By SQEs of one submission.
    pub batch: Option<Vec<Entry>>,
}

impl Operation {
    /// A system call with arguments, and the SQE of the same meaning.
    pub fn call(signature: &'static Signature, args: Vec<Arg>) -> Self {
        let entry = signature.entry.map(|entry| Entry {
            gives: signature.gives,
            ..entry(&args)
        });
        Self {
            call: Some(Call { signature, args }),
            batch: entry.map(|entry| vec![entry]),
        }
    }

    /// An SQE.
    pub fn entry(entry: Entry) -> Self {
        Self {
            call: None,
            batch: Some(vec![entry]),
        }
    }

    /// Through the system call only.
    pub fn by_call(self) -> Self {
        Self {
            batch: None,
            ..self
        }
    }

    /// Through the ring only.
    pub fn by_ring(self) -> Self {
        Self { call: None, ..self }
    }

    setters! {
        /// With these `IOSQE_*`, by the ring.
        flags(u8): sqe.flags;
        /// With that `ioprio`, by the ring.
        ioprio(u16): sqe.ioprio;
        /// With that `fd`, by the ring.
        fd(Arg): fd;
        /// With that `addr`, by the ring.
        addr(Arg): addr;
        /// With that `off`, by the ring.
        off(Arg): off;
        /// With that `len`, by the ring.
        len(Arg): len;
        /// With these flags of the operation, by the ring.
        op_flags(u32): sqe.op_flags;
        /// With that `buf_index`, by the ring.
        buf_index(u16): sqe.buf_index;
        /// With that `personality`, by the ring.
        personality(u16): sqe.personality;
        /// With that `file_index`, by the ring.
        file(Arg): file;
        /// With that `addr3`, by the ring.
        addr3(Arg): addr3;
        /// With that last word, by the ring.
        pad(u64): sqe.pad;
    }
}

/// SQEs of one submission, by the ring only.
pub fn batch<const N: usize>(operations: [Operation; N]) -> Operation {
    let entries = operations.into_iter().flat_map(|operation| operation.batch);
    Operation {
        call: None,
        batch: Some(entries.flatten().collect()),
    }
}

/// The number in an argument that is one, or the first word of memory that has some.
pub(super) fn number(arg: &Arg) -> i64 {
    match arg {
        Arg::Word(word) => *word,
        Arg::Memory(Memory::Words(words)) => words.first().map_or(0, |word| *word as i64),
        Arg::Object(_) | Arg::Memory(_) => 0,
    }
}

/// The position in memory that has one; -1, for the current one, at no address.
pub(super) fn position(arg: &Arg) -> i64 {
    match arg {
        Arg::Memory(Memory::Words(_)) => number(arg),
        _ => -1,
    }
}
