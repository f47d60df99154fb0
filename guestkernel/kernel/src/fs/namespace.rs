//! The name space: what is mounted where, and which device a device file opens.

use super::tmpfs::{Tmpfs, TmpfsInode};
use super::{DeviceNumber, FileOps, FileType, Inode};
use crate::error::{Errno, Result};
use crate::file::is_same;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use machine::lock::RwLock;

const ROOT_DEVICE: DeviceNumber = DeviceNumber::new(0, 2);

/// A mounted file system.
#[derive(Clone)]
pub struct Mount {
    /// The directory that it covers; `None` for the root file system.
    pub point: Option<Arc<dyn Inode>>,
    /// Its root directory.
    pub root: Arc<dyn Inode>,
    /// Where it is mounted, for `/proc/mounts`.
    pub path: &'static str,
    /// Its type, for `/proc/mounts`.
    pub kind: &'static str,
    /// The device number of its files.
    pub device: DeviceNumber,
}

/// All file systems and devices.
pub struct Namespace {
    mounts: RwLock<Vec<Mount>>,
    devices: RwLock<BTreeMap<(u8, DeviceNumber), Arc<dyn FileOps>>>,
    next_device: AtomicU32,
    /// The file system of files that never had a name.
    unnamed: Arc<TmpfsInode>,
    root: Arc<TmpfsInode>,
}

impl Namespace {
    /// An empty root directory, in a tmpfs that takes up to half of memory.
    pub fn new() -> Arc<Self> {
        let pages = machine::memory_use().total as u64 / 2;
        let unnamed = Tmpfs::make(DeviceNumber::new(0, 1), pages, 0o755);
        let root = Tmpfs::make(ROOT_DEVICE, pages, 0o755);
        Arc::new(Self {
            mounts: RwLock::new(Vec::from([Mount {
                point: None,
                root: root.clone(),
                path: "/",
                kind: "tmpfs",
                device: ROOT_DEVICE,
            }])),
            devices: RwLock::new(BTreeMap::new()),
            next_device: AtomicU32::new(3),
            unnamed,
            root,
        })
    }

    /// The root directory.
    pub fn root(&self) -> &Arc<TmpfsInode> {
        &self.root
    }

    /// The directory in which files without a name are made.
    pub fn unnamed(&self) -> &Arc<TmpfsInode> {
        &self.unnamed
    }

    /// A device number for one more file system.
    pub fn next_device(&self) -> DeviceNumber {
        DeviceNumber::new(0, self.next_device.fetch_add(1, Ordering::Relaxed))
    }

    /// Covers the directory `mount.point`.
    pub fn mount(&self, mount: Mount) {
        self.mounts.write().push(mount);
    }

    /// The number, for `statx(2)`, of the mount whose files have that device number.
    pub(super) fn mount_id(&self, device: DeviceNumber) -> Option<u64> {
        let mounts = self.mounts.read();
        let index = mounts.iter().position(|mount| mount.device == device)?;
        Some(index as u64 + 1)
    }

    /// What is mounted, in the order in which it was.
    pub fn mounts(&self) -> Vec<Mount> {
        self.mounts.read().clone()
    }

    /// Makes `file` what device files of that type and number open.
    pub fn add_device(&self, kind: FileType, number: DeviceNumber, file: Arc<dyn FileOps>) {
        let key = (kind.directory_type(), number);
        self.devices.write().insert(key, file);
    }

    /// What a device file opens.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is no such device.
    pub fn device(&self, kind: FileType, number: DeviceNumber) -> Result<Arc<dyn FileOps>> {
        let key = (kind.directory_type(), number);
        let devices = self.devices.read();
        devices.get(&key).cloned().ok_or(Errno::ENXIO)
    }

    /// The root of what is mounted on `inode`, or `inode` itself; and whether it was covered.
    pub(super) fn uncover(&self, inode: Arc<dyn Inode>) -> (Arc<dyn Inode>, bool) {
        if inode.file_type() != FileType::Directory {
            return (inode, false);
        }
        let mounts = self.mounts.read();
        // The last one mounted there is on top.
        let top = mounts.iter().rev().find(|mount| {
            let point = mount.point.as_deref();
            point.is_some_and(|point| is_same(point, &*inode))
        });
        match top {
            Some(mount) => (mount.root.clone(), true),
            None => (inode, false),
        }
    }

    /// The directory that the mounted root `inode` covers; `None` for any other directory.
    pub(super) fn covered_by(&self, inode: &dyn Inode) -> Option<Arc<dyn Inode>> {
        let mounts = self.mounts.read();
        let mount = mounts.iter().find(|mount| is_same(&*mount.root, inode))?;
        mount.point.clone()
    }

    /// Whether `inode` is the root of a mount.
    pub(super) fn is_mount_root(&self, inode: &dyn Inode) -> bool {
        let mounts = self.mounts.read();
        mounts.iter().any(|mount| is_same(&*mount.root, inode))
    }
}
