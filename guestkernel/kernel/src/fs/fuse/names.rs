//! Names in a directory: looking them up, making, moving and removing them.

use super::file::FuseFile;
use super::inode::{FuseInode, open_flags};
use super::protocol::{Arguments, ENTRY, Entry, Found, OPEN, Opened, encode_device, opcode};
use super::session::{Call, release_arguments};
use crate::error::{Errno, Result};
use crate::fs::{FileType, Inode, NewNode, OpenFlags, RenameMode};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as raw;

impl FuseInode {
    /// What the server has for `name`.
    pub(super) async fn look_up(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let version = self.fs.version();
        let call = Call::new(opcode::LOOKUP, Arguments::new().string(name), ENTRY);
        let found = match self.fs.call(self.node, call).await {
            Ok(reply) => Found::of_reply(&reply.fixed)?,
            Err(Errno::ENOENT) => Found::Nothing(0),
            Err(error) => return Err(error),
        };
        match found {
            Found::Nothing(0) => {
                self.forget_name(name);
                Err(Errno::ENOENT)
            }
            Found::Nothing(valid_until) => {
                self.remember(name, None, valid_until);
                Err(Errno::ENOENT)
            }
            Found::Entry(entry) => Ok(self.take_entry(name, &entry, version)?),
        }
    }

    /// Takes what the server said that `name` stands for.
    pub(super) fn take_entry(
        &self,
        name: &[u8],
        entry: &Entry,
        version: u64,
    ) -> Result<Arc<FuseInode>> {
        let inode = self.fs.adopt(entry, &self.this()?, name, version)?;
        self.remember(name, Some(inode.clone()), entry.valid_until);
        Ok(inode)
    }

    /// Takes the reply to what has made `name`.
    fn take_made(&self, name: &[u8], reply: &[u8], kind: FileType) -> Result<Arc<FuseInode>> {
        let version = self.fs.next_version();
        self.invalidate();
        let Found::Entry(entry) = Found::of_reply(reply)? else {
            return Err(Errno::EIO);
        };
        if entry.attributes.kind != kind {
            self.fs.forget(entry.node, 1);
            return Err(Errno::EIO);
        }
        self.take_entry(name, &entry, version)
    }

    /// Asks for something that makes `name`.
    async fn ask_to_make(&self, name: &[u8], call: Call, kind: FileType) -> Result<Arc<FuseInode>> {
        let reply = self.fs.call(self.node, call).await;
        let reply = reply.inspect_err(|_| {
            // What was known of the name may be wrong.
            self.forget_name(name);
        })?;
        self.take_made(name, &reply.fixed, kind)
    }

    /// Makes a file of any type.
    pub(super) async fn make_node(
        &self,
        name: &[u8],
        node: &NewNode,
        mode: u32,
    ) -> Result<Arc<FuseInode>> {
        let (kind, device) = match node {
            NewNode::Directory => {
                let arguments = Arguments::new().u32(mode & 0o7777).u32(0).string(name);
                let call = Call::new(opcode::MKDIR, arguments, ENTRY);
                return self.ask_to_make(name, call, FileType::Directory).await;
            }
            NewNode::Symlink(target) => {
                let arguments = Arguments::new().string(name).string(target);
                let call = Call::new(opcode::SYMLINK, arguments, ENTRY);
                return self.ask_to_make(name, call, FileType::Symlink).await;
            }
            NewNode::Regular => (FileType::Regular, 0),
            NewNode::Fifo => (FileType::Fifo, 0),
            NewNode::Socket => (FileType::Socket, 0),
            NewNode::Device(kind, number) => (*kind, encode_device(*number)),
        };
        let arguments = Arguments::new()
            .u32(kind as u32 | mode & 0o7777)
            .u32(device)
            .u32(0)
            .u32(0)
            .string(name);
        let call = Call::new(opcode::MKNOD, arguments, ENTRY);
        self.ask_to_make(name, call, kind).await
    }

    /// Makes a regular file and opens it.
    pub(super) async fn make_file(
        &self,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Arc<FuseInode>, Arc<FuseFile>)> {
        let flags = open_flags(flags);
        // Always a new one: what is there already is opened by its own right.
        let arguments = Arguments::new()
            .u32(flags | raw::O_CREAT | raw::O_EXCL)
            .u32(FileType::Regular as u32 | mode & 0o7777)
            .u32(0)
            .u32(0)
            .string(name);
        let call = Call::new(opcode::CREATE, arguments, ENTRY + OPEN);
        let reply = self.fs.call(self.node, call).await;
        let reply = reply.inspect_err(|_| {
            self.forget_name(name);
        })?;
        let (entry, opened) = reply.fixed.split_at(ENTRY);
        let opened = Opened::of_reply(opened)?;
        match self.take_made(name, entry, FileType::Regular) {
            Ok(inode) => {
                let file = FuseFile::new(inode.clone(), opened, flags);
                Ok((inode, Arc::new(file)))
            }
            Err(error) => {
                let arguments = release_arguments(opened.fh, flags);
                self.fs
                    .tell(self.node, Call::new(opcode::RELEASE, arguments, 0));
                Err(error)
            }
        }
    }

