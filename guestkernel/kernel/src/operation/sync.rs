//! Making what was written durable: `fsync(2)`, `fdatasync(2)`, `sync_file_range(2)`, `sync(2)`,
//! `syncfs(2)`, and their opcodes.

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use linux_raw_sys::general as raw;

/// `fsync(2)` and `fdatasync(2)`. A range is taken as the whole file, which satisfies it.
pub struct Sync {
    /// The file.
    pub file: FileRef,
    /// Metadata that reading the data does not need may wait (`fdatasync(2)`).
    pub data_only: bool,
}

impl Sync {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL` for what cannot be durable, `EIO` and its like.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        actor.file(self.file)?.sync(self.data_only).await
    }
}

/// `sync_file_range(2)`.
pub struct SyncRange {
    /// The file.
    pub file: FileRef,
    /// The first byte.
    pub offset: i64,
    /// Bytes; 0 for all that follow.
    pub length: i64,
    /// `SYNC_FILE_RANGE_*`.
    pub flags: u32,
}

impl SyncRange {
    const KNOWN: u32 = raw::SYNC_FILE_RANGE_WAIT_BEFORE
        | raw::SYNC_FILE_RANGE_WRITE
        | raw::SYNC_FILE_RANGE_WAIT_AFTER;

    /// Does it, for the whole file.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL`, `ESPIPE` for what has no pages, and those of writing.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let end = self.offset.checked_add(self.length);
        let is_range = self.offset >= 0 && self.length >= 0 && end.is_some();
        if self.flags & !Self::KNOWN != 0 || !is_range {
            return Err(Errno::EINVAL);
        }
        if !file.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        match file.sync(true).await {
            // A character device has nothing to write.
            Err(Errno::EINVAL) => Err(Errno::ESPIPE),
            result => result,
        }
    }
}

/// `sync(2)`: everything everywhere.
pub struct SyncAll;

impl SyncAll {
    /// Does it. File systems are in memory; block devices write through.
    pub fn run(self, _: Actor<'_>) {}
}

/// `syncfs(2)`: the file system that a file is in.
pub struct SyncFileSystem {
    /// The file.
    pub file: FileRef,
}

impl SyncFileSystem {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        actor.file(self.file).map(|_| ())
    }
}
