//! Registering files: the table whose indexes requests take in place of descriptors.

use super::{MAX_FILES, NONE, Registration, SKIP, element};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring::file::is_ring;
use crate::io_uring::resources::{FileTable, Tagged};
use crate::io_uring::ring::RingState;
use crate::process::Process;
use alloc::sync::Arc;
use linux_raw_sys::io_uring as raw;

/// A change of some places of the file table.
pub(in crate::io_uring) struct FilesUpdate {
    /// The first place.
    pub(in crate::io_uring) offset: u32,
    /// Places.
    pub(in crate::io_uring) count: u32,
    /// Where in memory the descriptors are.
    pub(in crate::io_uring) descriptors: u64,
    /// Where in memory the tags are; 0 if there are none.
    pub(in crate::io_uring) tags: u64,
}

/// The file that a descriptor stands for. Rings are refused: one that holds itself would never go.
fn file_to_register(process: &Process, fd: i32) -> Result<Arc<OpenFile>> {
    let file = process.files.get(fd)?;
    match is_ring(&file) {
        true => Err(Errno::EBADF),
        false => Ok(file),
    }
}

/// Tag `index` of those at `tags`, if there are some.
pub(super) fn read_tag(process: &Process, tags: u64, index: usize) -> Result<u64> {
    match tags {
        0 => Ok(0),
        tags => process.space.read_value(element::<u64>(tags, index)),
    }
}

impl Registration<'_> {
    /// Makes a table of `count` places, with the files that the descriptors at `list` stand for
    /// unless that is 0, and tags unless `tags` is.
    pub(super) fn register_files(&self, list: u64, tags: u64, count: u32) -> Result<u32> {
        if !self.ring.lock().resources.files.is_empty() {
            return Err(Errno::EBUSY);
        }
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if count > MAX_FILES.min(self.process.files.limit()) {
            return Err(Errno::EMFILE);
        }
        let mut files = FileTable::new(count)?;
        for index in 0..count {
            let tag = read_tag(self.process, tags, index as usize)?;
            let fd = match list {
                0 => NONE,
                list => self
                    .space()
                    .read_value(element::<i32>(list, index as usize))?,
            };
            if fd != NONE {
                let item = file_to_register(self.process, fd)?;
                files.set(index, Tagged { item, tag })?;
            } else if tag != 0 {
                return Err(Errno::EINVAL);
            }
        }
        files.set_allocatable(0..count);
        let mut state = self.ring.lock();
        if !state.resources.files.is_empty() {
            return Err(Errno::EBUSY);
        }
        state.resources.files = files;
        Ok(0)
    }

    /// Empties the table; its files are dropped without the ring's lock.
    pub(super) fn unregister_files(&self) -> Result<u32> {
        let mut dropped = alloc::vec::Vec::new();
        let mut state = self.ring.lock();
        if state.resources.files.is_empty() {
            return Err(Errno::ENXIO);
        }
        for file in core::mem::take(&mut state.resources.files).into_files() {
            dropped.push(file.item.clone());
            state.retire_file(Some(file));
        }
        state.settle();
        drop(state);
        Ok(0)
    }

    /// `IORING_REGISTER_FILE_ALLOC_RANGE`: which places are given to files without one of their own.
    pub(super) fn set_file_range(&self, argument: u64) -> Result<u32> {
        let range: raw::io_uring_file_index_range = self.space().read_value(argument)?;
        let end = range.off.checked_add(range.len).ok_or(Errno::EOVERFLOW)?;
        let mut state = self.ring.lock();
        let files = &mut state.resources.files;
        if range.resv != 0 || end > files.len() {
            return Err(Errno::EINVAL);
        }
        files.set_allocatable(range.off..end);
        Ok(0)
    }

    pub(super) fn update_files(&self, update: &FilesUpdate) -> Result<u32> {
        let mut state = self.ring.lock();
        let result = state.update_files(update, self.process);
        state.settle();
        result
    }
}

impl RingState {
    /// Changes places of the file table; gives how many. What was done before an error stays.
    ///
    /// # Errors
    ///
    /// `EOVERFLOW`, `ENXIO` if there is no table, `EINVAL` beyond it; `EFAULT`, `EBADF`.
    pub(in crate::io_uring) fn update_files(
        &mut self,
        update: &FilesUpdate,
        process: &Process,
    ) -> Result<u32> {
        let end = update.offset.checked_add(update.count);
        let end = end.ok_or(Errno::EOVERFLOW)?;
        if self.resources.files.is_empty() {
            return Err(Errno::ENXIO);
        }
        if end > self.resources.files.len() {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while done < update.count {
            match self.update_file(update, done, process) {
                Ok(()) => done += 1,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn update_file(&mut self, update: &FilesUpdate, index: u32, process: &Process) -> Result<()> {
        let tag = read_tag(process, update.tags, index as usize)?;
        let at = element::<i32>(update.descriptors, index as usize);
        let fd: i32 = process.space.read_value(at)?;
        if (fd == SKIP || fd == NONE) && tag != 0 {
            return Err(Errno::EINVAL);
        }
        if fd == SKIP {
            return Ok(());
        }
        let place = update.offset + index;
        // As on Linux, the place is empty even if no file comes to be there.
        let old = self.resources.files.remove(place);
        self.retire_file(old);
        if fd != NONE {
            let item = file_to_register(process, fd)?;
            self.resources.files.set(place, Tagged { item, tag })?;
        }
        Ok(())
    }
}
