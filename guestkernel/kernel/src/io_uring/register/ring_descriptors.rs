//! Rings that a thread has registered, to name them by an index (`IORING_REGISTER_RING_FDS`).

use super::element;
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring::file::is_ring;
use crate::process::{Process, RegisteredFiles};
use alloc::sync::Arc;
use linux_raw_sys::io_uring as raw;

/// The most that a thread registers.
pub(in crate::io_uring) const MOST: usize = 16;
/// Any index that is free.
const ANY: u32 = u32::MAX;

/// The rings that a thread has registered.
pub(in crate::io_uring) struct Rings<'a>(pub(in crate::io_uring) &'a mut RegisteredFiles);

/// The ring at an index.
///
/// # Errors
///
/// `EINVAL` beyond the table, `EBADF` if there is none.
#[inline]
pub(in crate::io_uring) fn registered_ring(
    rings: &RegisteredFiles,
    index: u32,
) -> Result<&Arc<OpenFile>> {
    if index as usize >= MOST {
        return Err(Errno::EINVAL);
    }
    let place = rings.get(index as usize).and_then(Option::as_ref);
    place.ok_or(Errno::EBADF)
}

impl Rings<'_> {
    /// The ring at an index.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the table, `EBADF` if there is none.
    pub(super) fn get(&self, index: u32) -> Result<&Arc<OpenFile>> {
        registered_ring(self.0, index)
    }

    /// Registers the ring `file` at an index of `range`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if none is free.
    pub(in crate::io_uring) fn add(
        &mut self,
        file: Arc<OpenFile>,
        mut range: core::ops::Range<usize>,
    ) -> Result<u32> {
        if self.0.len() < MOST {
            self.0.resize_with(MOST, || None);
        }
        let free = range.find(|index| self.0[*index].is_none());
        let free = free.ok_or(Errno::EBUSY)?;
        self.0[free] = Some(file);
        Ok(free as u32)
    }

    /// Does `each` with so many `struct io_uring_rsrc_update`; gives how many it was done with.
    fn for_each(
        &mut self,
        process: &Process,
        (argument, count): (u64, u32),
        each: impl Fn(&mut Self, u64, raw::io_uring_rsrc_update) -> Result<()>,
    ) -> Result<u32> {
        if count == 0 || count as usize > MOST {
            return Err(Errno::EINVAL);
        }
        for index in 0..count {
            let at = element::<raw::io_uring_rsrc_update>(argument, index as usize);
            let update = process.space.read_value(at);
            match update.and_then(|update| each(self, at, update)) {
                Ok(()) => {}
                Err(_) if index > 0 => return Ok(index),
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Registers rings; their indexes are stored where the program has asked for them.
    pub(super) fn register(&mut self, process: &Process, list: (u64, u32)) -> Result<u32> {
        self.for_each(process, list, |rings, at, mut update| {
            if update.resv != 0 {
                return Err(Errno::EINVAL);
            }
            let range = match update.offset {
                ANY => 0..MOST,
                index if index as usize >= MOST => return Err(Errno::EINVAL),
                index => index as usize..index as usize + 1,
            };
            let file = process.files.get(update.data as i32)?;
            if !is_ring(&file) {
                return Err(Errno::EOPNOTSUPP);
            }
            update.offset = rings.add(file, range)?;
            let written = process.space.write_value(at, &update);
            written.inspect_err(|_| rings.0[update.offset as usize] = None)
        })
    }

    /// Forgets rings.
    pub(super) fn unregister(&mut self, process: &Process, list: (u64, u32)) -> Result<u32> {
        self.for_each(process, list, |rings, _, update| {
            if update.resv != 0 || update.data != 0 || update.offset as usize >= MOST {
                return Err(Errno::EINVAL);
            }
            if let Some(place) = rings.0.get_mut(update.offset as usize) {
                *place = None;
            }
            Ok(())
        })
    }
}
