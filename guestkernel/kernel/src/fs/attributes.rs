//! Looking at a file's attributes and changing them, by path and by descriptor.

use super::context::View;
use super::{AttributeChange, FileSystemInfo, FileType, OpenFile, SetTime, Stat};
use crate::error::{Errno, Result};
use crate::file::{Location, WriteAccess};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// A file that is named by a descriptor and a path, as the `*at` system calls do.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Where a relative path starts: a descriptor or `AT_FDCWD`.
    pub fd: i32,
    /// The path; empty for the descriptor itself where `AT_EMPTY_PATH` allows it.
    pub path: &'a [u8],
    /// `AT_EMPTY_PATH`, `AT_SYMLINK_NOFOLLOW`.
    pub flags: u32,
}

impl At<'_> {
    fn is_descriptor(&self) -> bool {
        self.path.is_empty() && self.flags & raw::AT_EMPTY_PATH != 0
    }

    fn follows(&self) -> bool {
        self.flags & raw::AT_SYMLINK_NOFOLLOW == 0
    }
}

/// A file that attributes can be asked of.
enum Target {
    Located(Location),
    /// A file that is in no file system.
    Open(Arc<OpenFile>),
}

impl View<'_> {
    async fn target(&self, at: At<'_>) -> Result<Target> {
        if !at.is_descriptor() {
            let location = self.lookup(at.fd, at.path, at.follows()).await?;
            return Ok(Target::Located(location));
        }
        if at.fd == raw::AT_FDCWD {
            return Ok(Target::Located(self.context.working_directory()));
        }
        let file = self.files.get_any(at.fd)?;
        Ok(match file.location() {
            Some(location) => Target::Located(location.clone()),
            None => Target::Open(file),
        })
    }

    /// The file in a file system that `fd` refers to.
    ///
    /// # Errors
    ///
    /// `EBADF`; `ENOENT` if it is in none.
    pub(super) fn location_of(&self, fd: i32) -> Result<Location> {
        if fd == raw::AT_FDCWD {
            return Ok(self.context.working_directory());
        }
        let file = self.files.get_any(fd)?;
        file.location().cloned().ok_or(Errno::ENOENT)
    }

    /// The attributes of a file: `newfstatat(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn stat(&self, at: At<'_>) -> Result<Stat> {
        match self.target(at).await? {
            Target::Located(location) => location.inode.stat().await,
            Target::Open(file) => file.ops.stat().await,
        }
    }

    /// The attributes of a file: `statx(2)`, with the fields of `mask` that there are.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn statx(&self, at: At<'_>, mask: u32) -> Result<raw::statx> {
        let target = self.target(at).await?;
        let stat = match &target {
            Target::Located(location) => location.inode.stat().await?,
            Target::Open(file) => file.ops.stat().await?,
        };
        let mut out = stat.to_statx();
        out.stx_attributes_mask = raw::STATX_ATTR_MOUNT_ROOT.into();
        if let Target::Located(location) = &target {
            if location.is_mount_root() {
                out.stx_attributes = raw::STATX_ATTR_MOUNT_ROOT.into();
            }
            out.stx_mnt_id = location.mount.id;
            out.stx_mask |= match mask & raw::STATX_MNT_ID_UNIQUE {
                0 => raw::STATX_MNT_ID,
                _ => raw::STATX_MNT_ID_UNIQUE,
            };
        }
        Ok(out)
    }

    /// Whether the process may do `mode` (`R_OK`, `W_OK`, `X_OK`) with the file. It is root:
    /// all it may not do is execute a file that nobody may execute.
    ///
    /// # Errors
    ///
    /// `EACCES` if not, and those of `faccessat2(2)`.
    pub async fn access(&self, at: At<'_>, mode: u32) -> Result<()> {
        const KNOWN: u32 = raw::AT_EACCESS | raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH;
        if mode & !7 != 0 || at.flags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let stat = self.stat(at).await?;
        let wants_execute = mode & raw::X_OK != 0;
        let is_directory = FileType::of_mode(stat.mode) == Some(FileType::Directory);
        match wants_execute && !is_directory && stat.mode & 0o111 == 0 {
            true => Err(Errno::EACCES),
            false => Ok(()),
        }
    }

    /// Changes attributes: what `fchmodat2(2)`, `fchownat(2)` and `utimensat(2)` do.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub async fn set_attributes(&self, at: At<'_>, change: AttributeChange) -> Result<()> {
        match self.target(at).await? {
            Target::Located(location) => {
                location.mount.check_writable()?;
                let inode = &location.inode;
                if change.mode.is_some() && inode.file_type() == FileType::Symlink {
                    return Err(Errno::EOPNOTSUPP);
                }
                inode.set_attributes(change).await
            }
            Target::Open(_) => Err(Errno::EPERM),
        }
    }

    /// Sets the size of a file: `truncate(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn truncate(&self, path: &[u8], size: u64) -> Result<()> {
        let Location { mount, inode } = self.lookup(raw::AT_FDCWD, path, true).await?;
        match inode.file_type() {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        mount.check_writable()?;
        let _writing = WriteAccess::new(inode.clone())?;
        let change = AttributeChange {
            size: Some(size),
            ..AttributeChange::default()
        };
        inode.set_attributes(change).await
    }

    /// Where a symbolic link points: `readlinkat(2)`. An empty path is the descriptor's own file.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn read_link(&self, fd: i32, path: &[u8]) -> Result<Vec<u8>> {
        if !path.is_empty() {
            let location = self.lookup(fd, path, false).await?;
            return location.inode.read_link().await;
        }
        let inode = self.location_of(fd)?.inode;
        match inode.file_type() {
            FileType::Symlink => inode.read_link().await,
            _ => Err(Errno::ENOENT),
        }
    }

    /// The numbers of the file system that a file is in: `statfs(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn file_system(&self, path: &[u8]) -> Result<FileSystemInfo> {
        let location = self.lookup(raw::AT_FDCWD, path, true).await?;
        location.mount.super_block.fs.info().await
    }
}

