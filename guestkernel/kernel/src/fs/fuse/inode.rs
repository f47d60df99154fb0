//! A node of the server's: its attributes, where it was seen, and the names that are known in it.

use super::directory::FuseDirectory;
use super::file::FuseFile;
use super::mapping::Contents;
use super::protocol::{self, ATTRIBUTES, OPEN, OPEN_KEEP, set};
use super::protocol::{Arguments, Attributes, Entry, Opened, opcode};
use super::session::{Call, FuseFs, contents, room};
use crate::error::{Errno, Result};
use crate::file::InodeState;
use crate::fs::{
    Answer, AttributeChange, DeviceNumber, FileOps, FileType, Inode, NewNode, OpenFlags, Pipe,
    RenameMode, SetMode, SetTime, Stat,
};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hashbrown::HashMap;
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use machine::{PAGE_SIZE, clock};
use spin::Once;

/// A file of a [`FuseFs`].
pub(super) struct FuseInode {
    pub(super) fs: Arc<FuseFs>,
    /// Its number at the server.
    pub(super) node: u64,
    kind: FileType,
    special: DeviceNumber,
    device: DeviceNumber,
    me: Weak<Self>,
    state: InodeState,
    /// Look-ups that the server has counted.
    lookups: AtomicU64,
    attributes: Mutex<Known>,
    place: Mutex<Option<Place>>,
    /// It is a directory that was removed.
    pub(super) is_removed: AtomicBool,
    names: Mutex<HashMap<Box<[u8]>, Name>>,
    /// What is kept of a regular file's bytes, once there is anything.
    contents: Once<Box<Contents>>,
    /// What is kept stays, though the attributes say that it was changed.
    is_kept: AtomicBool,
    /// The pipe that a named pipe stands for, while it is open.
    pipe: Mutex<Weak<Pipe>>,
}

/// Attributes as they were told last.
#[derive(Clone, Copy)]
struct Known {
    stat: Stat,
    valid_until: u64,
    /// The number of the change that they follow.
    version: u64,
}

/// Where a node was seen last. As long as it is known, so is that directory.
struct Place {
    directory: Arc<FuseInode>,
    name: Box<[u8]>,
}

/// What is known of a name.
struct Name {
    /// What it stands for; `None` for nothing.
    inode: Option<Arc<FuseInode>>,
    valid_until: u64,
    /// Whether it was used since it was last looked at to be given up.
    is_used: bool,
}

impl FuseInode {
    /// The root of `fs`.
    pub(super) fn root(fs: Arc<FuseFs>, attributes: &Attributes) -> Arc<Self> {
        let device = fs.number();
        Self::make(fs, protocol::ROOT, device, attributes)
    }

    /// The node of `entry`, which is in `directory`. No look-up is counted yet.
    pub(super) fn new(fs: Arc<FuseFs>, entry: &Entry, directory: &Self) -> Arc<Self> {
        let device = match entry.attributes.is_mount {
            true => crate::file::next_device(),
            false => directory.device,
        };
        Self::make(fs, entry.node, device, &entry.attributes)
    }

