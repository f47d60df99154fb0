//! Files: what an open file can do, descriptors, the name space, and the file systems.
//!
//! An operation that io_uring has an opcode for exists once, as an `async fn` that the system
//! call and the ring both use. A file system is reached through two traits: [`Inode`] (names and
//! attributes) and [`FileOps`] (an open file). Those of their methods that a remote file system
//! cannot answer at once return an [`Answer`].

mod answer;
mod fd_table;
mod file;
mod inode;
mod stat;
pub mod tmpfs;
mod wait_queue;

pub use answer::{Answer, BoxFuture};
pub use fd_table::{FD_LIMIT, FD_LIMIT_MAX, FdTable};
pub use file::{DirEntry, FileOps, OpenFile, OpenFlags, Readiness};
pub use inode::{AttributeChange, FileSystemInfo, Inode, NewNode, RenameMode, SetTime};
pub use stat::{DeviceNumber, FileType, Stat, Timestamp};
pub use wait_queue::WaitQueue;
