//! Making, linking, removing and renaming names: `mkdirat(2)`, `mknodat(2)`, `symlinkat(2)`,
//! `linkat(2)`, `unlinkat(2)`, `renameat2(2)`, their older forms and their opcodes.

use super::Actor;
use crate::error::{Errno, Result};
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// A path, and where it starts if it is relative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathAt {
    /// A descriptor, or `AT_FDCWD`.
    pub fd: i32,
    /// The path, without a NUL.
    pub path: Vec<u8>,
}

impl PathAt {
    /// A path that starts at the working directory.
    pub fn here(path: Vec<u8>) -> Self {
        Self {
            fd: raw::AT_FDCWD,
            path,
        }
    }
}

fn known(flags: u32, known: u32) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// `mkdirat(2)`.
pub struct MakeDirectory {
    /// Its name.
    pub at: PathAt,
    /// Permission bits.
    pub mode: u32,
}

impl MakeDirectory {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `mkdirat(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let Self { at, mode } = self;
        actor.view().make_directory(at.fd, &at.path, mode).await
    }
}

/// `mknodat(2)`: makes a file of any type but a directory or symbolic link.
pub struct MakeNode {
    /// Its name.
    pub at: PathAt,
    /// Type and permission bits.
    pub mode: u32,
    /// The number of a device, as programs encode it.
    pub device: u64,
}

impl MakeNode {
    /// Whether a node of that type can be made so, which is looked at before the path is read.
    ///
    /// # Errors
    ///
    /// `EPERM` for a directory, `EINVAL` for what is none.
    pub fn check_mode(mode: u32) -> Result<()> {
        match mode & raw::S_IFMT {
            raw::S_IFDIR => Err(Errno::EPERM),
            0 | raw::S_IFREG | raw::S_IFCHR | raw::S_IFBLK | raw::S_IFIFO | raw::S_IFSOCK => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `mknodat(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let Self { at, mode, device } = self;
        let view = actor.view();
        view.make_node(at.fd, &at.path, mode, device).await
    }
}

/// `symlinkat(2)`.
pub struct MakeSymlink {
    /// Where it points.
    pub target: Vec<u8>,
    /// Its name.
    pub at: PathAt,
}

impl MakeSymlink {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `symlinkat(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let Self { target, at } = self;
        actor.view().make_symlink(&target, at.fd, &at.path).await
    }
}

/// `linkat(2)`: gives a file one more name.
pub struct Link {
    /// A name that it has.
    pub from: PathAt,
    /// The name that it gets.
    pub to: PathAt,
    /// `AT_SYMLINK_FOLLOW`, `AT_EMPTY_PATH`.
    pub flags: u32,
}

impl Link {
    /// Whether `AT_*` are such that they mean something, which is looked at before paths are read.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn check_flags(flags: u32) -> Result<()> {
        known(flags, raw::AT_SYMLINK_FOLLOW | raw::AT_EMPTY_PATH)
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `linkat(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let (from, to) = (
            (self.from.fd, &*self.from.path),
            (self.to.fd, &*self.to.path),
        );
        actor.view().link(from, to, self.flags).await
    }
}

/// `unlinkat(2)`: removes a name.
pub struct Unlink {
    /// The name.
    pub at: PathAt,
    /// `AT_REMOVEDIR`.
    pub flags: u32,
}

impl Unlink {
    /// Whether `AT_*` are such that they mean something, which is looked at before the path is read.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn check_flags(flags: u32) -> Result<()> {
        known(flags, raw::AT_REMOVEDIR)
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `unlinkat(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let Self { at, flags } = self;
        actor.view().unlink(at.fd, &at.path, flags).await
    }
}

/// `renameat2(2)`.
pub struct Rename {
    /// The name that the file has.
    pub from: PathAt,
    /// The name that it gets.
    pub to: PathAt,
    /// `RENAME_*`.
    pub flags: u32,
}

impl Rename {
    /// Whether `RENAME_*` are such that they mean something, which is looked at before paths are read.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn check_flags(flags: u32) -> Result<()> {
        let others = raw::RENAME_NOREPLACE | raw::RENAME_WHITEOUT;
        if flags & raw::RENAME_EXCHANGE != 0 && flags & others != 0 {
            return Err(Errno::EINVAL);
        }
        known(flags, others | raw::RENAME_EXCHANGE)
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `renameat2(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let (from, to) = (
            (self.from.fd, &*self.from.path),
            (self.to.fd, &*self.to.path),
        );
        actor.view().rename(from, to, self.flags).await
    }
}
