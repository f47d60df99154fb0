//! Mounting: `mount(2)` and `umount2(2)`.

use super::Actor;
use crate::error::{Errno, Result};
use crate::file::{
    FileSystemType, Location, Mount, MountFlags, MountOption, MountSource, Place, SuperBlock,
    file_system_type,
};
use crate::fs::{FileOps, FileType};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use linux_raw_sys::general::AT_FDCWD;

/// What old programs put in the upper half of the flags.
const MAGIC: u64 = raw::MS_MGC_VAL as u64;
const MAGIC_MASK: u64 = raw::MS_MGC_MSK as u64;
/// Flags that say how a mount is shared with others.
const PROPAGATION: u32 = raw::MS_SHARED | raw::MS_PRIVATE | raw::MS_SLAVE | raw::MS_UNBINDABLE;

/// `mount(2)`.
pub struct MakeMount {
    /// Where it comes from.
    pub source: Option<Vec<u8>>,
    /// What it covers.
    pub target: Vec<u8>,
    /// The type of file system.
    pub kind: Option<Vec<u8>>,
    /// `MS_*`.
    pub flags: u64,
    /// Options of the file system.
    pub data: Vec<u8>,
}

/// The flags of a mount that `MS_*` give.
fn mount_flags(flags: u32) -> MountFlags {
    let mut kept = MountFlags::from_bits_truncate(flags);
    kept.set(
        MountFlags::RELATIME,
        flags & (raw::MS_NOATIME | raw::MS_STRICTATIME) == 0,
    );
    kept
}

impl MakeMount {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `mount(2)`; `EINVAL` for mounts that are shared with other name spaces.
    pub async fn run(mut self, actor: Actor<'_>) -> Result<()> {
        let target = lookup(actor, &self.target).await?;
        if self.flags & MAGIC_MASK == MAGIC {
            self.flags &= !MAGIC_MASK;
        }
        if self.flags & u64::from(raw::MS_NOUSER) != 0 {
            return Err(Errno::EINVAL);
        }
        check_privileged(actor)?;
        let flags = self.flags as u32;
        let has = |bits: u32| flags & bits == bits;
        if has(raw::MS_REMOUNT | raw::MS_BIND) {
            mounted_at(actor, &target)?.set_flags(mount_flags(flags));
            return Ok(());
        }
        if has(raw::MS_REMOUNT) {
            return self.remount(actor, &target).await;
        }
        if has(raw::MS_BIND) {
            return self.bind(actor, target, has(raw::MS_REC)).await;
        }
        if flags & PROPAGATION != 0 {
            mounted_at(actor, &target)?;
            let others = raw::MS_REC | raw::MS_SILENT;
            // One alone: a mount is private, which is all that it can be.
            return match flags & !others {
                raw::MS_PRIVATE | raw::MS_SLAVE => Ok(()),
                _ => Err(Errno::EINVAL),
            };
        }
        if has(raw::MS_MOVE) {
            let source = self.source_path(actor).await?;
            let moved = mounted_at(actor, &source)?;
            let namespace = &actor.process.fs.namespace;
            return namespace.move_mount(&moved, target);
        }
        self.mount(actor, target).await
    }

    /// The file that the source is the path of.
    async fn source_path(&self, actor: Actor<'_>) -> Result<Place> {
        match self.source.as_deref() {
            None | Some(b"") => Err(Errno::EINVAL),
            Some(path) => lookup(actor, path).await,
        }
    }

    async fn mount(self, actor: Actor<'_>, target: Place) -> Result<()> {
        let kind = self.kind.as_deref().ok_or(Errno::EINVAL)?;
        let kind = file_system_type(kind)?;
        let device = match kind.needs_device {
            true => Some(self.device(actor).await?),
            false => None,
        };
        let flags = self.flags as u32;
        let is_read_only = flags & raw::MS_RDONLY != 0;
        let owner = {
            let credentials = actor.process.credentials.lock();
            (credentials.user.effective, credentials.group.effective)
        };
        let source = self.source.as_deref().unwrap_or_default();
        let block = make(
            kind,
            MountSource {
                name: source,
                device,
                options: &MountOption::parse(&self.data),
                is_read_only,
                owner,
            },
        )
        .await?;
        let root = block.root.clone();
        let mount = Mount::new(block, root, source, mount_flags(flags));
        actor.process.fs.namespace.mount(&mount, target)
    }

