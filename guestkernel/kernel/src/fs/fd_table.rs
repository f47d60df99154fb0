//! File descriptors: small numbers for open files.

use super::OpenFile;
use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::file::locks;
use crate::heap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU32, Ordering};
use machine::lock::Mutex;

/// `RLIMIT_NOFILE` at the start: one more than the largest file descriptor.
pub const FD_LIMIT: u32 = 1024;
/// What the limit can be raised to.
pub const FD_LIMIT_MAX: u32 = 1 << 20;
/// The number of the first process.
const FIRST_OWNER: u32 = 1;

#[derive(Clone)]
struct DescriptorSlot {
    file: Arc<OpenFile>,
    close_on_exec: bool,
}

struct Slots {
    /// By file descriptor.
    slots: Vec<Option<DescriptorSlot>>,
    /// No descriptor below this one is free.
    lowest: usize,
    limit: usize,
}

/// The file descriptors of a process.
pub struct FdTable {
    slots: Mutex<Slots>,
    /// Threads that use it.
    users: AtomicU32,
    /// The process that owns its locks on ranges of files.
    owner: AtomicU32,
}

impl Default for FdTable {
    fn default() -> Self {
        Self::new()
    }
}

impl FdTable {
    /// No file is open.
    pub fn new() -> Self {
        Self::with(Slots {
            slots: Vec::new(),
            lowest: 0,
            limit: FD_LIMIT as usize,
        })
    }

    fn with(slots: Slots) -> Self {
        Self {
            slots: Mutex::new(slots),
            users: AtomicU32::new(1),
            owner: AtomicU32::new(FIRST_OWNER),
        }
    }

