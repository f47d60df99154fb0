//! Registering buffers: program memory whose pages are looked up once.

use super::files::read_tag;
use super::{MAX_BUFFER_BYTES, MAX_BUFFERS, Registration, element};
use crate::error::{Errno, Result};
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::resources::{RegisteredBuffer, Tagged, empty_table};
use crate::mm::Access;
use linux_raw_sys::general::iovec;
use machine::{PAGE_SIZE, Segment};

/// A change of some places of the buffer table.
pub(super) struct BuffersUpdate {
    /// The first place.
    pub(super) offset: u32,
    /// Places.
    pub(super) count: u32,
    /// Where in memory the iovecs are.
    pub(super) vectors: u64,
    /// Where in memory the tags are; 0 if there are none.
    pub(super) tags: u64,
}

impl Registration<'_> {
    /// Makes a table of `count` places, with the buffers that the iovecs at `list` name unless that
    /// is 0, and tags unless `tags` is.
    pub(super) fn register_buffers(&self, list: u64, tags: u64, count: u32) -> Result<u32> {
        if !self.ring.lock().resources.buffers.is_empty() {
            return Err(Errno::EBUSY);
        }
        if count == 0 || count > MAX_BUFFERS {
            return Err(Errno::EINVAL);
        }
        let mut buffers = empty_table(count)?;
        for (index, place) in buffers.iter_mut().enumerate() {
            *place = match list {
                0 => None,
                list => self.pin(&self.space().read_value(element::<iovec>(list, index))?)?,
            }
            .map(|item| Tagged { item, tag: 0 });
            let tag = read_tag(self.process, tags, index)?;
            match place {
                Some(place) => place.tag = tag,
                None if tag != 0 => return Err(Errno::EINVAL),
                None => {}
            }
        }
        let mut state = self.ring.lock();
        if !state.resources.buffers.is_empty() {
            return Err(Errno::EBUSY);
        }
        state.resources.buffers = buffers;
        Ok(0)
    }

    /// Empties the table.
    pub(super) fn unregister_buffers(&self) -> Result<u32> {
        let mut state = self.ring.lock();
        if state.resources.buffers.is_empty() {
            return Err(Errno::ENXIO);
        }
        for buffer in core::mem::take(&mut state.resources.buffers)
            .into_iter()
            .rev()
        {
            state.retire_buffer(buffer);
        }
        state.settle();
        Ok(0)
    }

    /// Changes places of the table; gives how many. What was done before an error stays.
    pub(super) fn update_buffers(&self, update: &BuffersUpdate) -> Result<u32> {
        let end = update.offset.checked_add(update.count);
        let end = end.ok_or(Errno::EOVERFLOW)?;
        let length = self.ring.lock().resources.buffers.len();
        if length == 0 {
            return Err(Errno::ENXIO);
        }
        if end as usize > length {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while done < update.count {
            match self.update_buffer(update, done) {
                Ok(()) => done += 1,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn update_buffer(&self, update: &BuffersUpdate, index: u32) -> Result<()> {
        let at = element::<iovec>(update.vectors, index as usize);
        let range: iovec = self.space().read_value(at)?;
        let tag = read_tag(self.process, update.tags, index as usize)?;
        let new = self.pin(&range)?;
        if new.is_none() && tag != 0 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.ring.lock();
        let place = (update.offset + index) as usize;
        let place = state.resources.buffers.get_mut(place);
        let place = place.ok_or(Errno::EINVAL)?;
        let old = core::mem::replace(place, new.map(|item| Tagged { item, tag }));
        state.retire_buffer(old);
        state.settle();
        Ok(())
    }

    /// The buffer that an iovec describes; none for an empty one at 0.
    fn pin(&self, range: &iovec) -> Result<Option<RegisteredBuffer>> {
        let (address, length) = (range.iov_base as u64, range.iov_len);
        if i64::try_from(length).is_err() {
            return Err(Errno::EINVAL);
        }
        if address == 0 && length == 0 {
            return Ok(None);
        }
        if address == 0 || length == 0 || length > MAX_BUFFER_BYTES {
            return Err(Errno::EFAULT);
        }
        address.checked_add(length).ok_or(Errno::EOVERFLOW)?;
        let pages = length as usize / PAGE_SIZE + 2;
        let charge = MemoryCharge::new(pages * size_of::<Segment>())?;
        let needed = Access::READ | Access::WRITE;
        let segments = self.space().pin(address, length as usize, needed)?;
        Ok(Some(RegisteredBuffer {
            address,
            length,
            region: segments.into_iter().collect(),
            charge,
        }))
    }
}
