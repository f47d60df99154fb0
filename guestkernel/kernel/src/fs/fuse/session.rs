//! A file system that a device serves: how it is asked, and which of its nodes are known.

use super::inode::FuseInode;
use super::protocol::{self, Arguments, Attributes, Entry, Fields, Listed, Opened, init, opcode};
use super::protocol::{ATTRIBUTES, Found};
use crate::drivers::virtio_fs::{FsDevice, FsReply, FsRequest, FsTicket, Orphan};
use crate::error::{Errno, Result};
use crate::executor::{sleep_until, spawn};
use crate::file::{Answer, DeviceNumber, FileSystem, FileSystemInfo, next_device};
use crate::heap;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hashbrown::HashMap;
use machine::lock::Mutex;
use machine::{DmaSegments, Frame, PAGE_SIZE, Segment, clock};

/// FUSE's magic number (`FUSE_SUPER_MAGIC`).
const MAGIC: u64 = 0x6573_5546;
/// Bytes that one READ or WRITE asks for at most: what takes no more pieces of memory than a queue has.
const TRANSFER_MAX: u32 = 512 << 10;
/// Nodes that are forgotten at once.
const FORGET_AT_ONCE: usize = 128;
/// How long a node may be known to the server after it was forgotten here, in nanoseconds.
const FORGET_DELAY: u64 = 1_000_000_000;
/// Bytes of the heap that a name which is kept takes, with its node.
const ENTRY_COST: usize = 1024;
/// The share of the heap that names which are kept may take, one part in so many.
const ENTRIES_SHARE: usize = 6;
/// The most names that are kept: well below the nodes that the server allows.
const ENTRIES_MAX: usize = 1 << 18;

/// A request without its node.
pub(super) struct Call {
    pub(super) opcode: u32,
    pub(super) arguments: Arguments,
    pub(super) to_device: Option<DmaSegments>,
    pub(super) from_device: Option<DmaSegments>,
    /// Bytes of the reply before data.
    pub(super) reply: usize,
}

impl Call {
    /// A request without data.
    pub(super) fn new(opcode: u32, arguments: Arguments, reply: usize) -> Self {
        Self {
            opcode,
            arguments,
            to_device: None,
            from_device: None,
            reply,
        }
    }

    fn about(self, node: u64, has_reply: bool) -> FsRequest {
        FsRequest {
            opcode: self.opcode,
            node,
            owner: (0, 0),
            arguments: self.arguments.0,
            to_device: self.to_device,
            from_device: self.from_device,
            reply: has_reply.then_some(self.reply as u16),
        }
    }
}

/// A name that is kept, in the order in which they are given up.
type Kept = (Weak<FuseInode>, Box<[u8]>);

/// A file system.
pub(super) struct FuseFs {
    device: Arc<FsDevice>,
    number: DeviceNumber,
    me: Weak<Self>,
    nodes: Mutex<HashMap<u64, Weak<FuseInode>>>,
    kept: Mutex<VecDeque<Kept>>,
    forgets: Mutex<Vec<(u64, u64)>>,
    /// Whether somebody will send the forgets soon.
    is_forgetting: AtomicBool,
    /// Counts changes: attributes that were asked for before one do not count after it.
    version: AtomicU64,
    /// Bytes of one READ or WRITE.
    transfer: u32,
    root: Mutex<Weak<FuseInode>>,
}

