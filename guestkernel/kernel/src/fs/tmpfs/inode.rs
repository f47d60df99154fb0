//! A file of any type: its attributes, and how it is opened.

use super::Tmpfs;
use super::content::{Content, MAX_SIZE};
use super::directory::Directory;
use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::file::{DirectorySink, ExtendedAttributes, InodeState, Made};
use crate::fs::{
    Answer, AttributeChange, BoxFuture, DeviceNumber, FileOps, FileType, Inode, NewNode, OpenFile,
    OpenFlags, Pipe, RenameMode, SetTime, Stat, Timestamp,
};
use crate::heap;
use crate::io::{Direction, Io};
use crate::mm::{Mappers, PAGE, PageSource};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::task::{Context, Poll};
use linux_raw_sys::general as raw;
use machine::Frame;
use machine::lock::Mutex;

/// Seconds after which a read sets the access time even if nothing was written (`relatime`).
const ACCESS_TIME_AGE: i64 = 24 * 60 * 60;
/// What an entry adds to the size of a directory.
const ENTRY_SIZE: u64 = 20;
/// Symbolic links up to this length take no block.
const SHORT_SYMLINK: usize = 127;

/// Bytes of the kernel's heap that a file with a name is taken to need: the longest name, and
/// what the directory's tables may grow by.
pub(super) const FILE_COST: usize = size_of::<TmpfsInode>() + 1024;
/// What is left of the heap when there is no room for a name any more, so that files can still be opened
/// to see what is there, and to remove it.
pub(super) const LEFT_TO_OPEN: usize = 16 << 10;

/// A file of a [`Tmpfs`].
pub struct TmpfsInode {
    fs: Arc<Tmpfs>,
    number: u64,
    me: Weak<Self>,
    attributes: Mutex<Attributes>,
    state: InodeState,
    extended: ExtendedAttributes,
    pub(super) body: Body,
}

#[derive(Clone, Copy)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    accessed: Timestamp,
    modified: Timestamp,
    changed: Timestamp,
    created: Timestamp,
    /// A file without a name may get one.
    can_be_linked: bool,
}

pub(super) enum Body {
    Regular(Content),
    Directory(Directory),
    Symlink(Box<[u8]>),
    Special(FileType, DeviceNumber),
    /// A named pipe; the pipe lives as long as it is open.
    Fifo(Mutex<Weak<Pipe>>),
}

impl Body {
    pub(super) fn of(node: NewNode, parent: Option<Arc<TmpfsInode>>) -> Self {
        match node {
            NewNode::Regular => Self::Regular(Content::default()),
            NewNode::Directory => Self::Directory(Directory::new(parent)),
            NewNode::Symlink(target) => Self::Symlink(target.into()),
            NewNode::Device(kind, number) => Self::Special(kind, number),
            NewNode::Fifo => Self::Fifo(Mutex::new(Weak::new())),
            NewNode::Socket => Self::Special(FileType::Socket, DeviceNumber::default()),
        }
    }
}

