//! `IORING_REGISTER_MEM_REGION`: memory where arguments of waits stay.

use super::Registration;
use crate::error::{Errno, Result};
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::region::Region;
use linux_raw_sys::io_uring as raw;

/// Where the program maps it (`IORING_MAP_OFF_PARAM_REGION` of Linux).
const OFFSET: u32 = 0x2000_0000;

/// The region of a ring.
#[derive(Clone)]
pub(in crate::io_uring) struct ParameterRegion {
    region: Region,
    holds_waits: bool,
}

impl ParameterRegion {
    /// The argument of a wait at byte `offset`.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(in crate::io_uring) fn wait(&self, offset: u64) -> Result<[u8; WAIT_SIZE]> {
        let end = offset.checked_add(WAIT_SIZE as u64).ok_or(Errno::EFAULT)?;
        let is_aligned = offset.is_multiple_of(size_of::<u64>() as u64);
        if !self.holds_waits || !is_aligned || end > self.region.size() {
            return Err(Errno::EFAULT);
        }
        let mut bytes = [0; WAIT_SIZE];
        for (index, word) in bytes.chunks_exact_mut(size_of::<u64>()).enumerate() {
            let at = offset as usize + index * size_of::<u64>();
            let (frame, at) = self.region.page(at).ok_or(Errno::EFAULT)?;
            frame.read(at, word);
        }
        Ok(bytes)
    }
}

/// Bytes of the argument of a wait.
pub(in crate::io_uring) const WAIT_SIZE: usize = size_of::<raw::io_uring_reg_wait>();

impl Registration<'_> {
    pub(super) fn register_region(&self, argument: u64) -> Result<u32> {
        const HOLDS_WAITS: u64 = raw::IORING_MEM_REGION_REG_WAIT_ARG as u64;
        if self.ring.lock().region.is_some() {
            return Err(Errno::EBUSY);
        }
        let registration: raw::io_uring_mem_region_reg = self.space().read_value(argument)?;
        let at = registration.region_uptr;
        let mut descriptor: raw::io_uring_region_desc = self.space().read_value(at)?;
        if registration.__resv != [0; 2] || registration.flags & !HOLDS_WAITS != 0 {
            return Err(Errno::EINVAL);
        }
        let holds_waits = registration.flags & HOLDS_WAITS != 0;
        // Nobody may be waiting.
        if holds_waits && !self.ring.is_disabled() {
            return Err(Errno::EINVAL);
        }
        let mut charge = MemoryCharge::NONE;
        let region = Region::new(&descriptor, self.space(), &mut charge)?;
        if let Region::Mapped(_) = region {
            descriptor.mmap_offset = OFFSET.into();
        }
        self.space().write_value(at, &descriptor)?;
        let mut state = self.ring.lock();
        if state.region.is_some() {
            return Err(Errno::EBUSY);
        }
        self.ring.regions().add(OFFSET, &region);
        let region = ParameterRegion {
            region,
            holds_waits,
        };
        state.region = Some((region, charge));
        Ok(0)
    }
}
