//! tmpfs: files in memory, as `tmpfs(5)`. The root file system is one, and so are `/dev` and the
//! files of `memfd_create(2)`.

mod content;
mod directory;
mod extended;
mod inode;
mod names;
mod options;
mod page_map;
mod space;

pub use inode::{TmpfsInode, is_tmpfs};

use super::{DeviceNumber, FileSystemInfo};
use crate::file::{
    Answer, FileSystem, FileSystemType, Inode, Mount, MountFlags, MountOption, SuperBlock,
    next_device,
};
use crate::mm::PAGE;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use options::Options;
use space::{Space, SpaceCharge};
use spin::Once;

/// The type.
pub static TYPE: FileSystemType = FileSystemType {
    name: "tmpfs",
    needs_device: false,
    make: |source| {
        Box::pin(async move {
            let options = Options::parse(source.options, source.owner)?;
            let root = Tmpfs::make(next_device(), options);
            Ok(root.made())
        })
    },
};

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
    /// How it was made.
    options: Mutex<Options>,
    root: Once<Weak<TmpfsInode>>,
}

/// An empty file system that takes up to half of memory; gives its root directory, which has `mode`.
pub fn in_memory(mode: u32) -> Arc<TmpfsInode> {
    Tmpfs::make(next_device(), Options::with_mode(mode))
}

/// A mount, nowhere yet, of a file system of the type `kind` that is in memory and has the root
/// directory `root`.
pub fn mount(
    kind: &'static FileSystemType,
    root: &Arc<TmpfsInode>,
    source: &[u8],
    flags: MountFlags,
) -> Arc<Mount> {
    let fs: Arc<dyn FileSystem> = root.fs().clone();
    let inode: Arc<dyn Inode> = root.clone();
    let super_block = SuperBlock::new(kind, fs, inode.clone(), false);
    Mount::new(super_block, inode, source, flags)
}

impl Tmpfs {
    /// An empty file system; gives its root directory.
    fn make(device: DeviceNumber, options: Options) -> Arc<TmpfsInode> {
        let fs = Arc::new(Self {
            device,
            next_inode: AtomicU64::new(1),
            pages: Space::new(options.pages()),
            files: Space::new(options.files()),
            tree: Mutex::new(()),
            options: Mutex::new(options),
            root: Once::new(),
        });
        // The root directory counts as a file; there is always room for it.
        let _ = fs.files.charge(1).map(SpaceCharge::keep);
        let root = TmpfsInode::root(fs.clone(), options.mode, options.owner);
        fs.root.call_once(|| Arc::downgrade(&root));
        root
    }

    fn next_inode(&self) -> u64 {
        self.next_inode.fetch_add(1, Ordering::Relaxed)
    }
}

impl FileSystem for Tmpfs {
    fn device(&self) -> DeviceNumber {
        self.device
    }

    fn info(&self) -> Answer<'_, FileSystemInfo> {
        Answer::ready(Ok(FileSystemInfo {
            magic: raw::TMPFS_MAGIC.into(),
            block_size: PAGE,
            blocks: self.pages.shown_limit(),
            free_blocks: self.pages.free(),
            files: self.files.shown_limit(),
            free_files: self.files.free(),
            id: self.device.encode(),
            name_length: 255,
        }))
    }

    fn options(&self) -> String {
        self.options.lock().shown()
    }

    fn reconfigure<'a>(&'a self, options: &'a [MountOption]) -> Answer<'a, ()> {
        let mut known = self.options.lock();
        let result = known.changed(options).and_then(|new| {
            self.pages.set_limit(new.pages())?;
            self.files.set_limit(new.files())?;
            *known = new;
            Ok(())
        });
        Answer::ready(result)
    }

    fn shut_down(&self) {
        if let Some(root) = self.root.get().and_then(Weak::upgrade) {
            root.forget_names();
        }
    }
}