    fn make(
        fs: Arc<FuseFs>,
        node: u64,
        device: DeviceNumber,
        attributes: &Attributes,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            node,
            kind: attributes.kind,
            special: attributes.stat.special,
            device,
            me: me.clone(),
            state: InodeState::default(),
            lookups: AtomicU64::new(0),
            attributes: Mutex::new(Known {
                stat: Stat {
                    device,
                    ..attributes.stat
                },
                valid_until: attributes.valid_until,
                version: fs.version(),
            }),
            place: Mutex::new(None),
            is_removed: AtomicBool::new(false),
            names: Mutex::default(),
            contents: Once::new(),
            is_kept: AtomicBool::new(false),
            pipe: Mutex::new(Weak::new()),
            fs,
        })
    }

    /// What it is.
    pub(super) fn kind(&self) -> FileType {
        self.kind
    }

    /// The reference-counted form of `self`.
    ///
    /// # Errors
    ///
    /// `ESTALE`, only while it is dropped.
    pub(super) fn this(&self) -> Result<Arc<Self>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    /// The server has counted one more look-up.
    pub(super) fn note_lookup(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// It was seen as `name` in `directory`.
    pub(super) fn set_place(&self, directory: &Arc<Self>, name: &[u8]) {
        let new = Place {
            directory: directory.clone(),
            name: name.into(),
        };
        let old = {
            let mut place = self.place.lock();
            match &*place {
                Some(known) if Arc::ptr_eq(&known.directory, directory) && *known.name == *name => {
                    Some(new)
                }
                _ => place.replace(new),
            }
        };
        // Without the lock: it may be the last who has the directory.
        drop(old);
    }

    /// Takes attributes that the server was asked for when `version` was the last change.
    pub(super) fn update(&self, attributes: &Attributes, version: u64) {
        let new = Stat {
            device: self.device,
            ..attributes.stat
        };
        let old = {
            let mut known = self.attributes.lock();
            if version < known.version {
                return;
            }
            known.version = version;
            known.valid_until = attributes.valid_until;
            core::mem::replace(&mut known.stat, new)
        };
        let is_other = (old.size, old.modified) != (new.size, new.modified);
        if is_other && let Some(contents) = self.contents_if_any() {
            let are_bytes_new = !self.is_kept.load(Ordering::Relaxed);
            contents.changed(old.size, new.size, are_bytes_new);
        }
    }

    /// What is kept of its bytes.
    pub(super) fn contents(&self) -> &Contents {
        self.contents.call_once(Box::default)
    }

    /// The same, if there may be anything.
    pub(super) fn contents_if_any(&self) -> Option<&Contents> {
        self.contents.get().map(|contents| &**contents)
    }

    /// Its size, as far as is known.
    pub(super) fn known_size(&self) -> u64 {
        self.attributes.lock().stat.size
    }

    /// It was opened, and the server gave `FOPEN_*`.
    pub(super) fn note_open(&self, flags: u32) {
        let is_kept = flags & OPEN_KEEP != 0;
        self.is_kept.store(is_kept, Ordering::Relaxed);
    }

    /// Whether its attributes are valid now.
    pub(super) fn has_valid_attributes(&self) -> bool {
        self.valid_stat().is_some()
    }

    /// As [`update`](Self::update), with what the server gave when it had changed them.
    pub(super) fn update_changed(&self, attributes: &Attributes) {
        self.update(attributes, self.fs.next_version());
    }

    /// The attributes have changed: they must be asked for.
    pub(super) fn invalidate(&self) {
        let version = self.fs.next_version();
        let mut known = self.attributes.lock();
        known.version = version;
        known.valid_until = 0;
    }

    /// The file was written, and has `end` bytes at least.
    pub(super) fn note_write(&self, end: u64) {
        let version = self.fs.next_version();
        let mut known = self.attributes.lock();
        known.version = version;
        known.valid_until = 0;
        known.stat.size = known.stat.size.max(end);
    }

    /// Attributes that are valid now.
    fn valid_stat(&self) -> Option<Stat> {
        let known = self.attributes.lock();
        (known.valid_until > clock::monotonic()).then_some(known.stat)
    }

    /// The request for attributes.
    pub(super) fn get_attributes() -> Call {
        Call::new(
            opcode::GETATTR,
            Arguments::new().u32(0).u32(0).u64(0),
            ATTRIBUTES,
        )
    }

    /// Takes the reply to [`get_attributes`](Self::get_attributes).
    ///
    /// # Errors
    ///
    /// `EIO` if it makes no sense.
    pub(super) fn take_attributes(&self, reply: &[u8], version: u64) -> Result<Stat> {
        let attributes = Attributes::of_reply(reply)?;
        if attributes.kind != self.kind {
            return Err(Errno::EIO);
        }
        self.update(&attributes, version);
        Ok(Stat {
            device: self.device,
            ..attributes.stat
        })
    }

    /// Its attributes, as the server has them now or had them while they are valid.
    pub(super) fn attributes(&self) -> Answer<'_, Stat> {
        match self.valid_stat() {
            Some(stat) => Answer::ready(Ok(stat)),
            None => Answer::later(async {
                let version = self.fs.version();
                let reply = self.fs.call(self.node, Self::get_attributes()).await?;
                self.take_attributes(&reply.fixed, version)
            }),
        }
    }

    /// Changes attributes; `fh` is an open file that may be written.
    pub(super) async fn change(&self, change: AttributeChange, fh: Option<u64>) -> Result<()> {
        let mut valid = 0;
        let mut note = |is_set: bool, bits: u32| {
            if is_set {
                valid |= bits;
            }
        };
        note(change.mode.is_some(), set::MODE);
        note(change.uid.is_some(), set::UID);
        note(change.gid.is_some(), set::GID);
        note(change.size.is_some(), set::SIZE);
        note(change.accessed.is_some(), set::ATIME);
        note(change.modified.is_some(), set::MTIME);
        note(change.accessed == Some(SetTime::Now), set::ATIME_NOW);
        note(change.modified == Some(SetTime::Now), set::MTIME_NOW);
        note(fh.is_some(), set::FH);
        let time = |time: Option<SetTime>| match time {
            Some(SetTime::To(time)) => (time.seconds as u64, time.nanoseconds),
            _ => (0, 0),
        };
        let (accessed, modified) = (time(change.accessed), time(change.modified));
        let arguments = Arguments::new()
            .u32(valid)
            .u32(0)
            .u64(fh.unwrap_or(0))
            .u64(change.size.unwrap_or(0))
            .u64(0)
            .u64(accessed.0)
            .u64(modified.0)
            .u64(0)
            .u32(accessed.1)
            .u32(modified.1)
            .u32(0)
            .u32(change.mode.unwrap_or(0) & 0o7777)
            .u32(0)
            .u32(change.uid.unwrap_or(0))
            .u32(change.gid.unwrap_or(0))
            .u32(0);
        let call = Call::new(opcode::SETATTR, arguments, ATTRIBUTES);
        let reply = self.fs.call(self.node, call).await;
        // Whatever the result, some may have changed.
        let reply = reply.inspect_err(|_| self.invalidate())?;
        let attributes = Attributes::of_reply(&reply.fixed)?;
        if attributes.kind != self.kind {
            return Err(Errno::EIO);
        }
        self.update_changed(&attributes);
        Ok(())
    }

    /// What is known of `name`: nothing, that it stands for nothing, or what it stands for.
    pub(super) fn known(&self, name: &[u8]) -> Option<Option<Arc<Self>>> {
        let mut names = self.names.lock();
        let known = names.get_mut(name)?;
        if known.valid_until <= clock::monotonic() {
            return None;
        }
        known.is_used = true;
        Some(known.inode.clone())
    }

    /// Notes what `name` stands for until some time.
    pub(super) fn remember(&self, name: &[u8], inode: Option<Arc<Self>>, valid_until: u64) {
        let new = Name {
            inode,
            valid_until,
            is_used: true,
        };
        let (old, is_new) = {
            let mut names = self.names.lock();
            match names.get_mut(name) {
                Some(known) => (Some(core::mem::replace(known, new)), false),
                None => {
                    names.insert(name.into(), new);
                    (None, true)
                }
            }
        };
        // Without the lock: its file may be gone with it.
        drop(old);
        if is_new && let Ok(this) = self.this() {
            self.fs.note_kept(&this, name);
        }
    }

    /// Forgets what `name` stands for, and gives it.
    pub(super) fn forget_name(&self, name: &[u8]) -> Option<Arc<Self>> {
        let old = self.names.lock().remove(name);
        old.and_then(|old| old.inode)
    }

    /// What `name` stands for as far as was seen, and until when.
    pub(super) fn take_name(&self, name: &[u8]) -> Option<(Arc<Self>, u64)> {
        let old = self.names.lock().remove(name)?;
        Some((old.inode?, old.valid_until))
    }

    /// Gives up what is known of `name`, unless it was used since this was called last: true then.
    pub(super) fn give_up(&self, name: &[u8]) -> bool {
        let old = {
            let mut names = self.names.lock();
            if let Some(known) = names.get_mut(name)
                && core::mem::take(&mut known.is_used)
            {
                return true;
            }
            names.remove(name)
        };
        drop(old);
        false
    }

    /// Opens a regular file or directory.
    async fn open_node(self: Arc<Self>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let is_directory = self.kind == FileType::Directory;
        let (opcode, flags) = match is_directory {
            true => (opcode::OPENDIR, raw::O_RDONLY | raw::O_DIRECTORY),
            false => (opcode::OPEN, open_flags(flags)),
        };
        let call = Call::new(opcode, Arguments::new().u32(flags).u32(0), OPEN);
        let reply = self.fs.call(self.node, call).await?;
        let opened = Opened::of_reply(&reply.fixed)?;
        Ok(match is_directory {
            true => Arc::new(FuseDirectory::new(self, opened)),
            false => Arc::new(FuseFile::new(self, opened, flags)),
        })
    }

    /// What hangs on it that may be gone with it.
    fn take_links(&mut self, links: &mut Vec<Arc<Self>>) {
        links.extend(self.place.get_mut().take().map(|place| place.directory));
        links.extend(
            self.names
                .get_mut()
                .drain()
                .filter_map(|(_, name)| name.inode),
        );
    }
}

