//! Attributes of files and file systems: `stat(2)`, `statx(2)`, `access(2)`, `readlink(2)`,
//! `statfs(2)`, `chmod(2)`, `chown(2)`, `utimensat(2)`, `truncate(2)`, their relatives and their
//! opcodes.

use super::{Actor, FileRef, PathAt};
use crate::error::{Errno, Result};
use crate::fs::{At, AttributeChange, FileSystemInfo, FileType, Stat};
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// A file whose attributes are looked at or changed.
pub struct Target {
    /// Its path; an empty one for the descriptor itself where `AT_EMPTY_PATH` allows it.
    pub at: PathAt,
    /// `AT_EMPTY_PATH`, `AT_SYMLINK_NOFOLLOW`.
    pub flags: u32,
}

impl Target {
    fn borrow(&self) -> At<'_> {
        At {
            fd: self.at.fd,
            path: &self.at.path,
            flags: self.flags,
        }
    }
}

/// `newfstatat(2)`.
pub struct GetAttributes(pub Target);

impl GetAttributes {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `newfstatat(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<Stat> {
        actor.view().stat(self.0.borrow()).await
    }
}

/// `fstat(2)`, also of a file that is only named.
pub struct GetOpenAttributes {
    /// The descriptor.
    pub fd: i32,
}

impl GetOpenAttributes {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EBADF`, and those of the file system.
    pub async fn run(self, actor: Actor<'_>) -> Result<Stat> {
        actor.process.files.get_any(self.fd)?.stat().await
    }
}

/// `statx(2)`.
pub struct GetExtendedAttributes {
    /// The file.
    pub target: Target,
    /// `STATX_*`: what is wanted.
    pub mask: u32,
}

impl GetExtendedAttributes {
    /// Whether `AT_*` and `STATX_*` do not contradict themselves, which is looked at before the path is
    /// read.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn check_flags(flags: u32, mask: u32) -> Result<()> {
        let is_both = flags & raw::AT_STATX_SYNC_TYPE == raw::AT_STATX_SYNC_TYPE;
        match is_both || mask & raw::STATX__RESERVED != 0 {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }

    const KNOWN: u32 = raw::AT_SYMLINK_NOFOLLOW
        | raw::AT_NO_AUTOMOUNT
        | raw::AT_EMPTY_PATH
        | raw::AT_STATX_SYNC_TYPE;

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `statx(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<raw::statx> {
        Self::check_flags(self.target.flags, self.mask)?;
        if self.target.flags & !Self::KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        actor.view().statx(self.target.borrow(), self.mask).await
    }
}

/// `faccessat2(2)`: whether a file may be used.
pub struct CheckAccess {
    /// The file.
    pub target: Target,
    /// `R_OK`, `W_OK`, `X_OK`.
    pub mode: u32,
}

impl CheckAccess {
    /// Whether the mode and `AT_*` are such that they mean something, which is looked at before the
    /// path is read.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn check_flags(mode: u32, flags: u32) -> Result<()> {
        let known = raw::AT_EACCESS | raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH;
        match mode & !7 != 0 || flags & !known != 0 {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// `EACCES` if not, and those of `faccessat2(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        actor.view().access(self.target.borrow(), self.mode).await
    }
}

/// `fchmodat2(2)`, `fchownat(2)`, `utimensat(2)`.
pub struct SetAttributes {
    /// The file.
    pub target: Target,
    /// What changes.
    pub change: AttributeChange,
}

impl SetAttributes {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of the calls.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let view = actor.view();
        view.set_attributes(self.target.borrow(), self.change).await
    }
}

/// `fchmod(2)`, `fchown(2)`, `futimens(3)`.
pub struct SetOpenAttributes {
    /// The file.
    pub file: FileRef,
    /// What changes.
    pub change: AttributeChange,
}

impl SetOpenAttributes {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EBADF`, and those of the calls.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        file.set_attributes(self.change).await
    }
}

/// `truncate(2)`.
pub struct TruncatePath {
    /// The file's path.
    pub path: Vec<u8>,
    /// The size that it gets.
    pub size: u64,
}

impl TruncatePath {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `truncate(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let found = actor.view().lookup(raw::AT_FDCWD, &self.path, true).await?;
        if found.inode.file_type() == FileType::Regular && actor.exceeds_limit(self.size) {
            let is_longer = found.inode.stat().await?.size < self.size;
            if is_longer {
                return Err(actor.too_big());
            }
        }
        actor.view().truncate(&self.path, self.size).await
    }
}

/// `readlinkat(2)`.
pub struct ReadLink {
    /// The symbolic link; an empty path for the descriptor itself.
    pub at: PathAt,
}

impl ReadLink {
    /// Does it; gives all of where the link points.
    ///
    /// # Errors
    ///
    /// Those of `readlinkat(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<Vec<u8>> {
        actor.view().read_link(self.at.fd, &self.at.path).await
    }
}

/// `statfs(2)`.
pub struct GetFileSystem {
    /// The path of a file in it.
    pub path: Vec<u8>,
}

impl GetFileSystem {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `statfs(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<FileSystemInfo> {
        actor.view().file_system(&self.path).await
    }
}

/// `fstatfs(2)`, also of a file that is only named.
pub struct GetOpenFileSystem {
    /// The descriptor of a file in it.
    pub fd: i32,
}

impl GetOpenFileSystem {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EBADF`, and those of the file system.
    pub async fn run(self, actor: Actor<'_>) -> Result<FileSystemInfo> {
        actor.process.files.get_any(self.fd)?.file_system().await
    }
}
