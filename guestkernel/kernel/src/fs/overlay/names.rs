//! Names in a directory: what is below, unless it has changed.

use super::inode::{Changed, OverlayInode, Place};
use crate::error::{Errno, Result};
use crate::file::Timestamp;
use crate::fs::tmpfs::TmpfsInode;
use crate::fs::{FileType, Inode, NewNode, RenameMode};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

impl OverlayInode {
    /// The inode of what was found below as `name`.
    pub(super) fn wrap(&self, name: &[u8], found: Arc<dyn Inode>) -> Result<Arc<Self>> {
        crate::heap::check(1024)?;
        let place = Place {
            directory: self.this()?,
            name: name.into(),
        };
        Ok(Self::of_lower(&self.fs, found, Some(place)))
    }

    fn check_alive(&self) -> Result<()> {
        match self.is_removed.load(Ordering::Relaxed) {
            true => Err(Errno::ENOENT),
            false => Ok(()),
        }
    }

    /// What `name` stands for.
    async fn find(&self, name: &[u8]) -> Result<Option<Arc<Self>>> {
        match (self.changed_name(name), &self.lower) {
            (Some(Changed::Is(inode)), _) => Ok(Some(inode)),
            (Some(Changed::Gone), _) | (None, None) => Ok(None),
            (None, Some(lower)) => match lower.lookup(name).await {
                Ok(found) => self.wrap(name, found).map(Some),
                Err(Errno::ENOENT) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether there is such a name below.
    async fn is_below(&self, name: &[u8]) -> Result<bool> {
        let Some(lower) = &self.lower else {
            return Ok(false);
        };
        match lower.lookup(name).await {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has `name` stand for `inode`.
    fn set(&self, name: &[u8], inode: &Arc<Self>) -> Result<()> {
        inode.keep()?;
        let place = Place {
            directory: self.this()?,
            name: name.into(),
        };
        self.set_name(name, Some(Changed::Is(inode.clone())))?;
        let old = inode.place.lock().replace(place);
        drop(old);
        Ok(())
    }

    /// Has `name` stand for nothing.
    async fn clear(&self, name: &[u8]) -> Result<()> {
        let changed = self.is_below(name).await?.then_some(Changed::Gone);
        self.set_name(name, changed)
    }

    /// Its names have changed now. It has an upper file.
    fn touch_names(&self) {
        if let Some(upper) = self.upper() {
            upper.touch(Timestamp::now());
        }
    }

    /// Makes a file.
    pub(super) async fn make_node(
        &self,
        name: &[u8],
        node: NewNode,
        mode: u32,
    ) -> Result<Arc<Self>> {
        if self.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let _turn = self.fs.tree.take().await;
        self.check_alive()?;
        if self.find(name).await?.is_some() {
            return Err(Errno::EEXIST);
        }
        // Made in the upper directory, for its group and set-group-ID bit.
        let upper = self.copy_up(true).await?.unnamed(node, mode)?;
        let inode = Self::of_upper(&self.fs, upper, None);
        self.set(name, &inode)?;
        self.touch_names();
        Ok(inode)
    }

    /// Makes a regular file without a name.
    pub(super) async fn make_unnamed(&self, mode: u32, can_be_linked: bool) -> Result<Arc<Self>> {
        self.check_alive()?;
        let directory = self.copy_up(true).await?;
        let upper = directory.unnamed(NewNode::Regular, mode)?;
        let inode = Self::of_upper(&self.fs, upper, None);
        inode.change_links(-1);
        inode.can_be_linked.store(can_be_linked, Ordering::Relaxed);
        Ok(inode)
    }

    /// Gives `target` one more name.
    pub(super) async fn link_node(&self, name: &[u8], target: Arc<dyn Inode>) -> Result<()> {
        let target = self.of_same(&target)?;
        let _turn = self.fs.tree.take().await;
        self.check_alive()?;
        if self.find(name).await?.is_some() {
            return Err(Errno::EEXIST);
        }
        if target.kind() == FileType::Directory {
            return Err(Errno::EPERM);
        }
        if target.stat().await?.links == 0 && !target.can_be_linked.load(Ordering::Relaxed) {
            return Err(Errno::ENOENT);
        }
        self.copy_up(true).await?;
        target
            .copy_up(true)
            .await?
            .change_links(0, Timestamp::now());
        self.set(name, &target)?;
        target.change_links(1);
        self.touch_names();
        Ok(())
    }

    /// Removes a name: of an empty directory, or of anything else.
    pub(super) async fn remove(&self, name: &[u8], is_directory: bool) -> Result<()> {
        if self.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let _turn = self.fs.tree.take().await;
        let victim = self.find(name).await?.ok_or(Errno::ENOENT)?;
        match (is_directory, victim.kind() == FileType::Directory) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) => victim.check_empty().await?,
            (false, false) => {}
        }
        self.copy_up(true).await?;
        self.clear(name).await?;
        victim.lose(is_directory)?;
        self.touch_names();
        Ok(())
    }

    /// It has lost a name.
    fn lose(&self, is_directory: bool) -> Result<()> {
        if is_directory {
            self.is_removed.store(true, Ordering::Relaxed);
        } else if self.upper().is_none() {
            // Other names of the same file must still show one name less.
            self.keep()?;
        }
        self.change_links(if is_directory { -2 } else { -1 });
        Ok(())
    }

    async fn check_empty(&self) -> Result<()> {
        let is_any = |changed: &Changed| matches!(changed, Changed::Is(_));
        if self.names.lock().values().any(is_any) {
            return Err(Errno::ENOTEMPTY);
        }
        match self.names_below().await?.is_empty() {
            true => Ok(()),
            false => Err(Errno::ENOTEMPTY),
        }
    }

    /// Names, with numbers and types, that are below and have not changed.
    pub(super) async fn names_below(&self) -> Result<Vec<(Vec<u8>, u64, u8)>> {
        let mut listed = Vec::new();
        let Some(lower) = &self.lower else {
            return Ok(listed);
        };
        let directory = lower.clone().open(crate::fs::OpenFlags::empty()).await?;
        let mut position = 0;
        loop {
            let mut count = 0;
            let mut has_room = true;
            let mut sink = |entry: &crate::fs::DirEntry<'_>| {
                count += 1;
                let is_own = matches!(entry.name, b"." | b"..");
                if !is_own && !self.names.lock().contains_key(entry.name) {
                    has_room &= crate::heap::check(entry.name.len() + 256).is_ok();
                    listed.push((entry.name.to_vec(), entry.inode, entry.kind));
                }
                count < 1000 && has_room
            };
            let next = directory.read_dir(position, &mut sink).await?;
            if !has_room {
                return Err(Errno::ENOMEM);
            }
            if count == 0 || next == position {
                return Ok(listed);
            }
            position = next;
        }
    }

    /// Renames `name` to `new_name` in the directory `target`.
    pub(super) async fn rename_node(
        &self,
        name: &[u8],
        target: Arc<dyn Inode>,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        let target = self.of_same(&target)?;
        let _turn = self.fs.tree.take().await;
        let moved = self.find(name).await?.ok_or(Errno::ENOENT)?;
        let replaced = target.find(new_name).await?;
        match (mode, &replaced) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if target.is_in(&moved) {
            return Err(Errno::EINVAL);
        }
        if let Some(replaced) = &replaced
            && self.this()?.is_in(replaced)
        {
            return Err(match mode {
                RenameMode::Exchange => Errno::EINVAL,
                _ => Errno::ENOTEMPTY,
            });
        }
        target.check_alive()?;
        if let Some(replaced) = &replaced {
            if Arc::ptr_eq(replaced, &moved) {
                return Ok(());
            }
            if mode != RenameMode::Exchange {
                let is_directory = |inode: &Self| inode.kind() == FileType::Directory;
                match (is_directory(&moved), is_directory(replaced)) {
                    (true, true) => replaced.check_empty().await?,
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (false, false) => {}
                }
            }
        }
        self.copy_up(true).await?;
        target.copy_up(true).await?;
        match &replaced {
            Some(other) if mode == RenameMode::Exchange => self.set(name, other)?,
            _ => self.clear(name).await?,
        }
        target.set(new_name, &moved)?;
        if let Some(replaced) = replaced
            && mode != RenameMode::Exchange
        {
            replaced.lose(replaced.kind() == FileType::Directory)?;
        }
        self.touch_names();
        target.touch_names();
        Ok(())
    }

    /// Whether it is `other` or below that.
    fn is_in(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = Some(self.clone());
        while let Some(inode) = at {
            if Arc::ptr_eq(&inode, other) {
                return true;
            }
            let place = inode.place.lock();
            at = place.as_ref().map(|place| place.directory.clone());
        }
        false
    }

    /// Another file, if it is in the same file system.
    fn of_same(&self, other: &Arc<dyn Inode>) -> Result<Arc<Self>> {
        let other = (&**other as &dyn core::any::Any).downcast_ref::<Self>();
        match other {
            Some(other) if Arc::ptr_eq(&self.fs, &other.fs) => other.this(),
            _ => Err(Errno::EXDEV),
        }
    }

    /// The directory `name`, which is made as `like` is unless it is there.
    pub(super) async fn directory_for(
        &self,
        name: &[u8],
        like: &Arc<TmpfsInode>,
    ) -> Result<Arc<Self>> {
        match self.find(name).await? {
            Some(inode) if inode.kind() == FileType::Directory => Ok(inode),
            _ => {
                let stat = Inode::stat(&**like).await?;
                let upper = self
                    .fs
                    .upper
                    .unnamed(NewNode::Directory, stat.mode & 0o7777)?;
                upper.set_owner(stat.uid, stat.gid, stat.mode & 0o7777);
                let inode = Self::of_upper(&self.fs, upper, None);
                self.set(name, &inode)?;
                Ok(inode)
            }
        }
    }

    /// Has `name` stand for a file in memory, whatever it was.
    pub(super) async fn put(&self, name: &[u8], file: Arc<TmpfsInode>) -> Result<()> {
        let inode = Self::of_upper(&self.fs, file, None);
        self.set(name, &inode)
    }
}
