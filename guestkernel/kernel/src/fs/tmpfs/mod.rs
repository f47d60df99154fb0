//! tmpfs: files in memory, as `tmpfs(5)`. The root file system is one, and so are `/dev` and the
//! files of `memfd_create(2)`.

mod content;
mod directory;
mod inode;
mod names;
mod page_map;
mod space;

pub use inode::{TmpfsInode, is_tmpfs};

use super::{DeviceNumber, FileSystemInfo};
use crate::mm::PAGE;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use space::Space;

/// A file system.
pub struct Tmpfs {
    device: DeviceNumber,
    next_inode: AtomicU64,
    /// Pages.
    pages: Space,
    /// Files of all types.
    files: Space,
    /// Held while names change, so that a change of two directories is one.
    tree: Mutex<()>,
}

impl Tmpfs {
    /// An empty file system with at most `pages` pages in files, and as many files; gives its
    /// root directory, which has `mode`.
    pub fn make(device: DeviceNumber, pages: u64, mode: u32) -> Arc<TmpfsInode> {
        let fs = Arc::new(Self {
            device,
            next_inode: AtomicU64::new(1),
            pages: Space::new(pages),
            files: Space::new(pages),
            tree: Mutex::new(()),
        });
        TmpfsInode::root(fs, mode)
    }

    fn next_inode(&self) -> u64 {
        self.next_inode.fetch_add(1, Ordering::Relaxed)
    }

    fn info(&self) -> FileSystemInfo {
        FileSystemInfo {
            magic: raw::TMPFS_MAGIC.into(),
            block_size: PAGE,
            blocks: self.pages.limit(),
            free_blocks: self.pages.free(),
            files: self.files.limit(),
            free_files: self.files.free(),
            id: self.device.encode(),
            name_length: 255,
        }
    }
}
