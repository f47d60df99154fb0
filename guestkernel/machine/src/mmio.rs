//! Device registers: ranges of physical addresses that are not RAM, and 32-bit access to them.

use crate::backend;
use crate::lock::Mutex;
use crate::physical::PhysAddr;
use core::ops::Range;

/// Where devices may be: above the RAM below 4 GiB, and below the interrupt controllers, which
/// belong to the machine itself.
const DEVICES: Range<u64> = ringlet_abi::LOW_RAM_END..0xfec0_0000;

/// Regions that can be claimed at once.
const MAX_REGIONS: usize = if cfg!(baremetal) { 64 } else { 1024 };

static CLAIMED: Mutex<[Option<(u64, u64)>; MAX_REGIONS]> = Mutex::new([None; MAX_REGIONS]);

/// Why a region of device registers was not given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MmioError {
    /// It is empty, not aligned to 4 bytes, or not where devices can be.
    #[error("no device can be at this address")]
    BadRange,
    /// It overlaps one that is in use.
    #[error("the address range is in use already")]
    InUse,
    /// Too many are in use.
    #[error("too many devices")]
    TooMany,
}

/// The registers of one device; nobody else has them as long as this lives.
#[derive(Debug)]
pub struct MmioRegion {
    base: u64,
    length: u64,
}

impl MmioRegion {
    /// Takes the `length` bytes at `base`.
    ///
    /// # Errors
    ///
    /// [`MmioError`].
    pub fn claim(base: PhysAddr, length: u64) -> Result<Self, MmioError> {
        let PhysAddr(base) = base;
        let end = base.checked_add(length).ok_or(MmioError::BadRange)?;
        let is_aligned = base.is_multiple_of(4) && length.is_multiple_of(4);
        if length == 0 || !is_aligned || base < DEVICES.start || end > DEVICES.end {
            return Err(MmioError::BadRange);
        }
        let mut claimed = CLAIMED.lock();
        if claimed
            .iter()
            .flatten()
            .any(|other| base < other.1 && other.0 < end)
        {
            return Err(MmioError::InUse);
        }
        let slot = claimed
            .iter_mut()
            .find(|slot| slot.is_none())
            .ok_or(MmioError::TooMany)?;
        *slot = Some((base, end));
        Ok(Self { base, length })
    }

    /// Bytes in the region.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn address(&self, offset: u64) -> PhysAddr {
        assert!(offset.is_multiple_of(4) && offset < self.length);
        PhysAddr(self.base + offset)
    }

    /// Reads the register at `offset`.
    ///
    /// It is for machine's own drivers alone: what registers do may break anything.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        // SAFETY: no RAM is there, as `claim` has checked, and nobody else has the device; its
        // driver is in this crate.
        unsafe { backend::read_register(self.address(offset)) }
    }

    /// Writes the register at `offset`; for machine's own drivers alone, as [`read`](Self::read).
    pub(crate) fn write(&self, offset: u64, value: u32) {
        // SAFETY: as above. What a device is told of memory comes from `VirtQueue`, which owns it.
        unsafe { backend::write_register(self.address(offset), value) }
    }
}

impl Drop for MmioRegion {
    fn drop(&mut self) {
        let mut claimed = CLAIMED.lock();
        for slot in claimed.iter_mut() {
            if slot.is_some_and(|(base, _)| base == self.base) {
                *slot = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_and_interrupt_controllers_are_not_given_out() {
        for (base, length) in [
            (0x1000, 0x1000),
            (0xbfff_f000, 0x2000),
            (0xfec0_0000, 0x1000),
            (0xfebf_f000, 0x2000),
            (u64::MAX - 3, 8),
            (0xcfff_0002, 4),
            (0xcfff_0000, 0),
        ] {
            let claim = MmioRegion::claim(PhysAddr(base), length);
            assert_eq!(claim.err(), Some(MmioError::BadRange), "{base:#x}");
        }
    }

    #[test]
    fn a_region_has_one_owner() {
        let base = PhysAddr(0xcfff_1000);
        let region = MmioRegion::claim(base, 0x200).unwrap();
        let overlap = MmioRegion::claim(PhysAddr(0xcfff_11fc), 0x200);
        assert_eq!(overlap.err(), Some(MmioError::InUse));
        assert!(MmioRegion::claim(PhysAddr(0xcfff_1200), 0x200).is_ok());
        drop(region);
        assert!(MmioRegion::claim(base, 0x200).is_ok());
    }
}
