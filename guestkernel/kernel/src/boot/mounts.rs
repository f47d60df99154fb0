//! What the process description says to mount.

use crate::error::{Errno, Result};
use crate::executor;
use crate::file::{
    Mount, MountFlags, MountOption, MountSource, Place, SuperBlock, file_system_type,
};
use crate::fs::overlay::{self, Overlay, OverlayInode};
use crate::fs::tmpfs::TmpfsInode;
use crate::fs::{FileType, Namespace, View};
use ::log::error;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use linux_raw_sys::general::AT_FDCWD;
use ringlet_abi::control::Exit;
use ringlet_abi::{MountAccess, ProcessSpec};

/// What programs write to whatever the root allows, where that is read-only.
const WRITABLE: [&[u8]; 3] = [b"/run", b"/tmp", b"/var/tmp"];

/// Refuses what the description asks for and this kernel has not.
pub(super) fn check_supported(spec: &ProcessSpec) -> Result<(), Exit> {
    for mount in &spec.mounts {
        let target = String::from_utf8_lossy(&mount.target);
        if matches!(mount.source, ringlet_abi::MountSource::Image { .. }) {
            error!("{target}: this kernel mounts no images");
            return Err(Exit::BadBoot);
        }
    }
    Ok(())
}

/// What the tree of files begins with.
pub(super) enum Root {
    /// A file system in memory.
    Memory(Arc<TmpfsInode>),
    /// Something of the host, with changes in memory.
    Overlay(Arc<OverlayInode>),
    /// Something of the host as it is.
    Host,
}

/// The tree of files, with nothing but what the description mounts at `/`.
pub(super) fn make_root(mounts: &[ringlet_abi::Mount]) -> Result<(Arc<Namespace>, Root), Exit> {
    let Some(wanted) = mounts.iter().find(|mount| mount.target == b"/") else {
        let (namespace, root) = Namespace::in_memory();
        return Ok((namespace, Root::Memory(root)));
    };
    let made = executor::block_on(make_wanted(wanted));
    let (mount, overlay) = made.map_err(|errno| {
        error!("the root cannot be mounted: {errno:?}");
        Exit::BadBoot
    })?;
    if mount.root.file_type() != FileType::Directory {
        error!("the root is no directory");
        return Err(Exit::BadBoot);
    }
    Ok((
        Namespace::new(mount),
        overlay.map_or(Root::Host, Root::Overlay),
    ))
}

/// What covers directories of a root that is the host's, with its mode: it is the guest's own.
const OWN: [(&str, &[u8]); 3] = [
    ("run", b"mode=755"),
    ("sys", b"mode=555,size=4096"),
    ("tmp", b"mode=1777"),
];

impl Root {
    /// Lays what was unpacked over the root, and covers what is not to be the host's.
    pub(super) fn lay_over(
        &self,
        namespace: &Arc<Namespace>,
        unpacked: &Arc<TmpfsInode>,
    ) -> Result<(), Exit> {
        let is_empty = unpacked.is_empty();
        let laid = match self {
            Self::Memory(_) => return Ok(()),
            Self::Overlay(root) => executor::block_on(overlay::lay_over(root, unpacked)),
            Self::Host if is_empty => Ok(()),
            Self::Host => {
                error!("a program of the host is laid over the root in memory: use an overlay");
                return Err(Exit::BadBoot);
            }
        };
        let covered = laid.and_then(|()| executor::block_on(cover(namespace)));
        covered.map_err(|errno| {
            error!("the root cannot be set up: {errno:?}");
            match errno {
                Errno::ENOMEM | Errno::ENOSPC => Exit::OutOfMemory,
                _ => Exit::BadRootfs,
            }
        })
    }
}