    /// Makes a regular file without a name.
    pub(super) async fn make_unnamed(
        &self,
        mode: u32,
        can_be_linked: bool,
    ) -> Result<Arc<FuseInode>> {
        let exclusive = if can_be_linked { 0 } else { raw::O_EXCL };
        let arguments = Arguments::new()
            .u32(raw::O_RDWR | raw::O_LARGEFILE | exclusive)
            .u32(FileType::Regular as u32 | mode & 0o7777)
            .u32(0)
            .u32(0);
        let call = Call::new(opcode::TMPFILE, arguments, ENTRY + OPEN);
        let version = self.fs.version();
        let reply = match self.fs.call(self.node, call).await {
            // Linux says so of a server that cannot.
            Err(Errno::ENOSYS) => return Err(Errno::EOPNOTSUPP),
            reply => reply?,
        };
        let (entry, opened) = reply.fixed.split_at(ENTRY);
        // It is opened by itself, as often as is wanted: this handle is not needed then.
        let release = release_arguments(Opened::of_reply(opened)?.fh, 0);
        let found = Found::of_reply(entry);
        let inode = match found {
            Ok(Found::Entry(entry)) => self.fs.adopt(&entry, &self.this()?, b"", version),
            Ok(Found::Nothing(_)) => Err(Errno::EIO),
            Err(error) => Err(error),
        };
        self.fs
            .tell(self.node, Call::new(opcode::RELEASE, release, 0));
        inode
    }

    /// Gives `target` one more name.
    pub(super) async fn link_node(&self, name: &[u8], target: &dyn Inode) -> Result<()> {
        let target = self.of_same(target)?;
        let arguments = Arguments::new().u64(target.node).string(name);
        let call = Call::new(opcode::LINK, arguments, ENTRY);
        self.ask_to_make(name, call, target.kind()).await.map(drop)
    }

    /// Removes a name, by UNLINK or RMDIR.
    pub(super) async fn remove(&self, name: &[u8], opcode: u32) -> Result<()> {
        let call = Call::new(opcode, Arguments::new().string(name), 0);
        let removed = self.fs.call(self.node, call).await;
        self.invalidate();
        let old = self.forget_name(name);
        removed?;
        if let Some(old) = old {
            if opcode == opcode::RMDIR {
                old.is_removed.store(true, Ordering::Relaxed);
            }
            old.invalidate();
        }
        Ok(())
    }

    /// Renames `name` to `new_name` in the directory `target`.
    pub(super) async fn rename_node(
        &self,
        name: &[u8],
        target: &dyn Inode,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        let target = self.of_same(target)?;
        let flags = match mode {
            RenameMode::Replace => 0,
            RenameMode::NoReplace => raw::RENAME_NOREPLACE,
            RenameMode::Exchange => raw::RENAME_EXCHANGE,
        };
        let arguments = Arguments::new()
            .u64(target.node)
            .u32(flags)
            .u32(0)
            .string(name)
            .string(new_name);
        let call = Call::new(opcode::RENAME2, arguments, 0);
        let renamed = self.fs.call(self.node, call).await;
        self.invalidate();
        target.invalidate();
        let moved = self.take_name(name);
        let replaced = target.take_name(new_name);
        renamed?;
        let target = target.this()?;
        if let Some((moved, valid_until)) = moved {
            moved.invalidate();
            moved.set_place(&target, new_name);
            target.remember(new_name, Some(moved), valid_until);
        }
        if let Some((replaced, valid_until)) = replaced {
            replaced.invalidate();
            if mode == RenameMode::Exchange {
                replaced.set_place(&self.this()?, name);
                self.remember(name, Some(replaced), valid_until);
            } else if replaced.kind() == FileType::Directory {
                replaced.is_removed.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Another file, if it is in the same file system.
    fn of_same<'a>(&self, other: &'a dyn Inode) -> Result<&'a Self> {
        let other = (other as &dyn core::any::Any).downcast_ref::<Self>();
        match other {
            Some(other) if Arc::ptr_eq(&self.fs, &other.fs) => Ok(other),
            _ => Err(Errno::EXDEV),
        }
    }
}
