//! The flags of an open file.

use bitflags::bitflags;
use linux_raw_sys::general as raw;

bitflags! {
    /// The flags of `open(2)` that stay with the open file.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// Writing is allowed, reading is not.
        const WRITE_ONLY = raw::O_WRONLY;
        /// Both are allowed.
        const READ_WRITE = raw::O_RDWR;
        /// Every write goes to the end.
        const APPEND = raw::O_APPEND;
        /// Nothing waits.
        const NONBLOCK = raw::O_NONBLOCK;
        /// The device accesses the program's memory.
        const DIRECT = raw::O_DIRECT;
        /// Offsets of 64 bits; always so.
        const LARGE_FILE = raw::O_LARGEFILE;
        /// Fails unless it is a directory.
        const DIRECTORY = raw::O_DIRECTORY;
        /// Fails if the last component is a symbolic link.
        const NO_FOLLOW = raw::O_NOFOLLOW;
        /// Reads do not set the access time.
        const NO_ATIME = raw::O_NOATIME;
        /// Writes are durable, their data at least.
        const DATA_SYNC = raw::O_DSYNC;
        /// Writes are durable.
        const SYNC = raw::O_SYNC;
        /// The file is only named, not opened.
        const PATH = raw::O_PATH;
    }
}

impl OpenFlags {
    /// What `fcntl(F_SETFL)` can change.
    pub const CHANGEABLE: Self = Self::APPEND
        .union(Self::NONBLOCK)
        .union(Self::DIRECT)
        .union(Self::NO_ATIME);

    /// Whether the file may be read.
    pub fn can_read(self) -> bool {
        !self.intersects(Self::PATH)
            && matches!(self.bits() & raw::O_ACCMODE, raw::O_RDONLY | raw::O_RDWR)
    }

    /// Whether the file may be written.
    pub fn can_write(self) -> bool {
        !self.intersects(Self::PATH)
            && matches!(self.bits() & raw::O_ACCMODE, raw::O_WRONLY | raw::O_RDWR)
    }
}
