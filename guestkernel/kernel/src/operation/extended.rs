//! Extended attributes (`xattr(7)`): `setxattr(2)`, `getxattr(2)`, `listxattr(2)`, `removexattr(2)` and
//! their relatives.

use super::{Actor, PathAt};
use crate::error::{Errno, Result};
use crate::file::Location;
use crate::fs::{FileType, Inode, SetMode};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// A file whose extended attributes are asked for or changed.
pub enum Attributed {
    /// That at a path; a symbolic link at its end is followed or not.
    Path(PathAt, bool),
    /// An open one.
    Descriptor(i32),
}

/// The longest name.
pub const NAME_MAX: usize = raw::XATTR_NAME_MAX as usize;
/// The longest value.
pub const VALUE_MAX: usize = raw::XATTR_SIZE_MAX as usize;

impl Attributed {
    /// The file; `None` for an open one that is in no file system.
    async fn find(&self, actor: Actor<'_>) -> Result<Option<Location>> {
        match self {
            Self::Path(at, follows) => {
                let found = actor.view().lookup(at.fd, &at.path, *follows).await?;
                Ok(Some(found))
            }
            Self::Descriptor(fd) => Ok(actor.process.files.get(*fd)?.location().cloned()),
        }
    }

    async fn inode(&self, actor: Actor<'_>) -> Result<Arc<dyn Inode>> {
        let location = self.find(actor).await?.ok_or(Errno::EOPNOTSUPP)?;
        Ok(location.inode)
    }

    /// The same for a change.
    async fn changed(&self, actor: Actor<'_>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let location = self.find(actor).await?.ok_or(Errno::EOPNOTSUPP)?;
        location.mount.check_writable()?;
        check_name(actor, &*location.inode, name, Errno::EPERM)?;
        Ok(location.inode)
    }
}

/// Whether the actor may know or set the attribute `name` of that file; else it is `denied`
/// (`xattr_permission` of Linux).
fn check_name(actor: Actor<'_>, inode: &dyn Inode, name: &[u8], denied: Errno) -> Result<()> {
    let has_attributes = matches!(inode.file_type(), FileType::Regular | FileType::Directory);
    let is_allowed = match name {
        name if name.starts_with(b"trusted.") => is_privileged(actor),
        name if name.starts_with(b"user.") => has_attributes,
        _ => true,
    };
    match is_allowed {
        true => Ok(()),
        false => Err(denied),
    }
}

fn is_privileged(actor: Actor<'_>) -> bool {
    actor.process.credentials.lock().user.effective == 0
}

/// `setxattr(2)`, `lsetxattr(2)`, `fsetxattr(2)`.
pub struct SetExtended {
    /// The file.
    pub file: Attributed,
    /// The attribute.
    pub name: Vec<u8>,
    /// What it is to be.
    pub value: Vec<u8>,
    /// `XATTR_CREATE` or `XATTR_REPLACE`.
    pub flags: u32,
}

impl SetExtended {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `setxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let mode = match self.flags {
            0 => SetMode::Any,
            raw::XATTR_CREATE => SetMode::Create,
            // Together they can never be, which shows as the second.
            flags if flags & raw::XATTR_REPLACE != 0 => SetMode::Replace,
            _ => return Err(Errno::EINVAL),
        };
        let inode = self.file.changed(actor, &self.name).await?;
        inode.set_extended(&self.name, self.value, mode).await
    }
}

/// `getxattr(2)`, `lgetxattr(2)`, `fgetxattr(2)`.
pub struct GetExtended {
    /// The file.
    pub file: Attributed,
    /// The attribute.
    pub name: Vec<u8>,
}

impl GetExtended {
    /// Gives the value.
    ///
    /// # Errors
    ///
    /// Those of `getxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<Vec<u8>> {
        let inode = self.file.inode(actor).await?;
        check_name(actor, &*inode, &self.name, Errno::ENODATA)?;
        inode.extended(&self.name).await
    }
}

/// `removexattr(2)`, `lremovexattr(2)`, `fremovexattr(2)`.
pub struct RemoveExtended {
    /// The file.
    pub file: Attributed,
    /// The attribute.
    pub name: Vec<u8>,
}

impl RemoveExtended {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `removexattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let inode = self.file.changed(actor, &self.name).await?;
        inode.remove_extended(&self.name).await
    }
}

/// `listxattr(2)`, `llistxattr(2)`, `flistxattr(2)`.
pub struct ListExtended {
    /// The file.
    pub file: Attributed,
}

impl ListExtended {
    /// Gives the names, each with a NUL behind it; those that only root may know only to root.
    ///
    /// # Errors
    ///
    /// Those of `listxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<Vec<u8>> {
        let Some(location) = self.file.find(actor).await? else {
            return Ok(Vec::new());
        };
        let list = location.inode.list_extended().await?;
        if is_privileged(actor) {
            return Ok(list);
        }
        let names = list.split_inclusive(|byte| *byte == 0);
        Ok(names
            .filter(|name| !name.starts_with(b"trusted."))
            .flatten()
            .copied()
            .collect())
    }
}