impl OpenFile {
    /// Changes attributes: what `fchmod(2)`, `fchown(2)` and `futimens(3)` do.
    ///
    /// # Errors
    ///
    /// Those of the file system; `EPERM` for a file that is in none.
    pub async fn set_attributes(&self, change: AttributeChange) -> Result<()> {
        match self.location() {
            Some(location) => {
                location.mount.check_writable()?;
                location.inode.set_attributes(change).await
            }
            None => Err(Errno::EPERM),
        }
    }

    /// Sets its size: `ftruncate(2)`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was not opened for writing or has no size to be set.
    pub async fn truncate(&self, size: u64) -> Result<()> {
        match self.flags().can_write() {
            true => self.ops.truncate(size).await,
            false => Err(Errno::EINVAL),
        }
    }

    /// Makes sure that a range has storage, or that it has none: `fallocate(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn allocate(&self, mode: u32, offset: i64, length: i64) -> Result<()> {
        let (Ok(start), Ok(count @ 1..)) = (u64::try_from(offset), u64::try_from(length)) else {
            return Err(Errno::EINVAL);
        };
        // Without KEEP_SIZE, these are the modes that there are.
        let operation = mode & !raw::FALLOC_FL_KEEP_SIZE;
        let is_known = match operation {
            0 | raw::FALLOC_FL_UNSHARE_RANGE | raw::FALLOC_FL_ZERO_RANGE => true,
            raw::FALLOC_FL_PUNCH_HOLE => mode != operation,
            raw::FALLOC_FL_COLLAPSE_RANGE
            | raw::FALLOC_FL_INSERT_RANGE
            | raw::FALLOC_FL_WRITE_ZEROES => mode == operation,
            _ => false,
        };
        if !is_known {
            return Err(Errno::EOPNOTSUPP);
        }
        if !self.flags().can_write() {
            return Err(Errno::EBADF);
        }
        if offset.checked_add(length).is_none() && (self.is_regular() || self.is_block_device()) {
            return Err(Errno::EFBIG);
        }
        self.ops.allocate(mode, start, count).await
    }

    /// Makes what was written durable: `fsync(2)`, or `fdatasync(2)` if `data_only`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a file that cannot be, `EIO`, `ENOSPC`.
    pub async fn sync(&self, data_only: bool) -> Result<()> {
        self.ops.sync(data_only).await
    }
}

/// A time as `utimensat(2)` gives it; `None` for `UTIME_OMIT`.
///
/// # Errors
///
/// `EINVAL` if the nanoseconds are none.
pub fn decode_time(seconds: i64, nanoseconds: i64) -> Result<Option<SetTime>> {
    Ok(match u32::try_from(nanoseconds) {
        Ok(raw::UTIME_NOW) => Some(SetTime::Now),
        Ok(raw::UTIME_OMIT) => None,
        Ok(nanoseconds @ 0..1_000_000_000) => Some(SetTime::To(super::Timestamp {
            seconds,
            nanoseconds,
        })),
        _ => return Err(Errno::EINVAL),
    })
}