/// The flags by which the server opens a file that is opened with `flags`.
pub(super) fn open_flags(flags: OpenFlags) -> u32 {
    let kept = raw::O_ACCMODE | raw::O_APPEND | raw::O_DSYNC | raw::O_SYNC | raw::O_NOATIME;
    flags.bits() & kept | raw::O_LARGEFILE
}

impl Drop for FuseInode {
    fn drop(&mut self) {
        self.fs.gone(self, self.node, *self.lookups.get_mut());
        // The directory above may be gone with it, and so on: that takes a loop, since the stack is
        // not as deep as directories can be.
        let mut left = Vec::new();
        self.take_links(&mut left);
        while let Some(inode) = left.pop() {
            if let Some(mut last) = Arc::into_inner(inode) {
                last.take_links(&mut left);
            }
        }
    }
}

impl Inode for FuseInode {
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
        self.attributes()
    }

    fn set_attributes(&self, change: AttributeChange) -> Answer<'_, ()> {
        Answer::later(self.change(change, None))
    }

    fn extended<'a>(&'a self, name: &'a [u8]) -> Answer<'a, Vec<u8>> {
        Answer::later(self.get_extended(opcode::GETXATTR, Some(name)))
    }

    fn set_extended<'a>(&'a self, name: &'a [u8], value: Vec<u8>, mode: SetMode) -> Answer<'a, ()> {
        Answer::later(self.change_extended(name, Some((value, mode))))
    }

    fn remove_extended<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::later(self.change_extended(name, None))
    }

    fn list_extended(&self) -> Answer<'_, Vec<u8>> {
        Answer::later(self.get_extended(opcode::LISTXATTR, None))
    }

    fn open(self: Arc<Self>, flags: OpenFlags) -> Answer<'static, Arc<dyn FileOps>> {
        match self.kind {
            FileType::Regular | FileType::Directory => Answer::later(self.open_node(flags)),
            FileType::Symlink => Errno::ELOOP.into(),
            _ => Errno::ENXIO.into(),
        }
    }

    fn open_fifo(&self, flags: OpenFlags) -> Option<Answer<'static, Arc<dyn FileOps>>> {
        if self.kind != FileType::Fifo {
            return None;
        }
        // It is the guest's alone: on the host it is never opened.
        let pipe = {
            let mut known = self.pipe.lock();
            known.upgrade().unwrap_or_else(|| {
                let new = Arc::new(Pipe::default());
                *known = Arc::downgrade(&new);
                new
            })
        };
        Some(Answer::later(async move { pipe.open(flags).await }))
    }

    fn read_link(&self) -> Answer<'_, Vec<u8>> {
        if self.kind != FileType::Symlink {
            return Errno::EINVAL.into();
        }
        Answer::later(async {
            let mut call = Call::new(opcode::READLINK, Arguments::new(), 0);
            call.from_device = Some(room(PAGE_SIZE - 1)?);
            let target = contents(&self.fs.call(self.node, call).await?);
            match target.is_empty() || target.contains(&0) {
                true => Err(Errno::EIO),
                false => Ok(target),
            }
        })
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Answer<'a, Arc<dyn Inode>> {
        if self.kind != FileType::Directory {
            return Errno::ENOTDIR.into();
        }
        match self.known(name) {
            Some(Some(inode)) => Answer::ready(Ok(inode)),
            Some(None) => Errno::ENOENT.into(),
            None => Answer::later(self.look_up(name)),
        }
    }

    fn create<'a>(
        &'a self,
        name: &'a [u8],
        node: NewNode,
        mode: u32,
    ) -> Answer<'a, Arc<dyn Inode>> {
        Answer::later(async move {
            let made = self.make_node(name, &node, mode).await?;
            Ok(made as Arc<dyn Inode>)
        })
    }

    fn create_and_open<'a>(
        &'a self,
        name: &'a [u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Answer<'a, (Arc<dyn Inode>, Arc<dyn FileOps>)> {
        Answer::later(async move {
            let (inode, file) = self.make_file(name, mode, flags).await?;
            Ok((inode as Arc<dyn Inode>, file as Arc<dyn FileOps>))
        })
    }

    fn create_unnamed(&self, mode: u32, can_be_linked: bool) -> Answer<'_, Arc<dyn Inode>> {
        Answer::later(async move {
            let inode = self.make_unnamed(mode, can_be_linked).await?;
            Ok(inode as Arc<dyn Inode>)
        })
    }

    fn link<'a>(&'a self, name: &'a [u8], target: Arc<dyn Inode>) -> Answer<'a, ()> {
        Answer::later(async move { self.link_node(name, &*target).await })
    }

    fn unlink<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::later(self.remove(name, opcode::UNLINK))
    }

    fn remove_directory<'a>(&'a self, name: &'a [u8]) -> Answer<'a, ()> {
        Answer::later(self.remove(name, opcode::RMDIR))
    }

    fn rename<'a>(
        &'a self,
        name: &'a [u8],
        target: Arc<dyn Inode>,
        new_name: &'a [u8],
        mode: RenameMode,
    ) -> Answer<'a, ()> {
        Answer::later(async move { self.rename_node(name, &*target, new_name, mode).await })
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
