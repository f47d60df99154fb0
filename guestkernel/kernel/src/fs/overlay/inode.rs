//! A file: the one below, or an upper one in its place.

use super::directory::OverlayDirectory;
use super::file::OverlayFile;
use super::{Overlay, own_number};
use crate::error::{Errno, Result};
use crate::executor::{Stint, Turn};
use crate::file::{Answer, InodeState, OpenFile};
use crate::fs::tmpfs::TmpfsInode;
use crate::fs::{
    AttributeChange, DeviceNumber, FileOps, FileType, Inode, NewNode, OpenFlags, RenameMode,
    SetMode, SetTime, Stat,
};
use crate::heap;
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use machine::lock::Mutex;
use spin::Once;

/// Bytes of a file that are copied at a time.
const CHUNK: usize = 256 << 10;
/// Bytes of the heap that an inode and a changed name may take.
const COST: usize = 1024;

/// What is known of a name in a directory, where that is not what it is below.
#[derive(Clone)]
pub(super) enum Changed {
    /// There is nothing any more.
    Gone,
    /// It stands for this.
    Is(Arc<OverlayInode>),
}

/// Where a file was reached.
pub(super) struct Place {
    pub(super) directory: Arc<OverlayInode>,
    pub(super) name: Box<[u8]>,
}

/// A file of an [`Overlay`].
pub struct OverlayInode {
    pub(super) fs: Arc<Overlay>,
    me: Weak<Self>,
    state: InodeState,
    kind: FileType,
    special: DeviceNumber,
    /// The file below, if there is one.
    pub(super) lower: Option<Arc<dyn Inode>>,
    /// The file in memory that has its attributes and contents, once something has changed.
    upper: Once<Arc<TmpfsInode>>,
    /// Its number, where no file is below.
    own_number: u64,
    /// Whose turn it is to copy it.
    copying: Turn,
    pub(super) place: Mutex<Option<Place>>,
    /// Names that have changed, of a directory.
    pub(super) names: Mutex<BTreeMap<Box<[u8]>, Changed>>,
    /// Whether the overlay keeps it.
    is_kept: AtomicBool,
    /// It is a directory that was removed.
    pub(super) is_removed: AtomicBool,
    /// Names that it has more than the file itself says.
    links: AtomicI32,
    /// It may get a name although it has none.
    pub(super) can_be_linked: AtomicBool,
}

impl OverlayInode {
    /// The inode of a file below, as which there is one at a time.
    pub(super) fn of_lower(
        fs: &Arc<Overlay>,
        lower: Arc<dyn Inode>,
        place: Option<Place>,
    ) -> Arc<Self> {
        let key = Arc::as_ptr(&lower).cast::<u8>().addr();
        let (inode, old) = {
            let mut inodes = fs.inodes.lock();
            match inodes.get(&key).and_then(Weak::upgrade) {
                Some(inode) => {
                    // A directory is in one place, which may be another than before.
                    let moves = inode.kind == FileType::Directory && !inode.is_moved();
                    let old = match place {
                        Some(place) if moves => inode.place.lock().replace(place),
                        place => place,
                    };
                    (inode, old)
                }
                None => {
                    let inode = Self::make(fs, Some(lower), None, place);
                    inodes.insert(key, Arc::downgrade(&inode));
                    (inode, None)
                }
            }
        };
        drop(old);
        inode
    }

    /// The inode of a file in memory.
    pub(super) fn of_upper(
        fs: &Arc<Overlay>,
        upper: Arc<TmpfsInode>,
        place: Option<Place>,
    ) -> Arc<Self> {
        Self::make(fs, None, Some(upper), place)
    }

