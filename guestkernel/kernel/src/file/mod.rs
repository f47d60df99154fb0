//! Open files: what drivers and file systems implement, and what all kinds of files share.
//!
//! A file is reached through two traits: [`FileOps`] (an open file) and [`Inode`] (a file in a file
//! system: names and attributes). Those of their methods that a remote file system cannot answer at
//! once return an [`Answer`].

mod answer;
mod byte_stream;
mod inode;
pub mod locks;
mod open_file;
mod open_flags;
mod ops;
mod readiness;
mod stat;

pub use answer::{Answer, BoxFuture};
pub use byte_stream::{ByteStream, Refusal};
pub(crate) use inode::is_same;
pub use inode::{AttributeChange, FileSystemInfo, Inode, NewNode, RenameMode, SetTime};
pub use locks::{LockMode, LockOwner, RangeLock, lock_file, lock_file_waiting};
pub use open_file::{OpenFile, read_all};
pub use open_flags::OpenFlags;
pub use ops::{DirEntry, DirectorySink, FileOps};
pub use readiness::Readiness;
pub use stat::{DeviceNumber, FileType, Stat, Timestamp};
