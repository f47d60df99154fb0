//! What the process description says to mount.

use crate::error::{Errno, Result};
use crate::executor;
use crate::file::{
    Mount, MountFlags, MountOption, MountSource, Place, SuperBlock, file_system_type,
};
use crate::fs::{FileType, View};
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
        let missing = match (&mount.source, mount.access) {
            (ringlet_abi::MountSource::Image { .. }, _) => "images",
            (_, MountAccess::Overlay) => "overlays",
            _ if mount.target == b"/" => "shares as the root",
            _ => continue,
        };
        error!("{target}: this kernel mounts no {missing}");
        return Err(Exit::BadBoot);
    }
    Ok(())
}

/// Mounts all that the description says, in its order.
pub(super) fn mount_all(view: View<'_>, mounts: &[ringlet_abi::Mount]) -> Result<(), Exit> {
    for mount in mounts {
        executor::block_on(mount_one(view, mount)).map_err(|errno| {
            let target = String::from_utf8_lossy(&mount.target);
            error!("{target}: cannot be mounted: {errno:?}");
            Exit::BadBoot
        })?;
    }
    Ok(())
}

async fn mount_one(view: View<'_>, wanted: &ringlet_abi::Mount) -> Result<()> {
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
    let kind = mount.root.file_type();
    let place = make_place(view, &wanted.target, kind).await?;
    view.context.namespace.mount(&mount, place)
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
