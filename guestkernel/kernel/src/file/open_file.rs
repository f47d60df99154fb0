//! Open file descriptions.

use super::{
    FileOps, FileSystemInfo, FileType, Inode, Location, OpenFlags, Place, Stat, WriteAccess, locks,
};
use crate::error::{Errno, Result};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use core::task::{Context, Poll, ready};
use linux_raw_sys::general as raw;

/// An open file description: what descriptors, and io_uring's file tables, refer to.
pub struct OpenFile {
    /// The object that does the work.
    pub ops: Arc<dyn FileOps>,
    /// The file in its file system, if it is in one, and how it was reached.
    place: Option<Place>,
    /// Held while it may be written.
    _writing: Option<WriteAccess>,
    flags: AtomicU32,
    position: AtomicU64,
    has_locks: AtomicBool,
    /// Who would be told of readiness, by which signal: `F_SETOWN`, `F_SETSIG`.
    owner: AtomicI32,
    owner_signal: AtomicU8,
    /// `F_SET_RW_HINT`.
    write_hint: AtomicU64,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if *self.has_locks.get_mut() {
            locks::release_description(self);
        }
    }
}

impl OpenFile {
    /// A file that has no path.
    pub fn new(ops: Arc<dyn FileOps>, flags: OpenFlags) -> Arc<Self> {
        Self::assemble(ops, flags, None, None)
    }

    /// A file of a file system.
    ///
    /// # Errors
    ///
    /// `ETXTBSY` if it may be written and is a program that runs.
    pub fn with_place(ops: Arc<dyn FileOps>, flags: OpenFlags, place: Place) -> Result<Arc<Self>> {
        let inode = &place.location.inode;
        let is_written = flags.can_write() && inode.file_type() == FileType::Regular;
        let writing = is_written.then(|| WriteAccess::new(inode.clone()));
        Ok(Self::assemble(
            ops,
            flags,
            Some(place),
            writing.transpose()?,
        ))
    }

