//! File descriptors: small numbers for open files.

use super::OpenFile;
use crate::error::{Errno, Result};
use crate::heap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use machine::lock::Mutex;

/// `RLIMIT_NOFILE` at the start: one more than the largest file descriptor.
pub const FD_LIMIT: u32 = 1024;
/// What the limit can be raised to.
pub const FD_LIMIT_MAX: u32 = 1 << 20;

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
pub struct FdTable(Mutex<Slots>);

impl Default for FdTable {
    fn default() -> Self {
        Self::new()
    }
}

impl FdTable {
    /// No file is open.
    pub fn new() -> Self {
        Self(Mutex::new(Slots {
            slots: Vec::new(),
            lowest: 0,
            limit: FD_LIMIT as usize,
        }))
    }

    /// Sets `RLIMIT_NOFILE`.
    pub fn set_limit(&self, limit: u32) {
        self.0.lock().limit = limit.min(FD_LIMIT_MAX) as usize;
    }

    /// `RLIMIT_NOFILE`.
    pub fn limit(&self) -> u32 {
        self.0.lock().limit as u32
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
        let table = self.0.lock();
        let slot = table.slots.get(index(fd)?).and_then(Option::as_ref);
        slot.map(|slot| slot.file.clone()).ok_or(Errno::EBADF)
    }

    /// Gives `file` the lowest free descriptor from `lowest` on.
    ///
    /// # Errors
    ///
    /// `EMFILE`; `EINVAL` if `lowest` is not below the limit; `ENOMEM`.
    pub fn insert(&self, file: Arc<OpenFile>, close_on_exec: bool, lowest: u32) -> Result<i32> {
        let mut table = self.0.lock();
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

    /// Whether there is a free descriptor: for those who have something to lose if there is none.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub fn check_free(&self) -> Result<()> {
        let table = self.0.lock();
        let is_full = table.slots.len() >= table.limit
            && table.slots[table.lowest.min(table.limit)..table.limit]
                .iter()
                .all(Option::is_some);
        match is_full {
            true => Err(Errno::EMFILE),
            false => Ok(()),
        }
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
        let mut table = self.0.lock();
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
        let mut table = self.0.lock();
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
        let table = self.0.lock();
        let slot = table.slots.get(index(fd)?).and_then(Option::as_ref);
        slot.map(|slot| slot.close_on_exec).ok_or(Errno::EBADF)
    }

    /// Sets whether `fd` is closed by `execve(2)`.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: i32, value: bool) -> Result<()> {
        let mut table = self.0.lock();
        let slot = table.slots.get_mut(index(fd)?).and_then(Option::as_mut);
        slot.ok_or(Errno::EBADF)?.close_on_exec = value;
        Ok(())
    }

    /// The descriptors of `range` that are open now, in order.
    pub fn open_in(&self, range: RangeInclusive<u32>) -> Vec<i32> {
        let table = self.0.lock();
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
