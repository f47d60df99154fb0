//! What `io_uring_register(2)` moves out of a request's way: files that are looked up by an index,
//! and buffers whose pages are known.

use super::budget::MemoryCharge;
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::mm::IoBuffer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::Segment;

/// A registered buffer: program memory that was pinned.
pub(super) struct RegisteredBuffer {
    pub(super) address: u64,
    pub(super) length: u64,
    pub(super) region: Arc<[Segment]>,
    /// For the list of its pages: many buffers may show the same ones.
    #[expect(dead_code, reason = "it is given back when the buffer goes")]
    pub(super) charge: MemoryCharge,
}

/// The files and buffers of a ring; an empty table is none.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) files: Vec<Option<Arc<OpenFile>>>,
    pub(super) buffers: Vec<Option<RegisteredBuffer>>,
}

impl Resources {
    /// The file at an index.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub(super) fn file(&self, index: i32) -> Result<Arc<OpenFile>> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.files.get(index)?.clone())
            .ok_or(Errno::EBADF)
    }

    /// Takes the file at an index out of the table.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is no table, `EINVAL` beyond it, `EBADF` if there is no file.
    pub(super) fn take_file(&mut self, index: u32) -> Result<Arc<OpenFile>> {
        if self.files.is_empty() {
            return Err(Errno::ENXIO);
        }
        let slot = self.files.get_mut(index as usize).ok_or(Errno::EINVAL)?;
        slot.take().ok_or(Errno::EBADF)
    }

    /// The buffer at an index.
    ///
    /// # Errors
    ///
    /// `EFAULT`, as Linux has it.
    #[inline]
    pub(super) fn buffer(&self, index: u16) -> Result<&RegisteredBuffer> {
        self.buffers
            .get(usize::from(index))
            .and_then(Option::as_ref)
            .ok_or(Errno::EFAULT)
    }
}

impl RegisteredBuffer {
    /// The part of it that the program sees at `address`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if it is not all in the buffer.
    #[inline]
    pub(super) fn part(&self, address: u64, length: u64) -> Result<IoBuffer> {
        let offset = address.checked_sub(self.address).ok_or(Errno::EFAULT)?;
        let end = offset.checked_add(length).ok_or(Errno::EFAULT)?;
        if end > self.length {
            return Err(Errno::EFAULT);
        }
        Ok(IoBuffer::registered(
            self.region.clone(),
            offset as usize,
            length as usize,
        ))
    }
}
