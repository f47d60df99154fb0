//! What the object behind an open file description can do.

use super::{Answer, BoxFuture, Readiness, Stat, Terminal};
use crate::error::{Errno, Result};
use crate::io::{Direction, Io};
use crate::mm::{AddressSpace, PageSource};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::task::{Context, Poll};

/// An entry of a directory, as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The number of its inode.
    pub inode: u64,
    /// Its type (`DT_*`).
    pub kind: u8,
    /// The position at which listing goes on after this entry.
    pub next: u64,
}

/// What takes the entries of a directory: false if this one found no room and listing stops.
pub type DirectorySink<'a> = dyn FnMut(&DirEntry<'_>) -> bool + Send + 'a;

/// The object behind an open file description. Defaults suit an object that is not made of bytes.
pub trait FileOps: Any + Send + Sync {
    /// Advances a read or write. It gives the number of bytes done, which may be less than
    /// asked for and is 0 at the end of the file. It is polled again, with the same `io`, until
    /// it is ready, and never after that. It does not allocate for common files.
    ///
    /// `io.position` is `Some` if and only if the file [is seekable](Self::is_seekable). A file
    /// that appends sets it to where it wrote.
    ///
    /// # Errors
    ///
    /// Those of `read(2)` and `write(2)`.
    fn poll_io(&self, _io: &mut Io, _context: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Err(Errno::EINVAL))
    }

    /// The attributes of a file that was not opened by a path; those that were have an
    /// [`Inode`](super::Inode).
    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(Stat::anonymous()))
    }

    /// What it is, in one word, for those that have no path.
    fn kind(&self) -> &'static str {
        "file"
    }

    /// Whether it has positions.
    fn is_seekable(&self) -> bool {
        false
    }

    /// Whether `RWF_NOWAIT` means something.
    fn supports_nowait(&self) -> bool {
        true
    }

    /// Whether it takes positions without heeding them: its own is always 0, as that of
    /// `/dev/null`.
    fn ignores_position(&self) -> bool {
        false
    }

    /// Whether `lseek(2)` does nothing, though it has no positions.
    fn stays_at_start(&self) -> bool {
        false
    }

    /// Whether `sendfile(2)` and `splice(2)` take bytes out of it, or put them in.
    fn can_splice(&self, direction: Direction) -> bool {
        direction == Direction::Write || self.has_size() || !self.is_seekable()
    }

    /// The number of bytes in it, where `SEEK_END` counts from. `EINVAL` if it has no size.
    fn size(&self) -> Answer<'_, u64> {
        Errno::EINVAL.into()
    }

    /// Whether it has a [size](Self::size).
    fn has_size(&self) -> bool {
        false
    }

    /// Whether its size is given once and for all, so that no position lies beyond it.
    fn has_fixed_size(&self) -> bool {
        false
    }

    /// The first position not before `from` that is in a hole (`SEEK_HOLE`) or not (`SEEK_DATA`).
    /// The default is a file without holes.
    fn seek_hole(&self, from: u64, hole: bool) -> Answer<'_, u64> {
        self.size().and_then(move |size| match from < size {
            false => Err(Errno::ENXIO),
            true if hole => Ok(size),
            true => Ok(from),
        })
    }

    /// Makes what was written durable; `data_only` as `fdatasync(2)`. `EINVAL` if there is
    /// nothing that could be.
    fn sync(&self, _data_only: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(core::future::ready(Err(Errno::EINVAL)))
    }

    /// `ioctl(2)`. `ENOTTY` for a request that it does not know.
    fn ioctl<'a>(
        &'a self,
        _request: u32,
        _argument: u64,
        _space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(core::future::ready(Err(Errno::ENOTTY)))
    }

    /// The terminal that it is, if it is one that job control is about.
    fn terminal(self: Arc<Self>) -> Option<Arc<dyn Terminal>> {
        None
    }

    /// What a device opens if each time it is opened makes something new; `None` opens itself.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`.
    fn opened(&self) -> Option<Result<Arc<dyn FileOps>>> {
        None
    }

    /// What a mapping of it shows.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it cannot be mapped.
    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        Err(Errno::ENODEV)
    }

    /// Cuts it off or lengthens it with zeros.
    fn truncate(&self, _size: u64) -> Answer<'_, ()> {
        Errno::EINVAL.into()
    }

    /// `fallocate(2)`, with `FALLOC_FL_*` as `mode` and a range that is positive and does not
    /// overflow.
    fn allocate(&self, _mode: u32, _offset: u64, _length: u64) -> Answer<'_, ()> {
        Errno::ENODEV.into()
    }

    /// Lists the directory from `position` on (0, or a [`DirEntry::next`]), and gives the position
    /// after the last entry that `sink` took.
    fn read_dir<'a>(&'a self, _position: u64, _sink: &'a mut DirectorySink<'_>) -> Answer<'a, u64> {
        Errno::ENOTDIR.into()
    }

    /// What it is ready for now. If that has nothing of `interest` and nothing of
    /// [`Readiness::ALWAYS`], the task of `context` is woken when it may have.
    fn poll_ready(&self, _interest: Readiness, _context: &mut Context<'_>) -> Readiness {
        Readiness::READABLE | Readiness::WRITABLE
    }

    /// A file descriptor of it was closed, with others perhaps still open; `close(2)` returns the
    /// error: of a write that was put off.
    fn flush(&self) -> Answer<'_, ()> {
        Answer::ready(Ok(()))
    }

    /// Whether [`flush`](Self::flush) may take time.
    fn flushes(&self) -> bool {
        false
    }
}
