//! The bytes of a regular file.
//!
//! The lock is never held while a program's memory is accessed, since that may need a page of
//! this very file.

use super::page_map::{PAGE_COST, PageMap};
use super::space::{Space, SpaceCharge};
use crate::error::{Errno, Result};
use crate::executor::{self, Stint};
use crate::heap;
use crate::io::{Io, IoFlags};
use crate::mm::{Mappers, PAGE};
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use machine::{Frame, PAGE_SIZE};

/// The largest size of a file.
pub(super) const MAX_SIZE: u64 = i64::MAX as u64;

/// Pages made by `fallocate(2)` without a look at the clock.
const RESERVED_AT_ONCE: u64 = 64;

/// Pages that are let go of without a look at the clock.
const FREED_AT_ONCE: usize = 2048;

/// Takes a page, and sees to it that the map of pages can hold it.
fn charge_page(space: &Space) -> Result<SpaceCharge<'_>> {
    heap::check(PAGE_COST)?;
    space.charge(1)
}

#[derive(Debug, Default)]
pub(super) struct Content {
    data: Mutex<Data>,
    mappers: Mappers,
}

#[derive(Debug, Default)]
struct Data {
    size: u64,
    pages: PageMap,
}

impl Drop for Content {
    fn drop(&mut self) {
        let pages = core::mem::take(&mut self.data.get_mut().pages);
        if pages.count() > FREED_AT_ONCE as u64 {
            executor::spawn("free a file", free(pages));
        }
    }
}

/// Lets go of pages that nobody sees any more.
async fn free(mut pages: PageMap) {
    let mut stint = Stint::default();
    while let Some(first) = pages.nth_present_from_end(FREED_AT_ONCE) {
        pages.remove(first, u64::MAX);
        stint.give_way().await;
    }
}

impl Content {
    /// Who maps it.
    pub(super) fn mappers(&self) -> &Mappers {
        &self.mappers
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.data.lock().size
    }

    /// Pages that take storage.
    pub(super) fn page_count(&self) -> u64 {
        self.data.lock().pages.count()
    }

    /// Makes `pages`, which `space` has been charged for, the whole of the file. Bytes of the
    /// last page beyond `size` are zeros.
    pub(super) fn adopt(&self, pages: impl Iterator<Item = Frame>, size: u64) {
        let mut data = self.data.lock();
        for (index, page) in pages.enumerate() {
            data.pages.insert(index as u64, page);
        }
        data.size = size;
    }

    pub(super) fn read(&self, io: &mut Io) -> Result<usize> {
        let start = io.position.unwrap_or(0);
        let wanted = io.buffer.len();
        while io.done < wanted {
            if io.must_give_way() {
                return Err(Errno::GIVE_WAY);
            }
            let at = start + io.done as u64;
            let offset = (at % PAGE) as usize;
            let (page, count) = {
                let data = self.data.lock();
                let left = data.size.saturating_sub(at);
                let count = (left.min(PAGE) as usize)
                    .min(PAGE_SIZE - offset)
                    .min(wanted - io.done);
                (data.pages.get(at / PAGE).cloned(), count)
            };
            if count == 0 {
                break;
            }
            let result = match page {
                Some(page) => io.buffer.fill_from_frame(io.done, &page, offset, count),
                None => io.buffer.fill_zeros(io.done, count),
            };
            match result {
                // If it is less than there was, the next try says why.
                Ok(copied) => io.done += copied,
                Err(error) => return io.cut_short(error),
            }
        }
        Ok(io.done)
    }

    pub(super) fn write(&self, io: &mut Io, space: &Space) -> Result<usize> {
        if io.flags.contains(IoFlags::APPEND) && io.done == 0 {
            io.position = Some(self.size());
        }
        let start = io.position.unwrap_or(0);
        let wanted = io.buffer.len();
        if wanted > 0 && start >= MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        let wanted = wanted.min(usize::try_from(MAX_SIZE - start).unwrap_or(usize::MAX));
        while io.done < wanted {
            if io.must_give_way() {
                return Err(Errno::GIVE_WAY);
            }
            let at = start + io.done as u64;
            let offset = (at % PAGE) as usize;
            let count = (PAGE_SIZE - offset).min(wanted - io.done);
            match self.write_page(io, at / PAGE, offset, count, space) {
                Ok(copied) => io.done += copied,
                Err(error) => return io.cut_short(error),
            }
        }
        Ok(io.done)
    }

    /// Copies the next `count` bytes of the buffer to `offset` of the page, and lengthens the
    /// file to hold them.
    fn write_page(
        &self,
        io: &Io,
        index: u64,
        offset: usize,
        count: usize,
        space: &Space,
    ) -> Result<usize> {
        let end = |copied: usize| index * PAGE + (offset + copied) as u64;
        let page = self.data.lock().pages.get(index).cloned();
        if let Some(page) = page {
            let copied = io.buffer.take_to_frame(io.done, &page, offset, count)?;
            let mut data = self.data.lock();
            data.size = data.size.max(end(copied));
            return Ok(copied);
        }
        // The page joins the file only when it is filled: nobody sees what was in it before.
        let charge = charge_page(space)?;
        let page = match count {
            PAGE_SIZE => Frame::uninitialised()?,
            _ => Frame::zeroed()?,
        };
        let copied = io.buffer.take_to_frame(io.done, &page, offset, count)?;
        if count == PAGE_SIZE {
            page.fill(copied..PAGE_SIZE, 0);
        }
        let mut data = self.data.lock();
        match data.pages.get(index) {
            Some(other) => page.copy_to(offset, other, offset, copied),
            None => {
                data.pages.insert(index, page);
                charge.keep();
            }
        }
        data.size = data.size.max(end(copied));
        Ok(copied)
    }

