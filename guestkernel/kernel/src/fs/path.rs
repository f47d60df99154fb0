//! From a path to a file: `path_resolution(7)`.

use super::FileType;
use super::context::{FsContext, View};
use crate::error::{Errno, Result};
use crate::file::{Entry, Inode, Location, MountFlags, Place};
use alloc::borrow::Cow;
use alloc::sync::Arc;
use bitflags::bitflags;
use core::ops::Range;
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
        /// Only what is at hand: `EAGAIN`.
        const CACHED = raw::RESOLVE_CACHED as u64;
    }
}

/// The last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// A name.
    Name,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There is none: the path is `/`.
    Root,
}

/// A resolution under way: a path, and how far it has come.
pub(super) struct Walk<'p> {
    context: &'p FsContext,
    /// Where absolute paths start and `..` stops.
    root: Location,
    restrictions: Restrictions,
    /// Symbolic links followed.
    links: u32,
    path: Cow<'p, [u8]>,
    /// Where it is: when [`parent`](Self::parent) is done, the directory of the last component.
    at: Location,
    /// The last component in `path`.
    name: Range<usize>,
    last: Last,
    has_slash: bool,
}

impl<'p> Walk<'p> {
    /// A resolution of `path` from `base` on.
    ///
    /// # Errors
    ///
    /// `ENOENT` for an empty path, `ENAMETOOLONG`; `EXDEV` if it must stay beneath the base and is
    /// absolute.
    pub(super) fn new(
        context: &'p FsContext,
        base: Location,
        path: &'p [u8],
        restrictions: Restrictions,
    ) -> Result<Self> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let is_confined = restrictions.intersects(Restrictions::BENEATH | Restrictions::IN_ROOT);
        let root = match is_confined {
            true => base.clone(),
            false => context.root(),
        };
        let mut walk = Self {
            context,
            root,
            restrictions,
            links: 0,
            path: Cow::Borrowed(path),
            at: base,
            name: 0..0,
            last: Last::Root,
            has_slash: false,
        };
        if path[0] == b'/' {
            walk.jump_to_root()?;
        }
        Ok(walk)
    }

    /// Goes to the directory of the last component.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`, `ELOOP`, `ENAMETOOLONG`.
    pub(super) async fn parent(&mut self) -> Result<()> {
        let mut start = 0;
        loop {
            start += slashes(&self.path[start..]);
            let rest = &self.path[start..];
            let length = rest.iter().position(|byte| *byte == b'/');
            let end = start + length.unwrap_or(rest.len());
            let next = end + slashes(&self.path[end..]);
            if next == self.path.len() {
                self.last = match &self.path[start..end] {
                    b"" => Last::Root,
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name,
                };
                self.name = start..end;
                self.has_slash = next > end;
                return self.at.check_directory();
            }
            match &self.path[start..end] {
                b"." => {}
                b".." => self.at = self.up()?,
                name => {
                    let inode = self.child(name).await?;
                    if inode.file_type() == FileType::Symlink {
                        if !self.follow(&inode, end).await? {
                            start = 0;
                            continue;
                        }
                    } else {
                        self.enter(inode)?;
                    }
                }
            }
            self.at.check_directory()?;
            start = next;
        }
    }

    /// What the last component is.
    pub(super) fn last_kind(&self) -> Last {
        self.last
    }

    /// Whether slashes follow the last component.
    pub(super) fn has_slash(&self) -> bool {
        self.has_slash
    }

    /// The last component, if it is a name.
    pub(super) fn name(&self) -> Option<&[u8]> {
        (self.last == Last::Name).then(|| &self.path[self.name.clone()])
    }

    /// The directory of the last component.
    pub(super) fn directory(&self) -> &Location {
        &self.at
    }

    /// The last component as a name in its directory.
    pub(super) fn entry(&self) -> Option<Entry> {
        Some(Entry {
            directory: self.at.inode.clone(),
            name: self.name()?.to_vec(),
        })
    }

    /// The file that the last component stands for, which is not followed if it is a symbolic link.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENAMETOOLONG`, `EXDEV`.
    pub(super) async fn last(&self) -> Result<Location> {
        match self.last {
            Last::Name => {
                let inode = self.child(&self.path[self.name.clone()]).await?;
                let location = Location {
                    mount: self.at.mount.clone(),
                    inode,
                };
                self.crossed(location)
            }
            Last::Dot | Last::Root => Ok(self.at.clone()),
            Last::DotDot => self.up(),
        }
    }

    /// Follows the symbolic link `link`, which the last component is: to the directory of the last
    /// component of what it points at (`None`), or to a file that has no path.
    ///
    /// # Errors
    ///
    /// As for [`parent`](Self::parent).
    pub(super) async fn through(&mut self, link: &Arc<dyn Inode>) -> Result<Option<Location>> {
        let has_slash = self.has_slash;
        if self.follow(link, self.path.len()).await? {
            return Ok(Some(self.at.clone()));
        }
        self.parent().await?;
        self.has_slash |= has_slash;
        Ok(None)
    }

    /// Goes to the file. A symbolic link at the end is followed if `follow` says so or slashes come
    /// after it.
    ///
    /// # Errors
    ///
    /// As for [`parent`](Self::parent).
    pub(super) async fn file(&mut self, follow: bool) -> Result<Location> {
        self.parent().await?;
        loop {
            let location = self.last().await?;
            let has_slash = self.has_slash;
            let is_link = location.inode.file_type() == FileType::Symlink;
            let location = match is_link && (follow || has_slash) {
                false => location,
                true => match self.through(&location.inode).await? {
                    None => continue,
                    Some(location) => location,
                },
            };
            if has_slash {
                location.check_directory()?;
            }
            return Ok(location);
        }
    }

    /// The file named `name` in the directory where it is, whatever is mounted there.
    async fn child(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let found = self.at.inode.lookup(name);
        match self.restrictions.contains(Restrictions::CACHED) {
            true => found.now().unwrap_or(Err(Errno::EAGAIN)),
            false => found.await,
        }
    }

    /// Goes to `inode`, which is in the directory where it is, or to what is mounted on it.
    fn enter(&mut self, inode: Arc<dyn Inode>) -> Result<()> {
        let is_covered = inode.state().has_mounts();
        self.at.inode = inode;
        if is_covered {
            self.at = self.crossed(self.at.clone())?;
        }
        Ok(())
    }

    /// What is mounted on `location`, or that itself.
    fn crossed(&self, location: Location) -> Result<Location> {
        let (location, has_crossed) = self.context.namespace.uncover(location);
        match has_crossed && self.restrictions.contains(Restrictions::NO_MOUNTS) {
            true => Err(Errno::EXDEV),
            false => Ok(location),
        }
    }

    /// The directory above the one where it is.
    fn up(&self) -> Result<Location> {
        if self.at.is_same(&self.root) {
            return match self.restrictions.contains(Restrictions::BENEATH) {
                true => Err(Errno::EXDEV),
                false => Ok(self.at.clone()),
            };
        }
        if self.restrictions.contains(Restrictions::NO_MOUNTS)
            && self.at.is_mount_root()
            && self.at.mount.place().is_some()
        {
            return Err(Errno::EXDEV);
        }
        Ok(self.context.namespace.parent_of(&self.at, &self.root))
    }

    fn jump_to_root(&mut self) -> Result<()> {
        if self.restrictions.contains(Restrictions::BENEATH) {
            return Err(Errno::EXDEV);
        }
        if self.restrictions.contains(Restrictions::NO_MOUNTS)
            && !Arc::ptr_eq(&self.at.mount, &self.root.mount)
        {
            return Err(Errno::EXDEV);
        }
        self.at = self.root.clone();
        Ok(())
    }

    /// Follows `link`, behind which the path goes on at `end`. True if that has led to a file, false
    /// if it has changed the path, which then begins where it is.
    async fn follow(&mut self, link: &Arc<dyn Inode>, end: usize) -> Result<bool> {
        self.links += 1;
        let is_denied = self.restrictions.contains(Restrictions::NO_SYMLINKS)
            || self.at.mount.flags().contains(MountFlags::NO_SYMLINKS);
        if self.links > LINKS_MAX || is_denied {
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
            let target = target?;
            if self.restrictions.contains(Restrictions::NO_MOUNTS)
                && !Arc::ptr_eq(&self.at.mount, &target.mount)
            {
                return Err(Errno::EXDEV);
            }
            self.at = target;
            return Ok(true);
        }
        let text = link.link_for(self.context.owner());
        let mut path = match self.restrictions.contains(Restrictions::CACHED) {
            true => text.now().unwrap_or(Err(Errno::EAGAIN))?,
            false => text.await?,
        };
        match path.first() {
            None => return Err(Errno::ENOENT),
            Some(b'/') => self.jump_to_root()?,
            Some(_) => {}
        }
        path.extend_from_slice(&self.path[end..]);
        self.path = Cow::Owned(path);
        Ok(false)
    }
}

