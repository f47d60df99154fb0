//! Arguments that name things, until a world gives them a place.

use libc::{EFD_NONBLOCK, O_APPEND, O_DIRECTORY, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR, O_WRONLY};

/// An argument of an operation.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A number.
    Word(i64),
    /// An open file.
    Object(Object),
    /// An address.
    Memory(Memory),
}

/// An open file, made when it is first named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A path opened with these `O_*`.
    Opened(&'static str, i32),
    /// The end of a pipe made with these flags that is read from.
    PipeReader(i32),
    /// The other end of that pipe.
    PipeWriter(i32),
    /// An eventfd with that count and these `EFD_*`.
    Event(u32, i32),
    /// A second ring.
    Ring,
    /// The ring that the operation itself may go through.
    SelfRing,
    /// What the operation before it with that number has given.
    Made(usize),
}

/// A file of 16 bytes, read and written.
pub const FILE: Object = Object::Opened("f", O_RDWR);
/// The same, read only.
pub const READER: Object = Object::Opened("f", O_RDONLY);
/// The same, written only.
pub const WRITER: Object = Object::Opened("f", O_WRONLY);
/// The same, appended to.
pub const APPENDER: Object = Object::Opened("f", O_RDWR | O_APPEND);
/// The same, as a place in the tree only.
pub const PATH_ONLY: Object = Object::Opened("f", O_PATH);
/// The working directory.
pub const DIRECTORY: Object = Object::Opened(".", O_RDONLY | O_DIRECTORY);
/// A pipe's end to read from.
pub const PIPE_R: Object = Object::PipeReader(0);
/// The other end.
pub const PIPE_W: Object = Object::PipeWriter(0);
/// The end to read from of a pipe with `O_NONBLOCK`.
pub const NBPIPE_R: Object = Object::PipeReader(O_NONBLOCK);
/// The other end.
pub const NBPIPE_W: Object = Object::PipeWriter(O_NONBLOCK);
/// `/dev/zero`.
pub const ZERO: Object = Object::Opened("/dev/zero", O_RDWR);
/// `/dev/null`.
pub const NULL_DEVICE: Object = Object::Opened("/dev/null", O_RDWR);
/// `/dev/full`.
pub const FULL: Object = Object::Opened("/dev/full", O_RDWR);
/// `/dev/urandom`.
pub const RANDOM: Object = Object::Opened("/dev/urandom", O_RDONLY);
/// A second ring.
pub const RING: Object = Object::Ring;
/// The ring that the operation itself may go through.
pub const SELF_RING: Object = Object::SelfRing;
/// A descriptor that is not open.
pub const BAD: i32 = 999;
/// `AT_FDCWD`.
pub const HERE: i32 = libc::AT_FDCWD;

/// An eventfd with `O_NONBLOCK` and that count.
pub const fn event(count: u32) -> Object {
    Object::Event(count, EFD_NONBLOCK)
}

/// A path opened with these `O_*`.
pub const fn opened(path: &'static str, flags: i32) -> Object {
    Object::Opened(path, flags)
}

/// A path opened as a directory.
pub const fn directory(path: &'static str) -> Object {
    Object::Opened(path, O_RDONLY | O_DIRECTORY)
}

/// The descriptor that the operation with that number, of those done before, has given.
pub const fn made(index: usize) -> Object {
    Object::Made(index)
}

/// Memory of the program, or an address that is none.
#[derive(Clone, Debug)]
pub enum Memory {
    /// That very address.
    At(i64),
    /// So many bytes to be written to, which are told afterwards.
    Room(usize),
    /// As [`Room`](Self::Room), but what differs from machine to machine is not told: only which of
    /// the 64-bit words were written.
    Opaque(usize),
    /// As [`Room`](Self::Room), told as a structure.
    Record(Record),
    /// Bytes to be read.
    Bytes(Vec<u8>),
    /// Bytes to be read and written, told afterwards as 64-bit words if they have changed.
    Words(Vec<u64>),
    /// Bytes to be read and written, told afterwards as 32-bit words if they have changed.
    Halves(Vec<u32>),
    /// So many bytes to be written to, behind which nothing is mapped.
    Edge(usize),
    /// These bytes, behind which nothing is mapped.
    BytesAtEdge(Vec<u8>),
    /// Iovecs: an address and a length each.
    Vector(Vec<(Memory, u64)>),
    /// The 32-bit word with that number of those that operations share; it is told afterwards.
    Word(usize),
    /// A `struct pollfd` of that descriptor and these events; `revents` is told afterwards.
    Pollfd(Box<Arg>, i16),
    /// A set of descriptors below 64, as `select(2)` takes it; what it is afterwards is told.
    Set(Box<Arg>),
    /// A descriptor as 32 bits.
    Descriptor(Box<Arg>),
    /// The 32-bit words of a `struct io_uring_params`; what a ring is made like is told afterwards.
    Ring(Vec<u32>),
    /// A structure whose 64-bit words are arguments of their own.
    Struct(Vec<Arg>),
}

/// Structures of which only some fields are the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// `struct stat`.
    Stat,
    /// `struct statx`.
    Statx,
    /// `struct statfs`.
    Statfs,
    /// What `getdents64` gives.
    Entries,
    /// `siginfo_t`.
    Signal,
}

impl Record {
    /// Its size in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Stat => 144,
            Self::Statx => 256,
            Self::Statfs => 120,
            Self::Entries => 1024,
            Self::Signal => 128,
        }
    }
}

/// Bytes to be read.
pub fn bytes(bytes: &[u8]) -> Memory {
    Memory::Bytes(bytes.to_vec())
}

/// So many bytes to be written to.
pub const fn room(length: usize) -> Memory {
    Memory::Room(length)
}

/// So many bytes to be written to, behind which nothing is mapped.
pub const fn edge(length: usize) -> Memory {
    Memory::Edge(length)
}

/// A structure to be written to.
pub const fn record(record: Record) -> Memory {
    Memory::Record(record)
}

/// Iovecs.
pub fn vector<const N: usize>(parts: [(Memory, u64); N]) -> Memory {
    Memory::Vector(parts.into())
}

/// 64-bit words to be read and written.
pub fn words<const N: usize>(words: [u64; N]) -> Memory {
    Memory::Words(words.into())
}

/// 32-bit words to be read and written.
pub fn halves<const N: usize>(halves: [u32; N]) -> Memory {
    Memory::Halves(halves.into())
}

/// A shared 32-bit word.
pub const fn word(index: usize) -> Memory {
    Memory::Word(index)
}

/// A `timespec` to be read.
pub fn fixed_time(seconds: i64, nanoseconds: i64) -> Memory {
    let mut bytes = seconds.to_le_bytes().to_vec();
    bytes.extend(nanoseconds.to_le_bytes());
    Memory::Bytes(bytes)
}

/// Two `timespec`s to be read.
pub fn two_times(first: (i64, i64), second: (i64, i64)) -> Memory {
    let words = [first.0, first.1, second.0, second.1];
    Memory::Bytes(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

macro_rules! words {
    ($($type:ty)*) => {
        $(impl From<$type> for Arg {
            fn from(word: $type) -> Self {
                Self::Word(word as i64)
            }
        })*
    };
}

words! { i32 u32 i64 u64 usize }

impl From<Object> for Arg {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl From<Memory> for Arg {
    fn from(memory: Memory) -> Self {
        Self::Memory(memory)
    }
}

/// A path.
impl From<&str> for Arg {
    fn from(path: &str) -> Self {
        let mut bytes = path.as_bytes().to_vec();
        bytes.push(0);
        Self::Memory(Memory::Bytes(bytes))
    }
}
