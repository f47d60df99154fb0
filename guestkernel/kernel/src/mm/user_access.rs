//! Copying from and to a program's memory, and pinning it for devices.
//!
//! Nothing here can fault: the page table is walked, and pages that are missing are filled in. The
//! common case, pages that are there, takes one lock.

use super::address_space::AddressSpace;
use super::vma::PAGE;
use crate::error::{Errno, Result};
use crate::heap;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use machine::{Access, Frame, Missing, PAGE_SIZE, Plain, Segment};
use smallvec::SmallVec;

impl AddressSpace {
    /// Copies program memory from `address` on into `out`.
    ///
    /// # Errors
    ///
    /// `EFAULT` (`ENOMEM` if a page cannot be filled in); part of it may have been copied.
    #[inline]
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        let mut done = 0;
        loop {
            let at = address.wrapping_add(done as u64);
            let result = self.mappings.lock().table.read(at, &mut out[done..]);
            match result {
                Ok(()) => return Ok(()),
                Err(missing) => done = self.resolve(address, missing, Access::READ)?,
            }
        }
    }

    /// Copies `bytes` to program memory from `address` on.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    #[inline]
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        loop {
            let at = address.wrapping_add(done as u64);
            let result = self.mappings.lock().table.write(at, &bytes[done..]);
            match result {
                Ok(()) => return Ok(()),
                Err(missing) => done = self.resolve(address, missing, Access::WRITE)?,
            }
        }
    }

    /// As [`read`](Self::read), but a page that is not there ends it: the bytes that were copied.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there are bytes to copy and none could be.
    pub fn read_some(&self, address: u64, out: &mut [u8]) -> Result<usize> {
        self.some(address, out.len(), Access::READ, |table, at, done| {
            table.read(at, &mut out[done..])
        })
    }

    /// As [`write`](Self::write), but a page that is not there ends it: the bytes that were copied.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there are bytes to copy and none could be.
    pub fn write_some(&self, address: u64, bytes: &[u8]) -> Result<usize> {
        self.some(address, bytes.len(), Access::WRITE, |table, at, done| {
            table.write(at, &bytes[done..])
        })
    }

    #[inline]
    fn some(
        &self,
        address: u64,
        length: usize,
        needed: Access,
        mut copy: impl FnMut(&machine::PageTable, u64, usize) -> Result<(), Missing>,
    ) -> Result<usize> {
        let mut done = 0;
        loop {
            let at = address.wrapping_add(done as u64);
            let result = copy(&self.mappings.lock().table, at, done);
            let Err(missing) = result else {
                return Ok(length);
            };
            done = missing.address.wrapping_sub(address) as usize;
            if let Err(error) = self.fill_in(missing.address, needed) {
                return if done > 0 {
                    Ok(done)
                } else {
                    Err(error.into())
                };
            }
        }
    }

    /// Fills in what was missing and returns how many bytes lie before it.
    #[cold]
    fn resolve(&self, address: u64, missing: Missing, needed: Access) -> Result<usize> {
        self.fill_in(missing.address, needed)?;
        Ok(missing.address.wrapping_sub(address) as usize)
    }

    /// Sees to it that `length` bytes at `address` can be written without waiting: for those who
    /// do something that cannot be done again before they write.
    ///
    /// # Errors
    ///
    /// [`Errno::ABSENT`]; a bad address shows when it is written.
    pub(crate) fn prepare_write(&self, address: u64, length: usize) -> Result<()> {
        let end = address.saturating_add(length as u64);
        let mut at = address;
        while at < end {
            match self.with_frame(at, Access::WRITE, |_| ()) {
                Err(Errno::ABSENT) => return Err(Errno::ABSENT),
                Err(_) => break,
                Ok(()) => at = (at & !(PAGE - 1)).saturating_add(PAGE),
            }
        }
        Ok(())
    }

    /// The value at `address`.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    #[inline]
    pub fn read_value<T: Plain>(&self, address: u64) -> Result<T> {
        let mut value = T::zeroed();
        self.read(address, value.as_bytes_mut())?;
        Ok(value)
    }

    /// Stores `value` at `address`.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    #[inline]
    pub fn write_value<T: Plain>(&self, address: u64, value: &T) -> Result<()> {
        self.write(address, value.as_bytes())
    }

    /// The NUL-terminated string at `address`, without its NUL.
    ///
    /// # Errors
    ///
    /// `EFAULT`, and `ENAMETOOLONG` if there is no NUL in the first `limit` bytes.
    pub fn read_string(&self, address: u64, limit: usize) -> Result<Vec<u8>> {
        let mut string = Vec::new();
        let mut chunk = [0; 256];
        while string.len() < limit {
            let at = address.wrapping_add(string.len() as u64);
            // Bytes after the NUL need not be readable.
            let in_page = PAGE_SIZE - at as usize % PAGE_SIZE;
            let count = in_page.min(limit - string.len()).min(chunk.len());
            let chunk = &mut chunk[..count];
            self.read(at, chunk)?;
            if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
                string.extend_from_slice(&chunk[..end]);
                return Ok(string);
            }
            string.extend_from_slice(chunk);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Calls `with` with the frame that the program sees at `address`, if it has `needed` access.
    /// The frame must not be waited with: the address space is locked.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    #[inline]
    pub fn with_frame<R>(
        &self,
        address: u64,
        needed: Access,
        with: impl FnOnce(&Frame) -> R,
    ) -> Result<R> {
        let mut with = Some(with);
        loop {
            let result = self
                .mappings
                .lock()
                .table
                .with_frame(address, needed, |frame| with.take().map(|with| with(frame)));
            match result {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => return Err(Errno::EFAULT),
                Err(_) => self.fill_in(address, needed)?,
            }
        }
    }

    /// Calls `with` with the 32-bit word at `address`, a multiple of 4.
    ///
    /// # Errors
    ///
    /// `EFAULT`, and `EINVAL` if it is not aligned.
    pub fn with_u32<R>(
        &self,
        address: u64,
        needed: Access,
        with: impl FnOnce(&AtomicU32) -> R,
    ) -> Result<R> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        self.with_frame(address, needed, |frame| {
            with(frame.atomic_u32(address as usize % PAGE_SIZE))
        })
    }

    /// The frame that everybody sees who maps what is at `address`; `None` if the mapping is the
    /// program's own.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub(crate) fn shared_frame(&self, address: u64) -> Result<Option<Frame>> {
        loop {
            {
                let mappings = self.mappings.lock();
                let (_, area) = mappings.area_at(address).ok_or(Errno::EFAULT)?;
                if !area.is_shared {
                    return Ok(None);
                }
                if let Ok(frame) = mappings.table.frame(address, Access::READ) {
                    return Ok(Some(frame));
                }
            }
            self.fill_in(address, Access::READ)?;
        }
    }

    /// References to the frames behind `length` bytes from `address` on, for a device or a
    /// registered buffer; `needed` is what will be done with them. A private page that will be
    /// written is the program's own from now on.
    ///
    /// # Errors
    ///
    /// `EFAULT` and `ENOMEM`.
    pub fn pin(
        &self,
        address: u64,
        length: usize,
        needed: Access,
    ) -> Result<SmallVec<[Segment; 2]>> {
        let end = address.checked_add(length as u64).ok_or(Errno::EFAULT)?;
        let mut segments = SmallVec::new();
        let pages = (address as usize % PAGE_SIZE + length).div_ceil(PAGE_SIZE);
        if pages > segments.inline_size() {
            // A long request is put together from parts of the list, which are copies.
            heap::check(2 * pages * size_of::<Segment>())?;
            segments.try_reserve(pages).map_err(|_| Errno::ENOMEM)?;
        }
        let mut at = address;
        while at < end {
            let missing = {
                let mappings = self.mappings.lock();
                loop {
                    if at >= end {
                        return Ok(segments);
                    }
                    let Ok(frame) = mappings.table.frame(at, needed) else {
                        break at;
                    };
                    let next = ((at & !(PAGE - 1)) + PAGE).min(end);
                    let offset = at as usize % PAGE_SIZE;
                    segments.extend(Segment::new(frame, offset, (next - at) as usize));
                    at = next;
                }
            };
            self.fill_in(missing, needed)?;
        }
        Ok(segments)
    }
}
