//! Making, linking, renaming and removing names. Each is one operation for a system call and an
//! io_uring opcode.

use super::context::View;
use super::path::{Last, PATH_MAX, Parent, Walk};
use super::{DeviceNumber, FileType, Inode, NewNode, RenameMode};
use crate::error::{Errno, Result};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;

/// Permission bits, set-user-ID, set-group-ID and sticky bits.
const MODE_BITS: u32 = 0o7777;

impl View<'_> {
    /// Makes a directory: `mkdirat(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn make_directory(&self, fd: i32, path: &[u8], mode: u32) -> Result<()> {
        // As Linux does it, a new directory keeps the sticky bit, but not the other two.
        let mode = mode & 0o1777;
        self.make(fd, path, NewNode::Directory, mode).await
    }

    /// Makes a file of any type but a directory: `mknodat(2)`. `mode` has its type, none for a
    /// regular file.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn make_node(&self, fd: i32, path: &[u8], mode: u32, device: u64) -> Result<()> {
        let node = match mode & raw::S_IFMT {
            0 | raw::S_IFREG => NewNode::Regular,
            raw::S_IFIFO => NewNode::Fifo,
            raw::S_IFSOCK => NewNode::Socket,
            raw::S_IFCHR => NewNode::Device(FileType::CharDevice, DeviceNumber::decode(device)),
            raw::S_IFBLK => NewNode::Device(FileType::BlockDevice, DeviceNumber::decode(device)),
            raw::S_IFDIR => return Err(Errno::EPERM),
            _ => return Err(Errno::EINVAL),
        };
        self.make(fd, path, node, mode & MODE_BITS).await
    }

    /// Makes a symbolic link to `target`: `symlinkat(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn make_symlink(&self, target: &[u8], fd: i32, path: &[u8]) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let base = self.start(fd, path)?;
        let parent = Walk::new(self.context).parent(base, path).await?;
        let node = NewNode::Symlink(target.to_vec());
        self.make_in(parent, node, 0o777).await
    }

    async fn make(&self, fd: i32, path: &[u8], node: NewNode, mode: u32) -> Result<()> {
        let parent = self.lookup_parent(fd, path).await?;
        self.make_in(parent, node, mode & !self.context.umask())
            .await
    }

    async fn make_in(&self, parent: Parent, node: NewNode, mode: u32) -> Result<()> {
        let is_directory = matches!(node, NewNode::Directory);
        let name = new_name(&self.walk(), &parent, is_directory).await?;
        parent.directory.create(name, node, mode).await.map(drop)
    }

    /// Gives a file one more name: `linkat(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn link(
        &self,
        (fd, path): (i32, &[u8]),
        (new_fd, new_path): (i32, &[u8]),
        flags: u32,
    ) -> Result<()> {
        if flags & !(raw::AT_SYMLINK_FOLLOW | raw::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL);
        }
        let follow = flags & raw::AT_SYMLINK_FOLLOW != 0;
        let target = match path {
            [] if flags & raw::AT_EMPTY_PATH != 0 => self.inode_of(fd)?,
            path => self.lookup(fd, path, follow).await?,
        };
        let parent = self.lookup_parent(new_fd, new_path).await?;
        let name = new_name(&self.walk(), &parent, false).await?;
        parent.directory.link(name, target).await
    }

    /// Removes a name: `unlinkat(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn unlink(&self, fd: i32, path: &[u8], flags: u32) -> Result<()> {
        let parent = match flags {
            0 | raw::AT_REMOVEDIR => self.lookup_parent(fd, path).await?,
            _ => return Err(Errno::EINVAL),
        };
        let is_rmdir = flags == raw::AT_REMOVEDIR;
        let name = match &parent.last {
            Last::Name(name) => name,
            _ if !is_rmdir => return Err(Errno::EISDIR),
            Last::Dot => return Err(Errno::EINVAL),
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Root => return Err(Errno::EBUSY),
        };
        let inode = self.walk().last(&parent).await?;
        let is_directory = inode.file_type() == FileType::Directory;
        if is_rmdir {
            if self.is_mount(&inode) {
                return Err(Errno::EBUSY);
            }
            return parent.directory.remove_directory(name).await;
        }
        if is_directory {
            return Err(Errno::EISDIR);
        }
        if parent.has_slash {
            return Err(Errno::ENOTDIR);
        }
        parent.directory.unlink(name).await
    }

    /// Renames a file: `renameat2(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn rename(
        &self,
        (fd, path): (i32, &[u8]),
        (new_fd, new_path): (i32, &[u8]),
        flags: u32,
    ) -> Result<()> {
        let mode = match flags {
            0 => RenameMode::Replace,
            raw::RENAME_NOREPLACE => RenameMode::NoReplace,
            raw::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let from = self.lookup_parent(fd, path).await?;
        let to = self.lookup_parent(new_fd, new_path).await?;
        let Last::Name(name) = &from.last else {
            return Err(Errno::EBUSY);
        };
        let Last::Name(new_name) = &to.last else {
            return Err(match mode {
                RenameMode::NoReplace => Errno::EEXIST,
                _ => Errno::EBUSY,
            });
        };
        let walk = self.walk();
        let moved = walk.last(&from).await?;
        let replaced = match walk.last(&to).await {
            Ok(_) if mode == RenameMode::NoReplace => return Err(Errno::EEXIST),
            Ok(inode) => Some(inode),
            Err(Errno::ENOENT) if mode != RenameMode::Exchange => None,
            Err(error) => return Err(error),
        };
        let is_directory = |inode: &Arc<dyn Inode>| inode.file_type() == FileType::Directory;
        let bad_slash = match mode {
            RenameMode::Exchange => {
                from.has_slash && !is_directory(&moved)
                    || to.has_slash && !replaced.as_ref().is_some_and(is_directory)
            }
            _ => (from.has_slash || to.has_slash) && !is_directory(&moved),
        };
        if bad_slash {
            return Err(Errno::ENOTDIR);
        }
        if self.is_mount(&moved) || replaced.as_ref().is_some_and(|inode| self.is_mount(inode)) {
            return Err(Errno::EBUSY);
        }
        from.directory
            .rename(name, to.directory, new_name, mode)
            .await
    }

    fn walk(&self) -> Walk<'_> {
        Walk::new(self.context)
    }

    /// Whether `inode`, found by a path, is the root of a mounted file system.
    pub(super) fn is_mount(&self, inode: &Arc<dyn Inode>) -> bool {
        self.context.namespace.is_mount_root(&**inode)
    }
}

/// The name of what is to be made: there must be nothing of that name.
async fn new_name<'a>(walk: &Walk<'_>, parent: &'a Parent, is_directory: bool) -> Result<&'a [u8]> {
    let Last::Name(name) = &parent.last else {
        return Err(Errno::EEXIST);
    };
    match walk.last(parent).await {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) if !parent.has_slash || is_directory => Ok(name),
        Err(error) => Err(error),
    }
}