    fn make(
        fs: &Arc<Overlay>,
        lower: Option<Arc<dyn Inode>>,
        upper: Option<Arc<TmpfsInode>>,
        place: Option<Place>,
    ) -> Arc<Self> {
        let any: &dyn Inode = match (&lower, &upper) {
            (Some(lower), _) => &**lower,
            (None, Some(upper)) => &**upper,
            (None, None) => &*fs.upper,
        };
        let (kind, special) = (any.file_type(), any.special());
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            state: InodeState::default(),
            kind,
            special,
            own_number: match lower {
                Some(_) => 0,
                None => own_number(fs),
            },
            lower,
            upper: match upper {
                Some(upper) => Once::initialized(upper),
                None => Once::new(),
            },
            copying: Turn::default(),
            place: Mutex::new(place),
            names: Mutex::default(),
            is_kept: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            links: AtomicI32::new(0),
            can_be_linked: AtomicBool::new(false),
            fs: fs.clone(),
        })
    }

    /// The reference-counted form of `self`.
    pub(super) fn this(&self) -> Result<Arc<Self>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    pub(super) fn kind(&self) -> FileType {
        self.kind
    }

    /// The file in memory, once there is one.
    pub(super) fn upper(&self) -> Option<&Arc<TmpfsInode>> {
        self.upper.get()
    }

    /// Whether a rename has put it where it is.
    fn is_moved(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// Sees to it that it is not forgotten: it is not what is below any more.
    pub(super) fn keep(&self) -> Result<()> {
        if !self.is_kept.load(Ordering::Relaxed) {
            heap::check(COST)?;
            let this = self.this()?;
            if !self.is_kept.swap(true, Ordering::Relaxed) {
                self.fs.keep(this);
            }
        }
        Ok(())
    }

    /// Notes what has become of a name.
    pub(super) fn set_name(&self, name: &[u8], changed: Option<Changed>) -> Result<()> {
        self.keep()?;
        heap::check(COST)?;
        let old = {
            let mut names = self.names.lock();
            match changed {
                Some(changed) => names.insert(name.into(), changed),
                None => names.remove(name),
            }
        };
        // Without the lock: it may be the last who has the file.
        drop(old);
        Ok(())
    }

    /// What has become of a name, if anything.
    pub(super) fn changed_name(&self, name: &[u8]) -> Option<Changed> {
        self.names.lock().get(name).cloned()
    }

    /// Forgets all that it knows of names, as the file system goes.
    pub(super) fn forget_names(&self) {
        let names = core::mem::take(&mut *self.names.lock());
        let place = self.place.lock().take();
        drop((names, place));
    }

    /// Changes by how many its names are more than the file itself says.
    pub(super) fn change_links(&self, by: i32) {
        self.links.fetch_add(by, Ordering::Relaxed);
    }

    /// The file in memory, which is made if there is none: a copy, with the contents if
    /// `with_contents`.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `ENOMEM`, and those of reading what is below.
    pub(super) async fn copy_up(&self, with_contents: bool) -> Result<&Arc<TmpfsInode>> {
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        let _turn = self.copying.take().await;
        if let Some(upper) = self.upper.get() {
            return Ok(upper);
        }
        let lower = self.lower.clone().ok_or(Errno::EIO)?;
        let stat = lower.stat().await?;
        let node = match self.kind {
            FileType::Regular => NewNode::Regular,
            FileType::Directory => NewNode::Directory,
            FileType::Symlink => NewNode::Symlink(lower.read_link().await?),
            FileType::Fifo => NewNode::Fifo,
            FileType::Socket => NewNode::Socket,
            kind => NewNode::Device(kind, self.special),
        };
        let upper = self.fs.upper.unnamed(node, stat.mode & 0o7777)?;
        if self.kind == FileType::Regular && with_contents {
            copy_contents(lower.clone(), &upper, stat.size).await?;
        }
        copy_extended(&*lower, &upper).await?;
        upper.set_owner(stat.uid, stat.gid, stat.mode & 0o7777);
        let times = AttributeChange {
            accessed: Some(SetTime::To(stat.accessed)),
            modified: Some(SetTime::To(stat.modified)),
            ..AttributeChange::default()
        };
        upper.set_attributes(times).await?;
        self.keep()?;
        Ok(self.upper.call_once(|| upper))
    }

    /// As the file itself says, with what is the overlay's own.
    fn shown(&self, stat: Stat, lower: Option<Stat>) -> Stat {
        let links = match self.kind {
            // As Linux shows directories that are joined.
            FileType::Directory if self.upper().is_some() && self.lower.is_some() => 1,
            FileType::Directory if self.lower.is_none() => self.directory_links(),
            _ => lower
                .unwrap_or(stat)
                .links
                .saturating_add_signed(self.links.load(Ordering::Relaxed)),
        };
        Stat {
            device: self.fs.number,
            inode: lower.map_or(self.own_number, |lower| lower.inode),
            links,
            ..stat
        }
    }

    /// Links of a directory that is not below: its name, its own entry and those above its directories.
    fn directory_links(&self) -> u32 {
        if self.is_removed.load(Ordering::Relaxed) {
            return 0;
        }
        let is_directory = |changed: &Changed| match changed {
            Changed::Is(inode) => inode.kind == FileType::Directory,
            Changed::Gone => false,
        };
        let names = self.names.lock();
        2 + names.values().filter(|name| is_directory(name)).count() as u32
    }

    async fn stat_slowly(&self) -> Result<Stat> {
        let lower = match &self.lower {
            Some(lower) => Some(lower.stat().await?),
            None => None,
        };
        let stat = match (self.upper(), lower) {
            (Some(upper), _) => Inode::stat(&**upper).await?,
            (None, lower) => lower.ok_or(Errno::EIO)?,
        };
        Ok(self.shown(stat, lower))
    }

    async fn open_slowly(self: Arc<Self>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        if self.kind == FileType::Directory {
            return Ok(Arc::new(OverlayDirectory::new(self)));
        }
        if flags.can_write() {
            self.copy_up(true).await?;
        }
        if self.upper().is_some() || self.lower.is_none() {
            return Ok(Arc::new(OverlayFile::new(self, None)));
        }
        let lower = self.lower.clone().ok_or(Errno::EIO)?;
        let ops = lower.open(flags).await?;
        Ok(Arc::new(OverlayFile::new(self, Some(ops))))
    }

    /// Sets attributes; a file that is cut off is not copied first.
    pub(super) async fn change(&self, change: AttributeChange) -> Result<()> {
        let with_contents = change.size != Some(0);
        self.copy_up(with_contents)
            .await?
            .set_attributes(change)
            .await
    }
}