    fn assemble(
        ops: Arc<dyn FileOps>,
        flags: OpenFlags,
        place: Option<Place>,
        writing: Option<WriteAccess>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ops,
            place,
            _writing: writing,
            flags: AtomicU32::new(flags.bits()),
            position: AtomicU64::new(0),
            has_locks: AtomicBool::new(false),
            owner: AtomicI32::new(0),
            owner_signal: AtomicU8::new(0),
            write_hint: AtomicU64::new(0),
        })
    }

    /// The file in its file system, if it is in one, and how it was reached.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The same without the name.
    pub fn location(&self) -> Option<&Location> {
        self.place.as_ref().map(|place| &place.location)
    }

    /// The file in its file system, if it is in one.
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.location().map(|location| &location.inode)
    }

    /// How it was opened, and what `fcntl(2)` changed.
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Sets the flags among [`OpenFlags::CHANGEABLE`].
    pub fn set_flags(&self, flags: OpenFlags) {
        let kept = self.flags() - OpenFlags::CHANGEABLE;
        let new = kept | flags & OpenFlags::CHANGEABLE;
        self.flags.store(new.bits(), Ordering::Relaxed);
    }

    /// Where the next read or write without a position starts.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Sets the position.
    pub fn set_position(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// Whether it was only named, not opened (`O_PATH`).
    pub fn is_path_only(&self) -> bool {
        self.flags().contains(OpenFlags::PATH)
    }

    /// Who would be told of readiness, a process or, negated, a group, and by which signal.
    pub fn owner(&self) -> (i32, u8) {
        (
            self.owner.load(Ordering::Relaxed),
            self.owner_signal.load(Ordering::Relaxed),
        )
    }

    /// Sets who would be told of readiness.
    pub fn set_owner(&self, owner: i32) {
        self.owner.store(owner, Ordering::Relaxed);
    }

    /// Sets by which signal.
    pub fn set_owner_signal(&self, signal: u8) {
        self.owner_signal.store(signal, Ordering::Relaxed);
    }

    /// How long what is written will live (`RWH_*`).
    pub fn write_hint(&self) -> u64 {
        self.write_hint.load(Ordering::Relaxed)
    }

    /// Notes how long what is written will live.
    pub fn set_write_hint(&self, hint: u64) {
        self.write_hint.store(hint, Ordering::Relaxed);
    }

    /// Locks belong to it now, and end with it.
    pub(super) fn note_lock(&self) {
        self.has_locks.store(true, Ordering::Relaxed);
    }

    pub(crate) fn file_type(&self) -> Option<FileType> {
        self.inode().map(|inode| inode.file_type())
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.file_type() == Some(FileType::Directory)
    }

    /// Whether it is a regular file.
    pub fn is_regular(&self) -> bool {
        self.file_type() == Some(FileType::Regular)
    }

    /// Whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.file_type() == Some(FileType::BlockDevice)
    }

    /// Whether it can be accessed without the kernel's own memory in between (`O_DIRECT`).
    pub fn supports_direct(&self) -> bool {
        let kind = self.file_type();
        matches!(kind, Some(FileType::Regular | FileType::BlockDevice))
    }

    /// Checks that it was opened for that.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub fn check_direction(&self, direction: Direction) -> Result<()> {
        let flags = self.flags();
        let is_allowed = match direction {
            Direction::Read => flags.can_read(),
            Direction::Write => flags.can_write(),
        };
        match is_allowed {
            true => Ok(()),
            false => Err(Errno::EBADF),
        }
    }

    /// Moves the position: `lseek(2)`.
    ///
    /// # Errors
    ///
    /// Those of the system call.
    pub async fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        if whence > raw::SEEK_MAX {
            return Err(Errno::EINVAL);
        }
        if self.ops.stays_at_start() || self.ops.ignores_position() {
            return Ok(0);
        }
        if !self.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        let base = match whence {
            raw::SEEK_SET => 0,
            raw::SEEK_CUR => self.position() as i64,
            raw::SEEK_END => self.ops.size().await? as i64,
            _ => {
                let size = self.ops.size().await?;
                let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                if from >= size {
                    return Err(Errno::ENXIO);
                }
                let position = self.ops.seek_hole(from, whence == raw::SEEK_HOLE).await?;
                self.set_position(position);
                return Ok(position);
            }
        };
        let position = base.checked_add(offset).ok_or(Errno::EINVAL)?;
        let position = u64::try_from(position).map_err(|_| Errno::EINVAL)?;
        if self.ops.has_fixed_size() && position > self.ops.size().await? {
            return Err(Errno::EINVAL);
        }
        self.set_position(position);
        Ok(position)
    }

    /// The numbers of the file system that it is in.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub async fn file_system(&self) -> Result<FileSystemInfo> {
        match self.location() {
            _ if let Some(magic) = self.ops.file_system_magic() => Ok(FileSystemInfo {
                magic,
                block_size: 4096,
                name_length: 255,
                ..FileSystemInfo::default()
            }),
            Some(location) => location.mount.super_block.fs.info().await,
            None => Ok(FileSystemInfo {
                magic: raw::ANON_INODE_FS_MAGIC.into(),
                block_size: 4096,
                name_length: 255,
                ..FileSystemInfo::default()
            }),
        }
    }

    /// Its attributes.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub async fn stat(&self) -> Result<Stat> {
        match self.inode() {
            Some(inode) => inode.stat().await,
            None => self.ops.stat().await,
        }
    }

    /// Advances a read or write until it is ready: what `read(2)` and `IORING_OP_READ` both do.
    /// Without a position in `io`, a file that has positions uses its own and moves it.
    ///
    /// # Errors
    ///
    /// `EBADF` if the file was not opened for that, `EINVAL` if the range overflows, and those of
    /// the file.
    #[inline]
    pub fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        if !io.flags.contains(IoFlags::STARTED)
            && let Err(error) = self.start_io(io)
        {
            return Poll::Ready(Err(error));
        }
        if io.is_absent() {
            ready!(io.poll_absent(context))?;
        }
        let mut result = self.ops.poll_io(io, context);
        loop {
            match result {
                Poll::Ready(Err(Errno::ABSENT)) => ready!(io.poll_absent(context))?,
                Poll::Ready(Err(Errno::GIVE_WAY)) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                _ => break,
            }
            result = self.ops.poll_io(io, context);
        }
        if io.flags.contains(IoFlags::OWN_POSITION)
            && let (Poll::Ready(Ok(count)), Some(start)) = (&result, io.position)
            && !is_retried(io, *count)
        {
            self.set_position(start + *count as u64);
        }
        result
    }

    /// Checks what the file was opened for and fills in what its flags imply.
    fn start_io(&self, io: &mut Io) -> Result<()> {
        self.check_direction(io.direction)?;
        let flags = self.flags();
        io.flags |= IoFlags::STARTED;
        if self.ops.is_seekable() {
            if io.position.is_none() {
                io.position = Some(self.position());
                io.flags
                    .set(IoFlags::OWN_POSITION, !self.ops.ignores_position());
            }
            let end = io
                .position
                .and_then(|start| start.checked_add(io.buffer.len() as u64));
            if end.is_none_or(|end| end > i64::MAX as u64) {
                return Err(Errno::EINVAL);
            }
        } else {
            // A position that a ring gives is looked at, and not used.
            let length = io.buffer.len() as u64;
            let end = io.position.map(|start| start.saturating_add(length));
            if end.is_some_and(|end| end > i64::MAX as u64) {
                return Err(Errno::EINVAL);
            }
            io.position = None;
            let is_patient = io.flags.contains(IoFlags::PATIENT) && self.ops.supports_nowait();
            if flags.contains(OpenFlags::NONBLOCK) {
                io.flags |= match is_patient {
                    true => IoFlags::ONLY_FOR_READINESS,
                    false => IoFlags::NOWAIT,
                };
            }
        }
        if flags.contains(OpenFlags::DIRECT) {
            io.flags |= IoFlags::DIRECT;
        }
        if io.direction == Direction::Write {
            if flags.contains(OpenFlags::APPEND) && !io.flags.contains(IoFlags::NO_APPEND) {
                io.flags |= IoFlags::APPEND;
            }
            if flags.contains(OpenFlags::SYNC) {
                io.flags |= IoFlags::SYNC;
            } else if flags.contains(OpenFlags::DATA_SYNC) {
                io.flags |= IoFlags::DATA_SYNC;
            }
        }
        Ok(())
    }

    /// Does all of a read or write.
    ///
    /// # Errors
    ///
    /// Those of [`poll_io`](Self::poll_io).
    pub async fn complete(&self, io: &mut Io) -> Result<usize> {
        core::future::poll_fn(|context| self.poll_io(io, context)).await
    }
}

/// Whether it is a ring's write that was cut short: as on Linux, where the rest is tried again and
/// fails, it leaves the position alone.
fn is_retried(io: &Io, count: usize) -> bool {
    io.direction == Direction::Write
        && io.flags.contains(IoFlags::PATIENT)
        && count < io.buffer.len()
}

/// All bytes of a file, for the kernel's own use.
///
/// # Errors
///
/// Those of reading; `EFBIG` if it does not fit in memory.
pub async fn read_all(file: &OpenFile) -> Result<Vec<u8>> {
    let size = usize::try_from(file.ops.size().await?).map_err(|_| Errno::EFBIG)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| Errno::EFBIG)?;
    bytes.resize(size, 0);
    let mut io = Io::new(
        Direction::Read,
        Some(0),
        IoBuffer::Kernel(bytes),
        IoFlags::empty(),
    );
    let count = file.complete(&mut io).await?;
    let IoBuffer::Kernel(mut bytes) = io.buffer else {
        return Err(Errno::EFAULT);
    };
    bytes.truncate(count);
    Ok(bytes)
}
