//! FUSE's requests and replies as bytes (Linux's `include/uapi/linux/fuse.h`), little-endian.
//!
//! What a server answers is not trusted: whatever is too short, or says what cannot be, is `EIO`.

use crate::error::{Errno, Result};
use crate::file::{DeviceNumber, FileType, Stat, Timestamp};
use machine::clock;
use smallvec::SmallVec;

/// The version of the protocol.
pub(super) const MAJOR: u32 = 7;
pub(super) const MINOR: u32 = 40;
/// The oldest minor version whose structures are those of now.
pub(super) const MINOR_MIN: u32 = 31;

/// The node that is the root of the file system.
pub(super) const ROOT: u64 = 1;

/// What is asked for (`enum fuse_opcode`).
pub(super) mod opcode {
    pub(in crate::fs::fuse) const LOOKUP: u32 = 1;
    pub(in crate::fs::fuse) const FORGET: u32 = 2;
    pub(in crate::fs::fuse) const GETATTR: u32 = 3;
    pub(in crate::fs::fuse) const SETATTR: u32 = 4;
    pub(in crate::fs::fuse) const READLINK: u32 = 5;
    pub(in crate::fs::fuse) const SYMLINK: u32 = 6;
    pub(in crate::fs::fuse) const MKNOD: u32 = 8;
    pub(in crate::fs::fuse) const MKDIR: u32 = 9;
    pub(in crate::fs::fuse) const UNLINK: u32 = 10;
    pub(in crate::fs::fuse) const RMDIR: u32 = 11;
    pub(in crate::fs::fuse) const LINK: u32 = 13;
    pub(in crate::fs::fuse) const OPEN: u32 = 14;
    pub(in crate::fs::fuse) const READ: u32 = 15;
    pub(in crate::fs::fuse) const WRITE: u32 = 16;
    pub(in crate::fs::fuse) const STATFS: u32 = 17;
    pub(in crate::fs::fuse) const RELEASE: u32 = 18;
    pub(in crate::fs::fuse) const FSYNC: u32 = 20;
    pub(in crate::fs::fuse) const SETXATTR: u32 = 21;
    pub(in crate::fs::fuse) const GETXATTR: u32 = 22;
    pub(in crate::fs::fuse) const LISTXATTR: u32 = 23;
    pub(in crate::fs::fuse) const REMOVEXATTR: u32 = 24;
    pub(in crate::fs::fuse) const FLUSH: u32 = 25;
    pub(in crate::fs::fuse) const INIT: u32 = 26;
    pub(in crate::fs::fuse) const OPENDIR: u32 = 27;
    pub(in crate::fs::fuse) const RELEASEDIR: u32 = 29;
    pub(in crate::fs::fuse) const FSYNCDIR: u32 = 30;
    pub(in crate::fs::fuse) const CREATE: u32 = 35;
    pub(in crate::fs::fuse) const BATCH_FORGET: u32 = 42;
    pub(in crate::fs::fuse) const FALLOCATE: u32 = 43;
    pub(in crate::fs::fuse) const READDIRPLUS: u32 = 44;
    pub(in crate::fs::fuse) const RENAME2: u32 = 45;
    pub(in crate::fs::fuse) const LSEEK: u32 = 46;
    pub(in crate::fs::fuse) const COPY_FILE_RANGE: u32 = 47;
    pub(in crate::fs::fuse) const SYNCFS: u32 = 50;
    pub(in crate::fs::fuse) const TMPFILE: u32 = 51;
}

/// Flags of INIT (`FUSE_*`).
pub(super) mod init {
    pub(in crate::fs::fuse) const ASYNC_READ: u32 = 1 << 0;
    pub(in crate::fs::fuse) const BIG_WRITES: u32 = 1 << 5;
    pub(in crate::fs::fuse) const DONT_MASK: u32 = 1 << 6;
    pub(in crate::fs::fuse) const DO_READDIRPLUS: u32 = 1 << 13;
    pub(in crate::fs::fuse) const ASYNC_DIO: u32 = 1 << 15;
    pub(in crate::fs::fuse) const PARALLEL_DIROPS: u32 = 1 << 18;
    pub(in crate::fs::fuse) const MAX_PAGES: u32 = 1 << 22;
    pub(in crate::fs::fuse) const SUBMOUNTS: u32 = 1 << 27;
}

