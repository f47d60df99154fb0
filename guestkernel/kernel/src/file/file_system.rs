//! File systems as a whole: what a mount shows, and the table of the types that there are.

use super::inode::{FileSystemInfo, Inode};
use super::{Answer, BoxFuture, DeviceNumber, FileOps};
use crate::error::{Errno, Result};
use crate::globals::global;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use machine::lock::RwLock;

/// A file system: what its files have in common.
pub trait FileSystem: Any + Send + Sync {
    /// The device number of its files.
    fn device(&self) -> DeviceNumber;

    /// What `statfs(2)` tells of it.
    fn info(&self) -> Answer<'_, FileSystemInfo>;

    /// Makes everything that was written durable (`syncfs(2)`).
    fn sync(&self) -> Answer<'_, ()> {
        Answer::ready(Ok(()))
    }

    /// Gives whoever stores it what was written and is in memory alone.
    fn write_back(&self) -> Answer<'_, ()> {
        Answer::ready(Ok(()))
    }

    /// Its own options as `/proc/mounts` shows them, each after a comma.
    fn options(&self) -> String {
        String::new()
    }

    /// Takes new options (`mount(2)` with `MS_REMOUNT`), those of a mount left out.
    fn reconfigure<'a>(&'a self, _options: &'a [MountOption]) -> Answer<'a, ()> {
        Answer::ready(Ok(()))
    }

    /// The last mount is gone, and nobody has a file in it open: what only keeps itself is let go.
    fn shut_down(&self) {}
}

/// A mounted file system with its root, which all of its mounts share.
pub struct SuperBlock {
    /// Its type.
    pub kind: &'static FileSystemType,
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// Its root directory.
    pub root: Arc<dyn Inode>,
    is_read_only: AtomicBool,
}

impl SuperBlock {
    /// The file system `fs` of the type `kind`, with its root directory.
    pub fn new(
        kind: &'static FileSystemType,
        fs: Arc<dyn FileSystem>,
        root: Arc<dyn Inode>,
        is_read_only: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            fs,
            root,
            is_read_only: AtomicBool::new(is_read_only),
        })
    }

    /// Whether nothing in it changes, however it is mounted.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only.load(Ordering::Relaxed)
    }

    /// Sets whether nothing in it changes.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.is_read_only.store(is_read_only, Ordering::Relaxed);
    }
}

impl Drop for SuperBlock {
    fn drop(&mut self) {
        self.fs.shut_down();
    }
}

/// An option of a mount: `name` or `name=value`, or a descriptor (`fsconfig(2)`).
#[derive(Clone)]
pub struct MountOption {
    /// Its name.
    pub name: Vec<u8>,
    /// Its value, if it has one.
    pub value: Option<Vec<u8>>,
}

impl MountOption {
    /// The options in `data`, which commas part (`mount(2)`).
    pub fn parse(data: &[u8]) -> Vec<Self> {
        let parts = data.split(|byte| *byte == b',');
        let option = |part: &[u8]| {
            let mut halves = part.splitn(2, |byte| *byte == b'=');
            Self {
                name: halves.next().unwrap_or_default().to_vec(),
                value: halves.next().map(<[u8]>::to_vec),
            }
        };
        parts.filter(|part| !part.is_empty()).map(option).collect()
    }

    /// The value as a number, in the radix that its prefix says.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn number(&self, radix: u32) -> Result<u64> {
        let text = self.value.as_deref().ok_or(Errno::EINVAL)?;
        let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        u64::from_str_radix(text, radix).map_err(|_| Errno::EINVAL)
    }
}

/// What a file system is made from.
pub struct MountSource<'a> {
    /// What `mount(2)` names as the source, whatever that is for the type.
    pub name: &'a [u8],
    /// The device that `name` is the path of, for types that are on one.
    pub device: Option<Arc<dyn FileOps>>,
    /// Options that are not the mount's.
    pub options: &'a [MountOption],
    /// Nothing is to change in it.
    pub is_read_only: bool,
    /// The user and group who mount it.
    pub owner: (u32, u32),
}

/// What making a file system gives: it and its root directory.
pub type Made = (Arc<dyn FileSystem>, Arc<dyn Inode>);

/// A type of file systems.
pub struct FileSystemType {
    /// Its name, as `mount(2)` takes it.
    pub name: &'static str,
    /// It is on a block device.
    pub needs_device: bool,
    /// Makes one, or gives one that is there. `EINVAL` for bad options and what is none on the
    /// device, `ENODEV` or `ENOENT` if its source is not there.
    pub make: for<'a> fn(MountSource<'a>) -> BoxFuture<'a, Result<Made>>,
}

global! {
    static TYPES: RwLock<Vec<&'static FileSystemType>> = RwLock::new(Vec::new());
}

/// Makes a type known, once.
pub fn register(kind: &'static FileSystemType) {
    let mut types = TYPES.write();
    if !types.iter().any(|other| other.name == kind.name) {
        types.push(kind);
    }
}

/// The type of that name.
///
/// # Errors
///
/// `ENODEV`.
pub fn file_system_type(name: &[u8]) -> Result<&'static FileSystemType> {
    let types = TYPES.read();
    let found = types.iter().find(|kind| kind.name.as_bytes() == name);
    found.copied().ok_or(Errno::ENODEV)
}

/// All types, in the order in which they became known.
pub fn file_system_types() -> Vec<&'static FileSystemType> {
    TYPES.read().clone()
}

/// A device number for one more file system that is on no device.
pub fn next_device() -> DeviceNumber {
    static NEXT: AtomicU32 = AtomicU32::new(FIRST_DEVICE);
    DeviceNumber::new(0, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Below are those of files that are in no file system.
const FIRST_DEVICE: u32 = 20;
