//! Extended attributes: `setxattr(2)`, `getxattr(2)`, `listxattr(2)`, `removexattr(2)`, their relatives
//! and their opcodes.

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::file::{AttributeChange, FileType, Inode, Location, SetMode};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// The longest name, with its NUL.
const NAME_MAX: usize = raw::XATTR_NAME_MAX as usize + 1;
/// The longest value, and the longest list of names.
const SIZE_MAX: usize = raw::XATTR_SIZE_MAX as usize;

/// The file whose extended attributes are meant.
pub enum ExtendedTarget {
    /// The one at a path, relative to the working directory.
    Path {
        /// The path.
        path: Vec<u8>,
        /// A symbolic link in its last place is followed.
        follows: bool,
    },
    /// One that is open.
    Open(FileRef),
}

impl ExtendedTarget {
    /// The file, and where it is, unless it is in no file system.
    async fn find(self, actor: Actor<'_>) -> Result<Option<Location>> {
        match self {
            Self::Path { path, follows } => {
                let view = actor.view();
                view.lookup(raw::AT_FDCWD, &path, follows).await.map(Some)
            }
            Self::Open(file) => Ok(actor.file(file)?.location().cloned()),
        }
    }
}

/// The name of an extended attribute.
pub struct ExtendedName(Vec<u8>);

impl ExtendedName {
    /// The name at `address`.
    ///
    /// # Errors
    ///
    /// `ERANGE` if it is empty or too long, `EFAULT`.
    pub fn read(actor: Actor<'_>, address: u64) -> Result<Self> {
        match actor.space().read_string(address, NAME_MAX) {
            Ok(name) if name.is_empty() => Err(Errno::ERANGE),
            Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
            result => result.map(Self),
        }
    }

    /// Checks that a file can have it.
    fn check(&self, inode: &dyn Inode, is_changed: bool) -> Result<()> {
        let users = b"user.";
        let kinds: [&[u8]; 3] = [users, b"trusted.", b"security."];
        let is_plain = matches!(inode.file_type(), FileType::Regular | FileType::Directory);
        if self.0.starts_with(users) && !is_plain {
            return Err(if is_changed {
                Errno::EPERM
            } else {
                Errno::ENODATA
            });
        }
        let kind = kinds.into_iter().find(|kind| self.0.starts_with(kind));
        match kind.ok_or(Errno::EOPNOTSUPP)?.len() == self.0.len() {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }
}

/// The file, if it can have extended attributes.
fn file_of(location: Option<Location>) -> Result<Location> {
    location.ok_or(Errno::EOPNOTSUPP)
}

/// Notes that attributes of a file have changed.
async fn note_change(inode: &Arc<dyn Inode>) -> Result<()> {
    inode.set_attributes(AttributeChange::default()).await
}

/// `setxattr(2)`.
pub struct SetExtended {
    /// The file.
    pub target: ExtendedTarget,
    name: ExtendedName,
    value: Vec<u8>,
    mode: SetMode,
}

impl SetExtended {
    /// One of a name and of a value of `size` bytes, which are in memory, with `XATTR_*` as flags.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ERANGE`, `E2BIG`, `EFAULT`, `ENOMEM`.
    pub fn read(
        actor: Actor<'_>,
        target: ExtendedTarget,
        name: u64,
        (value, size): (u64, u64),
        flags: u32,
    ) -> Result<Self> {
        let mode = match flags {
            0 => SetMode::Always,
            raw::XATTR_CREATE => SetMode::Create,
            raw::XATTR_REPLACE => SetMode::Replace,
            // Neither can be; whether there is one decides what is said.
            both if both == raw::XATTR_CREATE | raw::XATTR_REPLACE => SetMode::Create,
            _ => return Err(Errno::EINVAL),
        };
        let name = ExtendedName::read(actor, name)?;
        if size > SIZE_MAX as u64 {
            return Err(Errno::E2BIG);
        }
        crate::heap::check(size as usize)?;
        let mut bytes = alloc::vec![0; size as usize];
        actor.space().read(value, &mut bytes)?;
        Ok(Self {
            target,
            name,
            value: bytes,
            mode,
        })
    }

    /// Bytes that it keeps.
    pub fn size(&self) -> usize {
        self.name.0.len() + self.value.len()
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `setxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let location = file_of(self.target.find(actor).await?)?;
        location.mount.check_writable()?;
        let inode = &location.inode;
        self.name.check(&**inode, true)?;
        let all = inode.extended_attributes().ok_or(Errno::EOPNOTSUPP)?;
        all.set(self.name.0, self.value, self.mode)?;
        note_change(inode).await
    }
}

/// `getxattr(2)`.
pub struct GetExtended {
    /// The file.
    pub target: ExtendedTarget,
    /// Which.
    pub name: ExtendedName,
    /// Where the value goes.
    pub address: u64,
    /// Bytes that there is room for; 0 to be told how many there are.
    pub size: u64,
}

impl GetExtended {
    /// Does it; gives the bytes of the value.
    ///
    /// # Errors
    ///
    /// Those of `getxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let location = file_of(self.target.find(actor).await?)?;
        self.name.check(&*location.inode, false)?;
        let all = location.inode.extended_attributes();
        let value = all.ok_or(Errno::EOPNOTSUPP)?.get(&self.name.0)?;
        tell(actor, &value, self.address, self.size).await
    }
}

/// Stores what was asked for, unless there is no room at all.
async fn tell(actor: Actor<'_>, bytes: &[u8], address: u64, size: u64) -> Result<u64> {
    if size > 0 {
        if bytes.len() as u64 > size {
            return Err(Errno::ERANGE);
        }
        let space = actor.space();
        space.retry(|| space.write(address, bytes)).await?;
    }
    Ok(bytes.len() as u64)
}

/// `listxattr(2)`.
pub struct ListExtended {
    /// The file.
    pub target: ExtendedTarget,
    /// Where the names go.
    pub address: u64,
    /// Bytes that there is room for; 0 to be told how many there are.
    pub size: u64,
}

impl ListExtended {
    /// Does it; gives the bytes of all names.
    ///
    /// # Errors
    ///
    /// Those of `listxattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let location = self.target.find(actor).await?;
        let all = location
            .as_ref()
            .map(|location| location.inode.extended_attributes());
        let names = match all.flatten() {
            Some(all) => all.names()?,
            None => Vec::new(),
        };
        tell(actor, &names, self.address, self.size).await
    }
}

/// `removexattr(2)`.
pub struct RemoveExtended {
    /// The file.
    pub target: ExtendedTarget,
    /// Which.
    pub name: ExtendedName,
}

impl RemoveExtended {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `removexattr(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let location = file_of(self.target.find(actor).await?)?;
        location.mount.check_writable()?;
        let inode = &location.inode;
        self.name.check(&**inode, true)?;
        let all = inode.extended_attributes().ok_or(Errno::EOPNOTSUPP)?;
        all.remove(&self.name.0)?;
        note_change(inode).await
    }
}