impl TmpfsInode {
    /// The pipe that it stands for, if it is a named pipe.
    pub(in crate::fs) fn pipe(&self) -> Option<Arc<Pipe>> {
        let Body::Fifo(pipe) = &self.body else {
            return None;
        };
        let mut pipe = pipe.lock();
        Some(pipe.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Pipe::default());
            *pipe = Arc::downgrade(&new);
            new
        }))
    }

    pub(super) fn root(fs: Arc<Tmpfs>, mode: u32, owner: (u32, u32)) -> Arc<Self> {
        Self::new(fs, Body::of(NewNode::Directory, None), mode, owner)
    }

    /// A file that has no name yet; a directory has the link to itself.
    fn new(fs: Arc<Tmpfs>, body: Body, mode: u32, (uid, gid): (u32, u32)) -> Arc<Self> {
        let now = Timestamp::now();
        Arc::new_cyclic(|me| Self {
            number: fs.next_inode(),
            me: me.clone(),
            attributes: Mutex::new(Attributes {
                mode,
                uid,
                gid,
                links: if matches!(body, Body::Directory(_)) {
                    2
                } else {
                    0
                },
                accessed: now,
                modified: now,
                changed: now,
                created: now,
                can_be_linked: false,
            }),
            state: InodeState::default(),
            extended: ExtendedAttributes::default(),
            body,
            fs,
        })
    }

    /// A file that counts against the file system's limit. In a directory with the set-group-ID
    /// bit it gets that one's group.
    pub(super) fn new_in(&self, node: NewNode, mode: u32) -> Result<Arc<Self>> {
        let target = match &node {
            NewNode::Symlink(target) => target.len(),
            _ => 0,
        };
        heap::check(FILE_COST + target + LEFT_TO_OPEN)?;
        self.fs.files.charge(1)?.keep();
        let directory = *self.attributes.lock();
        let (mut mode, mut gid) = (mode, 0);
        if directory.mode & raw::S_ISGID != 0 {
            gid = directory.gid;
            if matches!(node, NewNode::Directory) {
                mode |= raw::S_ISGID;
            }
        }
        let body = Body::of(node, self.this());
        Ok(Self::new(self.fs.clone(), body, mode, (0, gid)))
    }

    /// A file that is in no directory, but counts as if it had a name: the inode of an open
    /// object.
    ///
    /// # Errors
    ///
    /// `ENOSPC`.
    pub fn unnamed(&self, node: NewNode, mode: u32) -> Result<Arc<Self>> {
        let inode = self.new_in(node, mode)?;
        inode.attributes.lock().links = 1;
        Ok(inode)
    }

    pub(super) fn fs(&self) -> &Arc<Tmpfs> {
        &self.fs
    }

    /// The file system of which it is the root directory.
    pub(in crate::fs) fn made(self: Arc<Self>) -> Made {
        (self.fs.clone(), self)
    }

    /// The reference-counted form of `self`; `None` only while it is dropped.
    pub(super) fn this(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn kind(&self) -> FileType {
        match self.body {
            Body::Regular(_) => FileType::Regular,
            Body::Directory(_) => FileType::Directory,
            Body::Symlink(_) => FileType::Symlink,
            Body::Special(kind, _) => kind,
            Body::Fifo(_) => FileType::Fifo,
        }
    }

    pub(super) fn can_be_linked(&self) -> bool {
        let attributes = self.attributes.lock();
        attributes.links > 0 || attributes.can_be_linked
    }

    /// Adds `by` to the number of links.
    pub(super) fn change_links(&self, by: i32, now: Timestamp) {
        let mut attributes = self.attributes.lock();
        attributes.links = attributes.links.saturating_add_signed(by);
        attributes.changed = now;
    }

    /// Contents or names were changed.
    pub(super) fn touch(&self, now: Timestamp) {
        let mut attributes = self.attributes.lock();
        attributes.modified = now;
        attributes.changed = now;
    }

    /// The file was read.
    fn note_access(&self) {
        let now = Timestamp::now();
        let mut attributes = self.attributes.lock();
        let age = now.seconds - attributes.accessed.seconds;
        if attributes.accessed <= attributes.modified
            || attributes.accessed <= attributes.changed
            || age >= ACCESS_TIME_AGE
        {
            attributes.accessed = now;
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    /// Makes `pages` the contents of this regular file, in place of those it has. Bytes of the
    /// last page beyond `size` must be zeros.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; `EINVAL` if it is no regular file.
    pub fn adopt(&self, pages: impl ExactSizeIterator<Item = Frame>, size: u64) -> Result<()> {
        let content = self.content()?;
        content.set_size(0, &self.fs.pages);
        self.fs.pages.charge(pages.len() as u64)?.keep();
        content.adopt(pages, size);
        Ok(())
    }

    /// Sets the time of the last write, as an archive tells it.
    pub fn set_modified(&self, time: Timestamp) {
        self.attributes.lock().modified = time;
    }

    /// Sets owner, group and permission bits, as an archive tells them.
    pub fn set_owner(&self, uid: u32, gid: u32, mode: u32) {
        let mut attributes = self.attributes.lock();
        (attributes.uid, attributes.gid, attributes.mode) = (uid, gid, mode);
    }

    pub(super) fn content(&self) -> Result<&Content> {
        match &self.body {
            Body::Regular(content) => Ok(content),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn directory(&self) -> Result<&Directory> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn set_size(&self, size: u64) -> Result<()> {
        let content = self.content()?;
        if size > MAX_SIZE {
            return Err(Errno::EINVAL);
        }
        content.set_size(size, &self.fs.pages);
        let gone = (size.div_ceil(PAGE), u64::MAX);
        content.mappers().forget(self, gone, true);
        self.touch(Timestamp::now());
        Ok(())
    }

    /// Cuts it off or lengthens it; what goes goes from its end on, in pieces.
    fn set_size_in_pieces(&self, size: u64) -> Answer<'_, ()> {
        let first_cut = self.content().ok().and_then(|it| it.first_cut(size));
        if first_cut.is_none() {
            return Answer::ready(self.set_size(size));
        }
        Answer::later(async move {
            let mut stint = Stint::default();
            while let Some(cut) = self.content()?.first_cut(size) {
                self.set_size(cut)?;
                stint.give_way().await;
            }
            self.set_size(size)
        })
    }

    /// Forgets all names below this directory, which nobody reaches any more. What is open stays.
    pub(super) fn forget_names(&self) {
        let mut left = Vec::new();
        left.extend(self.directory().map(Directory::take_all));
        while let Some(children) = left.pop() {
            for child in children {
                // A loop, since the stack is not as deep as directories can be.
                left.extend(child.directory().map(Directory::take_all));
            }
        }
    }

    fn stat_now(&self) -> Stat {
        let attributes = *self.attributes.lock();
        let (size, pages) = match &self.body {
            Body::Regular(content) => (content.size(), content.page_count()),
            Body::Directory(directory) => ((directory.len() as u64 + 2) * ENTRY_SIZE, 0),
            Body::Symlink(target) => (target.len() as u64, u64::from(target.len() > SHORT_SYMLINK)),
            Body::Special(..) | Body::Fifo(_) => (0, 0),
        };
        Stat {
            device: self.fs.device,
            inode: self.number,
            mode: self.kind() as u32 | attributes.mode,
            links: attributes.links,
            uid: attributes.uid,
            gid: attributes.gid,
            special: self.special(),
            size,
            block_size: PAGE as u32,
            blocks: pages * (PAGE / 512),
            accessed: attributes.accessed,
            modified: attributes.modified,
            changed: attributes.changed,
            created: Some(attributes.created),
        }
    }

    fn change(&self, change: AttributeChange) {
        let now = Timestamp::now();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        let mut attributes = self.attributes.lock();
        if (change.uid.is_some() || change.gid.is_some()) && !self.is_directory() {
            // A new owner does not get the rights of the old one; without execution for the
            // group, the bit means something else.
            attributes.mode &= !raw::S_ISUID;
            if attributes.mode & raw::S_IXGRP != 0 {
                attributes.mode &= !raw::S_ISGID;
            }
        }
        if let Some(mode) = change.mode {
            attributes.mode = mode & 0o7777;
        }
        if let Some(uid) = change.uid {
            attributes.uid = uid;
        }
        if let Some(gid) = change.gid {
            attributes.gid = gid;
        }
        if let Some(set) = change.accessed {
            attributes.accessed = time(set);
        }
        if let Some(set) = change.modified {
            attributes.modified = time(set);
        }
        attributes.changed = now;
    }
}

/// Whether `file` is a regular file of a tmpfs.
pub fn is_tmpfs(file: &OpenFile) -> bool {
    let inode = (&*file.ops as &dyn core::any::Any).downcast_ref::<TmpfsInode>();
    inode.is_some_and(|inode| inode.kind() == FileType::Regular)
}

impl Drop for TmpfsInode {
    fn drop(&mut self) {
        if let Body::Regular(content) = &self.body {
            self.fs.pages.release(content.page_count());
        }
        let Body::Directory(directory) = &self.body else {
            self.fs.files.release(1);
            return;
        };
        // The root is not counted. A removed directory may be all that keeps the one above it, and
        // so on: that takes a loop, since the stack is not as deep as directories can be.
        let mut above = directory.take_parent();
        while let Some(parent) = above {
            self.fs.files.release(1);
            above = Arc::into_inner(parent).and_then(|last| last.directory().ok()?.take_parent());
        }
    }
}

impl Inode for TmpfsInode {
    fn file_type(&self) -> FileType {
        self.kind()
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn special(&self) -> DeviceNumber {
        match self.body {
            Body::Special(_, number) => number,
            _ => DeviceNumber::default(),
        }
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(self.stat_now()))
    }

    fn extended_attributes(&self) -> Option<&ExtendedAttributes> {
        Some(&self.extended)
    }

    fn set_attributes(&self, change: AttributeChange) -> Answer<'_, ()> {
        let sized = match change.size {
            Some(size) => self.set_size_in_pieces(size),
            None => Answer::ready(Ok(())),
        };
        sized.and_then(move |()| {
            self.change(change);
            Ok(())
        })
    }

    fn open(self: Arc<Self>, _flags: OpenFlags) -> Answer<'static, Arc<dyn FileOps>> {
        Answer::ready(match self.body {
            Body::Regular(_) | Body::Directory(_) => Ok(self),
            Body::Symlink(_) => Err(Errno::ELOOP),
            Body::Special(..) | Body::Fifo(_) => Err(Errno::ENXIO),
        })
    }

    fn open_fifo(&self, flags: OpenFlags) -> Option<Answer<'static, Arc<dyn FileOps>>> {
        let pipe = self.pipe()?;
        Some(Answer::later(async move { pipe.open(flags).await }))
    }

    fn read_link(&self) -> Answer<'_, Vec<u8>> {
        Answer::ready(match &self.body {
            Body::Symlink(target) => {
                self.note_access();
                Ok(target.to_vec())
            }
            _ => Err(Errno::EINVAL),
        })
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Answer<'a, Arc<dyn Inode>> {
        Answer::ready(
            self.directory()
                .and_then(|directory| match directory.get(name) {
                    Some(inode) => Ok(inode as Arc<dyn Inode>),
                    None => Err(Errno::ENOENT),
                }),
        )
    }

    fn create<'a>(
        &'a self,
        name: &'a [u8],
        node: NewNode,
        mode: u32,
    ) -> Answer<'a, Arc<dyn Inode>> {
        let made = self.create_node(name, node, mode);
        Answer::ready(made.map(|inode| inode as Arc<dyn Inode>))
    }

    fn create_unnamed(&self, mode: u32, can_be_linked: bool) -> Answer<'_, Arc<dyn Inode>> {
        Answer::ready(self.new_in(NewNode::Regular, mode).map(|inode| {
            inode.attributes.lock().can_be_linked = can_be_linked;
            inode as Arc<dyn Inode>
        }))
    }

    fn link<'a>(&'a self, name: &'a [u8], target: Arc<dyn Inode>) -> Answer<'a, ()> {
        Answer::ready(self.link_node(name, target))
    }

    fn unlink<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::ready(self.unlink_node(name))
    }

    fn remove_directory<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::ready(self.remove_child_directory(name))
    }

    fn rename<'a>(
        &'a self,
        name: &'a [u8],
        target: Arc<dyn Inode>,
        new_name: &'a [u8],
        mode: RenameMode,
    ) -> Answer<'a, ()> {
        Answer::ready(self.rename_node(name, target, new_name, mode))
    }

    fn parent(&self) -> Option<Arc<dyn Inode>> {
        let parent = self.directory().ok()?.parent()?;
        Some(parent)
    }

    fn name_of(&self, child: &dyn Inode) -> Result<Vec<u8>> {
        let child = (child as &dyn core::any::Any).downcast_ref::<Self>();
        child
            .and_then(|child| self.directory().ok()?.name_of(child))
            .ok_or(Errno::ENOENT)
    }
}

