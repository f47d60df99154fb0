//! Making, linking, renaming and removing names. Each is one operation for a system call and an
//! io_uring opcode.

use super::context::View;
use super::path::{Last, PATH_MAX, Walk};
use super::{DeviceNumber, FileType, Inode, NewNode, RenameMode};
use crate::error::{Errno, Result};
use crate::file::Location;
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

    /// Makes the name of a socket, with the permissions that the umask leaves: `bind(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn make_socket(&self, path: &[u8]) -> Result<Arc<dyn Inode>> {
        let walk = self.walk_to_parent(raw::AT_FDCWD, path).await?;
        let mode = 0o777 & !self.context.umask();
        make_in(walk, NewNode::Socket, mode).await
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
        let walk = self.walk_to_parent(fd, path).await?;
        let made = make_in(walk, NewNode::Symlink(target.to_vec()), 0o777).await;
        made.map(drop)
    }

    async fn make(&self, fd: i32, path: &[u8], node: NewNode, mode: u32) -> Result<()> {
        let walk = self.walk_to_parent(fd, path).await?;
        let made = make_in(walk, node, mode & !self.context.umask()).await;
        made.map(drop)
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
            [] if flags & raw::AT_EMPTY_PATH != 0 => self.location_of(fd)?,
            path => self.lookup(fd, path, follow).await?,
        };
        let walk = self.walk_to_parent(new_fd, new_path).await?;
        let name = new_name(&walk, false).await?;
        let directory = walk.directory();
        if !Arc::ptr_eq(&directory.mount, &target.mount) {
            return Err(Errno::EXDEV);
        }
        directory.inode.link(name, target.inode).await
    }

    /// Removes a name: `unlinkat(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn unlink(&self, fd: i32, path: &[u8], flags: u32) -> Result<()> {
        let walk = match flags {
            0 | raw::AT_REMOVEDIR => self.walk_to_parent(fd, path).await?,
            _ => return Err(Errno::EINVAL),
        };
        let is_rmdir = flags == raw::AT_REMOVEDIR;
        let name = match (walk.last_kind(), walk.name()) {
            (_, Some(name)) => name,
            _ if !is_rmdir => return Err(Errno::EISDIR),
            (Last::Dot, _) => return Err(Errno::EINVAL),
            (Last::DotDot, _) => return Err(Errno::ENOTEMPTY),
            _ => return Err(Errno::EBUSY),
        };
        let directory = walk.directory();
        directory.mount.check_writable()?;
        let victim = walk.last().await?;
        let is_directory = victim.inode.file_type() == FileType::Directory;
        if is_rmdir {
            if victim.is_mount_root() {
                return Err(Errno::EBUSY);
            }
            return directory.inode.remove_directory(name).await;
        }
        if is_directory {
            return Err(Errno::EISDIR);
        }
        if walk.has_slash() {
            return Err(Errno::ENOTDIR);
        }
        if victim.is_mount_root() {
            return Err(Errno::EBUSY);
        }
        directory.inode.unlink(name).await
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
        let from = self.walk_to_parent(fd, path).await?;
        let to = self.walk_to_parent(new_fd, new_path).await?;
        let (from_directory, to_directory) = (from.directory(), to.directory());
        if !Arc::ptr_eq(&from_directory.mount, &to_directory.mount) {
            return Err(Errno::EXDEV);
        }
        let name = from.name().ok_or(Errno::EBUSY)?;
        let new_name = to.name().ok_or(match mode {
            RenameMode::NoReplace => Errno::EEXIST,
            _ => Errno::EBUSY,
        })?;
        from_directory.mount.check_writable()?;
        let moved = from.last().await?;
        let replaced = match to.last().await {
            Ok(_) if mode == RenameMode::NoReplace => return Err(Errno::EEXIST),
            Ok(replaced) => Some(replaced),
            Err(Errno::ENOENT) if mode != RenameMode::Exchange => None,
            Err(error) => return Err(error),
        };
        let is_directory = |file: &Location| file.inode.file_type() == FileType::Directory;
        let bad_slash = match mode {
            RenameMode::Exchange => {
                from.has_slash() && !is_directory(&moved)
                    || to.has_slash() && !replaced.as_ref().is_some_and(is_directory)
            }
            _ => (from.has_slash() || to.has_slash()) && !is_directory(&moved),
        };
        if bad_slash {
            return Err(Errno::ENOTDIR);
        }
        if moved.is_mount_root() || replaced.as_ref().is_some_and(Location::is_mount_root) {
            return Err(Errno::EBUSY);
        }
        from_directory
            .inode
            .rename(name, to_directory.inode.clone(), new_name, mode)
            .await
    }
}

async fn make_in(walk: Walk<'_>, node: NewNode, mode: u32) -> Result<Arc<dyn Inode>> {
    let is_directory = matches!(node, NewNode::Directory);
    let name = new_name(&walk, is_directory).await?;
    walk.directory().inode.create(name, node, mode).await
}

/// The name of what is to be made: there must be nothing of that name, and the mount must allow it.
async fn new_name<'w>(walk: &'w Walk<'_>, is_directory: bool) -> Result<&'w [u8]> {
    let name = walk.name().ok_or(Errno::EEXIST)?;
    match walk.last().await {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) if !walk.has_slash() || is_directory => {
            walk.directory().mount.check_writable()?;
            Ok(name)
        }
        Err(error) => Err(error),
    }
}
