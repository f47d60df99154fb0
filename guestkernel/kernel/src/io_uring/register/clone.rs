//! `IORING_REGISTER_CLONE_BUFFERS`: buffers that another ring has registered.

use super::{MAX_BUFFERS, Registration};
use crate::error::{Errno, Result};
use crate::io_uring::file::ring_of;
use crate::io_uring::resources::{RegisteredBuffer, Tagged, empty_table};
use crate::io_uring::ring::Ring;
use linux_raw_sys::io_uring as raw;

const BY_INDEX: u32 = raw::IORING_REGISTER_SRC_REGISTERED as u32;
const REPLACE: u32 = raw::IORING_REGISTER_DST_REPLACE as u32;

/// Which of how many buffers are taken, and where they go.
struct Range {
    from: usize,
    to: usize,
    count: usize,
}

impl Range {
    fn new(request: &raw::io_uring_clone_buffers, there_are: usize) -> Result<Self> {
        if there_are == 0 {
            return Err(Errno::ENXIO);
        }
        let count = match request.nr as usize {
            0 => there_are,
            count if count > there_are => return Err(Errno::EINVAL),
            count => count,
        };
        let (from, to) = (request.src_off as usize, request.dst_off as usize);
        if from + count > there_are {
            return Err(Errno::EOVERFLOW);
        }
        u32::try_from(to + count).map_err(|_| Errno::EOVERFLOW)?;
        if to + count > MAX_BUFFERS as usize {
            return Err(Errno::EINVAL);
        }
        Ok(Self { from, to, count })
    }
}

impl Registration<'_> {
    pub(super) fn clone_buffers(&self, argument: u64) -> Result<u32> {
        let request: raw::io_uring_clone_buffers = self.space().read_value(argument)?;
        let replaces = request.flags & REPLACE != 0;
        let is_busy = |ring: &Ring| !replaces && !ring.lock().resources.buffers.is_empty();
        if request.flags & !(BY_INDEX | REPLACE) != 0 {
            return Err(Errno::EINVAL);
        }
        if is_busy(self.ring) {
            return Err(Errno::EBUSY);
        }
        if request.pad != [0; 3] {
            return Err(Errno::EINVAL);
        }
        let file = match request.flags & BY_INDEX {
            0 => self.process.files.get(request.src_fd as i32)?,
            _ => self.rings.get(request.src_fd)?.clone(),
        };
        let source = ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
        if request.nr == 0 && (request.dst_off != 0 || request.src_off != 0) {
            return Err(Errno::EINVAL);
        }
        // One after the other is locked: what the source has meanwhile is as good as what it had.
        let (range, cloned) = {
            let state = source.lock();
            let buffers = &state.resources.buffers;
            let range = Range::new(&request, buffers.len())?;
            let mut cloned = empty_table(range.count as u32)?;
            for (place, buffer) in cloned.iter_mut().zip(&buffers[range.from..]) {
                let buffer = buffer.as_ref().map(|tagged| &tagged.item);
                *place = buffer.map(RegisteredBuffer::share).transpose()?;
            }
            (range, cloned)
        };
        let mut state = self.ring.lock();
        let end = range.to + range.count;
        let mut table = empty_table(end.max(state.resources.buffers.len()) as u32)?;
        let old = core::mem::take(&mut state.resources.buffers);
        for (place, buffer) in table.iter_mut().zip(old) {
            *place = buffer;
        }
        for (place, buffer) in table[range.to..].iter_mut().zip(cloned) {
            let new = buffer.map(|item| Tagged { item, tag: 0 });
            let old = core::mem::replace(place, new);
            state.retire_buffer(old);
        }
        state.resources.buffers = table;
        state.settle();
        Ok(0)
    }
}
