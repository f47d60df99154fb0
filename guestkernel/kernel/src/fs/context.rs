//! Where a process stands in the name space: root, working directory, umask.

use super::{FdTable, FileType, Inode, Namespace};
use crate::error::{Errno, Result};
use crate::file::is_same;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;

/// Root, working directory and umask of a process.
pub struct FsContext {
    /// What they are in.
    pub namespace: Arc<Namespace>,
    root: Mutex<Arc<dyn Inode>>,
    working_directory: Mutex<Arc<dyn Inode>>,
    umask: AtomicU32,
}

impl FsContext {
    /// At the root of `namespace`, with umask 022.
    pub fn new(namespace: Arc<Namespace>) -> Arc<Self> {
        let root: Arc<dyn Inode> = namespace.root().clone();
        Arc::new(Self {
            root: Mutex::new(root.clone()),
            working_directory: Mutex::new(root),
            umask: AtomicU32::new(0o022),
            namespace,
        })
    }

    /// Where absolute paths start.
    pub fn root(&self) -> Arc<dyn Inode> {
        self.root.lock().clone()
    }

    /// Sets where absolute paths start.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`.
    pub fn set_root(&self, directory: Arc<dyn Inode>) -> Result<()> {
        check_directory(&*directory)?;
        *self.root.lock() = directory;
        Ok(())
    }

    /// Where relative paths start.
    pub fn working_directory(&self) -> Arc<dyn Inode> {
        self.working_directory.lock().clone()
    }

    /// Sets where relative paths start.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`.
    pub fn set_working_directory(&self, directory: Arc<dyn Inode>) -> Result<()> {
        check_directory(&*directory)?;
        *self.working_directory.lock() = directory;
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

    /// The directory above `directory`, across mounts; the root is above itself.
    pub(super) fn parent_of(&self, directory: &Arc<dyn Inode>) -> Arc<dyn Inode> {
        if is_same(&**directory, &*self.root()) {
            return directory.clone();
        }
        let mut below = directory.clone();
        while let Some(point) = self.namespace.covered_by(&*below) {
            below = point;
        }
        let parent = below.parent().unwrap_or(below);
        self.namespace.uncover(parent).0
    }

    /// The absolute path of a directory.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it was removed, `ENAMETOOLONG` if the path does not fit in `PATH_MAX` bytes with
    /// a NUL.
    pub fn path_of(&self, directory: Arc<dyn Inode>) -> Result<Vec<u8>> {
        let root = self.root();
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut length = 0;
        let mut at = directory;
        while !is_same(&*at, &*root) {
            while let Some(point) = self.namespace.covered_by(&*at) {
                at = point;
            }
            let Some(parent) = at.parent() else { break };
            let name = parent.name_of(&*at)?;
            length += 1 + name.len();
            if length >= raw::PATH_MAX as usize {
                return Err(Errno::ENAMETOOLONG);
            }
            names.push(name);
            at = self.namespace.uncover(parent).0;
        }
        if names.is_empty() {
            return Ok(b"/".to_vec());
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Ok(path)
    }
}

fn check_directory(inode: &dyn Inode) -> Result<()> {
    match inode.file_type() {
        FileType::Directory => Ok(()),
        _ => Err(Errno::ENOTDIR),
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
    pub(super) fn base(&self, fd: i32) -> Result<Arc<dyn Inode>> {
        if fd == raw::AT_FDCWD {
            return Ok(self.context.working_directory());
        }
        let file = self.files.get_any(fd)?;
        let inode = file.inode().ok_or(Errno::ENOTDIR)?;
        check_directory(&**inode)?;
        Ok(inode.clone())
    }
}
