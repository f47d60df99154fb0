//! Operations: each thing that a program can ask for, once.
//!
//! There are two doors: a system call's handler decodes registers, an opcode of io_uring decodes an
//! SQE. Both make the same operation and run it; nothing else stands in either. A file here is an
//! operation or a family of them: its typed arguments, every check in Linux's order, and
//! `async fn run`, which is told who asks by an [`Actor`]. A system call awaits it; a ring spawns it.
//! What is hot ([`Transfer`]) can be polled in place, without an allocation.
//!
//! Arguments that the program has in its memory (paths, iovecs, times) are read when the operation is
//! made, since a ring's program may reuse that memory as soon as it has submitted. A file is named by
//! descriptor or is there already ([`FileRef`]): rings look theirs up before anything else, as Linux
//! does, system calls where their order of checks has it.

mod actor;
mod attributes;
mod close;
mod copy;
mod descriptor;
mod directory;
mod file_size;
mod memory;
mod mount;
mod names;
mod open;
mod range;
mod seek;
mod sync;
mod transfer;

pub use actor::{Actor, FileRef};
pub use attributes::{
    CheckAccess, GetAttributes, GetExtendedAttributes, GetFileSystem, GetOpenAttributes,
    GetOpenFileSystem, ReadLink, SetAttributes, SetOpenAttributes, Target, TruncatePath,
};
pub use close::Close;
pub use copy::{CopyFileRange, End, EndPosition, SendFile, Splice, Tee};
pub use descriptor::{CloseRange, Control, DeviceControl, Duplicate, DuplicateTo, LockFile};
pub use directory::{
    ChangeDirectory, ChangeRoot, ChangeToOpenDirectory, GetWorkingDirectory, Layout, ListDirectory,
    SetUmask,
};
pub use memory::AdviseMemory;
pub use mount::{MakeMount, Unmount};
pub use names::{Link, MakeDirectory, MakeNode, MakeSymlink, PathAt, Rename, Unlink};
pub use open::{MakeEventFd, MakeMemoryFile, MakePipe, Open, OpenRequest};
pub use range::{Advise, Allocate, ReadAhead, Truncate};
pub use seek::Seek;
pub use sync::{Sync, SyncAll, SyncFileSystem, SyncRange};
pub use transfer::{Memory, Position, ReadWrite, Transfer};
