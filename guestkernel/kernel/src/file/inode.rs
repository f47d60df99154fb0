//! A file in a file system: its attributes, and, for a directory, its names.

use super::{
    Answer, DeviceNumber, ExtendedAttributes, FileOps, FileType, InodeState, Location, OpenFlags,
    Stat, Timestamp,
};
use crate::error::{Errno, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

/// What a new name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewNode {
    /// An empty regular file.
    Regular,
    /// An empty directory.
    Directory,
    /// A symbolic link to this path.
    Symlink(Vec<u8>),
    /// A device file.
    Device(FileType, DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

/// What `renameat2(2)` does with a name that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// It stays, and the call fails (`RENAME_NOREPLACE`).
    NoReplace,
    /// The two names change places (`RENAME_EXCHANGE`).
    Exchange,
}

/// A new value for a time, as `utimensat(2)` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present (`UTIME_NOW`).
    Now,
    /// This time.
    To(Timestamp),
}

/// Attributes to set; those that are `None` stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChange {
    /// Permission bits, set-user-ID, set-group-ID and sticky bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of the last read.
    pub accessed: Option<SetTime>,
    /// Time of the last write.
    pub modified: Option<SetTime>,
    /// Bytes, of a regular file: it is cut off or lengthened with zeros.
    pub size: Option<u64>,
}

/// What `statfs(2)` tells of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystemInfo {
    /// Its type's magic number.
    pub magic: u64,
    /// Bytes in a block.
    pub block_size: u64,
    /// Blocks it can hold; 0 if there is no limit.
    pub blocks: u64,
    /// Blocks that are free.
    pub free_blocks: u64,
    /// Files it can hold.
    pub files: u64,
    /// Files that can still be made.
    pub free_files: u64,
    /// Number of the file system.
    pub id: u64,
    /// Longest name, in bytes.
    pub name_length: u64,
}

/// A file in a file system. There is one object for each file at a time: two are the same file if
/// and only if they are the same object.
///
/// Names are single components, never empty, `.` or `..`, at most 255 bytes long. Methods that
/// concern names fail with `ENOTDIR` on anything but a directory.
pub trait Inode: Any + Send + Sync {
    /// Its type, which never changes.
    fn file_type(&self) -> FileType;

    /// What the kernel keeps of it.
    fn state(&self) -> &InodeState;

    /// Its extended attributes, if its file system keeps some.
    fn extended_attributes(&self) -> Option<&ExtendedAttributes> {
        None
    }

    /// The device that a device file stands for.
    fn special(&self) -> DeviceNumber {
        DeviceNumber::default()
    }

    /// Its attributes.
    fn stat(&self) -> Answer<'_, Stat>;

    /// Changes attributes.
    fn set_attributes(&self, _change: AttributeChange) -> Answer<'_, ()> {
        Errno::EPERM.into()
    }

    /// Opens a regular file or directory: what reads, writes and lists it. Devices, pipes and
    /// sockets are not opened through their file system.
    fn open(self: Arc<Self>, flags: OpenFlags) -> Answer<'static, Arc<dyn FileOps>>;

    /// Where a symbolic link points. `EINVAL` for any other file.
    fn read_link(&self) -> Answer<'_, Vec<u8>> {
        Errno::EINVAL.into()
    }

    /// Opens the pipe that a named pipe stands for, which may wait for the other end; `None` for
    /// any other file.
    fn open_fifo(&self, _flags: OpenFlags) -> Option<Answer<'static, Arc<dyn FileOps>>> {
        None
    }

    /// The file that a link of procfs leads to, whatever its text says; `None` for all other
    /// files.
    fn magic_link(&self) -> Option<Result<Location>> {
        None
    }

    /// The file of that name. `ENOENT`.
    fn lookup<'a>(&'a self, _name: &'a [u8]) -> Answer<'a, Arc<dyn Inode>> {
        Errno::ENOTDIR.into()
    }

    /// Makes a file; `mode` holds permission bits. `EEXIST`, `ENOSPC`, `ENOENT` if the directory
    /// was removed.
    fn create<'a>(
        &'a self,
        _name: &'a [u8],
        _node: NewNode,
        _mode: u32,
    ) -> Answer<'a, Arc<dyn Inode>> {
        Errno::ENOTDIR.into()
    }

    /// Makes a regular file, as [`create`](Self::create) does, and opens it, whatever `mode` allows.
    fn create_and_open<'a>(
        &'a self,
        name: &'a [u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Answer<'a, (Arc<dyn Inode>, Arc<dyn FileOps>)> {
        let open = move |inode: Arc<dyn Inode>| {
            let opened = inode.clone().open(flags);
            opened.and_then(|ops| Ok((inode, ops)))
        };
        match self.create(name, NewNode::Regular, mode) {
            Answer::Ready(Some(Ok(inode))) => open(inode),
            Answer::Ready(Some(Err(error))) => error.into(),
            Answer::Ready(None) => Errno::EIO.into(),
            Answer::Later(made) => Answer::later(async move { open(made.await?).await }),
        }
    }

    /// Makes a regular file without a name. Unless it `can_be_linked`, it never gets one.
    fn create_unnamed(&self, _mode: u32, _can_be_linked: bool) -> Answer<'_, Arc<dyn Inode>> {
        Errno::EOPNOTSUPP.into()
    }

    /// Gives `target`, which is no directory, one more name. `EXDEV` if it is in another file
    /// system.
    fn link<'a>(&'a self, _name: &'a [u8], _target: Arc<dyn Inode>) -> Answer<'a, ()> {
        Errno::ENOTDIR.into()
    }

    /// Removes the name of anything but a directory. `EISDIR`.
    fn unlink<'a>(&'a self, _name: &'a [u8]) -> Answer<'a, ()> {
        Errno::ENOTDIR.into()
    }

    /// Removes an empty directory. `ENOTEMPTY`.
    fn remove_directory<'a>(&'a self, _name: &'a [u8]) -> Answer<'a, ()> {
        Errno::ENOTDIR.into()
    }

    /// Renames `name` to `new_name` in the directory `target`, with all checks that concern the
    /// files themselves. `EXDEV` if it is in another file system.
    fn rename<'a>(
        &'a self,
        _name: &'a [u8],
        _target: Arc<dyn Inode>,
        _new_name: &'a [u8],
        _mode: RenameMode,
    ) -> Answer<'a, ()> {
        Errno::ENOTDIR.into()
    }

    /// The directory that this directory is or was in; `None` for the root of a file system.
    fn parent(&self) -> Option<Arc<dyn Inode>> {
        None
    }

    /// The name that `child`, a directory, has here; `ENOENT` if it was removed.
    fn name_of(&self, _child: &dyn Inode) -> Result<Vec<u8>> {
        Err(Errno::ENOENT)
    }
}

/// Whether two inodes are the same file.
pub(crate) fn is_same(one: &dyn Inode, other: &dyn Inode) -> bool {
    core::ptr::addr_eq(one, other)
}
