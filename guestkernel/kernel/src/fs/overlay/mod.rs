//! A file system over another: changes stay in memory, and what is below never changes
//! (Linux's `fs/overlayfs`).
//!
//! Linux keeps what has changed in a directory of another file system, with whiteouts, marks for opaque
//! directories and redirects, so that it outlives a mount. Here it lives as long as the mount, and
//! is kept as it is: a directory has a table of the names that have changed, and a file that has
//! changed has an *upper* file in memory ([`tmpfs`](super::tmpfs)) in place of the one below. So
//! directories can be renamed, and hard links stay what they are.

mod directory;
mod file;
mod inode;
mod names;
#[cfg(test)]
mod tests;

use super::tmpfs::{self, TmpfsInode};
use crate::error::{Errno, Result};
use crate::executor::Turn;
use crate::file::{
    Answer, DeviceNumber, FileSystem, FileSystemInfo, FileSystemType, SuperBlock, next_device,
};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hashbrown::HashMap;
pub use inode::OverlayInode;
use linux_raw_sys::general as raw;
use machine::lock::Mutex;

/// The type. It is made by [`Overlay::over`] alone: what it would take from `mount(2)`, directories for
/// the upper files, does not fit how these are kept.
pub static TYPE: FileSystemType = FileSystemType {
    name: "overlay",
    needs_device: false,
    make: |_| Box::pin(core::future::ready(Err(Errno::EINVAL))),
};

/// Numbers of files that are not below start here.
const FIRST_OWN: u64 = 1 << 62;

/// A file system over another.
pub struct Overlay {
    number: DeviceNumber,
    /// The file system below, which is in use as long as this one.
    _below: Arc<SuperBlock>,
    /// The root of the file system that upper files are in; they have no names there.
    upper: Arc<TmpfsInode>,
    /// By the address of the file below, which its inode keeps.
    inodes: Mutex<HashMap<usize, Weak<OverlayInode>>>,
    /// Those that have changed, which nobody must forget.
    changed: Mutex<Vec<Arc<OverlayInode>>>,
    next: AtomicU64,
    /// Whose turn it is to change names.
    tree: Turn,
}

impl Overlay {
    /// A file system that shows what is in `below` until something is changed, with its root.
    pub fn over(below: Arc<SuperBlock>) -> (Arc<Self>, Arc<OverlayInode>) {
        let root = below.root.clone();
        let fs = Arc::new(Self {
            number: next_device(),
            _below: below,
            upper: tmpfs::in_memory(0o755),
            inodes: Mutex::default(),
            changed: Mutex::default(),
            next: AtomicU64::new(FIRST_OWN),
            tree: Turn::default(),
        });
        let root = OverlayInode::of_lower(&fs, root, None);
        (fs, root)
    }

    /// Keeps an inode that has changed, for good.
    fn keep(&self, inode: Arc<OverlayInode>) {
        self.changed.lock().push(inode);
    }
}

impl FileSystem for Overlay {
    fn device(&self) -> DeviceNumber {
        self.number
    }

    fn info(&self) -> Answer<'_, FileSystemInfo> {
        let (upper, _) = self.upper.clone().made();
        let info = upper.info().now().unwrap_or(Err(Errno::EIO));
        Answer::ready(info.map(|info| FileSystemInfo {
            magic: raw::OVERLAYFS_SUPER_MAGIC.into(),
            id: self.number.encode(),
            ..info
        }))
    }

    fn sync(&self) -> Answer<'_, ()> {
        // What has changed is in memory.
        Answer::ready(Ok(()))
    }

    fn shut_down(&self) {
        for inode in core::mem::take(&mut *self.changed.lock()) {
            inode.forget_names();
        }
    }
}

/// A number for a file that is not below.
fn own_number(fs: &Overlay) -> u64 {
    fs.next.fetch_add(1, Ordering::Relaxed)
}

/// Lays the tree of files below `from`, which is in memory, over the directory `to`: files take the
/// place of those of the same name, directories join.
///
/// # Errors
///
/// Those of looking names up and of making directories.
pub async fn lay_over(to: &Arc<OverlayInode>, from: &Arc<TmpfsInode>) -> Result<()> {
    let mut left = Vec::from([(to.clone(), from.clone())]);
    while let Some((to, from)) = left.pop() {
        for (name, child) in from.children() {
            if child.is_directory() {
                left.push((to.directory_for(&name, &child).await?, child));
            } else {
                to.put(&name, child).await?;
            }
        }
    }
    Ok(())
}