/// Copies the extended attributes of `lower` that a file in memory can have.
async fn copy_extended(lower: &dyn Inode, upper: &Arc<TmpfsInode>) -> Result<()> {
    let list = match lower.list_extended().await {
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        list => list?,
    };
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let value = match lower.extended(name).await {
            // It is gone meanwhile, or nobody may know it.
            Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM) => continue,
            value => value?,
        };
        match upper.set_extended(name, value, SetMode::Any).await {
            Err(Errno::EOPNOTSUPP) => {}
            set => set?,
        }
    }
    Ok(())
}

/// Copies what is in `lower` to `upper`, but for pages of zeros.
async fn copy_contents(lower: Arc<dyn Inode>, upper: &Arc<TmpfsInode>, size: u64) -> Result<()> {
    let flags = OpenFlags::READ_WRITE;
    let from = OpenFile::new(lower.open(OpenFlags::empty()).await?, OpenFlags::empty());
    let to = OpenFile::new(upper.clone().open(flags).await?, flags);
    to.ops.truncate(size).await?;
    let mut position = 0;
    let mut bytes = Vec::new();
    let mut stint = Stint::default();
    loop {
        stint.give_way().await;
        bytes.resize(CHUNK, 0);
        let buffer = IoBuffer::Kernel(bytes);
        let mut io = Io::new(Direction::Read, Some(position), buffer, IoFlags::empty());
        let read = from.complete(&mut io).await?;
        let IoBuffer::Kernel(filled) = io.buffer else {
            return Err(Errno::EIO);
        };
        bytes = filled;
        bytes.truncate(read);
        if read == 0 {
            return Ok(());
        }
        if bytes.iter().any(|byte| *byte != 0) {
            let buffer = IoBuffer::Kernel(bytes);
            let mut io = Io::new(Direction::Write, Some(position), buffer, IoFlags::empty());
            if to.complete(&mut io).await? < read {
                return Err(Errno::ENOSPC);
            }
            let IoBuffer::Kernel(written) = io.buffer else {
                return Err(Errno::EIO);
            };
            bytes = written;
        }
        position += read as u64;
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        if let Some(lower) = &self.lower {
            let key = Arc::as_ptr(lower).cast::<u8>().addr();
            let mut inodes = self.fs.inodes.lock();
            let me: *const Self = self;
            if inodes
                .get(&key)
                .is_some_and(|known| core::ptr::eq(known.as_ptr(), me))
            {
                inodes.remove(&key);
            }
        }
        // The directory above may be gone with it, and so on: that takes a loop, since the stack is
        // not as deep as directories can be.
        let mut above = self.place.get_mut().take().map(|place| place.directory);
        while let Some(directory) = above {
            let last = Arc::into_inner(directory);
            above =
                last.and_then(|mut last| last.place.get_mut().take().map(|place| place.directory));
        }
    }
}

impl Inode for OverlayInode {
    fn file_type(&self) -> FileType {
        self.kind
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn special(&self) -> DeviceNumber {
        self.special
    }

    fn stat(&self) -> Answer<'_, Stat> {
        match (&self.lower, self.upper()) {
            (Some(lower), None) => lower
                .stat()
                .and_then(|stat| Ok(self.shown(stat, Some(stat)))),
            (None, Some(upper)) => {
                Inode::stat(&**upper).and_then(|stat| Ok(self.shown(stat, None)))
            }
            _ => Answer::later(self.stat_slowly()),
        }
    }

