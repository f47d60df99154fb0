//! Directories of the host: a client of FUSE, whose server is a virtio-fs device
//! (`docs/virtio-fs.md`, Linux's `fs/fuse`).
//!
//! A node that the server names is an [`inode::FuseInode`] while anybody uses it; names and attributes
//! are kept as long as the server says that they are valid. What the server answers is not trusted:
//! nonsense is `EIO`.

mod directory;
mod extended;
mod file;
mod inode;
mod mapping;
mod names;
mod pages;
mod protocol;
mod session;
#[cfg(test)]
mod tests;

use crate::drivers::virtio_fs::FsDevice;
use crate::error::{Errno, Result};
use crate::file::{FileSystemType, Made, register};
use crate::globals::global;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use inode::FuseInode;
use machine::lock::Mutex;
use session::{FuseFs, give_back};

/// The type: its sources are the tags of devices.
pub static TYPE: FileSystemType = FileSystemType {
    name: "virtiofs",
    needs_device: false,
    make: |source| {
        alloc::boxed::Box::pin(async move {
            if !source.options.is_empty() {
                return Err(Errno::EINVAL);
            }
            made(open(source.name).await?)
        })
    },
};

/// A device, and the file system on it while it is in use.
struct Share {
    device: Arc<FsDevice>,
    fs: Weak<FuseFs>,
    /// Somebody begins to use it.
    is_starting: bool,
}

global! {
    static SHARES: Mutex<Vec<Share>> = Mutex::new(Vec::new());
}

/// Makes the type known.
pub fn register_type() {
    register(&TYPE);
    crate::mm::set_shrinker(pages::give_up);
}

/// Makes `device` one that can be mounted, by its tag.
pub fn add_device(device: &Arc<FsDevice>) {
    let weak = Arc::downgrade(device);
    device.set_adopt(move |orphan| {
        if let Some(device) = weak.upgrade() {
            give_back(&device, &orphan);
        }
    });
    SHARES.lock().push(Share {
        device: device.clone(),
        fs: Weak::new(),
        is_starting: false,
    });
}

fn made(root: Arc<FuseInode>) -> Result<Made> {
    Ok((root.fs.clone(), root))
}

/// The root of the file system with that tag.
async fn open(tag: &[u8]) -> Result<Arc<FuseInode>> {
    let device = {
        let mut shares = SHARES.lock();
        // As Linux says it of a tag that there is not.
        let share = shares.iter_mut().find(|share| share.device.tag() == tag);
        let share = share.ok_or(Errno::EINVAL)?;
        if let Some(root) = share.fs.upgrade().and_then(|fs| fs.root()) {
            return Ok(root);
        }
        if core::mem::replace(&mut share.is_starting, true) {
            return Err(Errno::EBUSY);
        }
        share.device.clone()
    };
    let started = FuseFs::start(device).await;
    let mut shares = SHARES.lock();
    let share = shares.iter_mut().find(|share| share.device.tag() == tag);
    let share = share.ok_or(Errno::EINVAL)?;
    share.is_starting = false;
    let (fs, root) = started?;
    share.fs = Arc::downgrade(&fs);
    Ok(root)
}