impl FileOps for TmpfsInode {
    fn poll_io(&self, io: &mut Io, _context: &mut Context<'_>) -> Poll<Result<usize>> {
        let Body::Regular(content) = &self.body else {
            return Poll::Ready(Err(Errno::EISDIR));
        };
        Poll::Ready(match io.direction {
            Direction::Read => content.read(io).inspect(|_| self.note_access()),
            Direction::Write => {
                // Before the bytes are looked at, as on Linux, and only if there are any.
                if !io.buffer.is_empty() && io.done == 0 {
                    self.touch(Timestamp::now());
                }
                content.write(io, &self.fs.pages)
            }
        })
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(self.stat_now()))
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn supports_nowait(&self) -> bool {
        false
    }

    fn size(&self) -> Answer<'_, u64> {
        Answer::ready(self.content().map(Content::size))
    }

    fn has_size(&self) -> bool {
        self.content().is_ok()
    }

    fn seek_hole(&self, from: u64, hole: bool) -> Answer<'_, u64> {
        let content = self.content();
        Answer::ready(content.and_then(|content| content.seek_hole(from, hole)))
    }

    fn sync(&self, _data_only: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(core::future::ready(Ok(())))
    }

    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        match self.body {
            Body::Regular(_) => Ok(self),
            _ => Err(Errno::ENODEV),
        }
    }

    fn truncate(&self, size: u64) -> Answer<'_, ()> {
        self.set_size_in_pieces(size)
    }

    fn allocate(&self, mode: u32, offset: u64, length: u64) -> Answer<'_, ()> {
        let Body::Regular(content) = &self.body else {
            return Errno::EISDIR.into();
        };
        Answer::later(async move {
            content
                .allocate(mode, offset, length, &self.fs.pages)
                .await?;
            if mode & raw::FALLOC_FL_PUNCH_HOLE != 0 {
                let gone = (offset.div_ceil(PAGE), (offset + length) / PAGE);
                content.mappers().forget(self, gone, false);
            }
            self.touch(Timestamp::now());
            Ok(())
        })
    }

    fn read_dir<'a>(&'a self, position: u64, sink: &'a mut DirectorySink<'_>) -> Answer<'a, u64> {
        Answer::ready(self.directory().and_then(|directory| {
            directory.check_alive()?;
            self.note_access();
            Ok(directory.list(self, position, sink))
        }))
    }
}

impl PageSource for TmpfsInode {
    fn mappers(&self) -> Option<&Mappers> {
        self.content().ok().map(Content::mappers)
    }

    fn page(&self, index: u64, for_write: bool) -> Answer<'_, Frame> {
        let content = self.content();
        let page = content.and_then(|content| content.page(index, &self.fs.pages));
        if for_write && page.is_ok() {
            self.touch(Timestamp::now());
        }
        Answer::ready(page)
    }
}
