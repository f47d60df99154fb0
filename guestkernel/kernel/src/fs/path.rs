//! From a path to a file: `path_resolution(7)`.

use super::context::View;
use super::{FileType, FsContext, Inode};
use crate::error::{Errno, Result};
use crate::file::is_same;
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;
use linux_raw_sys::general as raw;

/// The longest path, with its NUL.
pub const PATH_MAX: usize = raw::PATH_MAX as usize;
/// The longest component.
pub const NAME_MAX: usize = 255;
/// Symbolic links followed in one resolution.
const LINKS_MAX: u32 = 40;

bitflags! {
    /// Restrictions that `openat2(2)` can put on a resolution.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Restrictions: u64 {
        /// No mount is crossed: `EXDEV`.
        const NO_MOUNTS = raw::RESOLVE_NO_XDEV as u64;
        /// No link of procfs that leads to an open file is followed: `ELOOP`.
        const NO_MAGIC_LINKS = raw::RESOLVE_NO_MAGICLINKS as u64;
        /// No symbolic link is followed: `ELOOP`.
        const NO_SYMLINKS = raw::RESOLVE_NO_SYMLINKS as u64;
        /// It stays below the directory that it starts at: `EXDEV`.
        const BENEATH = raw::RESOLVE_BENEATH as u64;
        /// The directory that it starts at is the root.
        const IN_ROOT = raw::RESOLVE_IN_ROOT as u64;
        /// Only what is at hand, which here everything is.
        const CACHED = raw::RESOLVE_CACHED as u64;
    }
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// A name.
    Name(Vec<u8>),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There is none: the path is `/`.
    Root,
}

/// A path resolved up to its last component.
pub(super) struct Parent {
    /// The directory that the last component is in.
    pub(super) directory: Arc<dyn Inode>,
    pub(super) last: Last,
    /// Slashes follow the last component.
    pub(super) has_slash: bool,
}

