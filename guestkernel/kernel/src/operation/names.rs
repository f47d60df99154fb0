//! Making, linking, removing and renaming names: `mkdirat(2)`, `mknodat(2)`, `symlinkat(2)`,
//! `linkat(2)`, `unlinkat(2)`, `renameat2(2)`, their older forms and their opcodes.

use super::Actor;
use crate::error::Result;
use alloc::vec::Vec;
use linux_raw_sys::general::AT_FDCWD;

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
        Self { fd: AT_FDCWD, path }
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
