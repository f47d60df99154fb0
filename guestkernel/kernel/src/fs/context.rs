//! Where a process stands in the name space: root, working directory, umask.

use super::{FdTable, Namespace};
use crate::error::{Errno, Result};
use crate::file::{Location, Place};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;

/// Root, working directory and umask of a process.
pub struct FsContext {
    /// What they are in.
    pub namespace: Arc<Namespace>,
    root: Mutex<Location>,
    working_directory: Mutex<Location>,
    umask: AtomicU32,
    /// The process whose place it is: what `/proc/self` means.
    owner: AtomicU32,
}

/// The number of the first process.
const FIRST_OWNER: u32 = 1;

impl FsContext {
    /// At the root of `namespace`, with umask 022.
    pub fn new(namespace: Arc<Namespace>) -> Arc<Self> {
        let root = namespace.root();
        Arc::new(Self {
            root: Mutex::new(root.clone()),
            working_directory: Mutex::new(root),
            umask: AtomicU32::new(0o022),
            owner: AtomicU32::new(FIRST_OWNER),
            namespace,
        })
    }

    /// The same, for whoever changes its own.
    pub fn copy(&self) -> Arc<Self> {
        Arc::new(Self {
            namespace: self.namespace.clone(),
            root: Mutex::new(self.root()),
            working_directory: Mutex::new(self.working_directory()),
            umask: AtomicU32::new(self.umask()),
            owner: AtomicU32::new(self.owner()),
        })
    }

    /// The process whose place it is, the one that was first if several share it.
    pub fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Says that.
    pub fn set_owner(&self, pid: u32) {
        self.owner.store(pid, Ordering::Relaxed);
    }

    /// Where absolute paths start.
    pub fn root(&self) -> Location {
        self.root.lock().clone()
    }

    /// Sets where absolute paths start.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`.
    pub fn set_root(&self, directory: Location) -> Result<()> {
        directory.check_directory()?;
        let old = core::mem::replace(&mut *self.root.lock(), directory);
        // Without the lock: it may be the last who has it.
        drop(old);
        Ok(())
    }

    /// Where relative paths start.
    pub fn working_directory(&self) -> Location {
        self.working_directory.lock().clone()
    }

    /// Sets where relative paths start.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`.
    pub fn set_working_directory(&self, directory: Location) -> Result<()> {
        directory.check_directory()?;
        let old = core::mem::replace(&mut *self.working_directory.lock(), directory);
        drop(old);
        Ok(())
    }

    /// Permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the umask and returns the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        self.umask.swap(umask & 0o777, Ordering::Relaxed)
    }

    /// The absolute path of a file, and whether that starts at the root: it does not, if the file is
    /// in no mount of the tree.
    ///
    /// # Errors
    ///
    /// `ENOENT` if a directory was removed, `ENAMETOOLONG` if the path does not fit in `PATH_MAX`
    /// bytes with a NUL.
    pub fn path_of(&self, place: Place) -> Result<(Vec<u8>, bool)> {
        let root = self.root();
        let mut path = ReversedPath::default();
        let mut entry = place.entry;
        let mut at = place.location;
        let is_reachable = loop {
            if at.is_same(&root) {
                break true;
            }
            if at.is_mount_root() {
                match at.mount.place() {
                    Some(below) => {
                        entry = below.entry;
                        at = below.location;
                        continue;
                    }
                    None => break Arc::ptr_eq(&at.mount, &root.mount),
                }
            }
            at.inode = match entry.take() {
                Some(entry) => {
                    path.push(&entry.name)?;
                    entry.directory
                }
                None => match at.inode.parent() {
                    Some(parent) => {
                        path.push(&parent.name_of(&*at.inode)?)?;
                        parent
                    }
                    None => break false,
                },
            };
        };
        Ok((path.finish(), is_reachable))
    }
}

/// A path that is put together from its end.
#[derive(Default)]
struct ReversedPath {
    names: Vec<Vec<u8>>,
    length: usize,
}

impl ReversedPath {
    fn push(&mut self, name: &[u8]) -> Result<()> {
        self.length += 1 + name.len();
        if self.length >= raw::PATH_MAX as usize {
            return Err(Errno::ENAMETOOLONG);
        }
        self.names.push(name.to_vec());
        Ok(())
    }

    fn finish(self) -> Vec<u8> {
        if self.names.is_empty() {
            return b"/".to_vec();
        }
        let mut path = Vec::with_capacity(self.length);
        for name in self.names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }
}

/// What a process can name: files by path, and by descriptor.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Its descriptors.
    pub files: &'a FdTable,
    /// Its place in the name space.
    pub context: &'a FsContext,
}

impl View<'_> {
    /// Where a path starts that is relative to `fd` (`AT_FDCWD` for the working directory).
    ///
    /// # Errors
    ///
    /// `EBADF`; `ENOTDIR` if it is no directory.
    pub(super) fn base(&self, fd: i32) -> Result<Location> {
        if fd == raw::AT_FDCWD {
            return Ok(self.context.working_directory());
        }
        let file = self.files.get_any(fd)?;
        let location = file.location().ok_or(Errno::ENOTDIR)?;
        location.check_directory()?;
        Ok(location.clone())
    }
}