/// What SETATTR sets (`FATTR_*`).
pub(super) mod set {
    pub(in crate::fs::fuse) const MODE: u32 = 1 << 0;
    pub(in crate::fs::fuse) const UID: u32 = 1 << 1;
    pub(in crate::fs::fuse) const GID: u32 = 1 << 2;
    pub(in crate::fs::fuse) const SIZE: u32 = 1 << 3;
    pub(in crate::fs::fuse) const ATIME: u32 = 1 << 4;
    pub(in crate::fs::fuse) const MTIME: u32 = 1 << 5;
    pub(in crate::fs::fuse) const FH: u32 = 1 << 6;
    pub(in crate::fs::fuse) const ATIME_NOW: u32 = 1 << 7;
    pub(in crate::fs::fuse) const MTIME_NOW: u32 = 1 << 8;
}

/// Something is mounted there on the server's side (`FUSE_ATTR_SUBMOUNT`).
const ATTR_SUBMOUNT: u32 = 1;
/// Only the data must be durable (`FUSE_FSYNC_FDATASYNC`).
pub(super) const FSYNC_DATA: u32 = 1;
/// What OPEN gives: nothing is cached (`FOPEN_DIRECT_IO`).
pub(super) const OPEN_DIRECT: u32 = 1;
/// What is kept stays when it is opened (`FOPEN_KEEP_CACHE`).
pub(super) const OPEN_KEEP: u32 = 2;
/// A WRITE comes from pages that are kept (`FUSE_WRITE_CACHE`).
pub(super) const WRITE_CACHED: u32 = 1;

/// Bytes of replies.
pub(super) const ENTRY: usize = 128;
pub(super) const ATTRIBUTES: usize = 104;
pub(super) const OPEN: usize = 16;
/// Bytes of a directory's entry without its name.
pub(super) const DIRENT: usize = 24;

/// Bytes of a request behind the header.
#[derive(Default)]
pub(super) struct Arguments(pub(super) SmallVec<[u8; 64]>);

impl Arguments {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a number.
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a number.
    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds bytes.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a string, with the NUL that ends it.
    pub(super) fn string(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.push(0);
        self
    }
}

/// Bytes of a reply that are read in order.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(count).ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.bytes(N)?.try_into().map_err(|_| Errno::EIO)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// When something stops being valid, in nanoseconds of the monotonic clock.
fn deadline(seconds: u64, nanoseconds: u32) -> u64 {
    let validity = seconds.saturating_mul(1_000_000_000);
    let validity = validity.saturating_add(nanoseconds.into());
    match validity {
        0 => 0,
        validity => clock::monotonic().saturating_add(validity),
    }
}

/// The attributes of a node (`struct fuse_attr`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    /// As `stat(2)` shows them, but for the device.
    pub(super) stat: Stat,
    /// The type.
    pub(super) kind: FileType,
    /// It and what is below have a device number of their own.
    pub(super) is_mount: bool,
    /// Until when they are valid.
    pub(super) valid_until: u64,
}

impl Attributes {
    fn read(fields: &mut Fields<'_>, valid_until: u64) -> Result<Self> {
        let inode = fields.u64()?;
        let size = fields.u64()?;
        let blocks = fields.u64()?;
        let seconds = [fields.u64()?, fields.u64()?, fields.u64()?];
        let nanoseconds = [fields.u32()?, fields.u32()?, fields.u32()?];
        let time = |index: usize| Timestamp {
            seconds: seconds[index] as i64,
            nanoseconds: nanoseconds[index].min(999_999_999),
        };
        let mode = fields.u32()?;
        let links = fields.u32()?;
        let uid = fields.u32()?;
        let gid = fields.u32()?;
        let special = DeviceNumber::decode(fields.u32()?.into());
        let block_size = fields.u32()?;
        let flags = fields.u32()?;
        if size > i64::MAX as u64 {
            return Err(Errno::EIO);
        }
        Ok(Self {
            stat: Stat {
                device: DeviceNumber::default(),
                inode,
                mode: mode & 0o177_777,
                links,
                uid,
                gid,
                special,
                size,
                block_size: if block_size == 0 { 4096 } else { block_size },
                blocks,
                accessed: time(0),
                modified: time(1),
                changed: time(2),
                created: None,
            },
            kind: FileType::of_mode(mode).ok_or(Errno::EIO)?,
            is_mount: flags & ATTR_SUBMOUNT != 0,
            valid_until,
        })
    }