async fn cover(namespace: &Arc<Namespace>) -> Result<()> {
    for (path, options) in OWN {
        let options = MountOption::parse(options);
        let mount = make(b"tmpfs", b"tmpfs", &options, false).await?;
        match namespace.mount_at(&mount, path).await {
            // It is not there, and cannot be made.
            Ok(()) | Err(Errno::EROFS | Errno::EACCES) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Mounts all that the description says, in its order.
pub(super) fn mount_all(view: View<'_>, mounts: &[ringlet_abi::Mount]) -> Result<(), Exit> {
    for mount in mounts.iter().filter(|mount| mount.target != b"/") {
        executor::block_on(mount_one(view, mount)).map_err(|errno| {
            let target = String::from_utf8_lossy(&mount.target);
            error!("{target}: cannot be mounted: {errno:?}");
            Exit::BadBoot
        })?;
    }
    Ok(())
}

async fn mount_one(view: View<'_>, wanted: &ringlet_abi::Mount) -> Result<()> {
    let (mount, _) = make_wanted(wanted).await?;
    let kind = mount.root.file_type();
    let place = make_place(view, &wanted.target, kind).await?;
    view.context.namespace.mount(&mount, place)
}

/// A mount, nowhere yet, as the description says; and what is over it, if there is anything.
async fn make_wanted(
    wanted: &ringlet_abi::Mount,
) -> Result<(Arc<Mount>, Option<Arc<OverlayInode>>)> {
    let mut options = Vec::new();
    let (kind, source): (&[u8], &[u8]) = match &wanted.source {
        ringlet_abi::MountSource::Tmpfs { size } => {
            if *size > 0 {
                options = MountOption::parse(format!("size={size}").as_bytes());
            }
            (b"tmpfs", b"tmpfs")
        }
        ringlet_abi::MountSource::Share { tag } => (b"virtiofs", tag),
        ringlet_abi::MountSource::Image { .. } => return Err(Errno::ENODEV),
    };
    let is_read_only = wanted.access == MountAccess::ReadOnly;
    let mount = make(kind, source, &options, is_read_only).await?;
    if wanted.access != MountAccess::Overlay {
        return Ok((mount, None));
    }
    let (fs, root) = Overlay::over(mount.super_block.clone());
    let super_block = SuperBlock::new(&overlay::TYPE, fs, root.clone(), false);
    let mount = Mount::new(super_block, root.clone(), b"overlay", MountFlags::RELATIME);
    Ok((mount, Some(root)))
}

/// A mount, nowhere yet, of a file system of that type.
async fn make(
    kind: &[u8],
    source: &[u8],
    options: &[MountOption],
    is_read_only: bool,
) -> Result<Arc<Mount>> {
    let kind = file_system_type(kind)?;
    let (fs, root) = (kind.make)(MountSource {
        name: source,
        device: None,
        options,
        is_read_only,
        owner: (0, 0),
    })
    .await?;
    let super_block = SuperBlock::new(kind, fs, root.clone(), is_read_only);
    let mut flags = MountFlags::RELATIME;
    flags.set(MountFlags::READ_ONLY, is_read_only);
    Ok(Mount::new(super_block, root, source, flags))
}

/// The place at `path`; what is missing on its way is made, and in the end an empty file of the type
/// that covers it.
async fn make_place(view: View<'_>, path: &[u8], kind: FileType) -> Result<Place> {
    super::make_directories(view, path, kind == FileType::Directory).await?;
    if kind != FileType::Directory {
        let made = view.make_node(AT_FDCWD, path, raw::S_IFREG | 0o644, 0);
        match made.await {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error),
        }
    }
    view.lookup_place(AT_FDCWD, path, true).await
}

/// Makes the root read-only, and gives programs directories in memory where they expect to write.
pub(super) fn close_root(view: View<'_>) -> Result<(), Exit> {
    let closed = executor::block_on(async {
        for path in WRITABLE {
            let place = make_place(view, path, FileType::Directory).await?;
            // What is mounted there already is what was asked for.
            if !place.location.is_mount_root() {
                let options = MountOption::parse(b"mode=1777");
                let mount = make(b"tmpfs", b"tmpfs", &options, false).await?;
                view.context.namespace.mount(&mount, place)?;
            }
        }
        let root = view.context.namespace.root().mount;
        root.set_flags(root.flags() | MountFlags::READ_ONLY);
        Ok(())
    });
    closed.map_err(|errno: Errno| {
        error!("read-only root: {errno:?}");
        Exit::BadBoot
    })
}

/// Gives the host what was written and is in memory alone, now that the program has ended.
pub(super) async fn write_back(namespace: &Namespace) {
    for mount in namespace.mounts() {
        // Nobody is left who could hear of an error.
        let _ = mount.super_block.fs.write_back().await;
    }
}