fn slashes(path: &[u8]) -> usize {
    path.iter().take_while(|byte| **byte == b'/').count()
}

impl<'a> View<'a> {
    /// Resolves `path`, relative to the descriptor `fd`, to a file.
    ///
    /// # Errors
    ///
    /// `EBADF` and those of path resolution.
    pub async fn lookup(&self, fd: i32, path: &[u8], follow: bool) -> Result<Location> {
        self.walk(fd, path)?.file(follow).await
    }

    /// As [`lookup`](Self::lookup), with the name by which the file was reached.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup).
    pub async fn lookup_place(&self, fd: i32, path: &[u8], follow: bool) -> Result<Place> {
        let mut walk = self.walk(fd, path)?;
        let location = walk.file(follow).await?;
        Ok(Place {
            location,
            entry: walk.entry(),
        })
    }

    /// A resolution of `path`, relative to the descriptor `fd`.
    pub(super) fn walk<'p>(&self, fd: i32, path: &'p [u8]) -> Result<Walk<'p>>
    where
        'a: 'p,
    {
        Walk::new(
            self.context,
            self.start(fd, path)?,
            path,
            Restrictions::empty(),
        )
    }

    /// A resolution of `path` up to its last component.
    pub(super) async fn walk_to_parent<'p>(&self, fd: i32, path: &'p [u8]) -> Result<Walk<'p>>
    where
        'a: 'p,
    {
        let mut walk = self.walk(fd, path)?;
        walk.parent().await?;
        Ok(walk)
    }

    /// Where `path` starts; an absolute one does not look at `fd`.
    pub(super) fn start(&self, fd: i32, path: &[u8]) -> Result<Location> {
        match path {
            // An empty path fails before the descriptor is looked at.
            [] => Err(Errno::ENOENT),
            [b'/', ..] => Ok(self.context.root()),
            _ => self.base(fd),
        }
    }
}