    fn set_attributes(&self, change: AttributeChange) -> Answer<'_, ()> {
        Answer::later(self.change(change))
    }

    fn extended<'a>(&'a self, name: &'a [u8]) -> Answer<'a, Vec<u8>> {
        match (&self.lower, self.upper()) {
            (_, Some(upper)) => upper.extended(name),
            (Some(lower), None) => lower.extended(name),
            (None, None) => Errno::EIO.into(),
        }
    }

    fn set_extended<'a>(&'a self, name: &'a [u8], value: Vec<u8>, mode: SetMode) -> Answer<'a, ()> {
        Answer::later(async move {
            let upper = self.copy_up(true).await?;
            upper.set_extended(name, value, mode).await
        })
    }

    fn remove_extended<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::later(async move { self.copy_up(true).await?.remove_extended(name).await })
    }

    fn list_extended(&self) -> Answer<'_, Vec<u8>> {
        match (&self.lower, self.upper()) {
            (_, Some(upper)) => upper.list_extended(),
            (Some(lower), None) => lower.list_extended(),
            (None, None) => Errno::EIO.into(),
        }
    }

    fn open(self: Arc<Self>, flags: OpenFlags) -> Answer<'static, Arc<dyn FileOps>> {
        match self.kind {
            FileType::Regular | FileType::Directory => Answer::later(self.open_slowly(flags)),
            FileType::Symlink => Errno::ELOOP.into(),
            _ => Errno::ENXIO.into(),
        }
    }

    fn open_fifo(&self, flags: OpenFlags) -> Option<Answer<'static, Arc<dyn FileOps>>> {
        match (&self.lower, self.upper()) {
            (_, Some(upper)) => upper.open_fifo(flags),
            (Some(lower), None) => lower.open_fifo(flags),
            (None, None) => None,
        }
    }

    fn read_link(&self) -> Answer<'_, Vec<u8>> {
        match (&self.lower, self.upper()) {
            (_, Some(upper)) => upper.read_link(),
            (Some(lower), None) => lower.read_link(),
            (None, None) => Errno::EIO.into(),
        }
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Answer<'a, Arc<dyn Inode>> {
        if self.kind != FileType::Directory {
            return Errno::ENOTDIR.into();
        }
        match (self.changed_name(name), &self.lower) {
            (Some(Changed::Is(inode)), _) => Answer::ready(Ok(inode)),
            (Some(Changed::Gone), _) | (None, None) => Errno::ENOENT.into(),
            (None, Some(lower)) => lower
                .lookup(name)
                .and_then(move |found| Ok(self.wrap(name, found)? as Arc<dyn Inode>)),
        }
    }

    fn create<'a>(
        &'a self,
        name: &'a [u8],
        node: NewNode,
        mode: u32,
    ) -> Answer<'a, Arc<dyn Inode>> {
        Answer::later(async move { Ok(self.make_node(name, node, mode).await? as Arc<dyn Inode>) })
    }

    fn create_unnamed(&self, mode: u32, can_be_linked: bool) -> Answer<'_, Arc<dyn Inode>> {
        Answer::later(async move {
            let inode = self.make_unnamed(mode, can_be_linked).await?;
            Ok(inode as Arc<dyn Inode>)
        })
    }

    fn link<'a>(&'a self, name: &'a [u8], target: Arc<dyn Inode>) -> Answer<'a, ()> {
        Answer::later(async move { self.link_node(name, target).await })
    }

    fn unlink<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::later(self.remove(name, false))
    }

    fn remove_directory<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::later(self.remove(name, true))
    }

    fn rename<'a>(
        &'a self,
        name: &'a [u8],
        target: Arc<dyn Inode>,
        new_name: &'a [u8],
        mode: RenameMode,
    ) -> Answer<'a, ()> {
        Answer::later(async move { self.rename_node(name, target, new_name, mode).await })
    }

    fn parent(&self) -> Option<Arc<dyn Inode>> {
        let place = self.place.lock();
        Some(place.as_ref()?.directory.clone())
    }

    fn name_of(&self, child: &dyn Inode) -> Result<Vec<u8>> {
        let child = (child as &dyn core::any::Any).downcast_ref::<Self>();
        let child = child.ok_or(Errno::ENOENT)?;
        if child.is_removed.load(Ordering::Relaxed) {
            return Err(Errno::ENOENT);
        }
        let place = child.place.lock();
        match &*place {
            Some(place) if core::ptr::eq(&*place.directory, self) => Ok(place.name.to_vec()),
            _ => Err(Errno::ENOENT),
        }
    }
}