impl FuseFs {
    /// Begins to use the device: the file system and its root.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not speak the protocol.
    pub(super) async fn start(device: Arc<FsDevice>) -> Result<(Arc<Self>, Arc<FuseInode>)> {
        let wanted = init::ASYNC_READ
            | init::BIG_WRITES
            | init::DONT_MASK
            | init::DO_READDIRPLUS
            | init::ASYNC_DIO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES
            | init::SUBMOUNTS;
        let arguments = Arguments::new()
            .u32(protocol::MAJOR)
            .u32(protocol::MINOR)
            .u32(TRANSFER_MAX)
            .u32(wanted);
        // `flags2` and what is unused.
        let arguments = (0..12).fold(arguments, |arguments, _| arguments.u32(0));
        let call = Call::new(opcode::INIT, arguments, 64);
        let reply = device.submit(call.about(0, true)).await?;
        let mut fields = Fields::new(&reply.fixed);
        let (major, minor) = (fields.u32()?, fields.u32()?);
        if major != protocol::MAJOR || minor < protocol::MINOR_MIN {
            log::error!("virtio-fs: the device speaks version {major}.{minor}");
            return Err(Errno::EIO);
        }
        fields.bytes(4 + 4 + 4)?;
        let max_write = fields.u32()?;
        // A page less than fits, since a buffer need not begin with one.
        let pieces = device.pieces().saturating_sub(1).max(1) * PAGE_SIZE;
        let transfer = max_write.min(TRANSFER_MAX).min(pieces as u32);
        let fs = Arc::new_cyclic(|me| Self {
            device,
            number: next_device(),
            me: me.clone(),
            nodes: Mutex::default(),
            kept: Mutex::default(),
            forgets: Mutex::default(),
            is_forgetting: AtomicBool::new(false),
            version: AtomicU64::new(1),
            transfer: transfer.max(PAGE_SIZE as u32),
            root: Mutex::default(),
        });
        let arguments = Arguments::new().u32(0).u32(0).u64(0);
        let call = Call::new(opcode::GETATTR, arguments, ATTRIBUTES);
        let reply = fs.call(protocol::ROOT, call).await?;
        let attributes = Attributes::of_reply(&reply.fixed)?;
        let root = FuseInode::root(fs.clone(), &attributes);
        *fs.root.lock() = Arc::downgrade(&root);
        Ok((fs, root))
    }

    /// The root, while it is in use.
    pub(super) fn root(&self) -> Option<Arc<FuseInode>> {
        self.root.lock().upgrade()
    }

    /// The number of the file system's device.
    pub(super) fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Bytes of one READ or WRITE at most.
    pub(super) fn transfer(&self) -> usize {
        self.transfer as usize
    }

    /// Pieces of memory that a request's data may be in.
    pub(super) fn pieces(&self) -> usize {
        self.device.pieces()
    }

    /// Asks the server about `node`.
    pub(super) fn submit(&self, node: u64, call: Call) -> FsTicket {
        self.device.submit(call.about(node, true))
    }

    /// Asks the server about `node`, and waits for the reply.
    ///
    /// # Errors
    ///
    /// Those of the server; `EIO`.
    pub(super) async fn call(&self, node: u64, call: Call) -> Result<FsReply> {
        self.submit(node, call).await
    }

    /// Tells the server something of which nobody waits to hear.
    pub(super) fn tell(&self, node: u64, call: Call) {
        self.device.tell(call.about(node, true));
    }

    /// A number for something that changes attributes, larger than all before.
    pub(super) fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of the last change, to be taken before attributes are asked for.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// The inode of `entry`, which the server has just given as `name` in `directory`. `version` was
    /// taken when it was asked.
    ///
    /// # Errors
    ///
    /// `EIO` if a node has changed its type, `ENOMEM`; the node is forgotten then.
    pub(super) fn adopt(
        self: &Arc<Self>,
        entry: &Entry,
        directory: &Arc<FuseInode>,
        name: &[u8],
        version: u64,
    ) -> Result<Arc<FuseInode>> {
        let found = {
            let mut nodes = self.nodes.lock();
            match nodes.get(&entry.node).and_then(Weak::upgrade) {
                Some(inode) => Ok(inode),
                None => heap::check(ENTRY_COST).map(|()| {
                    let inode = FuseInode::new(self.clone(), entry, directory);
                    nodes.insert(entry.node, Arc::downgrade(&inode));
                    inode
                }),
            }
        };
        let found = found.and_then(|inode| match inode.kind() == entry.attributes.kind {
            true => Ok(inode),
            false => Err(Errno::EIO),
        });
        match &found {
            Ok(inode) => {
                inode.note_lookup();
                inode.set_place(directory, name);
                inode.update(&entry.attributes, version);
            }
            Err(_) => self.forget(entry.node, 1),
        }
        found
    }

