//! What is about the bytes that a file has: `ftruncate(2)`, `fallocate(2)`, `posix_fadvise(2)`,
//! `readahead(2)`, and their opcodes.

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::fs;
use crate::io::Direction;
use linux_raw_sys::general as raw;

/// `ftruncate(2)`.
pub struct Truncate {
    /// The file.
    pub file: FileRef,
    /// The size that it gets.
    pub size: i64,
}

impl Truncate {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `ftruncate(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let size = u64::try_from(self.size).map_err(|_| Errno::EINVAL)?;
        let file = actor.file(self.file)?;
        if file.flags().can_write() {
            actor.check_size(&file, size).await?;
        }
        file.truncate(size).await
    }
}

/// `fallocate(2)`.
pub struct Allocate {
    /// The file.
    pub file: FileRef,
    /// `FALLOC_FL_*`.
    pub mode: u32,
    /// The first byte.
    pub offset: i64,
    /// Bytes.
    pub length: i64,
}

impl Allocate {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `fallocate(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let is_plain = self.mode & !raw::FALLOC_FL_KEEP_SIZE == 0;
        if let (true, true, 0.., 1.., Some(end)) = (
            is_plain,
            file.flags().can_write(),
            self.offset,
            self.length,
            self.offset.checked_add(self.length),
        ) {
            actor.check_size(&file, end as u64).await?;
        }
        file.allocate(self.mode, self.offset, self.length).await
    }
}

/// `posix_fadvise(2)`: how a file will be used.
pub struct Advise {
    /// The file.
    pub file: FileRef,
    /// Bytes; 0 for all that follow.
    pub length: i64,
    /// `POSIX_FADV_*`.
    pub advice: u32,
}

impl Advise {
    /// Takes note of it, which changes nothing.
    ///
    /// # Errors
    ///
    /// `EBADF`, `ESPIPE`, `EINVAL`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        if fs::is_pipe(&file) {
            return Err(Errno::ESPIPE);
        }
        match self.length < 0 || self.advice > raw::POSIX_FADV_NOREUSE {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }
}

/// `readahead(2)`.
pub struct ReadAhead {
    /// The file.
    pub file: FileRef,
}

impl ReadAhead {
    /// Takes note of it; caches read ahead by themselves.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL` for what is not made of bytes.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        file.check_direction(Direction::Read)?;
        match file.ops.is_seekable() && file.ops.has_size() {
            true => Ok(()),
            false => Err(Errno::EINVAL),
        }
    }
}