/// A resolution under way.
pub(super) struct Walk<'a> {
    context: &'a FsContext,
    /// Where absolute paths start and `..` stops.
    root: Arc<dyn Inode>,
    restrictions: Restrictions,
    links: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(context: &'a FsContext) -> Self {
        Self {
            context,
            root: context.root(),
            restrictions: Restrictions::empty(),
            links: 0,
        }
    }

    /// A resolution that starts at `base`, restricted.
    pub(super) fn restricted(
        context: &'a FsContext,
        base: &Arc<dyn Inode>,
        restrictions: Restrictions,
    ) -> Self {
        let is_confined = restrictions.intersects(Restrictions::BENEATH | Restrictions::IN_ROOT);
        Self {
            root: if is_confined {
                base.clone()
            } else {
                context.root()
            },
            restrictions,
            ..Self::new(context)
        }
    }

    /// Resolves `path`, from `base` on, up to its last component.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`, `ELOOP`, `ENAMETOOLONG`.
    pub(super) async fn parent(&mut self, base: Arc<dyn Inode>, path: &[u8]) -> Result<Parent> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut path = Cow::Borrowed(path);
        let mut at = 0;
        let mut directory = base;
        if path[0] == b'/' {
            directory = self.jump_to_root()?;
        }
        loop {
            at += slashes(&path[at..]);
            let length = path[at..].iter().take_while(|byte| **byte != b'/').count();
            let end = at + length;
            let after = end + slashes(&path[end..]);
            let name = &path[at..end];
            if after == path.len() {
                let last = match name {
                    b"" => Last::Root,
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    name => Last::Name(name.to_vec()),
                };
                if directory.file_type() != FileType::Directory {
                    return Err(Errno::ENOTDIR);
                }
                return Ok(Parent {
                    directory,
                    last,
                    has_slash: after > end,
                });
            }
            let next = match name {
                b"." => directory.clone(),
                b".." => self.up(&directory)?,
                name => self.child(&directory, name).await?,
            };
            if next.file_type() == FileType::Symlink {
                match self.follow(&next).await? {
                    Link::File(inode) => directory = inode,
                    Link::Path(mut target) => {
                        if target[0] == b'/' {
                            directory = self.jump_to_root()?;
                        }
                        target.extend_from_slice(&path[end..]);
                        path = Cow::Owned(target);
                        at = 0;
                        continue;
                    }
                }
            } else {
                directory = next;
            }
            if directory.file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            at = after;
        }
    }

    /// The file that the last component stands for, without following it if it is a symbolic
    /// link.
    ///
    /// # Errors
    ///
    /// `ENOENT` and `ENAMETOOLONG`.
    pub(super) async fn last(&self, parent: &Parent) -> Result<Arc<dyn Inode>> {
        match &parent.last {
            Last::Name(name) => self.child(&parent.directory, name).await,
            Last::Dot | Last::Root => Ok(parent.directory.clone()),
            Last::DotDot => self.up(&parent.directory),
        }
    }

    /// Follows the symbolic link `link`, which is `parent`'s last component: what it points at,
    /// again up to its last component, or the file itself.
    ///
    /// # Errors
    ///
    /// As for [`parent`](Self::parent).
    pub(super) async fn through(
        &mut self,
        parent: Parent,
        link: &Arc<dyn Inode>,
    ) -> Result<Result<Parent, Arc<dyn Inode>>> {
        match self.follow(link).await? {
            Link::File(inode) => Ok(Err(inode)),
            Link::Path(target) => {
                let has_slash = parent.has_slash;
                let mut next = self.parent(parent.directory, &target).await?;
                next.has_slash |= has_slash;
                Ok(Ok(next))
            }
        }
    }

    /// Resolves `path` to a file. A symbolic link at its end is followed if `follow` says so or
    /// slashes come after it.
    ///
    /// # Errors
    ///
    /// As for [`parent`](Self::parent).
    pub(super) async fn file(
        &mut self,
        base: Arc<dyn Inode>,
        path: &[u8],
        follow: bool,
    ) -> Result<Arc<dyn Inode>> {
        let mut parent = self.parent(base, path).await?;
        loop {
            let inode = self.last(&parent).await?;
            let has_slash = parent.has_slash;
            let inode = if inode.file_type() == FileType::Symlink && (follow || has_slash) {
                match self.through(parent, &inode).await? {
                    Ok(next) => {
                        parent = next;
                        continue;
                    }
                    Err(inode) => inode,
                }
            } else {
                inode
            };
            if has_slash && inode.file_type() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            return Ok(inode);
        }
    }

    async fn child(&self, directory: &Arc<dyn Inode>, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let inode = directory.lookup(name).await?;
        let (inode, has_crossed) = self.context.namespace.uncover(inode);
        if has_crossed && self.restrictions.contains(Restrictions::NO_MOUNTS) {
            return Err(Errno::EXDEV);
        }
        Ok(inode)
    }

    fn up(&self, directory: &Arc<dyn Inode>) -> Result<Arc<dyn Inode>> {
        if is_same(&**directory, &*self.root) {
            return match self.restrictions.contains(Restrictions::BENEATH) {
                true => Err(Errno::EXDEV),
                false => Ok(directory.clone()),
            };
        }
        if self.restrictions.contains(Restrictions::NO_MOUNTS)
            && self.context.namespace.covered_by(&**directory).is_some()
        {
            return Err(Errno::EXDEV);
        }
        Ok(self.context.parent_of(directory))
    }

    fn jump_to_root(&self) -> Result<Arc<dyn Inode>> {
        match self.restrictions.contains(Restrictions::BENEATH) {
            true => Err(Errno::EXDEV),
            false => Ok(self.root.clone()),
        }
    }

    async fn follow(&mut self, link: &Arc<dyn Inode>) -> Result<Link> {
        self.links += 1;
        if self.links > LINKS_MAX || self.restrictions.contains(Restrictions::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if let Some(target) = link.magic_link() {
            let confined = Restrictions::BENEATH | Restrictions::IN_ROOT;
            if self.restrictions.contains(Restrictions::NO_MAGIC_LINKS) {
                return Err(Errno::ELOOP);
            }
            if self.restrictions.intersects(confined) {
                return Err(Errno::EXDEV);
            }
            return target.map(Link::File);
        }
        let target = link.read_link().await?;
        match target.is_empty() {
            true => Err(Errno::ENOENT),
            false => Ok(Link::Path(target)),
        }
    }
}

/// Where a symbolic link leads.
enum Link {
    /// To a path, which is not empty.
    Path(Vec<u8>),
    /// To this very file.
    File(Arc<dyn Inode>),
}

fn slashes(path: &[u8]) -> usize {
    path.iter().take_while(|byte| **byte == b'/').count()
}

impl View<'_> {
    /// Resolves `path`, relative to the descriptor `fd`, to a file.
    ///
    /// # Errors
    ///
    /// `EBADF` and those of path resolution.
    pub async fn lookup(&self, fd: i32, path: &[u8], follow: bool) -> Result<Arc<dyn Inode>> {
        let base = self.start(fd, path)?;
        Walk::new(self.context).file(base, path, follow).await
    }

    /// Resolves `path` up to its last component.
    pub(super) async fn lookup_parent(&self, fd: i32, path: &[u8]) -> Result<Parent> {
        let base = self.start(fd, path)?;
        Walk::new(self.context).parent(base, path).await
    }

    /// Where `path` starts; an absolute one does not look at `fd`.
    pub(super) fn start(&self, fd: i32, path: &[u8]) -> Result<Arc<dyn Inode>> {
        match path {
            // An empty path fails before the descriptor is looked at.
            [] => Err(Errno::ENOENT),
            [b'/', ..] => Ok(self.context.root()),
            _ => self.base(fd),
        }
    }
}
