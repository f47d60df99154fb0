//! What `stat(2)` tells of a file.

use linux_raw_sys::general as raw;
use machine::Plain;

/// The type of a file: the bits of `st_mode` under `S_IFMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "inode(7) describes them")]
#[repr(u32)]
pub enum FileType {
    Fifo = raw::S_IFIFO,
    CharDevice = raw::S_IFCHR,
    Directory = raw::S_IFDIR,
    BlockDevice = raw::S_IFBLK,
    Regular = raw::S_IFREG,
    Symlink = raw::S_IFLNK,
    Socket = raw::S_IFSOCK,
}

impl FileType {
    /// The type that `mode` holds, if it is one.
    pub fn of_mode(mode: u32) -> Option<Self> {
        [
            Self::Fifo,
            Self::CharDevice,
            Self::Directory,
            Self::BlockDevice,
            Self::Regular,
            Self::Symlink,
            Self::Socket,
        ]
        .into_iter()
        .find(|kind| *kind as u32 == mode & raw::S_IFMT)
    }

    /// The number that `getdents64(2)` gives it (`DT_*`).
    pub fn directory_type(self) -> u8 {
        (self as u32 >> 12) as u8
    }

    /// Whether opening it opens a device driver.
    pub fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }
}

/// A device number, `dev_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// The device among those of the driver.
    pub minor: u32,
}

impl DeviceNumber {
    /// Device `minor` of driver `major`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The encoding that programs see: `makedev(3)`.
    pub fn encode(self) -> u64 {
        let (major, minor) = (u64::from(self.major), u64::from(self.minor));
        minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(value: u64) -> Self {
        Self {
            major: (value >> 8 & 0xfff | value >> 32 & !0xfff) as u32,
            minor: (value & 0xff | value >> 12 & 0xff_ff00) as u32,
        }
    }
}

/// A time since 1970-01-01 00:00 UTC. Nanoseconds count forwards, also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest, below 10^9.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The present.
    pub fn now() -> Self {
        let time = machine::clock::realtime();
        Self {
            seconds: (time / 1_000_000_000) as i64,
            nanoseconds: (time % 1_000_000_000) as u32,
        }
    }
}

/// The attributes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The file system it is in.
    pub device: DeviceNumber,
    /// Its number there.
    pub inode: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Names it has.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device that a device file stands for.
    pub special: DeviceNumber,
    /// Bytes in it.
    pub size: u64,
    /// Preferred size of reads and writes, in bytes.
    pub block_size: u32,
    /// Storage that it takes, in units of 512 bytes.
    pub blocks: u64,
    /// Last read.
    pub accessed: Timestamp,
    /// Last write.
    pub modified: Timestamp,
    /// Last change of attributes or contents.
    pub changed: Timestamp,
    /// Creation, where it is known.
    pub created: Option<Timestamp>,
}

impl Stat {
    /// An object without a place in a file system, such as an io_uring: what Linux's anonymous
    /// inode shows.
    pub fn anonymous() -> Self {
        Self {
            device: DeviceNumber::new(0, 16),
            inode: 1,
            mode: 0o600,
            links: 1,
            block_size: 4096,
            ..Self::default()
        }
    }

    /// For `stat`, `fstat`, `lstat` and `newfstatat`.
    pub fn to_linux(&self) -> raw::stat {
        raw::stat {
            st_dev: self.device.encode(),
            st_ino: self.inode,
            st_nlink: self.links.into(),
            st_mode: self.mode,
            st_uid: self.uid,
            st_gid: self.gid,
            __pad0: 0,
            st_rdev: self.special.encode(),
            st_size: self.size as i64,
            st_blksize: self.block_size.into(),
            st_blocks: self.blocks as i64,
            st_atime: self.accessed.seconds as u64,
            st_atime_nsec: self.accessed.nanoseconds.into(),
            st_mtime: self.modified.seconds as u64,
            st_mtime_nsec: self.modified.nanoseconds.into(),
            st_ctime: self.changed.seconds as u64,
            st_ctime_nsec: self.changed.nanoseconds.into(),
            __unused: [0; 3],
        }
    }
}

impl Stat {
    /// For `statx`: everything but the mount.
    pub fn to_statx(&self) -> raw::statx {
        let time = |time: Timestamp| raw::statx_timestamp {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds,
            __reserved: 0,
        };
        let mut out = <raw::statx as Plain>::zeroed();
        out.stx_mask = raw::STATX_BASIC_STATS;
        out.stx_blksize = self.block_size;
        out.stx_nlink = self.links;
        out.stx_uid = self.uid;
        out.stx_gid = self.gid;
        out.stx_mode = self.mode as u16;
        out.stx_ino = self.inode;
        out.stx_size = self.size;
        out.stx_blocks = self.blocks;
        out.stx_atime = time(self.accessed);
        out.stx_mtime = time(self.modified);
        out.stx_ctime = time(self.changed);
        if let Some(created) = self.created {
            out.stx_btime = time(created);
            out.stx_mask |= raw::STATX_BTIME;
        }
        out.stx_rdev_major = self.special.major;
        out.stx_rdev_minor = self.special.minor;
        out.stx_dev_major = self.device.major;
        out.stx_dev_minor = self.device.minor;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_makedev_does() {
        for (major, minor, encoded) in [(8, 1, 0x801), (0x12345, 0x6789ab, 0x0001_2006_7893_45ab)] {
            let number = DeviceNumber::new(major, minor);
            assert_eq!(number.encode(), encoded);
            assert_eq!(DeviceNumber::decode(encoded), number);
        }
    }

    #[test]
    fn types_come_from_mode_bits() {
        assert_eq!(FileType::of_mode(0o100644), Some(FileType::Regular));
        assert_eq!(FileType::of_mode(0o644), None);
        assert_eq!(FileType::Directory.directory_type(), 4);
    }
}
