//! Directories: listing them (`getdents64(2)`), and those that a process is in (`chdir(2)`,
//! `chroot(2)`, `getcwd(2)`).

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::fs::DirEntry;
use alloc::vec::Vec;
use linux_raw_sys::general::AT_FDCWD;

/// Bytes of directory entries that one call gives at most.
const ENTRIES_MAX: usize = 1 << 16;

/// How entries of a directory are laid out in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `struct linux_dirent64`: the type comes before the name.
    New,
    /// `struct linux_dirent`: the type is the entry's last byte.
    Old,
}

impl Layout {
    /// Bytes before the name.
    fn header(self) -> usize {
        match self {
            Self::New => 19,
            Self::Old => 18,
        }
    }

    /// Appends an entry to `out`, which is to hold no more than `room` bytes; false if it does
    /// not fit.
    fn append(self, entry: &DirEntry<'_>, out: &mut Vec<u8>, room: usize) -> bool {
        // The name has a NUL, and the old layout a type after it.
        let tail = if self == Self::Old { 2 } else { 1 };
        let length = (self.header() + entry.name.len() + tail).next_multiple_of(8);
        if length > room - out.len() {
            return false;
        }
        let end = out.len() + length;
        out.extend_from_slice(&entry.inode.to_ne_bytes());
        out.extend_from_slice(&entry.next.to_ne_bytes());
        out.extend_from_slice(&(length as u16).to_ne_bytes());
        if self == Self::New {
            out.push(entry.kind);
        }
        out.extend_from_slice(entry.name);
        out.resize(end, 0);
        if self == Self::Old {
            out[end - 1] = entry.kind;
        }
        true
    }
}

/// `getdents64(2)` and `getdents(2)`.
pub struct ListDirectory {
    /// The directory.
    pub file: FileRef,
    /// Where the entries go.
    pub address: u64,
    /// Bytes that there is room for.
    pub room: usize,
    /// How the entries are laid out.
    pub layout: Layout,
}

impl ListDirectory {
    /// Does it; gives the bytes of the entries, 0 at the end.
    ///
    /// # Errors
    ///
    /// Those of `getdents64(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let file = actor.file(self.file)?;
        let room = self.room.min(ENTRIES_MAX);
        let mut out = Vec::new();
        let mut is_full = false;
        let mut sink = |entry: &DirEntry<'_>| {
            is_full = !self.layout.append(entry, &mut out, room);
            !is_full
        };
        let next = file.ops.read_dir(file.position(), &mut sink).await?;
        if out.is_empty() && is_full {
            return Err(Errno::EINVAL);
        }
        actor.space().write(self.address, &out)?;
        file.set_position(next);
        Ok(out.len() as u64)
    }
}

/// `chdir(2)`.
pub struct ChangeDirectory {
    /// The path.
    pub path: Vec<u8>,
}

impl ChangeDirectory {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `chdir(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let directory = actor.view().lookup(AT_FDCWD, &self.path, true).await?;
        actor.process.fs.set_working_directory(directory)
    }
}

/// `fchdir(2)`, also to a directory that is only named.
pub struct ChangeToOpenDirectory {
    /// The descriptor.
    pub fd: i32,
}

impl ChangeToOpenDirectory {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EBADF`, `ENOTDIR`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.process.files.get_any(self.fd)?;
        let directory = file.location().ok_or(Errno::ENOTDIR)?.clone();
        actor.process.fs.set_working_directory(directory)
    }
}

/// `chroot(2)`.
pub struct ChangeRoot {
    /// The path.
    pub path: Vec<u8>,
}

impl ChangeRoot {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `chroot(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let directory = actor.view().lookup(AT_FDCWD, &self.path, true).await?;
        actor.process.fs.set_root(directory)
    }
}

/// `getcwd(2)`.
pub struct GetWorkingDirectory {
    /// Where the path goes.
    pub address: u64,
    /// Bytes that there is room for.
    pub room: usize,
}

impl GetWorkingDirectory {
    /// Does it; gives the bytes of the path, its NUL included.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it was removed, `ERANGE` if there is not enough room, `ENAMETOOLONG`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<u64> {
        let context = &actor.process.fs;
        let (path, is_reachable) = context.path_of(context.working_directory().into())?;
        let prefix: &[u8] = if is_reachable { b"" } else { b"(unreachable)" };
        let path = [prefix, &path, b"\0"].concat();
        if path.len() > self.room {
            return Err(Errno::ERANGE);
        }
        actor.space().write(self.address, &path)?;
        Ok(path.len() as u64)
    }
}

/// `umask(2)`.
pub struct SetUmask {
    /// Permission bits that new files do not get.
    pub mask: u32,
}

impl SetUmask {
    /// Does it; gives the old ones.
    pub fn run(self, actor: Actor<'_>) -> u32 {
        actor.process.fs.set_umask(self.mask)
    }
}
