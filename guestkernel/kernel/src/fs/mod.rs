//! The name space: paths, descriptors, and the file systems.
//!
//! An operation that io_uring has an opcode for exists once, as an `async fn` that the system
//! call and the ring both use. What a file is, stands in [`file`](crate::file).

mod attributes;
mod context;
mod copy;
mod devices;
mod eventfd;
mod fd_table;
pub mod fuse;
pub mod initramfs;
mod names;
mod namespace;
mod open;
mod path;
mod pipe;
pub mod procfs;
mod stream;
pub mod tmpfs;
pub mod tty;

pub use crate::executor::WaitQueue;
use crate::file::register;
pub use crate::file::{
    Answer, AttributeChange, BoxFuture, ByteStream, DeviceNumber, DirEntry, DirectorySink, FileOps,
    FileSystemInfo, FileType, Inode, LockMode, LockOwner, NewNode, OpenFile, OpenFlags, RangeLock,
    Readiness, RenameMode, SetTime, Stat, Terminal, Timestamp, lock_file, lock_file_waiting,
    read_all,
};
pub use attributes::{At, decode_time};
pub use context::{FsContext, View};
pub use copy::{Place, copy, copy_range};
pub use devices::DeviceDirectory;
pub use eventfd::EventFd;
pub use fd_table::{FD_LIMIT, FD_LIMIT_MAX, FdTable};
pub use namespace::Namespace;
pub use open::OpenHow;
pub use path::{NAME_MAX, PATH_MAX, Restrictions};
pub use pipe::{PIPE_CAPACITY, Pipe, is_pipe, pipe_of};
pub use stream::StreamFile;
pub use tmpfs::is_tmpfs;

/// Makes the types of file systems known that are here; those above, procfs and virtiofs, do so
/// themselves.
pub(crate) fn register_types() {
    for kind in [&tmpfs::TYPE, &devices::TYPE] {
        register(kind);
    }
}

#[cfg(test)]
mod tests;