    /// A node's inode is gone, which was looked up `count` times.
    pub(super) fn gone(&self, inode: *const FuseInode, node: u64, count: u64) {
        {
            let mut nodes = self.nodes.lock();
            if nodes
                .get(&node)
                .is_some_and(|known| known.as_ptr() == inode)
            {
                nodes.remove(&node);
            }
        }
        if count > 0 && node != protocol::ROOT {
            self.forget(node, count);
        }
    }

    /// Gives back look-ups of a node, soon.
    pub(super) fn forget(&self, node: u64, count: u64) {
        let is_many = {
            let mut forgets = self.forgets.lock();
            forgets.push((node, count));
            forgets.len() >= FORGET_AT_ONCE
        };
        if is_many {
            self.send_forgets();
        } else if !self.is_forgetting.swap(true, Ordering::Relaxed) {
            let fs = self.me.clone();
            spawn("fuse-forget", async move {
                sleep_until(clock::monotonic() + FORGET_DELAY).await;
                if let Some(fs) = fs.upgrade() {
                    fs.is_forgetting.store(false, Ordering::Relaxed);
                    fs.send_forgets();
                }
            });
        }
    }

    fn send_forgets(&self) {
        let forgets = core::mem::take(&mut *self.forgets.lock());
        for part in forgets.chunks(FORGET_AT_ONCE) {
            tell_forgets(&self.device, part);
        }
    }

    /// Keeps `name` of `directory` in mind to be given up when there are too many.
    pub(super) fn note_kept(&self, directory: &Arc<FuseInode>, name: &[u8]) {
        let heap = machine::heap_use();
        let most = (heap.total / ENTRIES_SHARE / ENTRY_COST).min(ENTRIES_MAX);
        let kept = (Arc::downgrade(directory), name.into());
        let mut old: Vec<Kept> = Vec::new();
        {
            let mut all = self.kept.lock();
            all.push_back(kept);
            // At most two for each that comes, so that nobody waits for long.
            let is_scarce = heap.free < heap.total / 4;
            while old.len() < 2
                && (all.len() > most || is_scarce && all.len() > 64)
                && let Some(first) = all.pop_front()
            {
                old.push(first);
            }
        }
        for (directory, name) in old {
            let Some(inode) = directory.upgrade() else {
                continue;
            };
            if inode.give_up(&name) {
                self.kept.lock().push_back((directory, name));
            }
        }
    }

    /// Writes back what programs have changed in mappings.
    async fn write_back_all(&self) {
        let changed = |inode: &Arc<FuseInode>| {
            let contents = inode.contents_if_any();
            contents.is_some_and(|contents| contents.pages.dirty() > 0)
        };
        let all: Vec<_> = {
            let nodes = self.nodes.lock();
            nodes.values().filter_map(Weak::upgrade).collect()
        };
        for inode in all {
            if changed(&inode) {
                inode.write_back(0, u64::MAX).await;
            }
        }
    }

    /// Gives up all names that are kept.
    fn give_up_all(&self) {
        let all = core::mem::take(&mut *self.kept.lock());
        for (directory, name) in all {
            if let Some(inode) = directory.upgrade()
                && inode.give_up(&name)
            {
                inode.give_up(&name);
            }
        }
    }
}

impl Drop for FuseFs {
    fn drop(&mut self) {
        self.send_forgets();
    }
}

/// Tells the device that nodes were forgotten.
fn tell_forgets(device: &FsDevice, forgets: &[(u64, u64)]) {
    let request = |opcode, node, arguments| Call::new(opcode, arguments, 0).about(node, false);
    match forgets {
        [] => {}
        [(node, count)] => {
            device.tell_urgently(request(opcode::FORGET, *node, Arguments::new().u64(*count)));
        }
        all => {
            let arguments = Arguments::new().u32(all.len() as u32).u32(0);
            let arguments = all.iter().fold(arguments, |arguments, (node, count)| {
                arguments.u64(*node).u64(*count)
            });
            device.tell_urgently(request(opcode::BATCH_FORGET, 0, arguments));
        }
    }
}

