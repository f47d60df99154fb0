//! What `io_uring_register(2)` moves out of a request's way: files that are looked up by an index,
//! and buffers whose pages are known.

use super::budget::MemoryCharge;
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::mm::IoBuffer;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use machine::Segment;

/// Instead of a place in the file table: one that is free (`IORING_FILE_INDEX_ALLOC`).
pub(super) const ALLOCATE: u32 = u32::MAX;

/// Something that is registered, and what the program knows it by.
pub(super) struct Tagged<T> {
    pub(super) item: T,
    /// The `user_data` of a CQE that tells when nothing uses it any more; 0 for none.
    pub(super) tag: u64,
}

/// A registered buffer: program memory that was pinned.
pub(super) struct RegisteredBuffer {
    pub(super) address: u64,
    pub(super) length: u64,
    pub(super) region: Arc<[Segment]>,
    /// For the list of its pages: many buffers may show the same ones.
    #[expect(dead_code, reason = "it is given back when the buffer goes")]
    pub(super) charge: MemoryCharge,
}

/// The files of a ring, by index.
#[derive(Default)]
pub(super) struct FileTable {
    places: Vec<Option<Tagged<Arc<OpenFile>>>>,
    /// A bit for each place, whether it is taken.
    taken: Vec<u64>,
    /// The places that are given to files without one of their own.
    allocatable: Range<u32>,
    /// Where the search for one begins.
    hint: u32,
}

/// The files and buffers of a ring; an empty table is none.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) files: FileTable,
    pub(super) buffers: Vec<Option<Tagged<RegisteredBuffer>>>,
}

/// A table of `count` empty places.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn empty_table<T>(count: u32) -> Result<Vec<Option<T>>> {
    let mut table = Vec::new();
    crate::heap::check(count as usize * size_of::<Option<T>>())?;
    table
        .try_reserve_exact(count as usize)
        .map_err(|_| Errno::ENOMEM)?;
    table.resize_with(count as usize, || None);
    Ok(table)
}

impl FileTable {
    /// A table of `count` empty places.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(count: u32) -> Result<Self> {
        Ok(Self {
            places: empty_table(count)?,
            taken: vec![0; count.div_ceil(u64::BITS) as usize],
            allocatable: 0..count,
            hint: 0,
        })
    }

    /// Whether there is no table.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Its places.
    pub(super) fn len(&self) -> u32 {
        self.places.len() as u32
    }

    /// The file at an index.
    #[inline]
    fn get(&self, index: usize) -> Option<&Arc<OpenFile>> {
        self.places.get(index)?.as_ref().map(|tagged| &tagged.item)
    }

    /// Puts a file into a place, and returns what was there.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the table.
    pub(super) fn set(
        &mut self,
        index: u32,
        file: Tagged<Arc<OpenFile>>,
    ) -> Result<Option<Tagged<Arc<OpenFile>>>> {
        let place = self.places.get_mut(index as usize).ok_or(Errno::EINVAL)?;
        let old = place.replace(file);
        self.mark(index, true);
        self.hint = index + 1;
        Ok(old)
    }

    /// Empties a place, and returns what was there.
    pub(super) fn remove(&mut self, index: u32) -> Option<Tagged<Arc<OpenFile>>> {
        let old = self.places.get_mut(index as usize)?.take()?;
        self.mark(index, false);
        self.hint = index;
        Some(old)
    }

    fn mark(&mut self, index: u32, is_taken: bool) {
        let bit = 1 << (index % u64::BITS);
        if let Some(word) = self.taken.get_mut((index / u64::BITS) as usize) {
            match is_taken {
                true => *word |= bit,
                false => *word &= !bit,
            }
        }
    }

    /// Gives files without a place of their own those of `range` from now on.
    pub(super) fn set_allocatable(&mut self, range: Range<u32>) {
        self.hint = range.start;
        self.allocatable = range;
    }

    /// A free place for a file without one of its own.
    ///
    /// # Errors
    ///
    /// `ENFILE`.
    pub(super) fn find_free(&self) -> Result<u32> {
        let Range { start, end } = self.allocatable;
        let hint = self.hint.clamp(start, end);
        self.first_free(hint..end)
            .or_else(|| self.first_free(start..hint))
            .ok_or(Errno::ENFILE)
    }

    fn first_free(&self, range: Range<u32>) -> Option<u32> {
        let mut index = range.start;
        while index < range.end {
            let word = *self.taken.get((index / u64::BITS) as usize)?;
            let free = !word >> (index % u64::BITS);
            if free != 0 {
                let found = index + free.trailing_zeros();
                return (found < range.end).then_some(found);
            }
            index = (index / u64::BITS + 1) * u64::BITS;
        }
        None
    }

    /// What is in it, the last first, as Linux takes a table apart.
    pub(super) fn into_files(self) -> impl Iterator<Item = Tagged<Arc<OpenFile>>> {
        self.places.into_iter().rev().flatten()
    }
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
            .and_then(|index| self.files.get(index).cloned())
            .ok_or(Errno::EBADF)
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
            .map(|tagged| &tagged.item)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{FileOps, OpenFlags};

    struct Nothing;

    impl FileOps for Nothing {}

    fn file() -> Tagged<Arc<OpenFile>> {
        Tagged {
            item: OpenFile::new(Arc::new(Nothing), OpenFlags::empty()),
            tag: 0,
        }
    }

    #[test]
    fn free_places_are_given_in_turn() {
        let mut table = FileTable::new(200).unwrap();
        for expected in 0..200 {
            assert_eq!(table.find_free(), Ok(expected));
            table.set(expected, file()).unwrap();
        }
        assert_eq!(table.find_free(), Err(Errno::ENFILE));
        table.remove(150).unwrap();
        table.remove(3).unwrap();
        // The last one that became free comes first, then those after it.
        assert_eq!(table.find_free(), Ok(3));
        table.set(3, file()).unwrap();
        assert_eq!(table.find_free(), Ok(150));
        table.set_allocatable(160..170);
        assert_eq!(table.find_free(), Err(Errno::ENFILE));
        table.remove(165).unwrap();
        table.remove(20).unwrap();
        assert_eq!(table.find_free(), Ok(165));
        table.set_allocatable(5..5);
        assert_eq!(table.find_free(), Err(Errno::ENFILE));
    }
}