    /// The reply to GETATTR and SETATTR (`struct fuse_attr_out`).
    pub(super) fn of_reply(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        let (seconds, nanoseconds) = (fields.u64()?, fields.u32()?);
        fields.u32()?;
        Self::read(&mut fields, deadline(seconds, nanoseconds))
    }
}

/// What a name stands for (`struct fuse_entry_out`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The node; never 0 or the root.
    pub(super) node: u64,
    /// Until when the name stands for it.
    pub(super) valid_until: u64,
    /// Its attributes.
    pub(super) attributes: Attributes,
}

/// What is said of a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// There is nothing of that name, and will not be before this time.
    Nothing(u64),
    /// It stands for this.
    Entry(Entry),
}

impl Found {
    /// Reads an entry from the front of `bytes`.
    pub(super) fn of_reply(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        let node = fields.u64()?;
        fields.u64()?;
        let (entry_seconds, seconds) = (fields.u64()?, fields.u64()?);
        let (entry_nanoseconds, nanoseconds) = (fields.u32()?, fields.u32()?);
        let valid_until = deadline(entry_seconds, entry_nanoseconds);
        match node {
            0 => Ok(Self::Nothing(valid_until)),
            ROOT => Err(Errno::EIO),
            node => Ok(Self::Entry(Entry {
                node,
                valid_until,
                attributes: Attributes::read(&mut fields, deadline(seconds, nanoseconds))?,
            })),
        }
    }
}

/// A file that was opened (`struct fuse_open_out`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    /// The handle.
    pub(super) fh: u64,
    /// `FOPEN_*`.
    pub(super) flags: u32,
}

impl Opened {
    pub(super) fn of_reply(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        Ok(Self {
            fh: fields.u64()?,
            flags: fields.u32()?,
        })
    }
}

/// An entry of READDIRPLUS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    /// What is said of the name; `None` for what makes no sense or is not told.
    pub(super) entry: Option<Entry>,
    /// The number that the inode has.
    pub(super) inode: u64,
    /// Where listing goes on after it.
    pub(super) next: u64,
    /// `DT_*`.
    pub(super) kind: u8,
    /// Its name.
    pub(super) name: &'a [u8],
    /// Bytes that it takes.
    pub(super) length: usize,
}

impl<'a> Listed<'a> {
    /// The first entry of `bytes`; `None` if there is not all of one.
    ///
    /// # Errors
    ///
    /// `EIO` for a name that is none.
    pub(super) fn first(bytes: &'a [u8]) -> Result<Option<Self>> {
        if bytes.len() < ENTRY + DIRENT {
            return Ok(None);
        }
        let (entry, rest) = bytes.split_at(ENTRY);
        let mut fields = Fields::new(rest);
        let (inode, next) = (fields.u64()?, fields.u64()?);
        let (name_length, kind) = (fields.u32()? as usize, fields.u32()?);
        if name_length == 0 || name_length > super::super::NAME_MAX {
            return Err(Errno::EIO);
        }
        let length = ENTRY + (DIRENT + name_length).next_multiple_of(8);
        if length > bytes.len() {
            return Ok(None);
        }
        let name = fields.bytes(name_length)?;
        if name.contains(&b'/') || name.contains(&0) {
            return Err(Errno::EIO);
        }
        Ok(Some(Self {
            entry: match Found::of_reply(entry) {
                Ok(Found::Entry(entry)) => Some(entry),
                _ => None,
            },
            inode,
            next,
            kind: kind as u8 & 15,
            name,
            length,
        }))
    }
}

/// A device's number in MKNOD (`new_encode_dev` of Linux).
pub(super) fn encode_device(number: DeviceNumber) -> u32 {
    number.encode() as u32
}
