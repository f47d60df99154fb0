//! Extended attributes: `setxattr(2)`, `getxattr(2)`, `listxattr(2)`, `removexattr(2)` and their
//! relatives.

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::file::{ExtendedAttributes, FileType, Inode, Presence};
use crate::heap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// Bytes of the longest name, and of the largest value and list.
const NAME_MAX: usize = raw::XATTR_NAME_MAX as usize;
const SIZE_MAX: usize = raw::XATTR_SIZE_MAX as usize;
/// The kinds of names that there are.
const USER: &[u8] = b"user.";
const TRUSTED: &[u8] = b"trusted.";
const SECURITY: &[u8] = b"security.";

/// The file whose attributes are meant.
pub enum AttributedFile {
    /// At that path, read when its turn comes.
    Path {
        /// Where the path is.
        address: u64,
        /// A symbolic link at its end is followed.
        follows: bool,
    },
    /// Open.
    Open(FileRef),
}

impl AttributedFile {
    async fn inode(self, actor: Actor<'_>) -> Result<Arc<dyn Inode>> {
        match self {
            Self::Path { address, follows } => {
                let path = actor.read_path(address)?;
                let found = actor.view().lookup(raw::AT_FDCWD, &path, follows).await?;
                Ok(found.inode)
            }
            Self::Open(file) => {
                let file = actor.file(file)?;
                file.inode().cloned().ok_or(Errno::EOPNOTSUPP)
            }
        }
    }
}

/// A name of an attribute.
struct Name(Vec<u8>);

impl Name {
    fn read(actor: Actor<'_>, address: u64) -> Result<Self> {
        let name = actor.space().read_string(address, NAME_MAX + 1);
        match name {
            Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
            Ok(name) if name.is_empty() => Err(Errno::ERANGE),
            name => name.map(Self),
        }
    }

    /// The attributes among which `inode` has this one, if it can. `on_other_files` is the error where
    /// the name is for regular files and directories only.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`, `EINVAL`, `EPERM`, `on_other_files`.
    fn attributes_of<'a>(
        &self,
        inode: &'a dyn Inode,
        actor: Actor<'_>,
        on_other_files: Errno,
    ) -> Result<&'a ExtendedAttributes> {
        let name = self.0.as_slice();
        let is_privileged = actor.process.credentials.lock().user.effective == 0;
        if name.starts_with(TRUSTED) && !is_privileged {
            return Err(on_other_files);
        }
        let kind = inode.file_type();
        let is_for_users = name.starts_with(USER);
        if is_for_users && !matches!(kind, FileType::Regular | FileType::Directory) {
            return Err(on_other_files);
        }
        let attributes = inode.extended_attributes().ok_or(Errno::EOPNOTSUPP)?;
        let kinds = [USER, TRUSTED, SECURITY];
        match kinds.iter().find(|kind| name.starts_with(kind)) {
            None => Err(Errno::EOPNOTSUPP),
            Some(kind) if kind.len() == name.len() => Err(Errno::EINVAL),
            Some(_) => Ok(attributes),
        }
    }
}

/// Stores `bytes` at `address`, where there is room for `room` bytes, and gives how many they are; with
/// no room it gives only that.
fn store(actor: Actor<'_>, bytes: &[u8], address: u64, room: usize) -> Result<u64> {
    if room > 0 {
        if bytes.len() > room {
            return Err(Errno::ERANGE);
        }
        actor.space().write(address, bytes)?;
    }
    Ok(bytes.len() as u64)
}

/// Setting an attribute.
pub struct SetExtended {
    /// The file.
    pub file: AttributedFile,
    /// Where the name is.
    pub name_at: u64,
    /// Where the value is.
    pub value_at: u64,
    /// Its bytes.
    pub size: usize,
    /// `XATTR_*`.
    pub flags: u32,
}

impl SetExtended {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `setxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let presence = match self.flags {
            0 => Presence::Any,
            raw::XATTR_CREATE => Presence::Absent,
            raw::XATTR_REPLACE => Presence::Present,
            flags if flags & !(raw::XATTR_CREATE | raw::XATTR_REPLACE) != 0 => {
                return Err(Errno::EINVAL);
            }
            // As on Linux: one that is there must not be, one that is not must.
            _ => Presence::Absent,
        };
        let name = Name::read(actor, self.name_at)?;
        if self.size > SIZE_MAX {
            return Err(Errno::E2BIG);
        }
        heap::check(self.size)?;
        let mut value = vec![0; self.size];
        actor.space().read(self.value_at, &mut value)?;
        let inode = self.file.inode(actor).await?;
        let attributes = name.attributes_of(&*inode, actor, Errno::EPERM)?;
        attributes.set(&name.0, &value, presence)
    }
}

/// Getting an attribute.
pub struct GetExtended {
    /// The file.
    pub file: AttributedFile,
    /// Where the name is.
    pub name_at: u64,
    /// Where the value goes.
    pub value_at: u64,
    /// The bytes there is room for; 0 to ask for the size.
    pub size: usize,
}

impl GetExtended {
    /// Does it; gives the bytes of the value.
    ///
    /// # Errors
    ///
    /// Those of `getxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let name = Name::read(actor, self.name_at)?;
        let inode = self.file.inode(actor).await?;
        let attributes = name.attributes_of(&*inode, actor, Errno::ENODATA)?;
        let value = attributes.get(&name.0)?;
        store(actor, &value, self.value_at, self.size)
    }
}

/// Listing the names of attributes.
pub struct ListExtended {
    /// The file.
    pub file: AttributedFile,
    /// Where they go.
    pub list_at: u64,
    /// The bytes there is room for; 0 to ask for the size.
    pub size: usize,
}

impl ListExtended {
    /// Does it; gives the bytes of the list.
    ///
    /// # Errors
    ///
    /// Those of `listxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let inode = self.file.inode(actor).await;
        if inode.as_ref().err() == Some(&Errno::EOPNOTSUPP) {
            return Ok(0);
        }
        let inode = inode?;
        let is_privileged = actor.process.credentials.lock().user.effective == 0;
        let is_shown = |name: &[u8]| is_privileged || !name.starts_with(TRUSTED);
        let list = match inode.extended_attributes() {
            Some(attributes) => attributes.list(is_shown),
            None => Vec::new(),
        };
        store(actor, &list, self.list_at, self.size)
    }
}

/// Removing an attribute.
pub struct RemoveExtended {
    /// The file.
    pub file: AttributedFile,
    /// Where the name is.
    pub name_at: u64,
}

impl RemoveExtended {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `removexattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let name = Name::read(actor, self.name_at)?;
        let inode = self.file.inode(actor).await?;
        let attributes = name.attributes_of(&*inode, actor, Errno::EPERM)?;
        attributes.remove(&name.0)
    }
}
