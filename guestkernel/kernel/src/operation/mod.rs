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
mod clock;
mod close;
mod copy;
mod descriptor;
mod directory;
mod extended;
mod file_size;
mod futex;
mod futex2;
mod map;
mod memory;
mod mount;
mod names;
mod open;
mod range;
mod readiness;
mod restart;
mod seek;
mod signal_mask;
mod sleep;
mod sync;
mod system;
mod time_value;
mod timer;
mod transfer;

pub use actor::{Actor, FileRef};
pub use attributes::{
    CheckAccess, GetAttributes, GetExtendedAttributes, GetFileSystem, GetOpenAttributes,
    GetOpenFileSystem, ReadLink, SetAttributes, SetOpenAttributes, Target, TruncatePath,
};
pub use clock::{
    GetResolution, GetSeconds, GetTime, GetTimeOfDay, GetTimes, GetUsage, SetTime, SetTimeOfDay,
};
pub use close::Close;
pub use copy::{CopyFileRange, End, EndPosition, SendFile, Splice, Tee};
pub use descriptor::{CloseRange, Control, DeviceControl, Duplicate, DuplicateTo, LockFile};
pub use directory::{
    ChangeDirectory, ChangeRoot, ChangeToOpenDirectory, GetWorkingDirectory, Layout, ListDirectory,
    SetUmask,
};
pub use extended::{
    ExtendedName, ExtendedTarget, GetExtended, ListExtended, RemoveExtended, SetExtended,
};
pub use futex::{FutexCall, FutexWait};
pub use futex2::{FutexWaits, FutexWord, WaitBegun, read_futex_words};
pub use map::Map;
pub use memory::{
    AdviseMemory, Barrier, GetResidency, LockAllMemory, LockMemory, Move, Protect, SetBreak,
    SyncMemory, Unmap,
};
pub use mount::{MakeMount, Unmount};
pub use names::{Link, MakeDirectory, MakeNode, MakeSymlink, PathAt, Rename, Unlink};
pub use open::{MakeEventFd, MakeMemoryFile, MakePipe, Open, OpenRequest};
pub use range::{Advise, Allocate, ReadAhead, Truncate};
pub use readiness::{Poll, PollSet, PollWithMask, Select, SelectSets, SelectWithMask};
pub use restart::GoOn;
pub use seek::Seek;
pub use signal_mask::TemporaryMask;
pub use sleep::{Sleep, SleepOnClock};
pub use sync::{Sync, SyncAll, SyncFileSystem, SyncRange};
pub use system::{GetNames, GetRandom, GetSystemInformation, MachineName, SetName, set_host_name};
pub use time_value::{TimeValue, deadline_after, deadline_at_realtime, read_timespec};
pub use timer::{
    DeleteTimer, GetIntervalTimer, GetTimer, GetTimerOverrun, MakeTimer, SetAlarm,
    SetIntervalTimer, SetTimer,
};
pub use transfer::{LimitedWrite, Memory, Position, ReadWrite, Transfer};
