//! Files: what an open file can do, descriptors, the name space, and the file systems.
//!
//! An operation that io_uring has an opcode for exists once, as an `async fn` that the system
//! call and the ring both use. A file system is reached through two traits: [`Inode`] (names and
//! attributes) and [`FileOps`] (an open file). Those of their methods that a remote file system
//! cannot answer at once return an [`Answer`].

mod answer;
mod attributes;
mod context;
mod copy;
mod devices;
mod eventfd;
mod fd_table;
mod file;
pub mod initramfs;
mod inode;
mod locks;
mod names;
mod namespace;
mod open;
mod path;
mod pipe;
pub mod procfs;
mod stat;
mod stream;
pub mod tmpfs;
mod tty;
mod wait_queue;

pub use answer::{Answer, BoxFuture};
pub use attributes::{At, decode_time};
pub use context::{FsContext, View};
pub use copy::{Place, copy, copy_range};
pub use devices::DeviceDirectory;
pub use eventfd::EventFd;
pub use fd_table::{FD_LIMIT, FD_LIMIT_MAX, FdTable};
pub use file::{DirEntry, DirectorySink, FileOps, OpenFile, OpenFlags, Readiness, read_all};
pub use inode::{AttributeChange, FileSystemInfo, Inode, NewNode, RenameMode, SetTime};
pub use locks::{LockMode, LockOwner, RangeLock, lock_file, lock_file_waiting};
pub use namespace::{Mount, Namespace};
pub use open::OpenHow;
pub use path::{NAME_MAX, PATH_MAX, Restrictions};
pub use pipe::{PIPE_CAPACITY, Pipe, is_pipe, pipe_of};
pub use stat::{DeviceNumber, FileType, Stat, Timestamp};
pub use stream::{ByteStream, StreamFile};
pub use tmpfs::is_tmpfs;
pub use tty::{CONSOLE, Output, Tty, TtyFile};
pub use wait_queue::WaitQueue;

#[cfg(test)]
mod tests;
