//! Rings of provided buffers: `IORING_REGISTER_PBUF_RING` and what is about them.

use super::Registration;
use crate::error::{Errno, Result};
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::buffer_group::{BufferRing, ENTRY_SIZE};
use crate::io_uring::region::Region;
use linux_raw_sys::io_uring as raw;
use machine::{PAGE_SIZE, Plain};

const MMAP: u16 = raw::io_uring_register_pbuf_ring_flags::IOU_PBUF_RING_MMAP as u16;
const INCREMENTAL: u16 = raw::io_uring_register_pbuf_ring_flags::IOU_PBUF_RING_INC as u16;

/// The offset in the ring's file of the buffer ring that is group `group`.
fn offset(group: u16) -> u32 {
    raw::IORING_OFF_PBUF_RING | u32::from(group) << raw::IORING_OFF_PBUF_SHIFT
}

impl Registration<'_> {
    pub(super) fn register_buffer_ring(&self, argument: u64) -> Result<u32> {
        let ring: raw::io_uring_buf_reg = self.space().read_value(argument)?;
        let is_bad = ring.resv != [0; 3]
            || ring.flags & !(MMAP | INCREMENTAL) != 0
            || !ring.ring_entries.is_power_of_two();
        // With more, a full ring would look like an empty one.
        let entries = u16::try_from(ring.ring_entries).map_err(|_| Errno::EINVAL)?;
        if is_bad {
            return Err(Errno::EINVAL);
        }
        self.ring.lock().buffers.check_free(ring.bgid)?;
        let size = (usize::from(entries) * ENTRY_SIZE).next_multiple_of(PAGE_SIZE);
        let mut descriptor = raw::io_uring_region_desc::zeroed();
        descriptor.size = size as u64;
        if ring.flags & MMAP == 0 {
            descriptor.user_addr = ring.ring_addr;
            descriptor.flags = raw::IORING_MEM_REGION_TYPE_USER as u32;
        }
        let mut charge = MemoryCharge::new(size_of::<BufferRing>())?;
        let region = Region::new(&descriptor, self.space(), &mut charge)?;
        let is_incremental = ring.flags & INCREMENTAL != 0;
        let buffers = BufferRing::new(region.clone(), entries, is_incremental, charge);
        self.ring.lock().buffers.add_ring(ring.bgid, buffers)?;
        self.ring.regions().add(offset(ring.bgid), &region);
        Ok(0)
    }

    pub(super) fn unregister_buffer_ring(&self, argument: u64) -> Result<u32> {
        let ring: raw::io_uring_buf_reg = self.space().read_value(argument)?;
        if ring.resv != [0; 3] || ring.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.ring.lock();
        state.buffers.ring(ring.bgid.into())?;
        state.buffers.remove_ring(ring.bgid);
        drop(state);
        self.ring.regions().remove(offset(ring.bgid));
        Ok(0)
    }

    pub(super) fn buffer_ring_status(&self, argument: u64) -> Result<u32> {
        let mut status: raw::io_uring_buf_status = self.space().read_value(argument)?;
        if status.resv != [0; 8] {
            return Err(Errno::EINVAL);
        }
        let state = self.ring.lock();
        status.head = state.buffers.ring(status.buf_group)?.head().into();
        drop(state);
        self.space().write_value(argument, &status)?;
        Ok(0)
    }
}
