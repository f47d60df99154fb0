//! Open files: what drivers and file systems implement, and what all kinds of files share.
//!
//! A file is reached through two traits: [`FileOps`] (an open file) and [`Inode`] (a file in a file
//! system: names and attributes); a [`FileSystem`] is what inodes have in common, and a [`Mount`]
//! where it is seen. Those of their methods that a remote file system cannot answer at
//! once return an [`Answer`].

mod byte_stream;
mod extended_attributes;
mod file_system;
mod inode;
mod inode_state;
pub mod locks;
mod mount;
mod open_file;
mod open_flags;
mod ops;
mod readiness;
mod stat;

pub use crate::executor::{Answer, BoxFuture};
pub use byte_stream::{ByteStream, Refusal};
pub use extended_attributes::{ExtendedAttributes, SetMode};
pub use file_system::{
    FileSystem, FileSystemType, Made, MountOption, MountSource, SuperBlock, file_system_type,
    file_system_types, next_device, register,
};
pub(crate) use inode::is_same;
pub use inode::{AttributeChange, FileSystemInfo, Inode, NewNode, RenameMode, SetTime};
pub use inode_state::{Executed, InodeState, WriteAccess};
pub use locks::{LockMode, LockOwner, RangeLock, lock_file, lock_file_waiting};
pub use mount::{Entry, Location, Mount, MountFlags, Place};
pub use open_file::{OpenFile, read_all};
pub use open_flags::OpenFlags;
pub use ops::{DirEntry, DirectorySink, FileOps};
pub use readiness::Readiness;
pub use stat::{DeviceNumber, FileType, Stat, Timestamp};