    /// The page for a mapping, made if there is a hole.
    pub(super) fn page(&self, index: u64, space: &Space) -> Result<Frame> {
        let mut data = self.data.lock();
        if index >= data.size.div_ceil(PAGE) {
            return Err(Errno::EFAULT);
        }
        if let Some(page) = data.pages.get(index) {
            return Ok(page.clone());
        }
        let charge = charge_page(space)?;
        let page = Frame::zeroed()?;
        data.pages.insert(index, page.clone());
        charge.keep();
        Ok(page)
    }

    /// Where to cut it off first if it is to have `size` bytes in the end and more pages would go than
    /// may at a time.
    pub(super) fn first_cut(&self, size: u64) -> Option<u64> {
        let data = self.data.lock();
        if data.pages.count() <= FREED_AT_ONCE as u64 || size >= data.size {
            return None;
        }
        let cut = data.pages.nth_present_from_end(FREED_AT_ONCE)? * PAGE;
        (cut > size).then_some(cut)
    }

    pub(super) fn set_size(&self, size: u64, space: &Space) {
        let mut data = self.data.lock();
        if size < data.size {
            let first_gone = size.div_ceil(PAGE);
            let removed = data.pages.remove(first_gone, u64::MAX);
            space.release(removed);
            let tail = (size % PAGE) as usize;
            if let (1.., Some(page)) = (tail, data.pages.get(size / PAGE)) {
                page.fill(tail..PAGE_SIZE, 0);
            }
        }
        data.size = size;
    }

    /// `fallocate(2)` as tmpfs does it.
    pub(super) async fn allocate(
        &self,
        mode: u32,
        offset: u64,
        length: u64,
        space: &Space,
    ) -> Result<()> {
        let end = offset + length;
        match mode {
            0 | raw::FALLOC_FL_KEEP_SIZE => {
                self.reserve(offset / PAGE, end.div_ceil(PAGE), space)
                    .await?;
                if mode == 0 {
                    let mut data = self.data.lock();
                    data.size = data.size.max(end);
                }
                Ok(())
            }
            mode if mode == raw::FALLOC_FL_PUNCH_HOLE | raw::FALLOC_FL_KEEP_SIZE => {
                self.punch(offset, end, space).await;
                Ok(())
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Makes the pages from `first` to before `end`, all or none.
    async fn reserve(&self, first: u64, end: u64, space: &Space) -> Result<()> {
        if end - first > space.limit() {
            return Err(Errno::ENOSPC);
        }
        let mut made = Vec::new();
        let mut stint = Stint::default();
        for index in first..end {
            if index.is_multiple_of(RESERVED_AT_ONCE) {
                stint.give_way().await;
            }
            match self.reserve_page(index, space) {
                Ok(true) => made.push(index),
                Ok(false) => {}
                Err(error) => {
                    let mut data = self.data.lock();
                    for index in made {
                        space.release(data.pages.remove(index, index + 1));
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes a page, unless it is there: false then.
    fn reserve_page(&self, index: u64, space: &Space) -> Result<bool> {
        let mut data = self.data.lock();
        if data.pages.get(index).is_some() {
            return Ok(false);
        }
        let charge = charge_page(space)?;
        data.pages.insert(index, Frame::zeroed()?);
        charge.keep();
        Ok(true)
    }

    /// Frees what is between, in pieces.
    async fn punch(&self, mut start: u64, end: u64, space: &Space) {
        let mut stint = Stint::default();
        loop {
            let first = start.div_ceil(PAGE);
            let next = self.data.lock().pages.nth_present(first, FREED_AT_ONCE);
            match next.map(|page| page * PAGE) {
                Some(next) if next < end => {
                    self.punch_now(start, next, space);
                    start = next;
                    stint.give_way().await;
                }
                _ => return self.punch_now(start, end, space),
            }
        }
    }

    fn punch_now(&self, start: u64, end: u64, space: &Space) {
        let mut data = self.data.lock();
        let first_whole = start.div_ceil(PAGE);
        let end_whole = end / PAGE;
        let zero = |index: u64, from: u64, to: u64| {
            if let Some(page) = data.pages.get(index) {
                page.fill(from as usize..to as usize, 0);
            }
        };
        if first_whole > end_whole {
            zero(start / PAGE, start % PAGE, end % PAGE);
            return;
        }
        if !start.is_multiple_of(PAGE) {
            zero(start / PAGE, start % PAGE, PAGE);
        }
        zero(end_whole, 0, end % PAGE);
        space.release(data.pages.remove(first_whole, end_whole));
    }

    /// The next byte not before `from` that is in a hole or not; `ENXIO` if there is none.
    pub(super) fn seek_hole(&self, from: u64, hole: bool) -> Result<u64> {
        let data = self.data.lock();
        if from >= data.size {
            return Err(Errno::ENXIO);
        }
        if hole {
            let page = data.pages.next_absent(from / PAGE);
            return Ok((page * PAGE).max(from).min(data.size));
        }
        let page = data.pages.next_present(from / PAGE);
        page.map(|page| (page * PAGE).max(from))
            .filter(|at| *at < data.size)
            .ok_or(Errno::ENXIO)
    }
}