    /// What opens the block device that the source is the path of.
    async fn device(&self, actor: Actor<'_>) -> Result<Arc<dyn FileOps>> {
        let Location { mount, inode } = self.source_path(actor).await?.location;
        if inode.file_type() != FileType::BlockDevice {
            return Err(Errno::ENOTBLK);
        }
        if mount.flags().contains(MountFlags::NO_DEV) {
            return Err(Errno::EACCES);
        }
        let namespace = &actor.process.fs.namespace;
        namespace.device(FileType::BlockDevice, inode.special())
    }

    async fn remount(&self, actor: Actor<'_>, target: &Place) -> Result<()> {
        let mount = mounted_at(actor, target)?;
        let flags = self.flags as u32;
        let options = MountOption::parse(&self.data);
        mount.super_block.fs.reconfigure(&options).await?;
        let is_read_only = flags & raw::MS_RDONLY != 0;
        mount.super_block.set_read_only(is_read_only);
        mount.set_flags(mount_flags(flags));
        Ok(())
    }

    /// Shows what is at the source at the target, too; with all that is mounted in it if it
    /// `is_recursive`.
    async fn bind(&self, actor: Actor<'_>, target: Place, is_recursive: bool) -> Result<()> {
        let namespace = &actor.process.fs.namespace;
        let source = self.source_path(actor).await?;
        let from = &source.location;
        if !namespace.has(&from.mount) {
            return Err(Errno::EINVAL);
        }
        let copy = |mount: &Arc<Mount>, root| {
            Mount::new(
                mount.super_block.clone(),
                root,
                &mount.source,
                mount.flags(),
            )
        };
        let bound = copy(&from.mount, from.inode.clone());
        let inner = match is_recursive {
            true => namespace.mounts_below(from),
            false => Vec::new(),
        };
        namespace.mount(&bound, target)?;
        // Each follows its parent, of which it has a copy by then.
        let mut copies = Vec::from([(from.mount.clone(), bound)]);
        for mount in inner {
            let Some(mut place) = mount.place() else {
                continue;
            };
            let parent = &place.location.mount;
            let known = copies.iter().find(|(old, _)| Arc::ptr_eq(old, parent));
            let Some((_, parent)) = known else { continue };
            place.location.mount = parent.clone();
            let copied = copy(&mount, mount.root.clone());
            namespace.mount(&copied, place)?;
            copies.push((mount, copied));
        }
        Ok(())
    }
}

/// A file system of that type, in a form that mounts share.
async fn make(kind: &'static FileSystemType, source: MountSource<'_>) -> Result<Arc<SuperBlock>> {
    let is_read_only = source.is_read_only;
    let (fs, root) = (kind.make)(source).await?;
    Ok(SuperBlock::new(kind, fs, root, is_read_only))
}

async fn lookup(actor: Actor<'_>, path: &[u8]) -> Result<Place> {
    actor.view().lookup_place(AT_FDCWD, path, true).await
}

/// The mount whose root `place` is.
fn mounted_at(actor: Actor<'_>, place: &Place) -> Result<Arc<Mount>> {
    let location = &place.location;
    let namespace = &actor.process.fs.namespace;
    match location.is_mount_root() && namespace.has(&location.mount) {
        true => Ok(location.mount.clone()),
        false => Err(Errno::EINVAL),
    }
}

fn check_privileged(actor: Actor<'_>) -> Result<()> {
    match actor.process.credentials.lock().user.effective {
        0 => Ok(()),
        _ => Err(Errno::EPERM),
    }
}

/// `umount2(2)`.
pub struct Unmount {
    /// The path of a mount's root.
    pub target: Vec<u8>,
    /// `MNT_*`, `UMOUNT_NOFOLLOW`.
    pub flags: u32,
}

impl Unmount {
    const KNOWN: u32 = raw::MNT_FORCE | raw::MNT_DETACH | raw::MNT_EXPIRE | raw::UMOUNT_NOFOLLOW;

    /// Does it. What was written is durable before the file system is gone.
    ///
    /// # Errors
    ///
    /// Those of `umount2(2)`; `EINVAL` for `MNT_EXPIRE`, which is not there.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        if self.flags & !Self::KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let follow = self.flags & raw::UMOUNT_NOFOLLOW == 0;
        let view = actor.view();
        let target = view.lookup_place(AT_FDCWD, &self.target, follow).await?;
        check_privileged(actor)?;
        let mount = mounted_at(actor, &target)?;
        drop(target);
        if self.flags & raw::MNT_EXPIRE != 0 {
            return Err(Errno::EINVAL);
        }
        let is_detached = self.flags & raw::MNT_DETACH != 0;
        if !is_detached {
            mount.super_block.fs.sync().await?;
        }
        let namespace = &actor.process.fs.namespace;
        namespace.unmount(&mount, is_detached).map(drop)
    }
}