/// Gives back what a reply has brought that nobody waits for any more.
pub(super) fn give_back(device: &FsDevice, orphan: &Orphan) {
    let fixed = &orphan.reply.fixed;
    let forget = |bytes: &[u8]| {
        if let Ok(Found::Entry(entry)) = Found::of_reply(bytes) {
            tell_forgets(device, &[(entry.node, 1)]);
        }
    };
    let release = |bytes: &[u8], opcode| {
        if let Ok(Opened { fh, .. }) = Opened::of_reply(bytes) {
            let call = Call::new(opcode, release_arguments(fh, 0), 0);
            device.tell(call.about(protocol::ROOT, true));
        }
    };
    match orphan.opcode {
        opcode::LOOKUP | opcode::MKNOD | opcode::MKDIR | opcode::SYMLINK | opcode::LINK => {
            forget(fixed);
        }
        opcode::CREATE | opcode::TMPFILE => {
            release(
                fixed.get(protocol::ENTRY..).unwrap_or_default(),
                opcode::RELEASE,
            );
            forget(fixed);
        }
        opcode::OPEN => release(fixed, opcode::RELEASE),
        opcode::OPENDIR => release(fixed, opcode::RELEASEDIR),
        opcode::READDIRPLUS => {
            let bytes = contents(&orphan.reply);
            let mut rest = &bytes[..];
            while let Ok(Some(listed)) = Listed::first(rest) {
                if let Some(entry) = listed.entry {
                    tell_forgets(device, &[(entry.node, 1)]);
                }
                rest = &rest[listed.length..];
            }
        }
        _ => {}
    }
}

/// The arguments of RELEASE and RELEASEDIR.
pub(super) fn release_arguments(fh: u64, flags: u32) -> Arguments {
    Arguments::new().u64(fh).u32(flags).u32(0).u64(0)
}

/// Memory for `length` bytes of a reply.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn room(length: usize) -> Result<DmaSegments> {
    let mut segments = smallvec::SmallVec::new();
    let mut left = length;
    while left > 0 {
        let here = left.min(PAGE_SIZE);
        segments.extend(Segment::new(Frame::uninitialised()?, 0, here));
        left -= here;
    }
    Ok(DmaSegments::Own(segments))
}

/// The data of a reply, as far as the server has written them.
pub(super) fn contents(reply: &FsReply) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(DmaSegments::Own(segments)) = &reply.data {
        let mut left = reply.length;
        for segment in segments {
            let here = segment.len().min(left);
            let at = bytes.len();
            bytes.resize(at + here, 0);
            segment.frame().read(segment.offset(), &mut bytes[at..]);
            left -= here;
        }
    }
    bytes
}

impl FileSystem for FuseFs {
    fn device(&self) -> DeviceNumber {
        self.number
    }

    fn info(&self) -> Answer<'_, FileSystemInfo> {
        Answer::later(async {
            let call = Call::new(opcode::STATFS, Arguments::new(), 80);
            let reply = self.call(protocol::ROOT, call).await?;
            let mut fields = Fields::new(&reply.fixed);
            let (blocks, _, free_blocks) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let (files, free_files) = (fields.u64()?, fields.u64()?);
            let (_, name_length, block_size) = (fields.u32()?, fields.u32()?, fields.u32()?);
            Ok(FileSystemInfo {
                magic: MAGIC,
                block_size: block_size.max(512).into(),
                blocks,
                free_blocks,
                files,
                free_files,
                id: self.number.encode(),
                name_length: name_length.into(),
            })
        })
    }

    fn sync(&self) -> Answer<'_, ()> {
        Answer::later(async {
            self.write_back_all().await;
            let call = Call::new(opcode::SYNCFS, Arguments::new().u64(0), 0);
            match self.call(protocol::ROOT, call).await {
                Ok(_) | Err(Errno::ENOSYS) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn write_back(&self) -> Answer<'_, ()> {
        Answer::later(async {
            self.write_back_all().await;
            Ok(())
        })
    }

    fn shut_down(&self) {
        self.give_up_all();
    }
}