    /// The process that owns its locks on ranges of files.
    pub fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }

    /// Says that.
    pub fn set_owner(&self, pid: u32) {
        self.owner.store(pid, Ordering::Relaxed);
    }

    /// The same files by the same descriptors, for one thread of the process `owner`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn copy(&self, owner: u32) -> Result<Self> {
        let table = self.slots.lock();
        // The last that is open: what was closed behind it takes no room.
        let length = table.slots.iter().rposition(Option::is_some);
        let length = length.map_or(0, |last| last + 1);
        heap::check(length * size_of::<Option<DescriptorSlot>>())?;
        let copy = Self::with(Slots {
            slots: table.slots[..length].to_vec(),
            lowest: table.lowest,
            limit: table.limit,
        });
        copy.set_owner(owner);
        Ok(copy)
    }

    /// One more thread uses it.
    pub(crate) fn enter(&self) {
        self.users.fetch_add(1, Ordering::Relaxed);
    }

    /// A thread that was to use it was not made.
    pub(crate) fn leave_unused(&self) {
        self.users.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether other threads than one use it.
    pub(crate) fn is_shared(&self) -> bool {
        self.users.load(Ordering::Relaxed) > 1
    }

    /// A thread uses it no longer. The last one closes all files; nobody hears of errors.
    pub(crate) async fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close_where(|_| true).await;
        }
    }

    /// Closes what `execve(2)` closes.
    pub(crate) async fn close_for_exec(&self) {
        self.close_where(|slot| slot.close_on_exec).await;
    }

    async fn close_where(&self, is_closed: impl Fn(&DescriptorSlot) -> bool) {
        let mut stint = Stint::default();
        let mut fd = 0;
        loop {
            let closed = {
                let mut table = self.slots.lock();
                let rest = table.slots.iter_mut().enumerate().skip(fd);
                let mut wanted = rest.filter(|(_, slot)| slot.as_ref().is_some_and(&is_closed));
                let Some((found, slot)) = wanted.next() else {
                    return;
                };
                fd = found;
                let closed = slot.take();
                table.lowest = table.lowest.min(fd);
                closed
            };
            if let Some(DescriptorSlot { file, .. }) = closed {
                locks::release_process(&file, self.owner());
                // Whoever has put off a write is not there any more to hear that it has failed.
                let _ = file.ops.flush().await;
            }
            stint.give_way().await;
        }
    }

    /// Sets `RLIMIT_NOFILE`.
    pub fn set_limit(&self, limit: u32) {
        self.slots.lock().limit = limit.min(FD_LIMIT_MAX) as usize;
    }

    /// `RLIMIT_NOFILE`.
    pub fn limit(&self) -> u32 {
        self.slots.lock().limit as u32
    }

    /// The open file, unless it was opened with `O_PATH`.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let file = self.get_any(fd)?;
        match file.is_path_only() {
            true => Err(Errno::EBADF),
            false => Ok(file),
        }
    }

    /// The open file, however it was opened: for operations that name a file.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub fn get_any(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let table = self.slots.lock();
        let slot = table.slots.get(index(fd)?).and_then(Option::as_ref);
        slot.map(|slot| slot.file.clone()).ok_or(Errno::EBADF)
    }

    /// Gives `file` the lowest free descriptor from `lowest` on.
    ///
    /// # Errors
    ///
    /// `EMFILE`; `EINVAL` if `lowest` is not below the limit; `ENOMEM`.
    pub fn insert(&self, file: Arc<OpenFile>, close_on_exec: bool, lowest: u32) -> Result<i32> {
        let mut table = self.slots.lock();
        let lowest = lowest as usize;
        if lowest > 0 && lowest >= table.limit {
            return Err(Errno::EINVAL);
        }
        let start = lowest.max(table.lowest);
        let fd = (start..table.slots.len())
            .find(|fd| table.slots[*fd].is_none())
            .unwrap_or(start.max(table.slots.len()));
        if fd >= table.limit {
            return Err(Errno::EMFILE);
        }
        table.make_room(fd)?;
        if start == table.lowest {
            table.lowest = fd + 1;
        }
        let slot = DescriptorSlot {
            file,
            close_on_exec,
        };
        table.slots[fd] = Some(slot);
        Ok(fd as i32)
    }

    /// Gives `file` the descriptor `fd`, and returns what it was before.
    ///
    /// # Errors
    ///
    /// `EBADF` if `fd` is beyond the limit; `ENOMEM`.
    pub fn replace(
        &self,
        file: Arc<OpenFile>,
        close_on_exec: bool,
        fd: i32,
    ) -> Result<Option<Arc<OpenFile>>> {
        let mut table = self.slots.lock();
        let fd = index(fd)?;
        if fd >= table.limit {
            return Err(Errno::EBADF);
        }
        table.make_room(fd)?;
        let old = table.slots[fd].replace(DescriptorSlot {
            file,
            close_on_exec,
        });
        Ok(old.map(|slot| slot.file))
    }

    /// Frees a descriptor. The caller calls [`FileOps::flush`](super::FileOps::flush), and drops
    /// the file.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn close(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let closed = self.close_if(fd, |_| true)?;
        closed.ok_or(Errno::EBADF)
    }

    /// As [`close`](Self::close), if `condition` says so of the file.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn close_if(
        &self,
        fd: i32,
        condition: impl FnOnce(&OpenFile) -> bool,
    ) -> Result<Option<Arc<OpenFile>>> {
        let mut table = self.slots.lock();
        let fd = index(fd)?;
        let slot = table.slots.get_mut(fd).ok_or(Errno::EBADF)?;
        let file = &slot.as_ref().ok_or(Errno::EBADF)?.file;
        if !condition(file) {
            return Ok(None);
        }
        let closed = slot.take();
        table.lowest = table.lowest.min(fd);
        Ok(closed.map(|slot| slot.file))
    }

    /// Whether `fd` is closed by `execve(2)`.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn close_on_exec(&self, fd: i32) -> Result<bool> {
        let table = self.slots.lock();
        let slot = table.slots.get(index(fd)?).and_then(Option::as_ref);
        slot.map(|slot| slot.close_on_exec).ok_or(Errno::EBADF)
    }

    /// Sets whether `fd` is closed by `execve(2)`.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: i32, value: bool) -> Result<()> {
        let mut table = self.slots.lock();
        let slot = table.slots.get_mut(index(fd)?).and_then(Option::as_mut);
        slot.ok_or(Errno::EBADF)?.close_on_exec = value;
        Ok(())
    }

    /// The descriptors of `range` that are open now, in order.
    pub fn open_in(&self, range: RangeInclusive<u32>) -> Vec<i32> {
        let table = self.slots.lock();
        let end = (*range.end() as usize)
            .saturating_add(1)
            .min(table.slots.len());
        (*range.start() as usize..end)
            .filter(|fd| table.slots[*fd].is_some())
            .map(|fd| fd as i32)
            .collect()
    }
}

impl Slots {
    /// Sees to it that there is a slot for `fd`, and memory for a file in it.
    fn make_room(&mut self, fd: usize) -> Result<()> {
        let more = (fd + 1).saturating_sub(self.slots.len());
        // Growing copies the table.
        let table = match more {
            0 => 0,
            _ => 2 * (fd + 1) * size_of::<Option<DescriptorSlot>>(),
        };
        heap::check(table + size_of::<OpenFile>())?;
        self.slots.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        if more > 0 {
            self.slots.resize_with(fd + 1, || None);
        }
        Ok(())
    }
}

fn index(fd: i32) -> Result<usize> {
    usize::try_from(fd).map_err(|_| Errno::EBADF)
}
