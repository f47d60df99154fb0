//! Changes of names: creating, linking, removing, renaming.

use super::TmpfsInode;
use super::inode::{Body, FILE_COST, LEFT_TO_OPEN};
use crate::error::{Errno, Result};
use crate::fs::{Inode, NewNode, RenameMode, Timestamp};
use crate::heap;
use alloc::sync::Arc;
use core::any::Any;

/// The file as one of this file system type; `EXDEV` for others.
fn as_tmpfs(inode: Arc<dyn Inode>) -> Result<Arc<TmpfsInode>> {
    let any: Arc<dyn Any + Send + Sync> = inode;
    any.downcast().map_err(|_| Errno::EXDEV)
}

impl TmpfsInode {
    /// Makes a file named `name` in this directory.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENOSPC`, `ENOTDIR`, and `ENOENT` if the directory was removed.
    pub fn create_node(&self, name: &[u8], node: NewNode, mode: u32) -> Result<Arc<Self>> {
        let directory = self.directory()?;
        let _tree = self.fs().tree.lock();
        if directory.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        directory.check_alive()?;
        let inode = self.new_in(node, mode)?;
        let now = Timestamp::now();
        match inode.body {
            Body::Directory(_) => self.change_links(1, now),
            _ => inode.change_links(1, now),
        }
        directory.set(name, inode.clone());
        self.touch(now);
        Ok(inode)
    }

    /// Gives `target` the name `name` in this directory.
    ///
    /// # Errors
    ///
    /// As for [`Inode::link`].
    pub fn link_node(&self, name: &[u8], target: Arc<dyn Inode>) -> Result<()> {
        let directory = self.directory()?;
        let target = as_tmpfs(target)?;
        if !Arc::ptr_eq(self.fs(), target.fs()) {
            return Err(Errno::EXDEV);
        }
        let _tree = self.fs().tree.lock();
        if directory.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        directory.check_alive()?;
        if matches!(target.body, Body::Directory(_)) {
            return Err(Errno::EPERM);
        }
        if !target.can_be_linked() {
            return Err(Errno::ENOENT);
        }
        heap::check(FILE_COST + LEFT_TO_OPEN)?;
        let now = Timestamp::now();
        target.change_links(1, now);
        directory.set(name, target);
        self.touch(now);
        Ok(())
    }

    /// The file named `name` in this directory.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`.
    pub fn child(&self, name: &[u8]) -> Result<Option<Arc<Self>>> {
        Ok(self.directory()?.get(name))
    }

    /// Removes a file, or an empty directory, from this directory.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`.
    pub fn remove_node(&self, name: &[u8]) -> Result<()> {
        match self.unlink_node(name) {
            Err(Errno::EISDIR) => self.remove_child_directory(name),
            result => result,
        }
    }

    pub(super) fn unlink_node(&self, name: &[u8]) -> Result<()> {
        let directory = self.directory()?;
        let _tree = self.fs().tree.lock();
        let inode = directory.get(name).ok_or(Errno::ENOENT)?;
        if matches!(inode.body, Body::Directory(_)) {
            return Err(Errno::EISDIR);
        }
        let now = Timestamp::now();
        directory.take(name);
        inode.change_links(-1, now);
        self.touch(now);
        Ok(())
    }

    pub(super) fn remove_child_directory(&self, name: &[u8]) -> Result<()> {
        let directory = self.directory()?;
        let _tree = self.fs().tree.lock();
        let inode = directory.get(name).ok_or(Errno::ENOENT)?;
        inode.directory()?.remove()?;
        let now = Timestamp::now();
        directory.take(name);
        inode.change_links(-2, now);
        self.change_links(-1, now);
        self.touch(now);
        Ok(())
    }

    pub(super) fn rename_node(
        &self,
        name: &[u8],
        target: Arc<dyn Inode>,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        let from = self.directory()?;
        let target = as_tmpfs(target)?;
        if !Arc::ptr_eq(self.fs(), target.fs()) {
            return Err(Errno::EXDEV);
        }
        let to = target.directory()?;
        let _tree = self.fs().tree.lock();
        let moved = from.get(name).ok_or(Errno::ENOENT)?;
        let replaced = to.get(new_name);
        match (mode, &replaced) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if moved.contains(&target) {
            return Err(Errno::EINVAL);
        }
        if let Some(replaced) = &replaced
            && replaced.contains(self)
        {
            return Err(match mode {
                RenameMode::Exchange => Errno::EINVAL,
                _ => Errno::ENOTEMPTY,
            });
        }
        to.check_alive()?;
        let now = Timestamp::now();
        match replaced {
            Some(replaced) if Arc::ptr_eq(&replaced, &moved) => return Ok(()),
            Some(other) if mode == RenameMode::Exchange => {
                from.set(name, other.clone());
                other.moved(&target, self, now);
            }
            Some(replaced) => {
                match (&moved.body, &replaced.body) {
                    (Body::Directory(_), Body::Directory(directory)) => {
                        directory.remove()?;
                        replaced.change_links(-2, now);
                        target.change_links(-1, now);
                    }
                    (Body::Directory(_), _) => return Err(Errno::ENOTDIR),
                    (_, Body::Directory(_)) => return Err(Errno::EISDIR),
                    _ => replaced.change_links(-1, now),
                }
                from.take(name);
            }
            None => {
                from.take(name);
            }
        }
        to.set(new_name, moved.clone());
        moved.moved(self, &target, now);
        self.touch(now);
        target.touch(now);
        Ok(())
    }

    /// Whether this is a directory and `other` is it or below it.
    fn contains(&self, other: &Self) -> bool {
        if !matches!(self.body, Body::Directory(_)) {
            return false;
        }
        if core::ptr::eq(self, other) {
            return true;
        }
        let mut above = other.directory().ok().and_then(|at| at.parent());
        while let Some(directory) = above {
            if core::ptr::eq(self, &*directory) {
                return true;
            }
            above = directory.directory().ok().and_then(|at| at.parent());
        }
        false
    }

    /// Keeps account of a move from the directory `from` to `to`.
    fn moved(&self, from: &Self, to: &Self, now: Timestamp) {
        self.change_links(0, now);
        if let Body::Directory(directory) = &self.body
            && let Some(parent) = to.this()
            && !core::ptr::eq(from, to)
        {
            directory.set_parent(parent);
            from.change_links(-1, now);
            to.change_links(1, now);
        }
    }
}
