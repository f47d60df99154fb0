//! Mounts: a file system, or a part of one, at a place in the tree of files.

use super::inode::{Inode, is_same};
use super::{FileType, SuperBlock};
use crate::error::{Errno, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use linux_raw_sys::general as raw;
use machine::lock::RwLock;

bitflags! {
    /// What a mount does not allow, whatever its file system does (`mount(2)`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        /// Nothing changes.
        const READ_ONLY = raw::MS_RDONLY;
        /// Set-user-ID and set-group-ID bits mean nothing.
        const NO_SUID = raw::MS_NOSUID;
        /// Devices cannot be opened.
        const NO_DEV = raw::MS_NODEV;
        /// Programs cannot be executed.
        const NO_EXEC = raw::MS_NOEXEC;
        /// Reads do not set access times.
        const NO_ATIME = raw::MS_NOATIME;
        /// The same for directories.
        const NO_DIR_ATIME = raw::MS_NODIRATIME;
        /// Reads set access times that are older than the last change.
        const RELATIME = raw::MS_RELATIME;
        /// Symbolic links are not followed.
        const NO_SYMLINKS = raw::MS_NOSYMFOLLOW;
    }
}

/// A mount.
pub struct Mount {
    /// Its number (`STATX_MNT_ID`); no two mounts ever have the same.
    pub id: u64,
    /// What it shows.
    pub super_block: Arc<SuperBlock>,
    /// Its root: the file system's, or, for a bind mount, any file in it.
    pub root: Arc<dyn Inode>,
    /// Where it came from, for `/proc/mounts`.
    pub source: Vec<u8>,
    flags: AtomicU32,
    /// What it covers; `None` while it is nowhere, and for the root.
    place: RwLock<Option<Place>>,
}

/// A file as it is reached: through which mount.
#[derive(Clone)]
pub struct Location {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The file.
    pub inode: Arc<dyn Inode>,
}

/// A name in a directory.
#[derive(Clone)]
pub struct Entry {
    /// The directory.
    pub directory: Arc<dyn Inode>,
    /// The name.
    pub name: Vec<u8>,
}

/// A file as it is reached, with its name for what has no other way to tell it: all but
/// directories.
#[derive(Clone)]
pub struct Place {
    /// The file.
    pub location: Location,
    /// The name by which it was reached.
    pub entry: Option<Entry>,
}

impl Mount {
    /// A mount that is nowhere yet.
    pub fn new(
        super_block: Arc<SuperBlock>,
        root: Arc<dyn Inode>,
        source: &[u8],
        flags: MountFlags,
    ) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            super_block,
            root,
            source: source.to_vec(),
            flags: AtomicU32::new(flags.bits()),
            place: RwLock::new(None),
        })
    }

    /// What it does not allow.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Sets what it does not allow.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// Fails with `EROFS` if nothing may change through it.
    #[inline]
    pub fn check_writable(&self) -> Result<()> {
        match self.flags().contains(MountFlags::READ_ONLY) || self.super_block.is_read_only() {
            true => Err(Errno::EROFS),
            false => Ok(()),
        }
    }

    /// The file that it covers.
    pub fn place(&self) -> Option<Place> {
        self.place.read().clone()
    }

    /// Says what it covers.
    pub fn set_place(&self, place: Option<Place>) {
        *self.place.write() = place;
    }

    /// Its root.
    pub fn root_location(self: &Arc<Self>) -> Location {
        Location {
            mount: self.clone(),
            inode: self.root.clone(),
        }
    }

    /// Whether `inode` is its root.
    #[inline]
    pub fn is_root(&self, inode: &dyn Inode) -> bool {
        is_same(&*self.root, inode)
    }
}

impl Location {
    /// Whether both are the same file, reached through the same mount.
    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && is_same(&*self.inode, &*other.inode)
    }

    /// Whether it is the root of its mount.
    #[inline]
    pub fn is_mount_root(&self) -> bool {
        self.mount.is_root(&*self.inode)
    }

    /// Fails with `ENOTDIR` unless it is a directory.
    #[inline]
    pub fn check_directory(&self) -> Result<()> {
        match self.inode.file_type() {
            FileType::Directory => Ok(()),
            _ => Err(Errno::ENOTDIR),
        }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self {
            location,
            entry: None,
        }
    }
}
